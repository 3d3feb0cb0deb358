"""The hub's own application under the hub's own server: connections are handed over, and errors are not in the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from uvicorn import Config, Server

from support.servers import Connection
from tickertape.hub import DirectOutput, Hub
from tickertape.server import listen
from tickertape.server.app import create_app
from tickertape.server.protocol import HubProtocol


@asynccontextmanager
async def serving(*cors_origins: str) -> AsyncIterator[tuple[Server, int]]:
    hub = Hub(max_event_size=1000, drain_window=0)
    app = create_app(hub, cors_origins=cors_origins)
    listener = listen("127.0.0.1", 0)
    server = Server(Config(app, http=HubProtocol, lifespan="on", ws="none", log_config=None))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield server, listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running
        listener.close()


@pytest.mark.parametrize("cors_origins", [(), ("https://friend.example",)])
@pytest.mark.parametrize("headers", ["", "Origin: https://friend.example\r\n"])
async def test_a_subscriber_is_its_own_connection(cors_origins: tuple[str, ...], headers: str) -> None:
    async with serving(*cors_origins) as (server, port), await Connection.open(port) as subscriber:
        assert await subscriber.get("/events?topic=a", headers=headers) == 200
        assert ("access-control-allow-origin" in subscriber.headers) is bool(cors_origins and headers)
        assert b"retry: " in await subscriber.piece()
        async with await Connection.open(port) as publisher:
            await publisher.get("/events/a?event=e", method="POST")
            assert publisher.status == 201
            event = await subscriber.event()
            assert (event.event, event.data) == ("e", "")
        kinds = [type(connection) for connection in server.server_state.connections]
        assert DirectOutput in kinds


async def test_after_a_body_that_was_too_large_the_connection_is_still_good() -> None:
    async with serving() as (_, port), await Connection.open(port) as connection:
        assert await connection.get("/events/a", method="POST", headers="Content-Length: 200000\r\n") == 413
        await connection.rest()
        connection._writer.write(b"x" * 200_000)  # what is sent all the same is taken and forgotten
        assert await connection.get("/health/live") == 200
