"""The contract's checks of a log's lives, of what an event may carry, and of several processes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Final

from ...broker import Record
from ...errors import BrokerError, LogResetError
from ...wire import Cursor, Draft
from .checks import ONE_SIZE, PROCESSES, SHARED, TEXT, Log, check, check_if, check_unless, patiently
from .steps import collect, drafts_of, offsets, opened, raised, refused, tailed, tailing

_PUBLISHER: Final = Path(__file__).with_name("publisher.py")


# Another life.


@check_unless(SHARED)
async def a_log_that_is_not_shared_has_another_epoch_each_time(log: Log) -> None:
    async with opened(log) as one, opened(log) as two:
        assert (await one.open()).epoch != (await two.open()).epoch


@check_if(SHARED)
async def a_log_outlives_its_brokers(log: Log) -> None:
    async with opened(log) as broker:
        before = await broker.open()
        cursors = await broker.append([*drafts_of(4), Draft("t", "keyed", key="k")])
    async with opened(log) as broker:
        assert await broker.open() == (before.epoch, 1, 5)
        assert [record.data for record in (await broker.read(0, 10)).records] == ["1", "2", "3", "4", "keyed"]
        assert await broker.append([Draft("t", "again", key="k"), *drafts_of(1)]) == [
            cursors[-1],
            Cursor(before.epoch, 6),
        ]


@check_if(SHARED)
async def brokers_that_make_a_log_at_once_make_one(log: Log) -> None:
    brokers = [log.broker() for _ in range(6)]
    try:
        async with patiently():
            states = await asyncio.gather(*(broker.open() for broker in brokers))
        assert len({state.epoch for state in states}) == 1
        appended = await asyncio.gather(*(broker.append(drafts_of(1)) for broker in brokers))
        assert sorted(cursors[0].offset for cursors in appended) == [1, 2, 3, 4, 5, 6]
    finally:
        await asyncio.gather(*(broker.close() for broker in brokers))


@check_if(SHARED)
async def a_wiped_log_is_another_log(log: Log) -> None:
    async with opened(log) as broker:
        before = await broker.open()
        await broker.append(drafts_of(3))
        async with tailing(broker, 3) as tail:
            waiting = asyncio.create_task(raised(tail, LogResetError))
            await asyncio.sleep(0)
            await log.wipe()
            async with opened(log) as other:
                await other.append([Draft("t", "another life")])
                await waiting
                after = await broker.open()
                assert after.epoch != before.epoch
                assert after == await other.open()
                assert await broker.append(drafts_of(1)) == [Cursor(after.epoch, after.newest + 1)]
                assert len(await tailed(broker, after.oldest - 1, 2)) == 2


@check_if(SHARED)
async def nothing_is_acknowledged_under_the_epoch_of_a_wiped_log(log: Log) -> None:
    async with opened(log) as broker:
        before = await broker.open()
        await broker.append(drafts_of(3))
        await log.wipe()
        async with opened(log) as other:
            after = await other.open()
            try:
                cursors = await broker.append(drafts_of(1))
            except BrokerError:
                cursors = []
            assert after.epoch != before.epoch
            assert all(cursor.epoch == after.epoch for cursor in cursors)
            assert [cursor.offset for cursor in cursors] == offsets((await other.read(0, 10)).records)


# What an event may carry.


@check
async def all_text_comes_back_as_it_was(log: Log) -> None:
    texts = ["", " ", "\n", "a\r\nb\rc\n", "äöü ß € 你好 😀", "\u2028\u0085\ufeff", "'\"\\;--%s{}$1", "\t\x01\x7f"]
    drafts = [Draft(f"topic/{number}", text, event=text[:1].strip() or None) for number, text in enumerate(texts)]
    async with opened(log) as broker:
        await broker.append(drafts)
        records = (await broker.read(0, 100)).records
        found = [(record.topic, record.data, record.event) for record in records]
        assert found == [(draft.topic, draft.data, draft.event) for draft in drafts]
        assert await tailed(broker, 0, len(texts)) == records


@check
async def no_event_type_is_another_than_an_empty_one(log: Log) -> None:
    async with opened(log) as broker:
        await broker.append([Draft("t", ""), Draft("t", "", event=""), Draft("тема/ü", "", event="тип")])
        assert [record[1:3] for record in (await broker.read(0, 3)).records] == [
            ("t", None),
            ("t", ""),
            ("тема/ü", "тип"),
        ]


@check_if(ONE_SIZE)
async def an_event_of_a_mebibyte_is_kept(log: Log) -> None:
    data = "é" * (1024 * 1024 // 2)
    async with opened(log) as broker:
        await broker.append([Draft("t", data), Draft("t", "small"), Draft("t", data)])
        assert [record.data == data for record in (await broker.read(0, 3)).records] == [True, False, True]
        assert [record.data == data for record in await tailed(broker, 0, 3)] == [True, False, True]


@check_unless(ONE_SIZE)
async def an_event_over_the_limit_is_refused_with_its_whole_batch(log: Log) -> None:
    limit = log.traits.max_data or 0
    async with opened(log) as broker:
        await broker.append([Draft("t", "x" * limit)])
        error = await refused(broker, [Draft("t", "small"), Draft("t", "x" * (limit * 2))])
        assert "expected" in str(error)
        assert (await broker.open()).newest == 1
        assert offsets(await broker.append(drafts_of(1))) == [2]


@check_if(TEXT)
async def text_with_nul_is_kept(log: Log) -> None:
    async with opened(log) as broker:
        await broker.append([Draft("t", "a\0b", event="c\0d", key="k\0"), Draft("t", "other", key="k")])
        assert [record[1:] for record in (await broker.read(0, 3)).records] == [
            ("t", "c\0d", "a\0b"),
            ("t", None, "other"),
        ]


@check_unless(TEXT)
async def text_with_nul_is_refused_with_its_whole_batch(log: Log) -> None:
    async with opened(log) as broker:
        for draft in (Draft("t", "a\0b"), Draft("t", "a", event="b\0c"), Draft("t", "a", key="k\0")):
            error = await refused(broker, [Draft("t", "fine"), draft])
            assert "U+0000" in str(error)
        assert (await broker.open()).newest == 0


@check
async def lone_surrogates_harm_nobody(log: Log) -> None:
    """Text that UTF-8 has no bytes for, as JSON may carry it, is kept or becomes U+FFFD, as on the wire."""
    async with opened(log) as broker:
        bad, fine = await asyncio.gather(broker.append([Draft("t", "a\ud800b")]), broker.append([Draft("t", "fine")]))
        records = {record.offset: record.data for record in (await broker.read(0, 10)).records}
        assert records[bad[0].offset] in ("a\ud800b", "a\ufffdb")
        assert records[fine[0].offset] == "fine"


# Several processes.


@check_if(PROCESSES)
async def two_processes_with_many_publishers_make_one_order(log: Log) -> None:
    publishers, batches = 16, 8
    total = 2 * publishers * batches * 2
    async with opened(log) as broker, tailing(broker, 0) as tail:
        collecting = asyncio.create_task(collect(tail, total))
        programs = [await _start_publisher(log, name, publishers, batches) for name in ("one", "two")]
        try:
            async with patiently():
                outputs = [(await program.communicate())[0] for program in programs]
            # What they complain of stands on standard error.
            assert [program.returncode for program in programs] == [0, 0], f"with the opener {log.traits.opener!r}"
            records = await collecting
        finally:
            await _end(collecting, programs)
    assert offsets(records) == list(range(1, total + 1))
    acknowledged = [entry for output in outputs for entry in json.loads(output)]
    assert sorted(offset for offset, _ in acknowledged) == list(range(1, total + 1))
    assert {record.offset: record.data for record in records} == dict(acknowledged)
    _each_publisher_in_its_own_order(records)


def _each_publisher_in_its_own_order(records: list[Record]) -> None:
    counts: dict[str, int] = {}
    for record in records:
        assert int(record.data.rpartition(" ")[2]) == counts.get(record.topic, 0)
        counts[record.topic] = counts.get(record.topic, 0) + 1


async def _end(collecting: asyncio.Task[list[Record]], programs: list[asyncio.subprocess.Process]) -> None:
    collecting.cancel()
    await asyncio.gather(collecting, return_exceptions=True)
    for program in programs:
        if program.returncode is None:
            program.kill()
            await program.wait()


async def _start_publisher(log: Log, name: str, publishers: int, batches: int) -> asyncio.subprocess.Process:
    arguments = (f"{log.traits.opener}", log.url, name, f"{publishers}", f"{batches}")
    # It finds what this process finds, and not its own directory in the first place.
    path = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        str(_PUBLISHER),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
