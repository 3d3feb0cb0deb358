"""The SQLite broker when processes are killed or stopped, the disk is full, or the file is read-only."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

from tickertape.broker import SQLiteBroker
from tickertape.testing.contract.checks import PATIENCE
from tickertape.wire import Draft

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")

_PUBLISHER: Final = """
import asyncio, itertools, sys
from tickertape.broker import create_broker
from tickertape.wire import Draft

async def publish(broker, name):
    for number in itertools.count():
        drafts = [Draft(name, f"{name} {number} {part}", key=f"{name} {number} {part}") for part in "ab"]
        cursors = await broker.append(drafts)
        sys.stdout.write("".join(f"{cursor.offset} {draft.data}\\n" for cursor, draft in zip(cursors, drafts)))
        sys.stdout.flush()

async def main():
    broker = create_broker(sys.argv[1])
    await broker.open()
    await asyncio.gather(*(publish(broker, f"{sys.argv[2]}-{each}") for each in range(8)))

asyncio.run(main())
"""
"""Publishes, and prints acknowledged records line by line, until it is killed."""

_FILLER: Final = """
import asyncio, resource, sys
from pathlib import Path
from tickertape.broker import create_broker
from tickertape.errors import BrokerError
from tickertape.wire import Draft

LIMIT = 1024 * 1024

async def main():
    broker = create_broker(sys.argv[1])
    await broker.open()
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
    stored = 0
    try:
        while stored < 10_000:
            stored = (await broker.append([Draft("t", "x" * 1000)] * 10))[-1].offset
    except BrokerError as error:
        sys.stderr.write(str(error))
    assert [record.offset for record in (await broker.read(0, 10_000)).records] == list(range(1, stored + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert (await broker.append([Draft("t", "space again")]))[0].offset == stored + 1
    await broker.close()
    print(stored)

asyncio.run(main())
"""
"""Appends until the file may not grow any more, and again when it may."""

_STRANGER: Final = """
import asyncio, os, sys
from tickertape.broker import create_broker
from tickertape.errors import BrokerError
from tickertape.wire import Draft

async def main():
    broker = create_broker(sys.argv[1])
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        await broker.open()
        await broker.append([Draft("t", "x")])
    except BrokerError as error:
        sys.stderr.write(str(error))
    await broker.close()

asyncio.run(main())
"""
"""Appends as a user who does not own the file."""


@asynccontextmanager
async def running(program: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def run(program: str, *arguments: str) -> tuple[str, str]:
    async with running(program, *arguments) as process, asyncio.timeout(PATIENCE):
        out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return out.decode(), error.decode()


async def lines_of(process: asyncio.subprocess.Process, count: int) -> list[str]:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        return [(await process.stdout.readline()).decode() for _ in range(count)]


async def rest_of(process: asyncio.subprocess.Process) -> list[str]:
    """Kill a process under load, and return the rest of its output."""
    assert process.stdout is not None
    process.send_signal(signal.SIGKILL)
    return (await process.stdout.read()).decode().splitlines(keepends=True)


@pytest.mark.parametrize("synchronous", ["full", "normal"])
async def test_kill(synchronous: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db?synchronous={synchronous}"
    output: list[str] = []
    for life in range(3):
        async with running(_PUBLISHER, url, f"one{life}") as one, running(_PUBLISHER, url, f"two{life}") as two:
            for process in (one, two):
                output += await lines_of(process, 100)
            output += await rest_of(one)
            output += await lines_of(two, 100)  # the other continues
            output += await rest_of(two)
    acknowledged = [line.rstrip("\n").split(" ", 1) for line in output if line.endswith("\n")]
    broker = SQLiteBroker.from_url(url)
    await broker.open()
    records = (await broker.read(0, 1_000_000)).records
    await broker.close()
    assert [record.offset for record in records] == list(range(1, len(records) + 1))
    stored = {record.data: record.offset for record in records}
    assert len(stored) == len(records), "a record is stored twice"
    assert {data: int(offset) for offset, data in acknowledged}.items() <= stored.items()
    for record in records:  # batches are whole
        other = record.data[:-1] + ("b" if record.data.endswith("a") else "a")
        assert abs(stored[other] - record.offset) == 1


_WATCHER: Final = """
import asyncio, sys
from tickertape.broker import create_broker
from tickertape.wire import Cursor

async def main():
    broker = create_broker(sys.argv[1])
    state = await broker.open()
    tail = broker.tail(Cursor(state.epoch, state.newest))
    while True:
        await asyncio.gather(*(broker.state() for _ in range(3)), *(broker.read(0, 10) for _ in range(3)))
        try:
            records = await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(anext(tail))), 10)
        except Exception as error:
            print(f"tail failed: {error!r}", flush=True)
            return
        for record in records:
            print(f"{(await broker.state()).epoch} {record.offset}", flush=True)

asyncio.run(main())
"""
"""Follows a log, asks for its state and reads; prints the epoch and offset of each record."""


async def test_stopped_process(tmp_path: Path) -> None:
    """A process that is stopped while others append neither resets the log nor misses a record."""
    url = f"sqlite:///{tmp_path}/log.db"
    broker = SQLiteBroker.from_url(url)
    epoch = (await broker.open()).epoch
    async with running(_WATCHER, url) as process:
        seen: list[str] = []
        while not seen:  # until it follows
            await broker.append([Draft("t", "x")])
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    seen += await lines_of(process, 1)
        for _ in range(5):
            process.send_signal(signal.SIGSTOP)
            for _ in range(50):
                await broker.append([Draft("t", "x")])
            process.send_signal(signal.SIGCONT)
            await broker.append([Draft("t", "x")])
        state = await broker.state()
        first = int(seen[0].split()[1])
        seen += await lines_of(process, state.newest - first)
    await broker.close()
    assert state.epoch == epoch
    assert [line.split() for line in seen] == [[epoch, f"{offset}"] for offset in range(first, state.newest + 1)]


async def test_full_disk(tmp_path: Path) -> None:
    out, error = await run(_FILLER, f"sqlite:///{tmp_path}/log.db")
    stored = int(out)
    assert 100 < stored < 10_000
    assert "cannot append to the log" in error
    assert "the disk fails, or is full" in error
    broker = SQLiteBroker(tmp_path / "log.db")
    await broker.open()
    records = (await broker.read(0, 10_000)).records
    await broker.close()
    assert [record.offset for record in records] == list(range(1, stored + 2))
    assert records[-1].data == "space again"


@pytest.mark.parametrize(("mode", "sentence"), [(0o400, "unable to open"), (0o444, "may not write")])
async def test_file_of_another_user(mode: int, sentence: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with TemporaryDirectory() as directory:  # tmp_path is for its owner alone
        path = Path(directory) / "log.db"
        path.parent.chmod(0o755)
        broker = SQLiteBroker(path)
        await broker.open()
        await broker.append([Draft("t", "x")])
        await broker.close()
        path.chmod(mode)
        _, error = await run(_STRANGER, f"sqlite:///{path}")
        assert f"the log {path}" in error
        assert sentence in error
