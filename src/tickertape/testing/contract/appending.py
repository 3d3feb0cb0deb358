"""The contract's checks of appending and of keys."""

from __future__ import annotations

import asyncio

from ...broker import Record, Retention
from ...wire import Cursor, Draft
from .checks import SHARED, Log, check, check_if
from .steps import assert_whole, drafts_of, offsets, opened, tailed

# Appending.


@check
async def a_new_log_is_empty(log: Log) -> None:
    async with opened(log) as broker:
        state = await broker.open()
        assert (state.oldest, state.newest) == (1, 0)
        assert Cursor.parse(str(Cursor(state.epoch, 0))) == Cursor(state.epoch, 0)
        assert (await broker.read(0, 10)).records == []


@check
async def appended_records_come_back_in_order(log: Log) -> None:
    drafts = [Draft("a", "1"), Draft("b/c", "2", event="type"), Draft("a", "3", key="key")]
    async with opened(log) as broker:
        epoch = (await broker.open()).epoch
        assert await broker.append(drafts[:1]) == [Cursor(epoch, 1)]
        assert await broker.append(drafts[1:]) == [Cursor(epoch, 2), Cursor(epoch, 3)]
        expected = [Record(1, "a", None, "1"), Record(2, "b/c", "type", "2"), Record(3, "a", None, "3")]
        assert (await broker.read(0, 10)).records == expected
        assert await tailed(broker, 0, 3) == expected


@check
async def opening_again_tells_the_present_state(log: Log) -> None:
    async with opened(log) as broker:
        first = await broker.open()
        await broker.append(drafts_of(3))
        again = await broker.open()
        assert (again.epoch, again.oldest, again.newest) == (first.epoch, 1, 3)


@check
async def appending_nothing_changes_nothing(log: Log) -> None:
    async with opened(log) as broker:
        assert await broker.append([]) == []
        assert (await broker.open()).newest == 0


@check
async def concurrent_batches_are_never_mixed(log: Log) -> None:
    async with opened(log) as broker:
        batches = [[Draft(f"batch/{batch}", f"{number}") for number in range(batch % 5 + 1)] for batch in range(40)]
        appended = await asyncio.gather(*(broker.append(batch) for batch in batches))
        records = (await broker.read(0, 1000)).records
        assert offsets(records) == list(range(1, sum(map(len, batches)) + 1))
        for batch, cursors in zip(batches, appended, strict=True):
            first = cursors[0].offset
            assert offsets(cursors) == list(range(first, first + len(batch)))
            stored = records[first - 1 : first - 1 + len(batch)]
            assert [Draft(record.topic, record.data) for record in stored] == batch


@check
async def a_batch_of_a_thousand_is_one_append(log: Log) -> None:
    async with opened(log) as broker:
        cursors = await broker.append(drafts_of(1000))
        assert offsets(cursors) == list(range(1, 1001))
        assert [record.data for record in (await broker.read(0, 2000)).records] == [
            f"{number}" for number in range(1, 1001)
        ]


@check
async def a_cancelled_append_happened_or_not(log: Log) -> None:
    async with opened(log) as broker:
        tasks = [asyncio.create_task(broker.append([Draft(f"{n}", "a"), Draft(f"{n}", "b")])) for n in range(30)]
        await tasks[0]
        for task in tasks[::3]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for turns in range(10):  # and alone, at each of its first steps
            name = f"{len(tasks)}"
            tasks.append(asyncio.create_task(broker.append([Draft(name, "a"), Draft(name, "b")])))
            for _ in range(turns):
                await asyncio.sleep(0)
            tasks[-1].cancel()
            await asyncio.gather(tasks[-1], return_exceptions=True)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        records = (await broker.read(0, 1000)).records
        assert_whole(records)
        by_topic: dict[str, list[str]] = {}
        for record in records:
            by_topic.setdefault(record.topic, []).append(record.data)
        assert all(data == ["a", "b"] for data in by_topic.values())
        kept = [f"{number}" for number, result in enumerate(results) if not isinstance(result, BaseException)]
        assert set(kept) <= by_topic.keys()
        assert len(await broker.append(drafts_of(1))) == 1


