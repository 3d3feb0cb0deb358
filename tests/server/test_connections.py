"""Connections of the server: HTTP/1.0, and the memory of those that are closed."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from support.servers import until
from tickertape import EventSourceResponse, Hub
from tickertape.asgi import ASGIApp, Receive, Scope, Send
from tickertape.server import create_app, listen
from tickertape.server.connections import HTTPProtocol
from tickertape.server.protocol import HubProtocol
from tickertape.server.uvicorn import Server, create_server


@asynccontextmanager
async def server_of(app: ASGIApp) -> AsyncIterator[tuple[Server, int]]:
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = create_server(app, grace=1, access_log=False)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield server, port
    finally:
        server.should_exit = True
        await running


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with a stream, a body of known length, or a body of unknown length, by the path."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/events":
        await EventSourceResponse(["a", "b"])(scope, receive, send)
    else:
        headers = [(b"content-length", b"6")] if scope["path"] == "/known" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        await send({"type": "http.response.body", "body": b"def"})


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/events", b"data: a\n\ndata: b\n\n"),
        ("HEAD", "/events", b""),
        ("GET", "/known", b"abcdef"),
        ("GET", "/unknown", b"abcdef"),
    ],
)
async def test_http_1_0_is_not_chunked(method: str, path: str, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with server_of(app) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{method} {path} HTTP/1.0\r\nconnection: keep-alive\r\n\r\n".encode())
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert rest == body
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


KINDS = (HubProtocol, HTTPProtocol, RequestResponseCycle)


def kinds() -> list[type]:
    """Return the types of the objects of connections that are in memory."""
    return [type(each) for each in gc.get_objects() if type(each) in KINDS]


HEAD = " HTTP/1.1\r\nhost: a\r\n"


@pytest.mark.parametrize(
    ("request_head", "waiting"),
    [
        (f"GET /history?topic=large{HEAD}", False),
        (f"GET /events?topic=large&last=1{HEAD.replace('1.1', '1.0')}", False),
        (f"GET /nothing{HEAD}", False),
        (f"POST /events/a{HEAD}content-length: 1000000\r\n", True),
        (f"POST /events{HEAD}content-length: 2\r\ncontent-type: application/json\r\n", False),
        ("GET /topics HTTP/1.1\r\n", False),
    ],
)
async def test_closed_connections_leave_nothing_behind(request_head: str, waiting: bool) -> None:
    """Objects of a connection with large buffers must be freed when it is closed, not by a later collection."""
    hub = Hub()
    async with server_of(create_app(hub)) as (server, port):
        await until(lambda: server.started, lambda: "a start")
        await hub.publish("large", "x" * 1_000_000)
        gc.collect()
        gc.disable()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            writer.write(f"{request_head}\r\n[]".encode())
            if waiting:
                await until(lambda: RequestResponseCycle in kinds(), lambda: "a request")
            else:
                await reader.readexactly(1)
            writer.transport.abort()
            await until(lambda: not kinds(), lambda: "freed objects", within=3)
        finally:
            gc.enable()


async def test_closed_streams_leave_no_cycles() -> None:
    hub = Hub()
    async with server_of(create_app(hub)) as (server, port):
        await until(lambda: server.started, lambda: "a start")
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            writers = []
            for _ in range(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(f"GET /events?topic=a{HEAD}\r\n".encode())
                await reader.readuntil(b"\r\n\r\n")
                writers.append(writer)
            assert hub.subscribers() == 20
            for writer in writers:
                writer.transport.abort()
            await until(lambda: not server.server_state.connections, lambda: "closed connections")
            gc.collect()
            left = [item for item in gc.garbage if type(item).__module__.startswith("tickertape")]
            assert left == []
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
