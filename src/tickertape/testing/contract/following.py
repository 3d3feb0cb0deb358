"""The contract's checks of reading, tails and retention."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ...broker import Broker, Record, Retention
from ...errors import BrokerError, LogTrimmedError
from ...wire import Draft
from .checks import SHARED, Log, check, check_if, patiently
from .steps import collect, drafts_of, offsets, opened, raised, refused, tailed, tailing, until

# Reading.


@check
async def pages_are_read_by_cursor(log: Log) -> None:
    async with opened(log) as broker:
        await broker.append(drafts_of(25))
        pages, after = list[list[int]](), 0
        while page := (await broker.read(after, 10)).records:
            pages.append(offsets(page))
            after = page[-1].offset
        assert pages == [list(range(1, 11)), list(range(11, 21)), list(range(21, 26))]
        assert offsets((await broker.read(24, 10)).records) == [25]
        assert (await broker.read(25, 10)).records == (await broker.read(99, 10)).records == []


@check
async def fewer_than_the_limit_mean_the_end_also_with_a_filter(log: Log) -> None:
    async with opened(log) as broker:
        for _ in range(4):
            await broker.append(drafts_of(700, topic="often"))
            await broker.append([Draft("rare", "here")])
        found = (await broker.read(0, 3, lambda topic: topic == "rare")).records
        assert offsets(found) == [701, 1402, 2103]
        assert offsets((await broker.read(2103, 3, lambda topic: topic == "rare")).records) == [2804]
        assert (await broker.read(0, 3, lambda topic: topic == "never")).records == []
        assert offsets((await broker.read(700, 2, lambda topic: topic != "rare")).records) == [702, 703]


# Tails.


@check
async def a_tail_that_starts_before_any_record_gets_the_first(log: Log) -> None:
    async with opened(log) as broker, tailing(broker, 0) as tail:
        first = asyncio.create_task(collect(tail, 1))
        await asyncio.sleep(0)
        await broker.append(drafts_of(1))
        assert await first == [Record(1, "numbers", None, "1")]


@check
async def a_tail_goes_on_from_any_offset_without_a_hole(log: Log) -> None:
    async with opened(log) as broker:
        await broker.append(drafts_of(30))
        for after in (0, 1, 17, 29):
            assert offsets(await tailed(broker, after, 30 - after)) == list(range(after + 1, 31))


@check
async def between_a_read_and_a_tail_is_no_hole_while_others_append(log: Log) -> None:
    async with opened(log) as broker:
        appending = asyncio.create_task(_append_one_by_one(broker, 200))
        history: list[Record] = []
        while len(history) < 50:
            history += (await broker.read(history[-1].offset if history else 0, 20)).records
            await asyncio.sleep(0)
        rest = await tailed(broker, history[-1].offset, 200 - len(history))
        await appending
        assert offsets([*history, *rest]) == list(range(1, 201))


async def _append_one_by_one(broker: Broker, count: int) -> None:
    for draft in drafts_of(count):
        await broker.append([draft])


@check
async def all_tails_get_the_same_records(log: Log) -> None:
    async with opened(log) as broker, tailing(broker, 0) as one, tailing(broker, 0) as two, tailing(broker, 0) as late:
        collecting = [asyncio.create_task(collect(tail, 60)) for tail in (one, two)]
        await asyncio.gather(*(broker.append(drafts_of(3)) for _ in range(20)))
        first, second = await asyncio.gather(*collecting)
        assert first == second == await collect(late, 60) == (await broker.read(0, 100)).records
        assert offsets(first) == list(range(1, 61))
        await broker.append(drafts_of(1))
        assert [offsets(await collect(tail, 1)) for tail in (one, two, late)] == [[61], [61], [61]]


@check_if(SHARED)
async def a_tail_gets_what_another_broker_appends(log: Log) -> None:
    async with opened(log) as writer, opened(log) as reader, tailing(reader, 0) as tail:
        for number in range(1, 21):
            cursors = await writer.append(drafts_of(2))
            assert offsets(await collect(tail, 2)) == offsets(cursors) == [2 * number - 1, 2 * number]


@check
async def a_tail_that_is_cancelled_ends_and_disturbs_no_other(log: Log) -> None:
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


@check
async def closing_ends_waiting_tails(log: Log) -> None:
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
async def a_closed_broker_refuses_and_may_be_closed_again(log: Log) -> None:
    async with opened(log) as broker:
        await broker.append(drafts_of(1))
        await broker.close()
        await broker.close()
        await refused(broker, drafts_of(1))
        results = await asyncio.gather(broker.read(0, 1), broker.open(), return_exceptions=True)
        assert [type(result) for result in results] == [BrokerError, BrokerError]


@check
async def closing_what_was_never_opened_does_nothing(log: Log) -> None:
    await log.broker().close()


# Retention.


@check
async def no_more_records_are_kept_than_asked_for(log: Log) -> None:
    limit = 50
    async with opened(log, Retention(events=limit, bytes=None)) as broker:
        for _ in range(12):
            await broker.append(drafts_of(25))
        state = await broker.open()
        assert state.newest == 300
        assert limit <= state.newest - state.oldest + 1 <= limit + log.traits.spare
        assert offsets((await broker.read(0, 1000)).records) == list(range(state.oldest, 301))


@check
async def no_more_bytes_are_kept_than_asked_for(log: Log) -> None:
    size, limit = 1024, 64 * 1024
    async with opened(log, Retention(events=None, bytes=limit)) as broker:
        for _ in range(30):
            await broker.append(drafts_of(10, size=size))

        async def bounded() -> bool:
            state = await broker.open()
            return (state.newest - state.oldest + 1) * size <= limit + log.traits.spare * size

        await until(bounded)
        state = await broker.open()
        assert state.newest == 300
        # Stores may count their own overhead too, and drop whole batches; but they keep a good part.
        assert (state.newest - state.oldest + 1) * size >= limit / 2
        assert offsets((await broker.read(0, 1000)).records) == list(range(state.oldest, 301))


@check
async def records_are_dropped_when_they_are_old(log: Log) -> None:
    async with opened(log, Retention(events=None, bytes=None, age=0.5)) as broker:
        await broker.append(drafts_of(5))

        async def forgotten() -> bool:
            return (await broker.open()).oldest == 6

        await until(forgotten)
        assert (await broker.read(0, 10)).records == []
        assert offsets(await broker.append(drafts_of(1))) == [6]


@check
async def reading_behind_trimmed_records_passes_over_them(log: Log) -> None:
    async with opened(log, Retention(events=10, bytes=None)) as broker:
        await _trim(broker)
        state = await broker.open()
        found = (await broker.read(0, 5)).records
        assert offsets(found) == list(range(state.oldest, state.oldest + 5))


@check
async def a_tail_behind_trimmed_records_says_so(log: Log) -> None:
    async with opened(log, Retention(events=10, bytes=None)) as broker:
        await _trim(broker)
        oldest = (await broker.open()).oldest
        async with tailing(broker, 0) as tail:
            error = await raised(tail, LogTrimmedError)
            assert isinstance(error, LogTrimmedError)
            assert error.after == 0
            assert 1 < error.oldest <= oldest
        newest = (await broker.open()).newest
        assert offsets(await tailed(broker, oldest - 1, newest - oldest + 1)) == list(range(oldest, newest + 1))


async def _trim(broker: Broker) -> None:
    """Append until the first record is dropped."""

    async def trimmed() -> bool:
        await broker.append(drafts_of(20))
        return (await broker.open()).oldest > 1

    await until(trimmed)
