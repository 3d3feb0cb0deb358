"""Checks of appends, of keys, and of the text that an event can have."""

from __future__ import annotations

import asyncio

from ...broker import Record, Retention
from ...wire import Cursor, Draft
from .checks import NUL, SHARED, UNLIMITED_DATA, Log, check, check_if, check_unless
from .steps import assert_contiguous, drafts_of, offsets, opened, refused, tailed

# Appends.


@check
async def new_log_is_empty(log: Log) -> None:
    async with opened(log) as broker:
        state = await broker.state()
        assert (state.oldest, state.newest) == (1, 0)
        assert Cursor.parse(str(Cursor(state.epoch, 0))) == Cursor(state.epoch, 0)
        assert await broker.read(0, 10) == (state, [])


@check
async def records_are_read_in_order(log: Log) -> None:
    drafts = [Draft("a", "1"), Draft("b/c", "2", event="type"), Draft("a", "3", key="key")]
    async with opened(log) as broker:
        epoch = (await broker.state()).epoch
        assert await broker.append(drafts[:1]) == [Cursor(epoch, 1)]
        assert await broker.append(drafts[1:]) == [Cursor(epoch, 2), Cursor(epoch, 3)]
        expected = [Record(1, "a", None, "1"), Record(2, "b/c", "type", "2"), Record(3, "a", None, "3")]
        assert (await broker.read(0, 10)).records == expected
        assert await tailed(broker, 0, 3) == expected


@check
async def empty_append(log: Log) -> None:
    async with opened(log) as broker:
        assert await broker.append([]) == []
        assert (await broker.state()).newest == 0


@check
async def batches_stay_together(log: Log) -> None:
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
async def batch_of_1000(log: Log) -> None:
    async with opened(log) as broker:
        cursors = await broker.append(drafts_of(1000))
        assert offsets(cursors) == list(range(1, 1001))
        assert [record.data for record in (await broker.read(0, 2000)).records] == [
            f"{number}" for number in range(1, 1001)
        ]


@check
async def cancelled_append_is_whole_or_absent(log: Log) -> None:
    async with opened(log) as broker:
        tasks = [asyncio.create_task(broker.append([Draft(f"{n}", "a"), Draft(f"{n}", "b")])) for n in range(30)]
        await tasks[0]
        for task in tasks[::3]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for turns in range(10):  # alone, and at each of its first steps
            name = f"{len(tasks)}"
            tasks.append(asyncio.create_task(broker.append([Draft(name, "a"), Draft(name, "b")])))
            for _ in range(turns):
                await asyncio.sleep(0)
            tasks[-1].cancel()
            await asyncio.gather(tasks[-1], return_exceptions=True)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        # If the append of a cancelled caller continues, it is stored before this one.
        assert len(await broker.append([Draft("last", "a"), Draft("last", "b")])) == 2
        records = (await broker.read(0, 1000)).records
        assert_contiguous(records)
        by_topic: dict[str, list[str]] = {}
        for record in records:
            by_topic.setdefault(record.topic, []).append(record.data)
        assert all(data == ["a", "b"] for data in by_topic.values())
        stored = [f"{number}" for number, result in enumerate(results) if not isinstance(result, BaseException)]
        assert set(stored) <= by_topic.keys()


# Keys.


@check
async def key_appends_once(log: Log) -> None:
    async with opened(log) as broker:
        first = await broker.append([Draft("t", "1", key="k")])
        assert await broker.append([Draft("t", "again", key="k")]) == first
        assert offsets(await broker.append([Draft("t", "2", key="other")])) == [2]
        assert [record.data for record in (await broker.read(0, 10)).records] == ["1", "2"]


@check
async def key_twice_in_a_batch(log: Log) -> None:
    batch = [Draft("t", "1", key="k"), Draft("t", "2"), Draft("t", "again", key="k"), Draft("t", "3", key="l")]
    async with opened(log) as broker:
        assert offsets(await broker.append(batch)) == [1, 2, 1, 3]
        assert [record.data for record in (await broker.read(0, 10)).records] == ["1", "2", "3"]


@check
async def known_keys_leave_no_holes(log: Log) -> None:
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
async def concurrent_appends_of_a_key(log: Log) -> None:
    async with opened(log) as broker:
        appended = await asyncio.gather(*(broker.append([Draft("t", f"{n % 5}", key=f"{n % 5}")]) for n in range(50)))
        records = (await broker.read(0, 100)).records
        assert sorted(record.data for record in records) == ["0", "1", "2", "3", "4"]
        offset_of = {record.data: record.offset for record in records}
        assert [cursors[0].offset for cursors in appended] == [offset_of[f"{n % 5}"] for n in range(50)]


@check_if(SHARED)
async def key_through_two_brokers(log: Log) -> None:
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
async def keys_go_with_their_records(log: Log) -> None:
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


# Text.


@check
async def text_is_unchanged(log: Log) -> None:
    texts = ["", " ", "\n", "a\r\nb\rc\n", "äöü ß € 你好 😀", "\u2028\u0085\ufeff", "'\"\\;--%s{}$1", "\t\x01\x7f"]
    drafts = [Draft(f"topic/{number}", text, event=text[:1].strip() or None) for number, text in enumerate(texts)]
    async with opened(log) as broker:
        await broker.append(drafts)
        records = (await broker.read(0, 100)).records
        found = [(record.topic, record.data, record.event) for record in records]
        assert found == [(draft.topic, draft.data, draft.event) for draft in drafts]
        assert await tailed(broker, 0, len(texts)) == records


@check
async def empty_event_type_is_not_none(log: Log) -> None:
    async with opened(log) as broker:
        await broker.append([Draft("t", ""), Draft("t", "", event=""), Draft("тема/ü", "", event="тип")])
        assert [record[1:3] for record in (await broker.read(0, 3)).records] == [
            ("t", None),
            ("t", ""),
            ("тема/ü", "тип"),
        ]


@check_if(UNLIMITED_DATA)
async def event_of_1_mib(log: Log) -> None:
    data = "é" * (1024 * 1024 // 2)
    async with opened(log) as broker:
        await broker.append([Draft("t", data), Draft("t", "small"), Draft("t", data)])
        assert [record.data == data for record in (await broker.read(0, 3)).records] == [True, False, True]
        assert [record.data == data for record in await tailed(broker, 0, 3)] == [True, False, True]


@check_unless(UNLIMITED_DATA)
async def event_over_the_limit_is_refused(log: Log) -> None:
    limit = log.traits.max_data or 0
    async with opened(log) as broker:
        await broker.append([Draft("t", "x" * limit)])
        await refused(broker, [Draft("t", "small"), Draft("t", "x" * (limit * 2))])
        assert (await broker.state()).newest == 1
        assert offsets(await broker.append(drafts_of(1))) == [2]


@check_if(NUL)
async def text_with_nul(log: Log) -> None:
    async with opened(log) as broker:
        await broker.append([Draft("t", "a\0b", event="c\0d", key="k\0"), Draft("t", "other", key="k")])
        assert [record[1:] for record in (await broker.read(0, 3)).records] == [
            ("t", "c\0d", "a\0b"),
            ("t", None, "other"),
        ]


@check_unless(NUL)
async def text_with_nul_is_refused(log: Log) -> None:
    async with opened(log) as broker:
        for draft in (Draft("t", "a\0b"), Draft("t", "a", event="b\0c"), Draft("t", "a", key="k\0")):
            error = await refused(broker, [Draft("t", "fine"), draft])
            assert "U+0000" in str(error)
        assert (await broker.state()).newest == 0
