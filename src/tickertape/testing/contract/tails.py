"""Checks of tails, of the end of a broker, and of everything at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ...broker import Broker, LogState, Record, Retention, new_epoch
from ...errors import BrokerError, LogResetError, LogTrimmedError
from ...wire import Cursor
from .checks import SHARED, Log, check, check_if, patiently
from .steps import (
    append_one_by_one,
    appending,
    collect,
    drafts_of,
    offsets,
    opened,
    raised,
    refused,
    tailed,
    tailing,
    until,
)

# Tails.


@check
async def tail_of_an_empty_log(log: Log) -> None:
    async with opened(log) as broker, tailing(broker, 0) as tail:
        first = asyncio.create_task(collect(tail, 1))
        await asyncio.sleep(0)
        await broker.append(drafts_of(1))
        assert await first == [Record(1, "numbers", None, "1")]


@check
async def tail_after_any_offset(log: Log) -> None:
    async with opened(log) as broker:
        await broker.append(drafts_of(30))
        for after in (0, 1, 17, 29):
            assert offsets(await tailed(broker, after, 30 - after)) == list(range(after + 1, 31))


@check
async def tail_continues_a_page(log: Log) -> None:
    """Nothing is missing between a page and a tail after it, while others append."""
    async with opened(log) as broker:
        history: list[Record] = []
        async with appending(broker, 200):
            while len(history) < 50:
                history += (await broker.read(history[-1].offset if history else 0, 20)).records
                await asyncio.sleep(0)
            rest = await tailed(broker, history[-1].offset, 200 - len(history))
        assert offsets([*history, *rest]) == list(range(1, 201))


@check
async def tails_yield_the_same_records(log: Log) -> None:
    async with opened(log) as broker, tailing(broker, 0) as one, tailing(broker, 0) as two, tailing(broker, 0) as late:
        collecting = [asyncio.create_task(collect(tail, 60)) for tail in (one, two)]
        await asyncio.gather(*(broker.append(drafts_of(3)) for _ in range(20)))
        first, second = await asyncio.gather(*collecting)
        assert first == second == await collect(late, 60) == (await broker.read(0, 100)).records
        assert offsets(first) == list(range(1, 61))
        await broker.append(drafts_of(1))
        assert [offsets(await collect(tail, 1)) for tail in (one, two, late)] == [[61], [61], [61]]


@check_if(SHARED)
async def tail_yields_records_of_another_broker(log: Log) -> None:
    async with opened(log) as writer, opened(log) as reader, tailing(reader, 0) as tail:
        for number in range(1, 21):
            cursors = await writer.append(drafts_of(2))
            assert offsets(await collect(tail, 2)) == offsets(cursors) == [2 * number - 1, 2 * number]


@check
async def tail_of_another_epoch_is_refused(log: Log) -> None:
    """A tail after a cursor of another epoch fails at once; it does not wait for records."""
    async with opened(log) as broker:
        await broker.append(drafts_of(3))
        for after in (0, 3):
            async with tailing(broker, after):
                tail = broker.tail(Cursor(new_epoch(), after))
                await raised(tail, LogResetError)


@check
async def tail_after_dropped_records_is_refused(log: Log) -> None:
    async with opened(log, Retention(events=10, bytes=None)) as broker:

        async def dropped() -> bool:
            await broker.append(drafts_of(20))
            return (await broker.state()).oldest > 1

        await until(dropped)
        oldest = (await broker.state()).oldest
        async with tailing(broker, 0) as tail:
            error = await raised(tail, LogTrimmedError)
            assert isinstance(error, LogTrimmedError)
            assert error.after == 0
            assert 1 < error.oldest <= oldest
        newest = (await broker.state()).newest
        assert offsets(await tailed(broker, oldest - 1, newest - oldest + 1)) == list(range(oldest, newest + 1))


@check
async def cancelled_tail_leaves_others(log: Log) -> None:
    async with opened(log) as broker, tailing(broker, 0) as other:
        async with tailing(broker, 0) as tail:
            await broker.append(drafts_of(1))
            await collect(tail, 1)
            waiting = asyncio.create_task(collect(tail, 1))
            await asyncio.sleep(0)
            waiting.cancel()
            assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
        await broker.append(drafts_of(1))
        assert offsets(await collect(other, 2)) == [1, 2]
        assert offsets(await tailed(broker, 1, 1)) == [2]


# The end.


@check
async def close_ends_tails(log: Log) -> None:
    async with opened(log) as broker, tailing(broker, 0) as tail:
        await broker.append(drafts_of(2))
        await collect(tail, 2)
        waiting = asyncio.create_task(_rest(tail))
        await asyncio.sleep(0)
        async with patiently():
            await broker.close()
            assert await waiting == []


async def _rest(tail: AsyncIterator[list[Record]]) -> list[Record]:
    return [record async for records in tail for record in records]


@check
async def closed_broker_refuses(log: Log) -> None:
    async with opened(log) as broker:
        await broker.append(drafts_of(1))
        await broker.close()
        await broker.close()
        await refused(broker, drafts_of(1))
        results = await asyncio.gather(broker.read(0, 1), broker.state(), return_exceptions=True)
        assert [type(result) for result in results] == [BrokerError, BrokerError]


@check
async def close_without_open(log: Log) -> None:
    await log.broker().close()


# Everything at once.


@check
async def everything_at_once(log: Log) -> None:
    """Append, ask for the state, read pages and start tails concurrently: one epoch, each record once."""
    async with opened(log) as broker:
        await _use([broker], 4, 25)


@check_if(SHARED)
async def everything_at_once_on_two_brokers(log: Log) -> None:
    async with opened(log) as one, opened(log) as two:
        await _use([one, two], 4, 20)


async def _use(brokers: list[Broker], publishers: int, each: int) -> None:
    """Use all brokers of a log in all ways while ``publishers`` append ``each`` records."""
    total = publishers * each
    epoch = (await brokers[0].state()).epoch
    publishing = [
        asyncio.create_task(append_one_by_one(brokers[number % len(brokers)], each)) for number in range(publishers)
    ]
    watching = [
        asyncio.create_task(watch(broker, epoch, total))
        for broker in brokers
        for watch in (_watch_state, _watch_pages, _watch_tails)
    ]
    async with patiently():
        try:
            await asyncio.gather(*publishing, *watching)
        finally:
            for task in (*publishing, *watching):
                task.cancel()
            await asyncio.gather(*publishing, *watching, return_exceptions=True)
    for broker in brokers:
        state, records = await broker.read(0, total + 1)
        assert state == LogState(epoch, 1, total)
        assert offsets(records) == list(range(1, total + 1))


async def _watch_state(broker: Broker, epoch: str, total: int) -> None:
    newest = 0
    while newest < total:
        state = await broker.state()
        assert state.epoch == epoch
        assert state.newest >= newest
        newest = state.newest
        await asyncio.sleep(0)


async def _watch_pages(broker: Broker, epoch: str, total: int) -> None:
    after = 0
    while after < total:
        state, records = await broker.read(after, 7)
        assert state.epoch == epoch
        assert offsets(records) == list(range(after + 1, after + len(records) + 1))
        assert len(records) == 7 or after + len(records) == state.newest
        after += len(records)
        await asyncio.sleep(0)


async def _watch_tails(broker: Broker, epoch: str, total: int) -> None:
    """Read everything from several tails, each of which continues the one before it."""
    after = 0
    while after < total:
        count = min(40, total - after)
        tail = broker.tail(Cursor(epoch, after))
        records = await collect(tail, count)
        await tail.aclose()  # type: ignore[attr-defined]
        assert offsets(records) == list(range(after + 1, after + len(records) + 1))
        after += len(records)
