"""``MemoryBroker``, the log in the memory of one process."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice
from typing import Final

from ..errors import BrokerError, LogResetError, LogTrimmedError
from ..wire import Cursor, Draft
from .protocol import DEFAULT_RETENTION, Retention, TopicFilter
from .records import LogState, Page, Record, new_epoch

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
        self._retention = retention
        self._now = now
        self._epoch = new_epoch()
        self._records: deque[Record] = deque()
        self._appended: deque[tuple[float, int, str | None]] = deque()  # time, bytes and key of each record
        self._keys: dict[str, int] = {}
        self._newest = 0
        self._bytes = 0
        self._closed = False
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<MemoryBroker epoch={self._epoch} oldest={self._oldest} newest={self._newest} bytes={self._bytes}>"

    @property
    def _oldest(self) -> int:
        return self._newest - len(self._records) + 1

    async def open(self) -> LogState:
        return await self.state()

    async def state(self) -> LogState:
        self._check_open()
        self._apply_retention()
        return LogState(self._epoch, self._oldest, self._newest)

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
        self._records.append(Record(self._newest, draft.topic, draft.event, draft.data))
        self._appended.append((now, size, draft.key))
        self._bytes += size
        return self._newest

    def _apply_retention(self) -> None:
        keep = self._retention
        deadline = None if keep.age is None else self._now() - keep.age
        while self._records and (
            (keep.events is not None and len(self._records) > keep.events)
            or (keep.bytes is not None and self._bytes > keep.bytes)
            or (deadline is not None and self._appended[0][0] < deadline)
        ):
            self._drop(self._records.popleft, self._appended.popleft)

    def _drop(self, record: Callable[[], Record], appended: Callable[[], tuple[float, int, str | None]]) -> None:
        record()
        _, size, key = appended()
        self._bytes -= size
        if key is not None:
            del self._keys[key]

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        state = await self.state()
        if topics is None:
            first = max(0, after + 1 - state.oldest)
            return Page(state, list(islice(self._records, first, first + limit)))
        # A copy, so that the page does not change although others append and trim during the read.
        return Page(state, await _select(self._after(max(after, state.oldest - 1)), limit, topics))

    def _after(self, offset: int) -> list[Record]:
        """Return the records after an offset that is kept, or the one before, in time for those alone."""
        records = list(islice(reversed(self._records), max(0, self._newest - offset)))
        records.reverse()
        return records

    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        epoch, offset = after.epoch, after.offset
        while not self._closed:
            if self._epoch != epoch or self._newest < offset:
                raise LogResetError(f"the log was reset: {self!r} does not have {after}")
            if offset + 1 < self._oldest:
                raise LogTrimmedError(offset, self._oldest)
            if offset < self._newest:
                records = self._after(offset)
                offset = self._newest
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
        while len(self._records) > max(0, keep):
            self._drop(self._records.popleft, self._appended.popleft)
        self._notify()

    def lose(self, count: int) -> None:
        """Lose the newest ``count`` records, or all, under the same epoch, as a replica that was behind does."""
        for _ in range(min(count, len(self._records))):
            self._drop(self._records.pop, self._appended.pop)
            self._newest -= 1
        self._notify()

    def reset(self) -> None:
        """Begin a new epoch with an empty log."""
        self._epoch, self._newest, self._bytes = new_epoch(), 0, 0
        self._records.clear()
        self._appended.clear()
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
