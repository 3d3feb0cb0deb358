"""The response under real servers in separate processes: the bytes that the client gets, and the stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from support.servers import SERVERS, Address, Connection, Server, serve

APP = "support.streams:app"
LIMIT = 2.8
"""Seconds from the signal to the end of the process: hypercorn cuts what is open after three."""


# What the client sees


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One server for all tests that leave it alive."""
    with serve(request.param, APP) as running:
        yield running


async def test_events_and_headers(server: Server) -> None:
    async with await Connection.open(server.address) as connection:
        assert await connection.get("/finite") == 200
        assert await connection.rest() == (
            b'retry: 100\ndata: one\n\nid: 2\nevent: e\ndata: two\n\ndata: {"three":3}\n\n'
        )
        assert connection.complete
    assert connection.headers["content-type"] == "text/event-stream"
    assert connection.headers["cache-control"] == "no-store, no-transform"
    assert connection.headers["x-accel-buffering"] == "no"
    assert connection.headers["incremental"] == "?1"
    assert "connection" not in connection.headers


async def test_keep_alive(server: Server) -> None:
    async with await Connection.open(server.address) as connection:
        for _ in range(3):
            await connection.get("/finite")
            assert (await connection.rest()).endswith(b'data: {"three":3}\n\n')
            assert connection.complete


async def test_head(server: Server) -> None:
    async with await Connection.open(server.address) as connection:
        assert await connection.get("/idle", method="HEAD") == 200
        assert connection.headers["content-type"] == "text/event-stream"
        assert await connection.get("/finite") == 200  # no body in between


async def test_http_1_0(server: Server) -> None:
    async with await Connection.open(server.address) as connection:
        await connection.get("/finite", version="1.0")
        assert (await connection.rest()).endswith(b'data: {"three":3}\n\n')
        assert await connection.closed()


@pytest.mark.parametrize(("path", "name"), [("/idle", "idle"), ("/busy", "busy")])
async def test_disconnect(server: Server, path: str, name: str) -> None:
    before = len(server.output)
    async with await Connection.open(server.address) as connection:
        await connection.get(path)
        await connection.event()
    await server.says(f"[finalised {name}]", after=before)
    await server.says(f"[client_closed {name}]", after=before)


async def test_early_exception(server: Server) -> None:
    async with await Connection.open(server.address) as connection:
        assert await connection.get("/forbidden") == 403
        assert await connection.rest() == b"not for you"


PROXIED = [
    pytest.param("", id="plain"),
    pytest.param("X-Forwarded-For: 203.0.113.7\r\n", id="proxied"),
]
"""Headers of a request. uvicorn replaces the client's address by the one that a proxy on this machine forwards."""


@pytest.mark.parametrize("headers", PROXIED)
@pytest.mark.parametrize("path", ["/broken", "/broken-behind"])
async def test_late_exception(server: Server, path: str, headers: str) -> None:
    before = len(server.output)
    async with await Connection.open(server.address) as connection:
        await connection.get(path, headers=headers)
        assert (await connection.event()).data == "hello"
        assert (await connection.event()).event == "stream:error"
        await connection.rest()
        assert not connection.complete
    await server.says("LookupError: the items of this stream are broken", after=before)


@pytest.mark.parametrize("headers", PROXIED)
async def test_stalled_clients(server: Server, headers: str) -> None:
    """A client that does not read is dropped, and the server needs no memory for it."""
    async with await Connection.open(server.address) as connection:
        await connection.get("/memory")
        at_first = int(await connection.rest())
    before = len(server.output)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            stalled = await stack.enter_async_context(await Connection.open(server.address, receive_buffer=4096))
            await stalled.get("/stalled", headers=headers)
        await server.says("[finalised flood]", after=before)
        await server.says("[send_timeout stalled]", after=before)
        await stalled.dropped()
    async with await Connection.open(server.address) as connection:
        await connection.get("/memory")
        assert int(await connection.rest()) - at_first < 16 * 1024 * 1024


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no TCP_USER_TIMEOUT")
@pytest.mark.parametrize("headers", PROXIED)
async def test_vanished_client(server: Server, headers: str) -> None:
    """A client whose machine is gone acknowledges nothing and does not end its connection."""
    before = len(server.output)
    async with await Connection.open(server.address) as connection:
        await connection.get("/vanished", headers=headers)
        assert (await connection.event()).data == "hello"
        connection.vanish()
        await server.says("[client_closed vanished]", after=before)


def test_http_2() -> None:
    """A connection that says ``connection`` is malformed there (RFC 9113, 8.2.2)."""

    async def main(address: Address) -> None:
        async with httpx2.AsyncClient(http1=False, http2=True, trust_env=False) as client:
            async with client.stream("GET", f"http://127.0.0.1:{address}/finite") as response:
                assert response.http_version == "HTTP/2"
                assert response.headers["content-type"] == "text/event-stream"
                assert "connection" not in response.headers
                assert (await response.aread()).endswith(b'data: {"three":3}\n\n')
            async with client.stream("GET", f"http://127.0.0.1:{address}/idle") as response:
                assert await anext(response.aiter_raw()) == b"data: hello\n\n"
                assert await running.end() < LIMIT

    with serve("hypercorn", APP) as running:
        asyncio.run(main(running.address))


# That the server stops


