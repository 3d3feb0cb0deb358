"""Checks of states, pages and retention."""

from __future__ import annotations

import asyncio

from ...broker import Broker, LogState, Page, Retention
from ...wire import Draft
from .checks import SHARED, Log, check, check_if
from .steps import appending, drafts_of, offsets, opened, until

# States.


@check
async def state_is_current(log: Log) -> None:
    async with opened(log) as broker:
        before = await broker.state()
        await broker.append(drafts_of(3))
        after = await broker.state()
        assert (after.epoch, after.oldest, after.newest) == (before.epoch, 1, 3)


@check
async def state_equals_what_open_returned(log: Log) -> None:
    broker = log.broker()
    try:
        opened_state = await broker.open()
        assert [await broker.state() for _ in range(5)] == [opened_state] * 5
    finally:
        await broker.close()


@check
async def state_while_appending(log: Log) -> None:
    """States change nothing: the epoch stays the same, and ``newest`` never falls."""
    async with opened(log) as broker:
        epoch = (await broker.state()).epoch
        newest = 0
        async with appending(broker, 100) as done:
            while not done():
                states = await asyncio.gather(*(broker.state() for _ in range(3)))
                assert {state.epoch for state in states} == {epoch}
                assert min(state.newest for state in states) >= newest
                newest = max(state.newest for state in states)
        assert await broker.state() == LogState(epoch, 1, 100)


# Pages.


@check
async def pages_are_read_by_offset(log: Log) -> None:
    async with opened(log) as broker:
        await broker.append(drafts_of(25))
        pages, after = list[list[int]](), 0
        while records := (await broker.read(after, 10)).records:
            pages.append(offsets(records))
            after = records[-1].offset
        assert pages == [list(range(1, 11)), list(range(11, 21)), list(range(21, 26))]
        assert offsets((await broker.read(24, 10)).records) == [25]
        assert (await broker.read(25, 10)).records == (await broker.read(99, 10)).records == []


@check
async def short_page_means_the_end(log: Log) -> None:
    async with opened(log) as broker:
        for _ in range(4):
            await broker.append(drafts_of(700, topic="often"))
            await broker.append([Draft("rare", "here")])
        found = (await broker.read(0, 3, lambda topic: topic == "rare")).records
        assert offsets(found) == [701, 1402, 2103]
        assert offsets((await broker.read(2103, 3, lambda topic: topic == "rare")).records) == [2804]
        assert (await broker.read(0, 3, lambda topic: topic == "never")).records == []
        assert offsets((await broker.read(700, 2, lambda topic: topic != "rare")).records) == [702, 703]


@check
async def page_is_of_one_moment(log: Log) -> None:
    """A page has the state under which its records were read, while others are appended and dropped."""
    async with opened(log, Retention(events=50, bytes=None)) as broker:
        epoch = (await broker.state()).epoch
        async with appending(broker, 150) as done:
            while not done():
                pages = await asyncio.gather(broker.read(0, 1000), broker.read(0, 1000, lambda topic: True))
                for page in pages:
                    assert page.state.epoch == epoch
                    _assert_complete(page)
        _assert_complete(await broker.read(0, 1000))


@check_if(SHARED)
async def page_has_the_epoch_of_its_records(log: Log) -> None:
    """If the log is wiped, a page has old records under the old epoch, or new ones under the new epoch."""
    async with opened(log) as broker:
        before = (await broker.state()).epoch
        await broker.append([Draft("t", "before") for _ in range(50)])
        pages = [asyncio.create_task(broker.read(0, 100)) for _ in range(3)]
        await asyncio.sleep(0)
        await log.wipe()
        async with opened(log) as other:
            await other.append([Draft("t", "after")])
            after = (await other.state()).epoch
            pages += [asyncio.create_task(each.read(0, 100)) for each in (broker, other, broker, other)]
            found = [page for page in await asyncio.gather(*pages, return_exceptions=True) if isinstance(page, Page)]
            assert before != after
            for page in found:
                expected = {before: {"before"}, after: {"after"}}[page.state.epoch]
                assert {record.data for record in page.records} <= expected
            assert (await other.read(0, 100)).state == await other.state()


def _assert_complete(page: Page) -> None:
    """Check that a page has all records that its state says are kept."""
    kept = list(range(page.state.oldest, page.state.newest + 1))
    assert offsets(page.records) == kept


# Retention.


@check
async def retention_by_events(log: Log) -> None:
    limit = 50
    async with opened(log, Retention(events=limit, bytes=None)) as broker:
        for _ in range(12):
            await broker.append(drafts_of(25))
        state = await broker.state()
        assert state.newest == 300
        assert limit <= state.newest - state.oldest + 1 <= limit + log.traits.spare
        _assert_complete(await broker.read(0, 1000))


@check
async def retention_by_bytes(log: Log) -> None:
    size, limit = 1024, 64 * 1024
    async with opened(log, Retention(events=None, bytes=limit)) as broker:
        for _ in range(30):
            await broker.append(drafts_of(10, size=size))

        async def bounded() -> bool:
            state = await broker.state()
            return (state.newest - state.oldest + 1) * size <= limit + log.traits.spare * size

        await until(bounded)
        state = await broker.state()
        assert state.newest == 300
        # Stores may count their own overhead too, and drop whole batches; but they keep at least half.
        assert (state.newest - state.oldest + 1) * size >= limit / 2
        _assert_complete(await broker.read(0, 1000))


@check
async def retention_by_age(log: Log) -> None:
    async with opened(log, Retention(events=None, bytes=None, age=0.5)) as broker:
        await broker.append(drafts_of(5))

        async def forgotten() -> bool:
            return (await broker.state()).oldest == 6

        await until(forgotten)
        assert (await broker.read(0, 10)).records == []
        assert offsets(await broker.append(drafts_of(1))) == [6]


@check
async def read_skips_dropped_records(log: Log) -> None:
    async with opened(log, Retention(events=10, bytes=None)) as broker:
        await _append_until_dropped(broker)
        state, records = await broker.read(0, 5)
        assert offsets(records) == list(range(state.oldest, state.oldest + 5))


async def _append_until_dropped(broker: Broker) -> None:
    """Append until the first record is dropped."""

    async def dropped() -> bool:
        await broker.append(drafts_of(20))
        return (await broker.state()).oldest > 1

    await until(dropped)
