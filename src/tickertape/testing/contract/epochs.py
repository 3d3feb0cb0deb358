"""Checks of epochs, and of several processes on one log."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Final

from ...broker import LogState, Record
from ...errors import BrokerError, LogResetError
from ...wire import Cursor, Draft
from .checks import PROCESSES, SHARED, Log, check_if, check_unless, patiently
from .steps import collect, drafts_of, offsets, opened, raised, tailed, tailing

_PUBLISHER: Final = Path(__file__).with_name("publisher.py")


# Epochs.


@check_unless(SHARED)
async def unshared_logs_have_different_epochs(log: Log) -> None:
    async with opened(log) as one, opened(log) as two:
        assert (await one.state()).epoch != (await two.state()).epoch


@check_if(SHARED)
async def log_outlives_its_brokers(log: Log) -> None:
    async with opened(log) as broker:
        before = await broker.state()
        cursors = await broker.append([*drafts_of(4), Draft("t", "keyed", key="k")])
    async with opened(log) as broker:
        assert await broker.state() == LogState(before.epoch, 1, 5)
        assert [record.data for record in (await broker.read(0, 10)).records] == ["1", "2", "3", "4", "keyed"]
        assert await broker.append([Draft("t", "again", key="k"), *drafts_of(1)]) == [
            cursors[-1],
            Cursor(before.epoch, 6),
        ]


@check_if(SHARED)
async def concurrent_first_opens(log: Log) -> None:
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
async def wiped_log_gets_a_new_epoch(log: Log) -> None:
    async with opened(log) as broker:
        before = await broker.state()
        await broker.append(drafts_of(3))
        async with tailing(broker, 3) as tail:
            waiting = asyncio.create_task(raised(tail, LogResetError))
            await asyncio.sleep(0)
            await log.wipe()
            async with opened(log) as other:
                await other.append([Draft("t", "new")])
                await waiting
                after = await broker.state()
                assert after.epoch != before.epoch
                assert after == await other.state()
                assert await broker.append(drafts_of(1)) == [Cursor(after.epoch, after.newest + 1)]
                assert len(await tailed(broker, after.oldest - 1, 2)) == 2


@check_if(SHARED)
async def append_after_a_wipe(log: Log) -> None:
    async with opened(log) as broker:
        before = await broker.state()
        await broker.append(drafts_of(3))
        await log.wipe()
        async with opened(log) as other:
            after = await other.state()
            try:
                cursors = await broker.append(drafts_of(1))
            except BrokerError:
                cursors = []
            assert after.epoch != before.epoch
            assert all(cursor.epoch == after.epoch for cursor in cursors)
            assert [cursor.offset for cursor in cursors] == offsets((await other.read(0, 10)).records)


# Several processes.


@check_if(PROCESSES)
async def two_processes_append_in_one_order(log: Log) -> None:
    publishers, batches = 16, 8
    total = 2 * publishers * batches * 2
    async with opened(log) as broker, tailing(broker, 0) as tail:
        collecting = asyncio.create_task(collect(tail, total))
        programs = [await _start_publisher(log, name, publishers, batches) for name in ("one", "two")]
        try:
            async with patiently():
                outputs = [(await program.communicate())[0] for program in programs]
            # Their errors are printed to standard error.
            assert [program.returncode for program in programs] == [0, 0], f"with the opener {log.traits.opener!r}"
            records = await collecting
        finally:
            await _end(collecting, programs)
    assert offsets(records) == list(range(1, total + 1))
    acknowledged = [entry for output in outputs for entry in json.loads(output)]
    assert sorted(offset for offset, _ in acknowledged) == list(range(1, total + 1))
    assert {record.offset: record.data for record in records} == dict(acknowledged)
    _assert_order_of_each_publisher(records)


def _assert_order_of_each_publisher(records: list[Record]) -> None:
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
    # The same modules as in this process, without the directory of the program.
    path = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        str(_PUBLISHER),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
