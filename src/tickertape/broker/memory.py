"""``MemoryBroker``, the log in the memory of one process."""

from __future__ import annotations

import asyncio
import heapq
import time
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice
from typing import Final

from ..errors import BrokerError, LogResetError, LogTrimmedError
from ..wire import Cursor, Draft
from .protocol import TopicFilter
from .records import OTHERS, LogState, Page, Record, contiguous, marks_after, new_epoch
from .retention import DEFAULT_RETENTION, MAX_MARKS, Lanes, Retention

_SLICE: Final = 0.005
"""Seconds for which a filtered read may run before other tasks have their turn."""

_LOOKS: Final = 64
"""Records of a filtered read between two looks at the clock."""


class _Lane:
    """The records of a rule, or all others, in order.

    Attributes:
        dropped: the offset of the newest record that is no longer here; 0 if none was dropped.
    """

    __slots__ = ("_appended", "_bytes", "_limits", "dropped", "records")

    def __init__(self, limits: Retention) -> None:
        self.records: deque[Record] = deque()
        self.dropped = 0
        self._limits = limits
        self._appended: deque[tuple[float, int, str | None]] = deque()  # time, bytes and key of each record
        self._bytes = 0

    def append(self, record: Record, now: float, size: int, key: str | None) -> None:
        self.records.append(record)
        self._appended.append((now, size, key))
        self._bytes += size

    def trim(self, now: float, keys: dict[str, int]) -> None:
        """Drop the records over the limits, and their keys."""
        keep = self._limits
        deadline = None if keep.age is None else now - keep.age
        while self.records and (
            (keep.events is not None and len(self.records) > keep.events)
            or (keep.bytes is not None and self._bytes > keep.bytes)
            or (deadline is not None and self._appended[0][0] < deadline)
        ):
            self.dropped = self.records.popleft().offset
            self._forget(self._appended.popleft(), keys)

    def lose(self, newest: int, keys: dict[str, int]) -> None:
        """Drop the records after an offset."""
        while self.records and self.records[-1].offset > newest:
            self.records.pop()
            self._forget(self._appended.pop(), keys)

    def keep_after(self, offset: int, keys: dict[str, int]) -> None:
        """Drop the records up to an offset."""
        while self.records and self.records[0].offset <= offset:
            self.dropped = self.records.popleft().offset
            self._forget(self._appended.popleft(), keys)

    def discard(self, topic: str, upto: int, keys: dict[str, int]) -> int:
        """Drop the records of a topic up to an offset, and return the offset of the newest one; 0 for none."""
        found = 0
        kept = []
        for record, appended in zip(self.records, self._appended, strict=True):
            if record.topic == topic and record.offset <= upto:
                found = record.offset
                self._forget(appended, keys)
            else:
                kept.append((record, appended))
        if found:
            self.records = deque(record for record, _ in kept)
            self._appended = deque(appended for _, appended in kept)
        return found

    def _forget(self, appended: tuple[float, int, str | None], keys: dict[str, int]) -> None:
        _, size, key = appended
        self._bytes -= size
        if key is not None:
            del keys[key]

    def after(self, offset: int, limit: int | None = None) -> list[Record]:
        """Return records after an offset. The newest ones cost only their number."""
        start = bisect_right(self.records, offset, key=_offset_of)
        if limit is not None and start < len(self.records) // 2:
            return list(islice(self.records, start, start + limit))
        records = list(islice(reversed(self.records), len(self.records) - start))
        records.reverse()
        return records[:limit]


def _offset_of(record: Record) -> int:
    return record.offset


