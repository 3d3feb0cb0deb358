"""The log in the memory of one process."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice

from ..errors import BrokerError, LogTrimmedError
from .protocol import DEFAULT_RETENTION, Retention, TopicFilter
from .records import Cursor, Draft, LogState, Record, new_epoch

__all__ = ["MemoryBroker"]


class MemoryBroker:
    """Keep the log in this process: for one worker, for tests, and for events that may be forgotten.

    Arguments:
        retention: how much is kept.
        now: the clock that ages are measured on, in seconds.

    The log is gone with the process, and with ``close()``; its epoch tells clients so.
    """

    def __init__(self, *, retention: Retention = DEFAULT_RETENTION, now: Callable[[], float] = time.monotonic) -> None:
        self._retention = retention
        self._now = now
        self._epoch = new_epoch()
        self._records: deque[Record] = deque()
        self._appended: deque[tuple[float, int, str | None]] = deque()  # when, bytes, key: of each record
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
        self._check_open()
        self._trim()
        return LogState(self._epoch, self._oldest, self._newest)

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        self._check_open()
        now = self._now()
        cursors = [Cursor(self._epoch, self._append(draft, now)) for draft in drafts]
        self._trim()
        self._changed.set()
        return cursors

    def _append(self, draft: Draft, now: float) -> int:
        if draft.key is not None:
            known = self._keys.get(draft.key)
            if known is not None:
                return known
            self._keys[draft.key] = self._newest + 1
        self._newest += 1
        size = len(draft.topic) + len(draft.event or "") + len(draft.data)
        self._records.append(Record(self._newest, draft.topic, draft.event, draft.data))
        self._appended.append((now, size, draft.key))
        self._bytes += size
        return self._newest

    def _trim(self) -> None:
        """Drop what the retention does not keep."""
        keep = self._retention
        deadline = None if keep.age is None else self._now() - keep.age
        while self._records and (
            (keep.events is not None and len(self._records) > keep.events)
            or (keep.bytes is not None and self._bytes > keep.bytes)
            or (deadline is not None and self._appended[0][0] < deadline)
        ):
            self._records.popleft()
            _, size, key = self._appended.popleft()
            self._bytes -= size
            if key is not None:
                del self._keys[key]

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> list[Record]:
        self._check_open()
        self._trim()
        kept = islice(self._records, max(0, after + 1 - self._oldest), None)
        return list(islice((record for record in kept if topics is None or topics(record.topic)), limit))

    async def tail(self, after: int) -> AsyncIterator[list[Record]]:
        while not self._closed:
            if after + 1 < self._oldest:
                raise LogTrimmedError(after, self._oldest)
            if after < self._newest:
                # From the newest end: what a tail has not given yet is the little that is new.
                records = list(islice(reversed(self._records), self._newest - after))
                records.reverse()
                after = self._newest
                yield records
            else:
                self._changed.clear()
                await self._changed.wait()

    async def close(self) -> None:
        self._closed = True
        self._changed.set()

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerError("expected an open broker, got one that was closed")
