"""Read a hub's log: find the start of a subscription, and follow the records that are appended."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from time import perf_counter
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from ..broker import Broker, LogState, Marks, Record, Retention
from ..errors import BrokerError, LogResetError, LogTrimmedError
from ..timing import Clock, backoff, sleep
from ..wire import Cursor, Gap, Patterns, compile_patterns
from .delivery import Delivery
from .presence import Presence
from .window import Window

logger = logging.getLogger("tickertape.hub")

MAX_LAST: Final = 10_000
"""The greatest value of ``last``. More is a download, for which there is the history."""

_PREFILL: Final = 10_000
"""Records read into the window when a hub opens: clients of the last minutes may ask for them."""

_PAGE: Final = 1_000
"""Records read at a time."""

_PIECE: Final = 100
"""Records delivered between two looks at the time and at the room for more: a tail may yield a whole log at once."""

_TURN: Final = 0.004
"""Seconds for which delivering records may hold the loop before others have their turn."""

_PAUSE: Final = 0.25
"""Seconds until a lost log is followed again. The pause doubles with each failure in a row."""

_IMMEDIATE: Final = 3
"""Changes of the log in a row that are followed without a pause: an operator's reset may come in several steps."""

_STABLE: Final = 10.0
"""Seconds for which the log must be followed until a failure counts as the first in a row again."""

_LONGEST_PAUSE: Final = 8.0
"""The longest pause, in seconds: a log that is available again is found within it."""


Last: TypeAlias = int | Literal["all"] | None
"""The number of past events for a subscriber without a cursor."""


class Start(NamedTuple):
    """The position at which a subscription starts.

    Attributes:
        cursor: the offset after which it gets every event.
        gap: sent first, if it cannot start where the client asked.
        noted: records that were dropped before, and whose loss needs no notice.
    """

    cursor: int
    gap: Gap | None = None
    noted: Marks = ()


def check_last(last: Last) -> Last:
    """Return ``last`` if it is a number of events, ``"all"`` or ``None``.

    Raises:
        ValueError: it is something else.
    """
    if last is None or last == "all" or (type(last) is int and last >= 0):
        return last
    raise ValueError(f"expected last to be an int of at least 0, 'all' or None, got {last!r}")


def start_in_window(delivery: Delivery, last_event_id: str | None, last: Last) -> Start | None:
    """Return where a subscription starts if no search is needed, else ``None``.

    A cursor of this log needs none: if it is older than the log, that is found when it is read.
    """
    window = delivery.window
    if last_event_id is not None:
        cursor = Cursor.parse(last_event_id)
        known = cursor is not None and cursor.epoch == window.epoch and cursor.offset <= window.newest
        return Start(cursor.offset) if cursor is not None and known else None
    return Start(window.newest) if last is None or last == 0 else None


async def find_start(
    broker: Broker, delivery: Delivery, patterns: Patterns, last_event_id: str | None, last: Last
) -> Start:
    """Return where a subscription starts, and the gap if it cannot start where the client asks.

    An id that is not a cursor of this log, or one of the future, is a ``reset`` and never an error:
    browsers never reconnect after an error.

    Raises:
        BrokerError: the log cannot be read.
    """
    while True:
        window = delivery.window
        start = start_in_window(delivery, last_event_id, last)
        if start is None and last_event_id is not None:
            start = await _after(broker, delivery, last_event_id)
        elif start is None and last == "all":
            state = await broker.state()
            start = Start(state.oldest - 1, noted=state.dropped)
        elif start is None:
            assert last != "all"
            start = await _before_last(broker, delivery, patterns, min(last or 0, MAX_LAST))
        if delivery.window.epoch == window.epoch:  # else the log was replaced during the search
            return start


async def _after(broker: Broker, delivery: Delivery, last_event_id: str) -> Start:
    window = delivery.window
    cursor = Cursor.parse(last_event_id)
    state = await broker.state()
    if cursor is not None and cursor.epoch == state.epoch == window.epoch and cursor.offset <= state.newest:
        return Start(cursor.offset)  # another hub on the same log was faster; this one will see it soon
    # If the log has a new epoch that this hub has not seen yet, there will be another gap in a moment.
    oldest = state.oldest if state.epoch == window.epoch else window.oldest
    return Start(oldest - 1, delivery.gap("reset", last_event_id, oldest - 1), state.dropped)


