"""File descriptors: the limit is raised, and a full server closes new connections and logs it once."""

from __future__ import annotations

import re
import resource
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import psutil
import pytest

from support.program import serving, workers_of
from support.servers import START, Connection, Program, free_port, until

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from tickertape.server import listen
from tickertape.server.program import serve
from tickertape.server.settings import Settings
settings = Settings(drain_window=0.1, workers={workers})
serve(settings, listen("127.0.0.1", {port}, workers={workers}), on_start=lambda: print(
    "started", *resource.getrlimit(resource.RLIMIT_NOFILE), flush=True))
"""


@asynccontextmanager
async def limited(soft: int, hard: int, workers: int = 1) -> AsyncIterator[tuple[Program, int]]:
    port = free_port()
    code = LIMITED.format(soft=soft, hard=hard, port=port, workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        program = Program([sys.executable, "-c", code], folder=folder)
        try:
            await program.says("started", within=START)
            yield program, port
        finally:
            program.close()


async def test_limit_is_raised() -> None:
    hard = min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    async with limited(512, hard) as (program, _):
        assert f"started {hard} {hard}" in program.output


async def is_served(connection: Connection) -> bool:
    try:
        return await connection.get("/events?topic=a") == 200
    except ConnectionError:
        return False


async def test_full_server() -> None:
    async with limited(160, 160) as (program, port), AsyncExitStack() as stack:
        room = 160 - 128 - 1
        connections = [await stack.enter_async_context(await Connection.open(port)) for _ in range(room)]
        assert [await is_served(connection) for connection in connections] == [True] * room
        for _ in range(20):
            async with await Connection.open(port) as extra:
                assert not await is_served(extra)
        assert program.output.count("full: closing new connections beyond 31") == 1
        for connection in connections[:10]:
            await connection.close()
        served = False
        while not served:  # until the server has noticed that they are closed
            async with await Connection.open(port) as later:
                served = await is_served(later)
        assert program.output.count("no longer full") == 1
        await program.end()
        assert program.process.returncode == 0
        assert "Traceback" not in program.output


@pytest.mark.parametrize("options", [("--broker=memory://",), ("--workers=2",)])
async def test_connections_wait(options: tuple[str, ...]) -> None:
    """Without descriptors, no stream ends, and new connections are served as soon as some are free."""
    async with serving(*options) as server, AsyncExitStack() as stack:
        processes = workers_of(server) or [server.process.pid]
        for process in map(psutil.Process, processes):
            hard = process.rlimit(resource.RLIMIT_NOFILE)[1]
            process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds() + 24, hard))
        connections = [await stack.enter_async_context(await Connection.open(server.port)) for _ in range(120)]
        for connection in connections:
            await connection.ask("/events?topic=a")
        for text in ("new connections wait", "accepting connections again"):
            await until(lambda: server.output.count(text) == len(processes), lambda: f"{text}: {server.output}")  # noqa: B023
            for process in map(psutil.Process, processes):
                process.rlimit(resource.RLIMIT_NOFILE, (1000, hard))
        assert [await connection.head() for connection in connections] == [200] * 120
        async with await Connection.open(server.port) as connection:
            await connection.get("/metrics")
            counted = re.findall(rb'tickertape_limits_total{limit="accepting".*} ([0-9.]+)', await connection.rest())
        assert [float(count) for count in counted] == [1.0] * len(processes)
        await server.end()
        assert server.process.returncode == 0
        assert "Traceback" not in server.output


async def test_full_worker() -> None:
    async with limited(160, 160, workers=2) as (program, port), AsyncExitStack() as stack:
        for _ in range(2 * (160 - 128 - 1)):
            served = False
            while not served:
                connection = await stack.enter_async_context(await Connection.open(port))
                served = await is_served(connection)
        while program.output.count("full: closing new connections beyond 31") < 2:
            async with await Connection.open(port) as extra:
                assert not await is_served(extra)
        await program.end()
        assert program.process.returncode == 0
        assert "Traceback" not in program.output
