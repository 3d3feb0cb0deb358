"""Running an application: the socket first, signals served, streams not waited for."""

from __future__ import annotations

import errno
import signal
import sys
from pathlib import Path

import pytest

from support.servers import Connection, Program, free_port
from tickertape.server import listen

PROGRAM = """
import asyncio, signal, sys
from tickertape import EventSourceResponse
from tickertape.server import listen, run

async def forever():
    yield "hello"
    await asyncio.Event().wait()

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        {startup}
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        await send({{"type": "lifespan.shutdown.complete"}})
    elif scope["path"] == "/large":
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": b"x" * 10_000_000}})
    else:
        await EventSourceResponse(forever())(scope, receive, send)

before = signal.getsignal(signal.SIGTERM)
listener = listen("127.0.0.1", {port})
run(app, listener, grace=1, on_start=lambda: print("started", flush=True))
assert signal.getsignal(signal.SIGTERM) is before
print("returned", listener.fileno(), flush=True)
"""


def test_port_0() -> None:
    with listen("127.0.0.1", 0) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        assert port > 0


def test_port_in_use() -> None:
    with listen("127.0.0.1", 0) as listener, pytest.raises(OSError, match="in use") as raised:
        listen("127.0.0.1", listener.getsockname()[1])
    assert raised.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal(number: signal.Signals, tmp_path: Path) -> None:
    port = free_port()
    program = Program([sys.executable, "-c", PROGRAM.format(port=port, startup="pass")])
    try:
        await program.says("started")
        async with await Connection.open(port) as connection:
            assert await connection.get("/") == 200
            await connection.event()
            assert await program.end(number) < 2
            await connection.rest()
            assert connection.complete
        assert program.process.returncode == 0
        assert program.output == "started\nreturned -1\n"
    finally:
        program.close()


async def test_client_that_does_not_read() -> None:
    """The response has ended, but its connection cannot be closed: the server stops without an error in its log."""
    port = free_port()
    program = Program([sys.executable, "-c", PROGRAM.format(port=port, startup="pass")])
    try:
        await program.says("started")
        async with await Connection.open(port) as connection:
            assert await connection.get("/large") == 200
            assert await program.end() < 3
        assert program.process.returncode == 0
        assert program.output == "started\nreturned -1\n"
    finally:
        program.close()


async def test_signal_during_the_start() -> None:
    port = free_port()
    startup = "print('starting', flush=True); signal.raise_signal(signal.SIGTERM); await asyncio.sleep(0)"
    program = Program([sys.executable, "-c", PROGRAM.format(port=port, startup=startup)])
    try:
        await program.says("returned -1")
    finally:
        program.close()


async def test_failed_startup() -> None:
    startup = "raise RuntimeError('no way to start')"
    program = Program([sys.executable, "-c", PROGRAM.format(port=free_port(), startup=startup)])
    try:
        await program.says("tickertape.server.uvicorn.NotStartedError")
        assert "started\n" not in program.output
    finally:
        program.close()
