"""A shared log of the time, one update every few seconds; who follows it holds a cursor, and no queue."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from datetime import datetime
from itertools import takewhile
from types import TracebackType
from typing import Final, NamedTuple, Self

from ...timing import Clock, Timer
from ...wire import ServerSentEvent

__all__ = [
    "DEFAULT_INTERVAL",
    "HIGHEST_FOREIGN_ID",
    "UPDATES_KEPT",
    "Batch",
    "Ticker",
    "TickerStatistics",
    "Update",
    "parse_id",
]

DEFAULT_INTERVAL: Final = 2.0
"""Seconds between two updates."""

UPDATES_KEPT: Final = 1_000
"""Updates that a client may miss and still be given: half an hour at one in two seconds, some 200 KiB."""

HIGHEST_FOREIGN_ID: Final = 10**9
"""The highest id that is believed of a client when this server has not given it out itself.

One in two seconds reaches it after 63 years. What lies above is no id of ours, and numbers that
browsers cannot tell apart (over 2**53) stay out of reach.
"""

_ID: Final = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


class Update(NamedTuple):
    """One entry of the log."""

    id: int
    encoded: bytes


class Batch(NamedTuple):
    """What followed a cursor."""

    updates: list[Update]
    """In order, at least one."""
    gap: bool
    """Whether updates after the cursor had fallen off the log already."""


class TickerStatistics(NamedTuple):
    """What a ticker holds at the moment."""

    last_id: int
    kept: int


class Ticker:
    """Append an update with the present time to a log, every ``interval`` seconds.

    Arguments:
        interval: seconds between two updates.
        limit: updates kept for those who come back.
        clock: where the timer is set; by default the running event loop.
        now: gives the local time that updates tell.

    ``async with`` starts and stops it. Ids rise by one, except where a client proves that a former
    life of this server had come further: see :meth:`cursor_after`.
    """

    def __init__(
        self,
        *,
        interval: float = DEFAULT_INTERVAL,
        limit: int = UPDATES_KEPT,
        clock: Clock | None = None,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        if not interval > 0:
            raise ValueError(f"expected an interval of more than 0 seconds, got {interval!r}")
        if limit < 1:
            raise ValueError(f"expected a limit of 1 update or more, got {limit!r}")
        self._interval = interval
        self._limit = limit
        self._clock = clock
        self._now = now
        self._log: deque[Update] = deque()
        self._last_id = 0
        self._dropped_id = 0  # the newest that fell off the log
        self._appended = asyncio.Event()  # set at the next update, then replaced: one event wakes all who wait
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Ticker last_id={self._last_id} kept={len(self._log)}>"

    async def __aenter__(self) -> Self:
        clock = asyncio.get_running_loop() if self._clock is None else self._clock
        self._set_timer(clock, clock.time() + self._interval)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def statistics(self) -> TickerStatistics:
        """Return the numbers of the moment."""
        return TickerStatistics(self._last_id, len(self._log))

    def cursor_after(self, last_event_id: str | None) -> int:
        """Return the cursor of a client that comes with ``last_event_id``: the id that it goes on after.

        Without one, or with one that cannot be ours, that is the newest id. With one above the
        newest, the client knows of updates that a former life of this server made; the numbering
        goes on above it, so that nobody is given an id twice.
        """
        seen = parse_id(last_event_id)
        if seen is None or seen > max(self._last_id, HIGHEST_FOREIGN_ID):
            return self._last_id
        self._last_id = max(self._last_id, seen)
        return seen

    async def read(self, cursor: int) -> Batch:
        """Return what follows ``cursor``, when there is something."""
        while not self._log or self._log[-1].id <= cursor:
            await self._appended.wait()
        updates = list(takewhile(lambda update: update.id > cursor, reversed(self._log)))
        return Batch(updates[::-1], gap=cursor < self._dropped_id)

    def _set_timer(self, clock: Clock, due: float) -> None:
        self._timer = clock.call_at(due, self._tick, clock, due)

    def _tick(self, clock: Clock, due: float) -> None:
        self._append(self._now())
        # From moment to moment without drift; after a stall, from now on without a burst.
        following = due + self._interval
        self._set_timer(clock, following if following > clock.time() else clock.time() + self._interval)

    def _append(self, moment: datetime) -> None:
        self._last_id += 1
        self._log.append(Update(self._last_id, _encode(self._last_id, moment)))
        if len(self._log) > self._limit:
            self._dropped_id = self._log.popleft().id
        self._appended.set()
        self._appended = asyncio.Event()


def parse_id(text: str | None) -> int | None:
    """Return the id that ``text`` is, exactly as this server writes one; ``None`` for anything else."""
    return int(text) if text is not None and _ID.fullmatch(text) else None


def _encode(id: int, moment: datetime) -> bytes:
    text = f"Current time: {_rfc3339(moment)}"
    return ServerSentEvent({"id": id, "event": "update", "data": text}, event="update", id=str(id)).encode()


def _rfc3339(moment: datetime) -> str:
    """Write a moment by RFC 3339, to the second; UTC as ``Z``, as Go does."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
