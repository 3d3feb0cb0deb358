"""``ScriptedBroker``, a log in memory whose failures, delays and losses a test controls."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from ..broker import LogState, MemoryBroker, Page, Record, Retention, TopicFilter
from ..errors import BrokerError
from ..wire import Cursor, Draft


class ScriptedBroker:
    """A memory broker with accidents: delays, failures, lost records, another epoch.

    ::

        broker = ScriptedBroker()
        async with Hub(broker) as hub:
            broker.fail("append", "tail")  # until broker.recover()
            broker.hold("read")  # until broker.release()
            broker.trim(keep=10)
            broker.reset()

    Accidents also happen to calls that are already waiting: a waiting tail fails at once.

    Arguments:
        keep: the number of records after which the oldest are dropped; ``None`` for no limit.

    Attributes:
        calls: the number of calls of each operation: ``open``, ``state``, ``append``, ``read``, ``tail``.
    """

    def __init__(self, *, keep: int | None = None) -> None:
        self.calls: Counter[str] = Counter()
        self._log = MemoryBroker(retention=Retention(events=keep, bytes=None))
        self._failing: dict[str, Exception] = {}
        self._held: set[str] = set()
        self._closed = False
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<ScriptedBroker {self._log!r}>"

    def fail(self, *operations: str, error: Exception | None = None) -> None:
        """Make operations raise ``error``, by default a ``BrokerError``, until :meth:`recover`."""
        self._failing.update(dict.fromkeys(operations, error or BrokerError("scripted failure")))
        self._notify()

    def recover(self) -> None:
        """Make all operations succeed again."""
        self._failing.clear()

    def hold(self, *operations: str) -> None:
        """Make operations wait until :meth:`release`; an append that waits is not stored yet."""
        self._held.update(operations)

    def release(self, *operations: str) -> None:
        """Release operations that wait; all of them if none is named."""
        self._held.difference_update(operations or tuple(self._held))
        self._notify()

    def trim(self, *, keep: int) -> None:
        """Drop all but the newest ``keep`` records."""
        self._log.trim(keep=keep)

    def lose(self, count: int) -> None:
        """Lose the newest ``count`` records, or all, under the same epoch, as a replica that was behind does."""
        self._log.lose(count)

    def reset(self) -> None:
        """Begin a new epoch with an empty log."""
        self._log.reset()

    async def open(self) -> LogState:
        """Return the state of the log."""
        await self._begin("open")
        return await self._log.open()

    async def state(self) -> LogState:
        """Return the state of the log."""
        await self._begin("state")
        return await self._log.state()

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        """Append drafts, all or none."""
        await self._begin("append")
        return await self._log.append(drafts)

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        """Return a page of the log; if reads are held, the page waits after it was read."""
        page = await self._log.read(after, limit, topics)
        await self._begin("read")
        return page

    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        """Yield the records after a cursor, until the test makes it fail."""
        await self._begin("tail")
        records = self._log.tail(after)
        following = asyncio.ensure_future(anext(records))
        try:
            while True:
                changed = asyncio.ensure_future(self._changed.wait())
                try:
                    await asyncio.wait([following, changed], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
                await self._wait("tail")
                if following.done():
                    yield following.result()
                    await self._wait("tail")
                    following = asyncio.ensure_future(anext(records))
        finally:
            following.cancel()
            await asyncio.wait([following])

    async def close(self) -> None:
        """End all waiting calls."""
        self._closed = True
        await self._log.close()
        self._notify()

    async def _begin(self, operation: str) -> None:
        self.calls[operation] += 1
        await self._wait(operation)

    async def _wait(self, operation: str) -> None:
        while operation in self._held and not self._closed and operation not in self._failing:
            await self._changed.wait()
        if self._closed:
            raise BrokerError("broker is closed")
        if operation in self._failing:
            raise self._failing[operation]

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
