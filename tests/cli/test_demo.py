"""The program ``tickertape demo``: its output, its answers and its end."""

from __future__ import annotations

import json
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.command import run
from support.servers import Connection, Program

MAX_SHUTDOWN = 2.0
"""Seconds that the program may take to end."""


class Demo(Program):
    """The program on a free port, with a temporary folder."""

    def __init__(self, *options: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        command = str(Path(sys.executable).parent / "tickertape")
        super().__init__([command, "demo", "--port", "0", *options], folder=self._folder.name)
        self.port = 0

    def close(self) -> None:
        super().close()
        self._folder.cleanup()

    async def ready(self) -> None:
        await self.says("To stop: Ctrl-C")
        found = re.search(r" at http://[^\s/]+:(\d+)/", self.output)
        assert found, self.output
        self.port = int(found[1])


@asynccontextmanager
async def demo(*options: str) -> AsyncIterator[Demo]:
    program = Demo(*options)
    try:
        await program.ready()
        yield program
    finally:
        program.close()


async def test_greeting() -> None:
    async with demo() as program:
        address = f"http://127.0.0.1:{program.port}"
        assert program.output.splitlines()[:3] == [
            f"tickertape demo at {address}/ (open it in a browser)",
            f"In a terminal: curl -N {address}/events",
            "To stop: Ctrl-C",
        ]


async def test_clock_stream() -> None:
    async with demo() as program, await Connection.open(program.port) as connection:
        assert await connection.get("/events") == 200
        assert connection.headers["content-type"] == "text/event-stream"
        assert connection.headers["access-control-allow-origin"] == "*"
        assert "connection" not in connection.headers
        first = await connection.event()
        assert (first.event, first.data) == ("connected", "Connection established")
        update = await connection.event()
        assert (update.id, update.event) == ("1", "update")
        message = json.loads(update.data or "")
        assert (message["id"], message["event"]) == (1, "update")
        assert re.fullmatch(r"Current time: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", message["data"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("streams", [0, 3])
async def test_shutdown(number: signal.Signals, streams: int) -> None:
    async with demo() as program:
        connections = [await Connection.open(program.port) for _ in range(streams)]
        for connection in connections:
            assert await connection.get("/events") == 200
            await connection.event()
        assert await program.end(number) < MAX_SHUTDOWN
        assert program.process.returncode == 0
        for connection in connections:
            await connection.rest()
            assert connection.complete
            await connection.close()
        assert "Traceback" not in program.output
        assert program.output.count("Client disconnected") == program.output.count("reason=draining") == streams
        assert "ERROR" not in program.output


async def test_disconnect_is_logged() -> None:
    async with demo() as program:
        async with await Connection.open(program.port) as connection:
            await connection.get("/events")
            await connection.event()
        await program.says("INFO Client disconnected: peer=127.0.0.1:")
        await program.says("reason=client_closed")


async def test_interval() -> None:
    async with demo("--interval", "0.01") as program, await Connection.open(program.port) as connection:
        await connection.get("/events")
        for _ in range(50):
            await connection.event()


async def test_host() -> None:
    async with demo("--host", "0.0.0.0") as program:
        assert f"http://127.0.0.1:{program.port}/" in program.output
        async with await Connection.open(program.port) as connection:
            assert await connection.get("/") == 200


async def test_unusable_folder() -> None:
    outcome = run("demo", "--port", "0", "--data", "/proc/nothing/here")
    assert outcome.status == 1
    assert outcome.errors.startswith("tickertape: cannot write to the folder /proc/nothing/here: ")
    assert outcome.errors.count("\n") == 1


async def test_secret_survives_restart(tmp_path: Path) -> None:
    async with demo("--data", str(tmp_path / "data")):
        secret = tmp_path / "data" / "secret"
        assert secret.stat().st_mode & 0o777 == 0o600
        before = secret.read_text()
    async with demo("--data", str(tmp_path / "data")):
        assert secret.read_text() == before
