"""Chat rooms as topics of two hubs: one stores messages, the other delivers presence and typing notices."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from ...asgi import DisconnectReason
from ...hub import Hub, SubscriberInfo
from ...timing import Timer
from ...wire import GAP_EVENT, ServerSentEvent

ROOMS: Final = {
    "lobby": "Come in and say hello",
    "help": "Questions and answers",
    "random": "Everything else",
}
"""The name and the description of each room."""

HISTORY: Final = 100
"""Messages that a new client receives first."""

MAX_TEXT: Final = 2_000
"""Characters in a message: about one page."""

LEAVE_DELAY: Final = 5.0
"""Seconds without a stream until a member has left a room: longer than a reload or a reconnect takes."""

_ALL_ROOMS: Final = "rooms"
"""The topic that every client follows: the number of members in each room, and rooms with a new message."""

Change: TypeAlias = Literal["join", "leave"]
Events: TypeAlias = AsyncIterator[ServerSentEvent]


class Member(NamedTuple):
    """A person in a room."""

    room: str
    name: str


class Members:
    """The people in each room, regardless of the number of their connections.

    A person with two tabs is one member. A member that reconnects within ``LEAVE_DELAY`` seconds has not left.

    Arguments:
        hub: a hub with subscribers that have a :class:`Member` as their ``user``.
        on_change: called with a member that joined or left.
    """

    def __init__(self, hub: Hub, on_change: Callable[[Member, Change], Any]) -> None:
        self._hub = hub
        self._on_change = on_change
        self._streams: Counter[Member] = Counter()  # 0 while a member has no stream but may reconnect
        self._timers: dict[Member, Timer] = {}
        self._closed = False
        hub.presence.on_join(self._connected)
        hub.presence.on_leave(self._disconnected)

    def __repr__(self) -> str:
        return f"<Members {len(self._streams)} present, {len(self._timers)} of them disconnected>"

    def names(self, room: str) -> list[str]:
        """Return the members of a room, in the order in which they joined."""
        return [member.name for member in self._streams if member.room == room]

    def close(self) -> None:
        """Report no more changes: members do not leave when the server stops."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()

    def _connected(self, info: SubscriberInfo) -> None:
        member: Member = info.user
        is_new = member not in self._streams
        self._streams[member] += 1
        timer = self._timers.pop(member, None)
        if timer is not None:
            timer.cancel()
        if is_new:
            self._on_change(member, "join")

    def _disconnected(self, info: SubscriberInfo, reason: DisconnectReason) -> None:
        member: Member = info.user
        self._streams[member] -= 1
        if not self._streams[member] and not self._closed:
            clock = self._hub.clock
            self._timers[member] = clock.call_at(clock.time() + LEAVE_DELAY, self._remove, member)

    def _remove(self, member: Member) -> None:
        del self._timers[member], self._streams[member]
        self._on_change(member, "leave")


class Chat:
    """Post messages to rooms, and follow rooms.

    Arguments:
        messages: the hub that stores the messages.
        ephemeral: the hub for presence and typing notices. A client that was away does not receive them later.
        now: seconds since the Unix epoch, shown to people.

    The hubs may use any broker. With several processes, :class:`Members` would need shared storage.
    """

    def __init__(self, messages: Hub, ephemeral: Hub, *, now: Callable[[], float] = time.time) -> None:
        self._messages = messages
        self._ephemeral = ephemeral
        self._now = now
        self._members = Members(ephemeral, self._announce)

    def __repr__(self) -> str:
        return f"<Chat {self._members!r}>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep both hubs open while the server runs."""
        async with self._messages, self._ephemeral:
            yield
            self._members.close()

    async def post(self, room: str, name: str, text: str, key: str) -> str:
        """Add a message to a room and return its id. A repeated message with the same author and key is ignored."""
        message = {"name": name, "text": text, "key": key, "at": round(self._now(), 3)}
        # The author is part of the key, so that a user cannot use up the keys of another.
        cursor = await self._messages.publish(f"rooms/{room}/messages", message, key=f"{name.casefold()}/{key}")
        self._ephemeral.publish_soon(_ALL_ROOMS, {"room": room}, event="activity")
        return str(cursor)

    def members(self, room: str) -> list[str]:
        """Return the names of the members of a room, in the order in which they joined."""
        return self._members.names(room)

    def notify_typing(self, room: str, name: str) -> None:
        """Notify the members of a room that ``name`` is typing."""
        self._ephemeral.publish_soon(f"rooms/{room}/ephemeral", {"name": name}, event="typing")

    async def follow(self, room: str, name: str, last_event_id: str | None) -> AsyncGenerator[ServerSentEvent, None]:
        """Yield the events of a room: first the last messages, or the missed ones, then everything as it happens.

        The stream carries the events of both hubs. Only messages have ids, so a client resumes after its last message.
        """
        async with (
            self._messages.subscribe(
                f"rooms/{room}/messages", last_event_id=last_event_id, last=HISTORY, on_overflow="skip"
            ) as messages,
            self._ephemeral.subscribe(
                [f"rooms/{room}/ephemeral", _ALL_ROOMS], on_overflow="skip", user=Member(room, name)
            ) as ephemeral,
        ):
            # The stream begins with a position, so that a client can resume even if it disconnects before its first
            # message, and that tabs can share it. If there is a gap, the gap notice has the new position.
            yield ServerSentEvent(id=str(messages.cursor) if messages.gap is None else last_event_id)
            yield ServerSentEvent(self._present(room), event="present")
            async with aclosing(merge(messages, ephemeral)) as events:
                async for source, event in events:
                    yield event if source is messages else self._without_id(room, event)

    def _without_id(self, room: str, event: ServerSentEvent) -> ServerSentEvent:
        if event.event == GAP_EVENT:  # the missed events are out of date: send the current members instead
            return ServerSentEvent(self._present(room), event="present")
        return ServerSentEvent(event.data, event=event.event)

    def _present(self, room: str) -> dict[str, Any]:
        return {"names": self.members(room), "counts": {name: len(self.members(name)) for name in ROOMS}}

    def _announce(self, member: Member, change: Change) -> None:
        room, name = member
        self._ephemeral.publish_soon(f"rooms/{room}/ephemeral", {"name": name}, event=change)
        self._ephemeral.publish_soon(_ALL_ROOMS, {"room": room, "present": len(self.members(room))}, event="count")


async def merge(*sources: Events) -> AsyncGenerator[tuple[Events, ServerSentEvent], None]:
    """Yield the events of all sources as they arrive, each with its source, until one of the sources ends.

    The next event of a source is requested only after the current one was consumed. No event is buffered here.
    """
    waiting: dict[asyncio.Task[ServerSentEvent | None], Events] = {}
    try:
        for source in sources:
            waiting[asyncio.create_task(_next(source))] = source
        while True:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                source, event = waiting.pop(task), task.result()
                if event is None:
                    return
                yield source, event
                waiting[asyncio.create_task(_next(source))] = source
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _next(source: Events) -> ServerSentEvent | None:
    return await anext(source, None)
