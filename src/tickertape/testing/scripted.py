"""A log in memory that fails, waits and loses as a test tells it to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from ..broker import Cursor, Draft, LogState, Record, TopicFilter, new_epoch
from ..errors import BrokerError, LogResetError, LogTrimmedError

__all__ = ["ScriptedBroker"]


class ScriptedBroker:
    """A log in memory whose troubles the test makes: delays, failures, lost records, another epoch.

    ::

        broker = ScriptedBroker()
        async with Hub(broker) as hub:
            broker.fail("append", "tail")  # until broker.recover()
            broker.hold("read")  # until broker.release()
            broker.trim(keep=10)
            broker.reset()

    What it is told to do happens to calls under way as well: a tail that waits fails at once.

    Arguments:
        keep: the number of records after which the oldest are dropped; ``None`` for no limit.

    Attributes:
        calls: how many calls of each operation have begun: ``open``, ``append``, ``read``, ``tail``.
    """

    def __init__(self, *, keep: int | None = None) -> None:
        self.calls: Counter[str] = Counter()
        self._keep = keep
        self._epoch = self._opened = new_epoch()
        self._records: list[Record] = []
        self._newest = 0
        self._keys: dict[str, int] = {}
        self._failing: dict[str, Exception] = {}
        self._held: set[str] = set()
        self._closed = False
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<ScriptedBroker epoch={self._epoch} oldest={self._oldest} newest={self._newest}>"

    def fail(self, *operations: str, error: Exception | None = None) -> None:
        """Let operations raise ``error``, by default a ``BrokerError``, until :meth:`recover`."""
        self._failing.update(dict.fromkeys(operations, error or BrokerError("expected a log, got a scripted failure")))
        self._notify()

    def recover(self) -> None:
        """Let no operation fail any more."""
        self._failing.clear()

    def hold(self, *operations: str) -> None:
        """Let operations wait until :meth:`release`; an append that waits is not stored yet."""
        self._held.update(operations)

    def release(self, *operations: str) -> None:
        """Let operations go on; all of them if none is named."""
        self._held.difference_update(operations or tuple(self._held))
        self._notify()

    def trim(self, *, keep: int) -> None:
        """Drop all but the newest ``keep`` records."""
        del self._records[: max(0, len(self._records) - keep)]
        self._keys = {key: offset for key, offset in self._keys.items() if offset >= self._oldest}
        self._notify()

    def lose(self, count: int) -> None:
        """Lose the newest ``count`` records under the same epoch, as a replica that was behind does."""
        del self._records[len(self._records) - count :]
        self._newest -= count
        self._notify()

    def reset(self) -> None:
        """Begin another life of the log, empty: its epoch is another, and offsets start over."""
        self._epoch, self._newest = new_epoch(), 0
        self._records.clear()
        self._keys.clear()
        self._notify()

    @property
    def _oldest(self) -> int:
        return self._newest - len(self._records) + 1

    async def open(self) -> LogState:
        """Return the state of the log."""
        await self._pass("open")
        self._opened = self._epoch
        return LogState(self._epoch, self._oldest, self._newest)

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        """Append drafts, all or none."""
        await self._pass("append")
        cursors = [Cursor(self._epoch, self._append(draft)) for draft in drafts]
        if self._keep is not None:
            self.trim(keep=self._keep)
        self._notify()
        return cursors

    def _append(self, draft: Draft) -> int:
        if draft.key is not None and draft.key in self._keys:
            return self._keys[draft.key]
        self._newest += 1
        self._records.append(Record(self._newest, draft.topic, draft.event, draft.data))
        if draft.key is not None:
            self._keys[draft.key] = self._newest
        return self._newest

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> list[Record]:
        """Return the oldest records behind an offset; held, it waits with its answer."""
        kept = self._records[max(0, after + 1 - self._oldest) :]
        found = [record for record in kept if topics is None or topics(record.topic)][:limit]
        await self._pass("read")
        return found

    async def tail(self, after: int) -> AsyncIterator[list[Record]]:
        """Give what is appended behind an offset, until it is told to fail."""
        epoch, given = self._opened, after
        await self._pass("tail")
        while True:
            if self._epoch != epoch or self._newest < given:
                raise LogResetError(f"expected the log {epoch} with {given} records, got {self!r}")
            if given + 1 < self._oldest:
                raise LogTrimmedError(given, self._oldest)
            if given == self._newest:
                await self._changed.wait()
            else:
                records = self._records[given + 1 - self._oldest :]
                given = self._newest
                yield records
            await self._wait("tail")

    async def close(self) -> None:
        """End all calls under way."""
        self._closed = True
        self._notify()

    async def _pass(self, operation: str) -> None:
        self.calls[operation] += 1
        await self._wait(operation)

    async def _wait(self, operation: str) -> None:
        while operation in self._held and not self._closed and operation not in self._failing:
            await self._changed.wait()
        if self._closed:
            raise BrokerError("expected an open broker, got one that was closed")
        if operation in self._failing:
            raise self._failing[operation]

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