class MemoryBroker:
    """Keep the log in this process: for one worker, for tests, and for events that may be lost.

    Arguments:
        retention: the limits of the log.
        now: the clock for ages, in seconds.

    The log ends with the process, or with ``close()``. The next one has another epoch, so clients get a gap.
    """

    def __init__(self, *, retention: Retention = DEFAULT_RETENTION, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._epoch = new_epoch()
        self._lane_of = Lanes(retention)
        self._lanes = {name: _Lane(self._lane_of.limits(name)) for name in (OTHERS, *self._lane_of.names)}
        self._discarded: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._newest = 0
        self._closed = False
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<MemoryBroker epoch={self._epoch} oldest={self._oldest} newest={self._newest}>"

    @property
    def _oldest(self) -> int:
        return min((lane.records[0].offset for lane in self._lanes.values() if lane.records), default=self._newest + 1)

    async def open(self) -> LogState:
        return await self.state()

    async def state(self) -> LogState:
        self._check_open()
        self._apply_retention()
        oldest = self._oldest
        marks = [(name, lane.dropped) for name, lane in self._lanes.items()]
        return LogState(self._epoch, oldest, self._newest, marks_after(oldest, marks, self._discarded.items()))

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        return self.append_now(drafts)

    def append_now(self, drafts: Sequence[Draft]) -> list[Cursor]:
        """Append without waiting: only this log has nothing to wait for."""
        self._check_open()
        now = self._now()
        cursors = [Cursor(self._epoch, self._append(draft, now)) for draft in drafts]
        self._apply_retention()
        self._notify()
        return cursors

    def _append(self, draft: Draft, now: float) -> int:
        if draft.key is not None:
            known = self._keys.get(draft.key)
            if known is not None:
                return known
            self._keys[draft.key] = self._newest + 1
        self._newest += 1
        size = len(draft.topic) + len(draft.event or "") + draft.size
        record = Record(self._newest, draft.topic, draft.event, draft.data)
        self._lanes[self._lane_of(draft.topic)].append(record, now, size, draft.key)
        return self._newest

    def _apply_retention(self) -> None:
        now = self._now()
        for lane in self._lanes.values():
            if lane.records:
                lane.trim(now, self._keys)

    async def discard(self, topic: str, upto: int) -> None:
        self._check_open()
        name = self._lane_of(topic)
        found = 0 if name == OTHERS else self._lanes[name].discard(topic, upto, self._keys)
        if not found:
            return
        self._discarded[topic] = found
        while len(self._discarded) > MAX_MARKS:
            oldest = min(self._discarded, key=self._discarded.__getitem__)
            lane = self._lanes[self._lane_of(oldest)]
            lane.dropped = max(lane.dropped, self._discarded.pop(oldest))

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        state = await self.state()
        if topics is None:
            return Page(state, self._after(after, limit))
        # A copy, so that the page does not change although others append and trim during the read.
        return Page(state, await _select(self._after(after), limit, topics))

    def _after(self, offset: int, limit: int | None = None) -> list[Record]:
        """Return the records after an offset, in order."""
        found = [records for lane in self._lanes.values() if lane.records and (records := lane.after(offset, limit))]
        if len(found) == 1:
            return found[0]
        return list(islice(heapq.merge(*found, key=_offset_of), limit))

    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        epoch, offset = after.epoch, after.offset
        while not self._closed:
            if self._epoch != epoch or self._newest < offset:
                raise LogResetError(f"the log was reset: {self!r} does not have {after}")
            if offset < self._newest:
                records = self._after(offset)
                first = records[0].offset if records else self._newest + 1
                if first > offset + 1:
                    raise LogTrimmedError(offset, first)
                records = contiguous(records)
                offset = records[-1].offset
                yield records
            else:
                changed = self._changed
                await changed.wait()

    async def close(self) -> None:
        self._closed = True
        self._notify()

    # Accidents, for tests.

    def trim(self, *, keep: int) -> None:
        """Drop all but the newest ``keep`` records, as a retention does."""
        records = self._after(0)
        if len(records) > keep:
            upto = self._newest if keep < 1 else records[-keep].offset - 1
            for lane in self._lanes.values():
                lane.keep_after(upto, self._keys)
        self._notify()

    def lose(self, count: int) -> None:
        """Lose the newest ``count`` records, or all, under the same epoch, as a replica that was behind does."""
        self._newest -= min(count, len(self._after(0)))
        for lane in self._lanes.values():
            lane.lose(self._newest, self._keys)
        self._notify()

    def reset(self) -> None:
        """Begin a new epoch with an empty log."""
        self._epoch, self._newest = new_epoch(), 0
        self._lanes = {name: _Lane(self._lane_of.limits(name)) for name in self._lanes}
        self._discarded.clear()
        self._keys.clear()
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerError("broker is closed")


async def _select(records: Sequence[Record], limit: int, topics: TopicFilter) -> list[Record]:
    """Return the first records with the right topics; other tasks run between slices."""
    wanted: dict[str, bool] = {}
    found: list[Record] = []
    deadline = time.monotonic() + _SLICE
    for number, record in enumerate(records):
        if len(found) >= limit:
            break
        if number % _LOOKS == 0 and time.monotonic() > deadline:
            await asyncio.sleep(0)
            deadline = time.monotonic() + _SLICE
        topic = record.topic
        if topic not in wanted:
            wanted[topic] = topics(topic)
        if wanted[topic]:
            found.append(record)
    return found