class Stop(NamedTuple):
    """One way to stop a server with open streams.

    Attributes:
        paths: the streams that are open, one connection each.
        reading: whether their clients read.
        signal: what the server is sent.
        listen: how it was given its address.
    headers: of the requests.
        headers: of the requests.
        limit: seconds that the server may take.
    only: the servers that this is for; all if there are none.
        last: the bytes with which each stream ends.
        complete: whether the responses end cleanly; by default, those of clients that read.
    """

    paths: tuple[str, ...]
    reading: bool = True
    signal: int = signal.SIGTERM
    listen: str = "port"
    headers: str = ""
    limit: float = LIMIT
    only: tuple[str, ...] = ()
    last: bytes = b""
    complete: bool | None = None


UVICORN = tuple(kind for kind in SERVERS if kind.startswith("uvicorn"))

UNIX = tuple(kind for kind in SERVERS if kind != "uvicorn-workers")

STOPS = {
    "idle": Stop(("/idle",)),
    "farewell": Stop(("/farewell", "/graceful"), last=b"data: bye\n\n"),
    "blocked": Stop(("/blocked",)),
    "busy": Stop(("/busy",)),
    "several": Stop(("/idle",) * 5 + ("/blocked",) * 5 + ("/busy",)),
    "hub": Stop(("/hub",) * 40),
    "cut": Stop(("/cut",) * 20, complete=False),
    "proxied-cut": Stop(("/cut",) * 20, headers="X-Forwarded-For: 203.0.113.7\r\n", complete=False),
    "unread": Stop(("/flood",), reading=False),
    "brimful": Stop(("/brimful",), reading=False, only=("uvicorn-httptools", "granian", "hypercorn")),
    "late": Stop(("/late",)),
    "interrupt": Stop(("/idle", "/blocked"), signal=signal.SIGINT, only=UVICORN),
    "unix": Stop(("/idle",), listen="path", only=("uvicorn-httptools", "granian", "hypercorn")),
    "unix-unread": Stop(("/flood",), reading=False, listen="path", only=UNIX),
    "proxied-unread": Stop(("/flood",), reading=False, headers="X-Forwarded-For: 203.0.113.7\r\n"),
    "hidden-unread": Stop(("/hidden",), reading=False, limit=2 * LIMIT),  # no progress for a second
    "descriptor": Stop(("/idle",), listen="descriptor", only=("uvicorn-httptools",)),
}

CASES = [(kind, name) for kind in SERVERS for name, stop in STOPS.items() if kind in (stop.only or SERVERS)]


class Ahead:
    """Servers for the cases in turn; the next one starts while a case runs, for starting is what takes the time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: dict[tuple[str, str], Server] = {}
        self._given = socket.create_server(("127.0.0.1", 0))

    def take(self, kind: str, name: str) -> Server:
        case = kind, name
        server = self._started.pop(case, None) or self._start(*case)
        following = CASES[CASES.index(case) + 1 :][:1]
        self._started.update((each, self._start(*each)) for each in following)
        server.wait_for(server.address)
        return server

    def _start(self, kind: str, name: str) -> Server:
        listen = STOPS[name].listen
        if listen == "path":
            return Server(kind, APP, address=str(self._folder / f"{kind}-{name}.sock"))
        if listen == "descriptor":
            number = self._given.fileno()
            return Server(kind, APP, f"--fd={number}", address=self._given.getsockname()[1], pass_fds=[number])
        return Server(kind, APP)

    def close(self) -> None:
        for server in self._started.values():
            server.close()
        self._given.close()


@pytest.fixture(scope="module")
def ahead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ahead]:
    with closing(Ahead(tmp_path_factory.mktemp("sockets"))) as servers:
        yield servers


@pytest.mark.parametrize(("kind", "name"), CASES)
async def test_stop(ahead: Ahead, kind: str, name: str) -> None:
    case = STOPS[name]
    with closing(ahead.take(kind, name)) as server:
        async with AsyncExitStack() as stack:
            connections: list[Connection] = []
            for path in case.paths:
                connection = await Connection.open(server.address, receive_buffer=None if case.reading else 4096)
                connections.append(await stack.enter_async_context(connection))
                await open_stream(server, path, connection, case.headers)
            reading = [asyncio.create_task(read(connection)) for connection in connections if case.reading]
            seconds = await server.end(case.signal)
            bodies = await asyncio.gather(*(reading or map(read, connections)))
            assert all(body.endswith(case.last) for body in bodies)
            complete = case.reading if case.complete is None else case.complete
            assert [connection.complete for connection in connections] == [complete] * len(case.paths)
        assert seconds < case.limit, server.output
        assert "Traceback" not in server.output
        assert "ERROR" not in server.output


async def open_stream(server: Server, path: str, connection: Connection, headers: str) -> None:
    """Request a stream, and return when it is in the state that its path names."""
    await connection.ask(path, headers=headers)
    if path == "/late":
        await server.says("[late]")
        return
    await connection.head()
    if path in ("/flood", "/hidden"):
        await connection.stall()
    elif path == "/hub":
        await connection.piece()
    elif path == "/brimful":
        await server.says("[brimful]")
    else:
        await connection.event()


async def read(connection: Connection) -> bytes:
    """Read to the end, from the head if that is still to come."""
    if not connection.status:
        await connection.head()
    return await connection.rest()