async def _before_last(broker: Broker, delivery: Delivery, patterns: Patterns, last: int) -> Start:
    """Return the start before the newest ``last`` matching records."""
    window = delivery.window
    start = at = window.newest
    missing = last
    while missing and at > window.complete_after(patterns):
        found, at = window.last(missing, patterns, at)
        found = [offset for offset in found if offset > window.complete_after(patterns)]
        missing -= len(found)
        start = found[-1] - 1 if found else start
        if missing and at > window.complete_after(patterns):
            await asyncio.sleep(0)  # a long window must not hold the loop
    if not missing:
        return Start(start)
    oldest = window.complete_after(patterns) + 1  # all offsets found so far are newer, even if it drops records now
    state = await broker.state()
    if state.oldest >= oldest or state.epoch != window.epoch:
        return Start(start)
    older: deque[int] = deque(maxlen=missing)
    after = state.oldest - 1
    while after < oldest - 1:
        _, records = await broker.read(after, _PAGE, compile_patterns(patterns))
        older.extend(record.offset for record in records if record.offset < oldest)
        if len(records) < _PAGE:
            break
        after = records[-1].offset
    return Start(older[0] - 1 if older else start, noted=state.dropped)


def _without_hole(records: list[Record]) -> list[Record]:
    """Return the newest records that have no hole between them: others were dropped, and the broker knows which."""
    first = len(records) - 1
    while first > 0 and records[first - 1].offset == records[first].offset - 1:
        first -= 1
    return records[first:]


class Follower:
    """Bring all records appended to a log, also by other processes, into a hub's delivery.

    This is the only link from a publish to its delivery: a publish ends when its record is stored.

    Arguments:
        broker: the log, open.
        retention: the limits of the window.
        clock: the clock for ages and pauses.
        random: returns numbers from 0 to 1, for jitter.

    Attributes:
        healthy: true while the log is being followed.
    """

    def __init__(self, broker: Broker, retention: Retention, clock: Clock, random: Callable[[], float]) -> None:
        self.healthy = False
        self._broker = broker
        self._retention = retention
        self._clock = clock
        self._random = random
        self._task: asyncio.Task[None] | None = None

    async def start(self, state: LogState, presence: Presence) -> Delivery:
        """Read the last records of the log, and begin to follow it."""
        delivery = Delivery(self._broker, await self._read_window(state), self._clock, presence)
        self._task = asyncio.get_running_loop().create_task(self._follow(delivery), name="tickertape follower")
        self.healthy = True
        return delivery

    async def stop(self) -> None:
        """Stop following."""
        self.healthy = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _follow(self, delivery: Delivery) -> None:
        """Follow the log until the hub stops.

        ============================  =================================================
        failure                       action
        ============================  =================================================
        the log has a new epoch, or   read a new window; subscribers get a gap. After
        has lost records              several times in a row, wait before that
        records were trimmed, or      read a new window; subscribers catch up from their
        could not be delivered        cursors, or get a gap
        anything else                 wait, then follow from the last record again
        ============================  =================================================
        """
        failures = 0
        replace = False
        while True:
            ingesting = False
            began = self._clock.time()
            try:
                # A tail reports only what happens while it runs, so look at the log first.
                state = await self._broker.state()
                window = delivery.window
                if replace or state.epoch != window.epoch or state.newest < window.newest:
                    delivery.rebase(await self._read_window(state), state)
                    replace = False
                self.healthy = True
                after = Cursor(delivery.window.epoch, delivery.window.newest)
                tail = cast("AsyncGenerator[list[Record], None]", self._broker.tail(after))
                async with aclosing(tail):
                    async for records in tail:
                        until = perf_counter() + _TURN
                        for start in range(0, len(records), _PIECE):
                            ingesting = True
                            delivery.ingest(records[start : start + _PIECE])
                            ingesting = False
                            await delivery.wait_for_room()
                            if perf_counter() > until:
                                await asyncio.sleep(0)
                                until = perf_counter() + _TURN
                        failures = 0
                raise BrokerError("the tail of the log has ended")
            except (LogResetError, LogTrimmedError) as error:
                logger.warning("the log has changed: %s", error)
                replace = True
                pause = failures >= _IMMEDIATE
            except Exception as error:
                delivery.counters.errors["follow"] += 1
                logger.error("lost the log: %s", error, exc_info=not isinstance(error, BrokerError))
                self.healthy = False
                replace = replace or ingesting  # a part of the records may be in the window, and not delivered
                pause = True
            failures = 1 if self._clock.time() - began >= _STABLE else failures + 1
            if pause:
                await sleep(self._clock, backoff(failures, self._random, first=_PAUSE, cap=_LONGEST_PAUSE))

    async def _read_window(self, state: LogState) -> Window:
        """Return a window with the last records of the log."""
        window = Window(state.epoch, max(state.oldest - 1, state.newest - _PREFILL), self._retention)
        while window.newest < state.newest:
            current, records = await self._broker.read(window.newest, _PAGE)
            if current.epoch != state.epoch:
                raise LogResetError(f"the log was reset while it was read: {state.epoch} became {current.epoch}")
            if not records:  # trimmed since the state was read
                return Window(state.epoch, state.newest, self._retention)
            records = _without_hole(records)
            if records[0].offset > window.newest + 1:
                window = Window(state.epoch, records[0].offset - 1, self._retention)
            window.append(records, self._clock.time())
        return window
