"""Chat rooms as topics of a hub: the messages of a room, its members, and what all clients see of the other rooms."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from ...hub import Hub, SubscriberInfo
from ...timing import Timer

ROOMS: Final = {
    "lobby": "Come in and say hello",
    "help": "Questions and answers",
    "random": "Everything else",
}
"""The name and the description of each room."""

HISTORY: Final = 100
"""Messages that a client shows when it enters a room."""

MAX_TEXT: Final = 2_000
"""Characters in a message: about one page."""

LEAVE_DELAY: Final = 5.0
"""Seconds without a stream until a member has left a room: longer than a reload or a reconnect takes."""

OVERVIEW: Final = "chat/rooms"
"""The topic that every client reads: the number of members in each room, and rooms with a new message."""

Change: TypeAlias = Literal["join", "leave"]


def messages_of(room: str) -> str:
    """Return the topic of the messages of a room."""
    return f"chat/{room}/messages"


def presence_of(room: str) -> str:
    """Return the topic of joins, leaves and typing notices. A user with a stream of it is a member of the room."""
    return f"chat/{room}/presence"


class Member(NamedTuple):
    """A person in a room."""

    room: str
    name: str


class Members:
    """The people in each room, regardless of the number of their connections.

    A person with two tabs is one member. A member that reconnects within ``LEAVE_DELAY`` seconds has not left. A tab
    that goes to another room changes the topics of its stream.

    Arguments:
        hub: a hub whose subscribers have their names as their ``user``.
        on_change: called with a member that joined or left.
    """

    def __init__(self, hub: Hub, on_change: Callable[[Member, Change], Any]) -> None:
        self._hub = hub
        self._on_change = on_change
        self._rooms: dict[int, list[Member]] = {}  # by subscriber
        self._streams: Counter[Member] = Counter()  # 0 while a member has no stream but may reconnect
        self._timers: dict[Member, Timer] = {}
        self._closed = False
        hub.presence.on_join(self._update)
        hub.presence.on_change(self._update)
        hub.presence.on_leave(lambda info, reason: self._update(info._replace(topics=())))

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

    def _update(self, info: SubscriberInfo) -> None:
        rooms = ROOMS if info.user else ()
        now = [Member(room, info.user) for room in rooms if presence_of(room) in info.topics]
        before = self._rooms.pop(info.id, [])
        if now:
            self._rooms[info.id] = now
        for member in now:
            if member not in before:
                self._connected(member)
        for member in before:
            if member not in now:
                self._disconnected(member)

    def _connected(self, member: Member) -> None:
        is_new = member not in self._streams
        self._streams[member] += 1
        timer = self._timers.pop(member, None)
        if timer is not None:
            timer.cancel()
        if is_new:
            self._on_change(member, "join")

    def _disconnected(self, member: Member) -> None:
        self._streams[member] -= 1
        if not self._streams[member] and not self._closed:
            clock = self._hub.clock
            self._timers[member] = clock.call_at(clock.time() + LEAVE_DELAY, self._remove, member)

    def _remove(self, member: Member) -> None:
        del self._timers[member], self._streams[member]
        self._on_change(member, "leave")


class Chat:
    """Post messages to rooms, and read what the rooms have.

    Arguments:
        hub: the hub for messages and presence. Clients subscribe to its topics.
        now: seconds since the Unix epoch, shown to people.

    With several processes, :class:`Members` would need shared storage.
    """

    def __init__(self, hub: Hub, *, now: Callable[[], float] = time.time) -> None:
        self._hub = hub
        self._now = now
        self._members = Members(hub, self._announce)

    def __repr__(self) -> str:
        return f"<Chat {self._members!r}>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish that all rooms are empty, for clients from before a restart; at the end, report no more changes."""
        await self._hub.publish(OVERVIEW, {}, event="reset")
        yield
        self._members.close()

    async def post(self, room: str, name: str, text: str, key: str) -> str:
        """Add a message to a room and return its id. A repeated message with the same author and key is ignored."""
        message = {"name": name, "text": text, "key": key, "at": round(self._now(), 3)}
        # The author is part of the key, so that a user cannot use up the keys of another.
        cursor = await self._hub.publish(messages_of(room), message, key=f"chat/{name.casefold()}/{key}")
        self._hub.publish_soon(OVERVIEW, {"room": room}, event="activity")
        return str(cursor)

    async def history(self, room: str) -> list[dict[str, Any]]:
        """Return the last messages of a room, oldest first."""
        found, _ = await self._hub.history(messages_of(room), last=HISTORY)
        return [json.loads(record.data) for _, record in found]

    def members(self, room: str) -> list[str]:
        """Return the names of the members of a room, in the order in which they joined."""
        return self._members.names(room)

    def notify_typing(self, room: str, name: str) -> None:
        """Notify the members of a room that ``name`` is typing."""
        self._hub.publish_soon(presence_of(room), {"name": name}, event="typing")

    def _announce(self, member: Member, change: Change) -> None:
        room, name = member
        self._hub.publish_soon(presence_of(room), {"name": name}, event=change)
        self._hub.publish_soon(OVERVIEW, {"room": room, "present": len(self.members(room))}, event="count")
