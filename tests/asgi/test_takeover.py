"""Takeovers from a real uvicorn in this process, and from objects that only look like it."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn import Config, Server

from support.servers import Connection
from tickertape.asgi import ASGIApp, Message, Receive, Scope, Send, Takeover
from tickertape.server import listen

CHUNK = b": first\n\n"


class Output(asyncio.Protocol):
    """The new owner of a connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.connections: set[Any] = set()
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.lost.set()

    def shutdown(self) -> None:
        assert self.transport is not None
        self.transport.write(b"0\r\n\r\n")
        self.transport.close()


@asynccontextmanager
async def serving(app: ASGIApp, http: str = "httptools") -> AsyncIterator[tuple[Server, int]]:
    listener = listen("127.0.0.1", 0)
    server = Server(Config(app, http=http, lifespan="off", ws="none", log_config=None))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield server, listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running
        listener.close()


async def begin(send: Send, *headers: tuple[bytes, bytes], chunk: bytes = CHUNK) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
    await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def finish(send: Send) -> None:
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class Streams:
    """An application that tries to take each connection over, and ends the response if it cannot.

    Attributes:
        outputs: one for each request, taken over or not.
        cycles: the server's objects for the requests, as long as anything refers to them.
    """

    def __init__(self, start: Callable[[Send], Awaitable[None]] = begin) -> None:
        self._start = start
        self.outputs: list[Output] = []
        self.cycles: list[weakref.ref[Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.cycles.append(weakref.ref(receive.__self__))  # type: ignore[attr-defined]
        takeover = await Takeover.find(receive)
        await self._start(send)
        output = Output()
        self.outputs.append(output)
        if takeover is not None:
            output.transport = takeover.take(CHUNK, output)
            output.connections = takeover.connections
        if output.transport is None:
            await finish(send)


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_takes_the_connection(http: str) -> None:
    app = Streams()
    async with serving(app, http) as (server, port), await Connection.open(port) as connection:
        gc.disable()
        try:
            assert await connection.get("/") == 200
            assert await connection.piece() == CHUNK
            (output,) = app.outputs
            assert output.transport is not None
            connections: list[object] = list(server.server_state.connections)
            assert connections == [output]
            assert server.server_state.total_requests == 1
            await asyncio.wait(server.server_state.tasks or [asyncio.create_task(asyncio.sleep(0))])
            assert app.cycles[0]() is None  # freed at once, and without the garbage collector
        finally:
            gc.enable()
        output.transport.write(b"2\r\nok\r\n")
        assert await connection.piece() == b"ok"
        server.should_exit = True  # calls `shutdown`
        await connection.rest()
        assert connection.complete
        await output.lost.wait()
        assert server.server_state.connections == set()


async def end_early(send: Send) -> None:
    await begin(send, chunk=b"")
    await send({"type": "http.response.body", "body": CHUNK, "more_body": True})


async def in_another_task(send: Send) -> None:
    await asyncio.create_task(begin(send))


STARTS: dict[str, tuple[Callable[[Send], Awaitable[None]], bytes]] = {
    "encoded": (lambda send: begin(send, (b"Content-Encoding", b"gzip")), CHUNK),
    "not chunked": (lambda send: begin(send, (b"content-length", b"9")), CHUNK),
    "another chunk": (lambda send: begin(send, chunk=b": changed\n\n"), b": changed\n\n"),
    "empty chunk first": (end_early, CHUNK),
    "another task": (in_another_task, CHUNK),
}


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("name", STARTS)
async def test_leaves_other_responses_alone(name: str, http: str) -> None:
    start, body = STARTS[name]
    app = Streams(start)
    async with serving(app, http) as (server, port), await Connection.open(port) as connection:
        for _ in range(2):
            assert await connection.get("/") == 200
            assert await connection.rest() == body
            assert connection.complete
        assert [output.transport for output in app.outputs] == [None, None]
        assert server.server_state.total_requests == 2


async def test_application_fails_after_the_first_chunk() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await Takeover.find(receive) is not None
        await begin(send)
        raise RuntimeError

    async with serving(app) as (_, port), await Connection.open(port) as connection:
        assert await connection.get("/") == 200
        assert await connection.rest() == CHUNK
        assert not connection.complete


class Elsewhere:
    """A ``receive`` of another server, which has attributes of the same names."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    async def receive(self) -> Message:
        raise NotImplementedError


class Owner:
    def on_response(self) -> None: ...


@pytest.mark.parametrize(
    "cycle",
    [
        Elsewhere(),
        Elsewhere(on_response=None, more_body=False),
        Elsewhere(on_response=Owner().on_response, more_body=False),
        Elsewhere(on_response=Owner().on_response, more_body=False, transport=SimpleNamespace()),
    ],
)
async def test_finds_nothing_in_what_it_does_not_know(cycle: Elsewhere, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "tickertape.asgi")
    before = dict(cycle.__dict__)
    assert await Takeover.find(cycle.receive) is None
    assert cycle.__dict__ == before
    assert len(caplog.records) == bool(before)


async def test_finds_nothing_behind_a_function() -> None:
    async def receive() -> Message:
        raise NotImplementedError

    assert await Takeover.find(receive) is None


@pytest.mark.parametrize("finite", [False, True])
async def test_close_is_announced(finite: bool) -> None:
    """A client must not send its next request on the connection of a response that ends."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        takeover = await Takeover.find(receive)
        assert takeover is not None
        await begin(send)
        output = Output()
        transport = takeover.take(CHUNK, output, finite=finite)
        assert transport is not None
        output.connections = takeover.connections
        transport.write(b"0\r\n\r\n")
        transport.close()

    async with serving(app) as (_, port), await Connection.open(port) as connection:
        assert await connection.get("/") == 200
        assert connection.headers.get("connection") == ("close" if finite else None)
        await connection.rest()
        assert connection.complete