# Keys.


@check
async def a_key_appends_once(log: Log) -> None:
    async with opened(log) as broker:
        first = await broker.append([Draft("t", "1", key="k")])
        assert await broker.append([Draft("t", "again", key="k")]) == first
        assert offsets(await broker.append([Draft("t", "2", key="other")])) == [2]
        assert [record.data for record in (await broker.read(0, 10)).records] == ["1", "2"]


@check
async def a_key_twice_in_one_batch_appends_once(log: Log) -> None:
    batch = [Draft("t", "1", key="k"), Draft("t", "2"), Draft("t", "again", key="k"), Draft("t", "3", key="l")]
    async with opened(log) as broker:
        assert offsets(await broker.append(batch)) == [1, 2, 1, 3]
        assert [record.data for record in (await broker.read(0, 10)).records] == ["1", "2", "3"]


@check
async def known_keys_within_a_batch_leave_no_holes(log: Log) -> None:
    async with opened(log) as broker:
        await broker.append([Draft("t", "1", key="k"), Draft("t", "2", key="l")])
        cursors = await broker.append([Draft("t", "3"), Draft("t", "x", key="l"), Draft("t", "4", key="m")])
        assert offsets(cursors) == [3, 2, 4]
        assert offsets(await broker.append([Draft("t", "x", key="k"), Draft("t", "x", key="m")])) == [1, 4]
        assert [record.data for record in (await broker.read(0, 10)).records] == ["1", "2", "3", "4"]


@check
async def keys_are_compared_exactly(log: Log) -> None:
    keys = ["k", "K", "k ", " k", "ключ", "é", "e\u0301", "k/1", "k:1", "k'", 'k"', "k*", "x" * 255]
    async with opened(log) as broker:
        first = [(await broker.append([Draft("t", key, key=key)]))[0].offset for key in keys]
        assert first == list(range(1, len(keys) + 1))
        assert offsets(await broker.append([Draft("t", "x", key=key) for key in keys])) == first


@check
async def concurrent_retries_of_a_key_append_once(log: Log) -> None:
    async with opened(log) as broker:
        appended = await asyncio.gather(*(broker.append([Draft("t", f"{n % 5}", key=f"{n % 5}")]) for n in range(50)))
        records = (await broker.read(0, 100)).records
        assert sorted(record.data for record in records) == ["0", "1", "2", "3", "4"]
        offset_of = {record.data: record.offset for record in records}
        assert [cursors[0].offset for cursors in appended] == [offset_of[f"{n % 5}"] for n in range(50)]


@check_if(SHARED)
async def a_key_appends_once_through_two_brokers(log: Log) -> None:
    async with opened(log) as one, opened(log) as two:
        brokers = (one, two)
        appended = await asyncio.gather(
            *(brokers[n % 2].append([Draft("t", "x"), Draft("t", f"{n // 10}", key=f"{n // 10}")]) for n in range(50))
        )
        records = (await two.read(0, 200)).records
        assert offsets(records) == list(range(1, 56))
        offset_of = {record.data: record.offset for record in records}
        assert [cursors[1].offset for cursors in appended] == [offset_of[f"{n // 10}"] for n in range(50)]


@check
async def keys_are_known_while_their_records_are_kept_and_then_forgotten(log: Log) -> None:
    kept = 20
    async with opened(log, Retention(events=kept, bytes=None)) as broker:
        first = (await broker.append([Draft("t", "keyed", key="k")]))[0]
        await broker.append(drafts_of(kept - 1))
        assert await broker.append([Draft("t", "again", key="k")]) == [first]
        appended = kept
        for _ in range(200):
            appended = (await broker.append(drafts_of(kept)))[-1].offset
            (cursor,) = await broker.append([Draft("t", "again", key="k")])
            if cursor != first:
                break
            assert log.traits.keys_linger or log.traits.spare
        assert cursor == Cursor(first.epoch, appended + 1)
