"""Steps that checks are made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

from ...broker import DEFAULT_RETENTION, Broker, Record, Retention
from ...errors import BrokerError
from ...wire import Cursor, Draft
from .checks import Log, patiently

__all__ = [
    "assert_whole",
    "collect",
    "drafts_of",
    "offsets",
    "opened",
    "raised",
    "refused",
    "tailed",
    "tailing",
    "until",
]


@asynccontextmanager
async def opened(log: Log, retention: Retention = DEFAULT_RETENTION) -> AsyncIterator[Broker]:
    broker = log.broker(retention)
    try:
        async with patiently():
            await broker.open()
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def tailing(broker: Broker, after: int) -> AsyncIterator[AsyncGenerator[list[Record], None]]:
    """Give a tail, and close it."""
    cursor = Cursor((await broker.state()).epoch, after)
    tail = cast(AsyncGenerator[list[Record], None], broker.tail(cursor))
    try:
        yield tail
    finally:
        await tail.aclose()


async def collect(tail: AsyncIterator[list[Record]], count: int) -> list[Record]:
    """Return what a tail gives until it is ``count`` records; it may not give an empty list."""
    found: list[Record] = []
    async with patiently():
        while len(found) < count:
            records = await anext(tail, None)
            assert records is not None, "expected a tail that goes on, got its end"
            assert records, "expected a tail that gives records, got an empty list"
            found += records
    return found


async def tailed(broker: Broker, after: int, count: int) -> list[Record]:
    async with tailing(broker, after) as tail:
        return await collect(tail, count)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what a broker does by and by."""
    async with patiently():
        while not await condition():  # noqa: ASYNC110 - another process may be what changes it
            await asyncio.sleep(0.01)


def drafts_of(count: int, *, topic: str = "numbers", size: int = 0) -> list[Draft]:
    return [Draft(topic, f"{number}".ljust(size, ".")) for number in range(1, count + 1)]


def offsets(found: Sequence[Record] | Sequence[Cursor]) -> list[int]:
    return [each.offset for each in found]


def assert_whole(found: list[Record]) -> None:
    assert offsets(found) == list(range(found[0].offset, found[0].offset + len(found)))


async def refused(broker: Broker, drafts: list[Draft], kind: type[BrokerError] = BrokerError) -> BrokerError:
    try:
        async with patiently():
            cursors = await broker.append(drafts)
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, got cursors {cursors}")


async def raised(tail: AsyncIterator[list[Record]], kind: type[BrokerError]) -> BrokerError:
    try:
        async with patiently():
            records = await anext(tail, None)
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, got {records}")
