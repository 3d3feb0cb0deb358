"""A shared log of timed updates. Each reader has a cursor in the log, and no queue."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from datetime import datetime
from itertools import takewhile
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from ...timing import Clock, Timer
from ...wire import ServerSentEvent

DEFAULT_INTERVAL: Final = 2.0
"""Seconds between two updates."""

UPDATES_KEPT: Final = 1_000
"""Updates that the log keeps: about half an hour at one in two seconds, about 200 KiB."""

HIGHEST_FOREIGN_ID: Final = 10**9
"""The highest id that a client may claim if this server has not issued it.

At one update in two seconds, a server needs 63 years to reach it. The limit keeps ids far below 2**53, above which
JavaScript numbers are not exact.
"""

_ID: Final = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


class Update(NamedTuple):
    """One entry of the log."""

    id: int
    message: dict[str, Any]
    encoded: bytes


class Updates(NamedTuple):
    """The updates after a cursor."""

    updates: list[Update]
    """At least one, oldest first."""
    gap: bool
    """True if updates after the cursor are no longer kept."""


class TickerStatistics(NamedTuple):
    """A snapshot of a ticker."""

    last_id: int
    kept: int


class Ticker:
    """Append an update with the current time to a log every ``interval`` seconds.

    ``async with`` starts and stops the ticker. Ids increase by one, unless a client knows a higher id from before a
    restart: see :meth:`cursor_after`.

    Arguments:
        interval: seconds between two updates.
        limit: number of updates that the log keeps.
        clock: the clock of the timer. The default is the running event loop.
        now: returns the local time for an update.
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
            raise ValueError(f"expected a limit of at least 1 update, got {limit!r}")
        self._interval = interval
        self._limit = limit
        self._clock = clock
        self._now = now
        self._log: deque[Update] = deque()
        self._last_id = 0
        self._dropped_id = 0  # the newest id that is no longer kept
        self._appended = asyncio.Event()  # set at the next update, then replaced: wakes all readers
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
        """Return the newest id and the number of updates in the log."""
        return TickerStatistics(self._last_id, len(self._log))

    def cursor_after(self, last_event_id: str | None) -> int:
        """Return the id after which a client with this ``last_event_id`` resumes.

        Without a valid id, this is the newest id. An id above the newest one comes from before a restart: the next
        update gets a higher id, so that no client receives an id twice.
        """
        seen = parse_id(last_event_id)
        if seen is None or seen > max(self._last_id, HIGHEST_FOREIGN_ID):
            return self._last_id
        self._last_id = max(self._last_id, seen)
        return seen

    async def read(self, cursor: int) -> Updates:
        """Return the updates after ``cursor``. Wait until there is at least one."""
        while not self._log or self._log[-1].id <= cursor:
            await self._appended.wait()
        updates = list(takewhile(lambda update: update.id > cursor, reversed(self._log)))
        return Updates(updates[::-1], gap=cursor < self._dropped_id)

    def _set_timer(self, clock: Clock, due: float) -> None:
        self._timer = clock.call_at(due, self._tick, clock, due)

    def _tick(self, clock: Clock, due: float) -> None:
        self._append(self._now())
        # Exact intervals, without drift. After the loop was blocked, restart from now instead of catching up.
        following = due + self._interval
        self._set_timer(clock, following if following > clock.time() else clock.time() + self._interval)

    def _append(self, moment: datetime) -> None:
        self._last_id += 1
        message = {"id": self._last_id, "event": "update", "data": f"Current time: {_rfc3339(moment)}"}
        event = ServerSentEvent(message, event="update", id=str(self._last_id))
        self._log.append(Update(self._last_id, message, event.encode()))
        if len(self._log) > self._limit:
            self._dropped_id = self._log.popleft().id
        self._appended.set()
        self._appended = asyncio.Event()


def parse_id(text: str | None) -> int | None:
    """Return ``text`` as an id, or None if it is not exactly as this server writes ids."""
    return int(text) if text is not None and _ID.fullmatch(text) else None


def _rfc3339(moment: datetime) -> str:
    """Format a time by RFC 3339, in seconds, with ``Z`` for UTC as Go does."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
