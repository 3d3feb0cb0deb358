"""Rooms as topics of two hubs: one keeps what is said, the other passes on what counts for a moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, TypeAlias

from ...hub import Hub
from ...wire import ServerSentEvent
from .attendance import Attendance, Change, Seat

__all__ = ["HISTORY", "MAX_TEXT", "ROOMS", "Chat", "Source", "merge"]

ROOMS: Final = {
    "lobby": "Come in and say hello",
    "help": "Questions, and answers to them",
    "random": "Everything else",
}
"""The rooms, each with what it is for."""

HISTORY: Final = 100
"""Messages that one is given who enters a room."""

MAX_TEXT: Final = 2_000
"""Characters of a message: a page of text; who has more to say sends two."""

_EVERYWHERE: Final = "rooms"
"""The topic of what is told in every room: how many are in another, and that something was said there."""

Source: TypeAlias = AsyncIterator[ServerSentEvent]


class Chat:
    """Say something in a room, and follow what is said there.

    Arguments:
        messages: keeps what is said, in a log that outlives the server.
        moment: passes on who comes, goes and types; nobody who was away gets that later.
        now: seconds since the Unix epoch, for people to read.

    Both hubs may be on other brokers. With several processes on them, :class:`Attendance` would
    need a place that they share.
    """

    def __init__(self, messages: Hub, moment: Hub, *, now: Callable[[], float] = time.time) -> None:
        self._messages = messages
        self._moment = moment
        self._now = now
        self._attendance = Attendance(moment, self._tell)

    def __repr__(self) -> str:
        return f"<Chat {self._attendance!r}>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Be open while the server runs."""
        async with self._messages, self._moment:
            yield
            self._attendance.close()

    async def say(self, room: str, name: str, text: str, key: str) -> str:
        """Add a message to a room, once for each of its author's keys, and return its id."""
        message = {"name": name, "text": text, "key": key, "at": round(self._now(), 3)}
        # A key is its author's own: nobody can take that of somebody else's next message.
        cursor = await self._messages.publish(f"rooms/{room}/messages", message, key=f"{name.casefold()}/{key}")
        self._moment.publish_soon(_EVERYWHERE, {"room": room}, event="activity")
        return str(cursor)

    def type(self, room: str, name: str) -> None:
        """Let the others know that somebody is writing."""
        self._moment.publish_soon(f"rooms/{room}/moment", {"name": name}, event="typing")

    async def follow(self, room: str, name: str, last_event_id: str | None) -> AsyncGenerator[ServerSentEvent, None]:
        """Give what happens in a room: the last messages or those that were missed, then everything.

        One stream carries both hubs' events. Only messages have ids, so that the client's place is
        its place among them.
        """
        async with (
            self._messages.subscribe(
                f"rooms/{room}/messages", last_event_id=last_event_id, last=HISTORY, on_overflow="skip"
            ) as messages,
            self._moment.subscribe(
                f"rooms/{room}/moment", _EVERYWHERE, on_overflow="skip", user=Seat(room, name)
            ) as moment,
        ):
            # The place comes first, unless there is a gap to tell, which has one: a client that is lost
            # before its first message resumes as well.
            place = str(messages.resume_from) if messages.gap is None else None
            yield ServerSentEvent(self._present(room), event="present", id=place)
            async with aclosing(merge(messages, moment)) as events:
                async for source, event in events:
                    yield event if source is messages else self._without_id(room, event)

    def _without_id(self, room: str, event: ServerSentEvent) -> ServerSentEvent:
        if event.event == "stream:gap":  # what was missed is over; who is there now is not
            return ServerSentEvent(self._present(room), event="present")
        return ServerSentEvent(event.data, event=event.event)

    def _present(self, room: str) -> dict[str, Any]:
        return {"names": self._attendance.names(room), "counts": {name: self._count(name) for name in ROOMS}}

    def _count(self, room: str) -> int:
        return len(self._attendance.names(room))

    def _tell(self, seat: Seat, change: Change) -> None:
        room, name = seat
        self._moment.publish_soon(f"rooms/{room}/moment", {"name": name}, event=change)
        self._moment.publish_soon(_EVERYWHERE, {"room": room, "present": self._count(room)}, event="count")


async def merge(*sources: Source) -> AsyncGenerator[tuple[Source, ServerSentEvent], None]:
    """Give what any of ``sources`` gives, as it comes and with its source, until one of them ends.

    Nothing is asked for before what came is taken: what is not sent yet stays where it is kept.
    """
    waiting: dict[asyncio.Task[ServerSentEvent | None], Source] = {}
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


async def _next(source: Source) -> ServerSentEvent | None:
    return await anext(source, None)
