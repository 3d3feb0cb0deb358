"""Clients that stay connected and do not read, under the frameworks that send their own responses."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from support.servers import BIN, TESTS, Connection, Program, free_port

LIMIT: Final = 2.8
"""Seconds from SIGTERM to the end of the process: hypercorn cuts what is open after three."""

PROXIED: Final = "X-Forwarded-For: 203.0.113.7\r\n"
"""A header for which uvicorn replaces the client's address."""

COMMANDS: Final = {
    "aiohttp": (sys.executable, "-m", "support.stuck", "{}"),
    "sanic": (str(BIN / "sanic"), "support.stuck:sanic_app", "--single-process", "--port={}"),
    "sanic-uvicorn": (str(BIN / "uvicorn"), "support.stuck:sanic_app", "--port={}"),
    "quart-uvicorn": (str(BIN / "uvicorn"), "support.stuck:quart_app", "--port={}"),
    "quart-hypercorn": (str(BIN / "hypercorn"), "support.stuck:quart()", "--bind=127.0.0.1:{}"),
    "falcon": (str(BIN / "uvicorn"), "support.stuck:falcon_app", "--port={}"),
    "blacksheep": (str(BIN / "uvicorn"), "support.stuck:blacksheep_app", "--port={}"),
}


@contextmanager
def run(name: str) -> Iterator[tuple[Program, int]]:
    port = free_port()
    server = Program([part.format(port) for part in COMMANDS[name]], {"PYTHONPATH": str(TESTS)})
    try:
        server.wait_for(port)
        yield server, port
    finally:
        server.close()


@pytest.mark.parametrize("path", ["/items", "/hub"])
@pytest.mark.parametrize("name", COMMANDS)
async def test_stop(name: str, path: str) -> None:
    """The server exits, although a client takes none of the bytes that it holds."""
    with run(name) as (server, port):
        async with await Connection.open(port, receive_buffer=4096) as connection:
            assert await connection.get(path, headers=PROXIED) == 200
            await connection.stall()
            seconds = await server.end()
        assert seconds < LIMIT, server.output
        assert "Traceback" not in server.output


@pytest.mark.parametrize("name", COMMANDS)
async def test_send_timeout(name: str) -> None:
    with run(name) as (server, port):
        async with await Connection.open(port, receive_buffer=4096) as connection:
            assert await connection.get("/timeout", headers=PROXIED) == 200
            await connection.dropped()
        await server.says("[finalised]")
        assert await server.end() < LIMIT
        assert "Traceback" not in server.output
