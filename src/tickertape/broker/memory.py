"""``MemoryBroker``, the log in the memory of one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from ..errors import BrokerError, LogResetError, LogTrimmedError
from ..wire import Cursor, Draft
from .kept import Kept
from .protocol import TopicFilter
from .records import OTHERS, LogState, Page, Record, contiguous, new_epoch
from .retention import DEFAULT_RETENTION, Retention

_SLICE: Final = 0.005
"""Seconds for which a filtered read may run before other tasks have their turn."""

_LOOKS: Final = 64
"""Records of a filtered read between two looks at the clock."""


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
        self._retention = retention
        self._kept = Kept[Record](retention)
        self._newest = 0
        self._closed = False
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<MemoryBroker epoch={self._epoch} oldest={self._oldest} newest={self._newest}>"

    @property
    def _oldest(self) -> int:
        return self._kept.oldest(self._newest)

    async def open(self) -> LogState:
        return await self.state()

    async def state(self) -> LogState:
        self._check_open()
        self._kept.trim(self._now())
        return LogState(self._epoch, self._oldest, self._newest, self._kept.marks(self._oldest))

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        return self.append_now(drafts)

    def append_now(self, drafts: Sequence[Draft]) -> list[Cursor]:
        """Append without waiting: only this log has nothing to wait for."""
        self._check_open()
        now = self._now()
        cursors = [Cursor(self._epoch, self._append(draft, now)) for draft in drafts]
        self._kept.trim(self._now())
        self._notify()
        return cursors

    def _append(self, draft: Draft, now: float) -> int:
        if draft.key is not None:
            known = self._kept.keys.get(draft.key)
            if known is not None:
                return known
        self._newest += 1
        size = len(draft.topic) + len(draft.event or "") + draft.size
        record = Record(self._newest, draft.topic, draft.event, draft.data)
        self._kept.append(record, self._kept.lane_of(draft.topic), now, size, draft.key)
        return self._newest

    async def discard(self, topic: str, upto: int) -> None:
        self._check_open()
        if self._kept.lane_of(topic) != OTHERS:
            self._kept.discard(topic, upto)

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        state = await self.state()
        if topics is None:
            return Page(state, self._kept.after(after, limit))
        # A copy, so that the page does not change although others append and trim during the read.
        return Page(state, await _select(self._kept.after(after), limit, topics))

    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        epoch, offset = after.epoch, after.offset
        while not self._closed:
            if self._epoch != epoch or self._newest < offset:
                raise LogResetError(f"the log was reset: {self!r} does not have {after}")
            if offset < self._newest:
                records = self._kept.after(offset)
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
        records = self._kept.after(0)
        if len(records) > keep:
            upto = self._newest if keep < 1 else records[-keep].offset - 1
            for lane in self._kept.lanes.values():
                lane.keep_after(upto)
        self._notify()

    def lose(self, count: int) -> None:
        """Lose the newest ``count`` records, or all, under the same epoch, as a replica that was behind does."""
        self._newest -= min(count, len(self._kept.after(0)))
        for lane in self._kept.lanes.values():
            lane.lose(self._newest)
        self._notify()

    def reset(self) -> None:
        """Begin a new epoch with an empty log."""
        self._epoch, self._newest = new_epoch(), 0
        self._kept = Kept(self._retention)
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
