"""Steps that several checks share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

from ...broker import DEFAULT_RETENTION, Broker, Record, Retention
from ...errors import BrokerError
from ...wire import Cursor, Draft
from .checks import Log, patiently


@asynccontextmanager
async def opened(log: Log, retention: Retention = DEFAULT_RETENTION) -> AsyncIterator[Broker]:
    """Open another broker on a log, and close it."""
    broker = log.broker(retention)
    try:
        async with patiently():
            await broker.open()
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def tailing(broker: Broker, after: int) -> AsyncIterator[AsyncGenerator[list[Record], None]]:
    """Start a tail after an offset of the current epoch, and close it."""
    cursor = Cursor((await broker.state()).epoch, after)
    tail = cast(AsyncGenerator[list[Record], None], broker.tail(cursor))
    try:
        yield tail
    finally:
        await tail.aclose()


async def collect(tail: AsyncIterator[list[Record]], count: int) -> list[Record]:
    """Return records of a tail as soon as there are ``count`` of them. A tail must not yield an empty list."""
    found: list[Record] = []
    async with patiently():
        while len(found) < count:
            records = await anext(tail, None)
            assert records is not None, "the tail ended"
            assert records, "the tail yielded an empty list"
            found += records
    return found


async def tailed(broker: Broker, after: int, count: int) -> list[Record]:
    """Return ``count`` records after an offset from a new tail."""
    async with tailing(broker, after) as tail:
        return await collect(tail, count)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition is true that no event announces."""
    async with patiently():
        while not await condition():  # noqa: ASYNC110 - another process may change it
            await asyncio.sleep(0.01)


def drafts_of(count: int, *, topic: str = "numbers", size: int = 0) -> list[Draft]:
    """Return drafts with the data "1", "2" and so on, filled up to ``size``."""
    return [Draft(topic, f"{number}".ljust(size, ".")) for number in range(1, count + 1)]


async def append_one_by_one(broker: Broker, count: int) -> None:
    """Append ``count`` drafts, each when the one before it is stored; other tasks run in between."""
    for draft in drafts_of(count):
        await broker.append([draft])
        await asyncio.sleep(0)


@asynccontextmanager
async def appending(broker: Broker, count: int) -> AsyncIterator[Callable[[], bool]]:
    """Append ``count`` drafts in another task during the block; yield a function that returns True at their end."""
    task = asyncio.create_task(append_one_by_one(broker, count))
    try:
        yield task.done
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def offsets(found: Sequence[Record] | Sequence[Cursor]) -> list[int]:
    return [each.offset for each in found]


def assert_contiguous(found: Sequence[Record]) -> None:
    """Check that no offset is missing or doubled between the first and the last record."""
    assert offsets(found) == list(range(found[0].offset, found[0].offset + len(found)))


async def refused(broker: Broker, drafts: list[Draft], kind: type[BrokerError] = BrokerError) -> BrokerError:
    """Return the error of an append that must fail."""
    try:
        async with patiently():
            cursors = await broker.append(drafts)
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, got cursors {cursors}")


async def raised(tail: AsyncIterator[list[Record]], kind: type[BrokerError]) -> BrokerError:
    """Return the error of a tail that must fail before it yields anything."""
    try:
        async with patiently():
            records = await anext(tail, None)
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, got {records}")
