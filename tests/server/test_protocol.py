"""Direct delivery in real uvicorn processes: the streams that use it, without a difference for clients."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from typing import Any, NamedTuple

import pytest

from support.servers import BIN, PATIENCE, TESTS, Connection, Program, connect, free_port, until
from support.tls import certify
from tickertape import Decoder, ServerSentEvent

APP = "support.direct_app:app"
DRAIN = 1.0
"""Seconds over which the hub of the application ends its streams."""


class Uvicorn(Program):
    """uvicorn with the application and ``options`` on its command line."""

    def __init__(self, *options: str, env: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.context: ssl.SSLContext | None = None
        command = [str(BIN / "uvicorn"), APP, f"--port={self.port}", *options]
        super().__init__(command, {"PYTHONPATH": str(TESTS), **(env or {})})

    async def open(self, *, receive_buffer: int | None = None) -> Connection:
        """Connect as a client, with TLS if the server uses it."""
        if self.context is None:
            return await Connection.open(self.port, receive_buffer=receive_buffer)
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context, limit=1024))

    async def ask(self, path: str) -> Any:
        """Return the JSON answer to a request on a new connection."""
        async with await self.open() as connection:
            assert await connection.get(path) == 200
            return json.loads(await connection.rest())

    async def publish(self, topic: str, n: int = 1, size: int = 0, first: int = 0) -> list[str]:
        """Publish numbers and return their cursors."""
        cursors: list[str] = await self.ask(f"/publish?topic={topic}&n={n}&size={size}&first={first}")
        return cursors

    async def ways(self, topic: str) -> list[str]:
        """Return the way of delivery of each subscriber of a topic."""
        ways: list[str] = await self.ask(f"/ways?topic={topic}")
        return ways

    async def left(self, topic: str, reason: str = "client_closed") -> None:
        """Wait until a subscriber of a topic has left."""
        await self.says(f"[left {topic} {reason}]")

    @property
    def troubles(self) -> list[str]:
        """Errors in the output of the server."""
        return re.findall(r"(?m)^(?:ERROR|Traceback|\w+Error).*$", self.output)


async def subscribe(server: Uvicorn, connection: Connection, topic: str, **query: str) -> None:
    """Open a stream and read its first bytes."""
    more = "".join(f"&{name}={value}" for name, value in query.items())
    assert await connection.get(f"/bare/events?topic={topic}{more}") == 200
    await connection.piece()


async def events(connection: Connection, count: int) -> list[ServerSentEvent]:
    """Return the next events, without the comments between them."""
    found: list[ServerSentEvent] = []
    while len(found) < count:
        event = await connection.event()
        if event.data is not None:
            found.append(event)
    return found


def numbers(found: list[ServerSentEvent]) -> list[int]:
    return [int(str(event.data).rstrip(".")) for event in found]


# Servers: those that tests leave running are started once, together

OPTIONS: dict[str, tuple[str, ...]] = {
    "uvloop": ("--loop=uvloop",),
    "asyncio": ("--loop=asyncio",),
    "h11": ("--http=h11", "--loop=uvloop"),
    "h11-asyncio": ("--http=h11", "--loop=asyncio"),
    "tls": (),
    "small": (),
    "impatient": (),
}
ENV = {"small": {"EVENTS": "20"}, "impatient": {"EVENTS": "20", "SEND_TIMEOUT": "0.5"}}
LOOPS = ("uvloop", "asyncio", "h11", "h11-asyncio")
"""Servers that differ in the event loop and in the parser: httptools, or h11."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Uvicorn]]:
    certificate, key = certify(tmp_path_factory.mktemp("certificate"))
    running: dict[str, Uvicorn] = {}
    try:
        for name, options in OPTIONS.items():
            more = (f"--ssl-certfile={certificate}", f"--ssl-keyfile={key}") if name == "tls" else ()
            running[name] = Uvicorn(*options, *more, env=ENV.get(name))
        for server in running.values():
            server.wait_for(server.port)
        running["tls"].context = ssl.create_default_context(cafile=certificate)
        yield running
    finally:
        for server in running.values():
            server.close()


# Ways of delivery


class Case(NamedTuple):
    """A stream: its middleware, its server, and the expected way of delivery."""

    name: str
    server: str
    way: str
    version: str = "1.1"
    header: tuple[str, str] | None = None


CASES = [
    *(Case("bare", loop, "direct") for loop in LOOPS),
    *(Case("fastapi", loop, "direct") for loop in LOOPS),
    Case("cors", "uvloop", "direct", header=("access-control-allow-origin", "*")),
    Case("session", "uvloop", "direct"),
    Case("gzip", "uvloop", "direct"),  # it lets event streams pass
    Case("header", "uvloop", "direct", header=("x-added", "yes")),
    Case("several", "uvloop", "direct", header=("x-added", "yes")),
    Case("end", "uvloop", "direct"),
    *(Case("base", loop, "portable") for loop in LOOPS),
    *(Case("body", loop, "portable") for loop in LOOPS),
    *(Case("portable", loop, "portable") for loop in LOOPS),
    Case("two", "uvloop", "portable"),
    *(Case("bare", loop, "portable", version="1.0") for loop in LOOPS),
    Case("fastapi", "tls", "portable"),
    Case("several", "h11", "direct", header=("x-added", "yes")),
    Case("end", "h11", "direct"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case[:2] + case[3:4]))
async def test_same_stream_in_every_way(servers: dict[str, Uvicorn], case: Case) -> None:
    server = servers[case.server]
    topic = f"way/{case.name}/{case.version}"
    path = f"/{case.name}/events?topic={topic}"
    accept = "Accept-Encoding: gzip\r\nOrigin: http://elsewhere.example\r\n"
    before = len(server.output)
    async with await server.open() as connection:
        assert await connection.get(path, version=case.version, headers=accept) == 200
        # Before the first event there is a cursor to resume from.
        opening = await connection.piece()
        assert re.match(rb"id: \w+-\d+\nretry: \d+\n\n", opening), opening
        assert b"data" not in opening
        assert connection.headers["content-type"] == "text/event-stream"
        assert connection.headers["cache-control"] == "no-store, no-transform"
        assert connection.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in connection.headers
        assert "content-length" not in connection.headers
        if case.version == "1.1":
            assert "connection" not in connection.headers
        if case.header is not None:
            name, value = case.header
            assert connection.headers[name] == value
        assert await server.ways(topic) == [case.way]
        cursors = await server.publish(topic, 30)
        cursors += await server.publish(topic, 30, first=30)
        found = await events(connection, 60)
        assert [event.id for event in found] == cursors
        assert numbers(found) == list(range(60))
    await server.says(f"[left {topic} client_closed]", after=before)
    cursors += await server.publish(topic, 5, first=60)
    async with await server.open() as connection:
        resume = f"{accept}Last-Event-ID: {cursors[20]}\r\n"
        assert await connection.get(path, version=case.version, headers=resume) == 200
        assert [event.id for event in await events(connection, 44)] == cursors[21:]
        assert await server.ways(topic) == [case.way]
    # One line for each stream, as for any other request.
    assert server.output[before:].count(f"GET {path} HTTP/") == 2
    assert server.troubles == []


# Data before and after the request of a stream


class Wire(Connection):
    """A connection on which a test sends any bytes."""

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def all(self) -> bytes:
        """Return everything until the server closes the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


@pytest.mark.parametrize("loop", LOOPS)
async def test_stream_after_other_requests(servers: dict[str, Uvicorn], loop: str) -> None:
    server = servers[loop]
    async with await server.open() as connection:
        assert await connection.get("/large?size=10") == 200
        assert await connection.rest() == b'"xxxxxxxxxx"'
        assert await connection.get("/bare/events?topic=kept", method="HEAD") == 200
        assert connection.headers["content-type"] == "text/event-stream"
        assert await server.ways("kept") == []
        await subscribe(server, connection, "kept")
        assert await server.ways("kept") == ["direct"]
        cursors = await server.publish("kept", 3)
        assert [event.id for event in await events(connection, 3)] == cursors
    await server.left("kept")


BEHIND = {
    "pipelined": get("/ways?topic=x") + get("/large?size=10"),
    "many": get("/large?size=1000") * 500,
    "stream": get("/bare/events?topic=x"),
    "half": b"GET /ways HTTP/1.1\r\nHost: ",
    "garbage": bytes(range(256)) * 4,
    "body": b"0\r\n\r\n" * 2000,
}


@pytest.mark.parametrize("name", BEHIND)
@pytest.mark.parametrize("loop", LOOPS)
async def test_data_after_the_request(servers: dict[str, Uvicorn], loop: str, name: str) -> None:
    """It is ignored, in one packet with the request or later, and harms neither the stream nor its neighbour."""
    server = servers[loop]
    topic = f"behind/{name}"
    at_once = name in ("pipelined", "many", "stream", "half")  # data that is not a request would be refused with it
    async with await server.open() as neighbour:
        await subscribe(server, neighbour, topic)
        async with await Wire.open(server.port) as connection:
            await connection.say(get(f"/bare/events?topic={topic}") + (BEHIND[name] if at_once else b""))
            assert await connection.head() == 200
            assert (await connection.piece()).startswith(b"id: ")
            await connection.say(BEHIND[name])
            assert await server.ways(topic) == ["direct"] * 2
            cursors = await server.publish(topic, 5)
            for each in (connection, neighbour):
                assert [event.id for event in await events(each, 5)] == cursors
            await connection.say(b"x" * 1000)
        await server.left(topic)
        assert await server.ways(topic) == ["direct"]
        cursors = await server.publish(topic, 5)
        assert [event.id for event in await events(neighbour, 5)] == cursors
    assert server.troubles == []


async def test_pipelined_stream(
    servers: dict[str, Uvicorn],
) -> None:
    server = servers["uvloop"]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    with closing(writer):
        writer.write(get("/large?size=3") + get("/bare/events?topic=third") + get("/large?size=3"))
        async with asyncio.timeout(PATIENCE):
            answers = await reader.readuntil(b"retry: ")
            assert answers.count(b"HTTP/1.1 200 OK") == 2
            assert answers.index(b'"xxx"') < answers.index(b"text/event-stream")
            assert await server.ways("third") == ["direct"]
            for cursor in await server.publish("third", 3):
                assert (await reader.readuntil(cursor.encode())).count(b"id: ") == 1
    await server.left("third")


@pytest.mark.parametrize("loop", LOOPS)
async def test_endless_upload(servers: dict[str, Uvicorn], loop: str) -> None:
    """The server reads a bounded number of bytes after the request, then closes the connection."""
    server = servers[loop]
    async with await server.open() as neighbour:
        await subscribe(server, neighbour, "upload")
        with connect(server.port) as sock:
            sock.sendall(get("/bare/events?topic=upload"))
            while b"retry:" not in sock.recv(65536):
                pass
            with pytest.raises(ConnectionError):
                sock.sendall(b"x" * (64 << 20))
        await server.left("upload")
        cursors = await server.publish("upload", 3)
        assert [event.id for event in await events(neighbour, 3)] == cursors
    assert server.troubles == []


async def test_middleware_that_fails_after_the_response() -> None:
    """The stream continues: the failure is the middleware's, and is logged."""
    with closing(Uvicorn()) as server:
        server.wait_for(server.port)
        async with await server.open() as connection:
            assert await connection.get("/failing/events?topic=failing") == 200
            await server.says("RuntimeError: failed after the response")
            cursors = await server.publish("failing", 3)
            assert [event.id for event in await events(connection, 3)] == cursors
        await server.left("failing")


# Clients that leave in different ways


def shut_down(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)  # "no more requests": it looks the same as a client that has left


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


GOING = {"close": socket.socket.close, "half-close": shut_down, "reset": reset}


@pytest.mark.parametrize("way", GOING)
@pytest.mark.parametrize("loop", LOOPS)
async def test_client_leaves(servers: dict[str, Uvicorn], loop: str, way: str) -> None:
    server = servers[loop]
    topic = f"going/{way}"
    async with await server.open() as neighbour:
        await subscribe(server, neighbour, topic)
        with connect(server.port) as sock:
            sock.sendall(get(f"/bare/events?topic={topic}"))
            while b"retry:" not in sock.recv(65536):
                pass
            assert await server.ways(topic) == ["direct"] * 2
            GOING[way](sock)
            await server.left(topic)
        assert await server.ways(topic) == ["direct"]
        cursors = await server.publish(topic, 3)
        assert [event.id for event in await events(neighbour, 3)] == cursors
    assert server.troubles == []


# Clients that read slowly


SLOW = [("bare", "uvloop"), ("bare", "asyncio"), ("base", "uvloop"), ("bare", "h11"), ("base", "h11-asyncio")]


@pytest.mark.parametrize(("name", "kind"), SLOW)
async def test_late_reader(servers: dict[str, Uvicorn], name: str, kind: str) -> None:
    server = servers[kind]
    topic = f"late/{name}"
    async with await server.open(receive_buffer=32768) as connection, await server.open() as neighbour:
        await subscribe(server, neighbour, topic)
        assert await connection.get(f"/{name}/events?topic={topic}") == 200
        # More than the kernel holds for a client that does not read, in pages and in one larger event.
        reading = asyncio.create_task(events(neighbour, 601))
        cursors = await server.publish(topic, 500, size=10_000)
        cursors += await server.publish(topic, 1, size=1_000_000, first=500)
        cursors += await server.publish(topic, 100, size=30_000, first=501)
        assert [event.id for event in await reading] == cursors
        await connection.stall()
        if kind in LOOPS and name == "bare":
            assert sorted(await server.ways(topic)) == ["direct", "direct, behind"]
        found = await events(connection, 601)
        assert [event.id for event in found] == cursors
        assert numbers(found) == list(range(601))
        cursors = await server.publish(topic, 2)
        assert [event.id for event in await events(connection, 2)] == cursors
        if kind in LOOPS and name == "bare":
            assert await server.ways(topic) == ["direct"] * 2
    assert server.troubles == []


FALLING = [(name, policy) for name in ("bare", "base") for policy in ("disconnect", "skip")]


@pytest.mark.parametrize(("name", "policy"), FALLING)
async def test_reader_falls_off_the_log(servers: dict[str, Uvicorn], name: str, policy: str) -> None:
    """Its stream ends or continues after a gap, by its policy; its events are in order."""
    server = servers["small"]
    topic = f"falling/{name}/{policy}"
    path = f"/{name}/events?topic={topic}&policy={policy}"
    async with await server.open(receive_buffer=32768) as connection:
        assert await connection.get(path) == 200
        for first in range(0, 900, 20):
            cursors = await server.publish(topic, 20, size=10_000, first=first)
        if policy == "skip":
            last = (await server.publish(topic, 1, first=900))[0]
            gaps, expected, event = 0, 0, None
            while event is None or event.id != last:  # a gap has the cursor after which the stream continues
                (event,) = await events(connection, 1)
                if event.event == "stream:gap":
                    gaps += 1
                    continue
                (number,) = numbers([event])
                assert number == expected or gaps, "events are missing without a gap"
                assert number >= expected
                expected = number + 1
            assert gaps
        else:
            decoder = Decoder()
            body = await connection.rest()
            found = decoder.feed(body)
            await server.left(topic, "slow_consumer")
            assert numbers(found) == list(range(len(found)))
            assert 0 < len(found) < 900
    if policy == "disconnect":
        async with await server.open() as connection:
            assert await connection.get(path, headers=f"Last-Event-ID: {found[-1].id}\r\n") == 200
            gap, *kept = await events(connection, 21)
            assert gap.event == "stream:gap"
            assert [event.id for event in kept] == cursors


@pytest.mark.parametrize("name", ["bare", "base"])
async def test_client_never_reads(servers: dict[str, Uvicorn], name: str) -> None:
    server = servers["impatient"]
    topic = f"never/{name}"
    async with await server.open(receive_buffer=4096) as connection:
        await connection.get(f"/{name}/events?topic={topic}")
        await server.publish(topic, 10, size=1_000_000)
        await server.left(topic, "send_timeout")
        await connection.dropped()  # an end after unsent bytes would never arrive


@pytest.mark.parametrize("loop", LOOPS)
async def test_largest_event(servers: dict[str, Uvicorn], loop: str) -> None:
    server = servers[loop]
    async with await server.open() as connection:
        await subscribe(server, connection, "largest")
        (cursor,) = await server.publish("largest", 1, size=1024 * 1024)
        expected = f"data: {'0'.ljust(1024 * 1024, '.')}\n".encode()
        while not connection.body.endswith(b"\n\n") or expected[:100] not in connection.body:
            assert await connection.piece()
        block = connection.body[connection.body.index(b"\n\n") + 2 :]
        assert expected in block
        assert block.replace(expected, b"") == f"id: {cursor}\n\n".encode()


# Limits of the server, and its end


async def test_limit_of_connections() -> None:
    with closing(Uvicorn("--limit-concurrency=4")) as server:
        server.wait_for(server.port)
        async with AsyncExitStack() as stack:
            for _ in range(3):
                connection = await stack.enter_async_context(await server.open())
                await subscribe(server, connection, "limit")
            async with await server.open() as connection:
                assert await connection.get("/bare/events?topic=limit") == 503
                await connection.rest()
        # A client that leaves makes room for another.
        await until(lambda: server.output.count("[left limit client_closed]") == 3, lambda: "three that left")
        async with await server.open() as connection:
            await subscribe(server, connection, "limit")
            assert await server.ways("limit") == ["direct"]


async def test_limit_of_requests() -> None:
    with closing(Uvicorn("--limit-max-requests=3")) as server:
        server.wait_for(server.port)
        async with AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(await server.open()) for _ in range(3)]
            for connection in connections:
                await subscribe(server, connection, "limit")
            for connection in connections:
                assert re.search(rb"retry: \d+\n\n$", await connection.rest())
                assert connection.complete
        await until(lambda: server.process.poll() is not None, lambda: "an exit")
        assert server.process.returncode == 0
        assert server.troubles == []


@pytest.mark.parametrize("loop", LOOPS)
async def test_server_stops(loop: str) -> None:
    with closing(Uvicorn(*OPTIONS[loop])) as server:
        server.wait_for(server.port)
        async with AsyncExitStack() as stack:
            paths = ["/bare/events?topic=end"] * 200 + ["/base/events?topic=end"] * 5
            connections = [await stack.enter_async_context(await server.open()) for _ in paths]
            for connection, path in zip(connections, paths, strict=True):
                assert await connection.get(path) == 200
                await connection.piece()
            unread = await stack.enter_async_context(await server.open(receive_buffer=4096))
            await unread.get("/bare/events?topic=unread")
            await server.publish("unread", 10, size=1_000_000)
            assert sorted(await server.ways("end")) == ["direct"] * 200 + ["portable"] * 5
            # A request is in progress, and a request for a stream waits after it.
            late = await stack.enter_async_context(await Wire.open(server.port))
            await late.say(get("/wait"))
            await server.says("[waiting]")
            await late.say(get("/bare/events?topic=end"))
            (cursor,) = await server.publish("end", 1)
            ends = [asyncio.create_task(connection.rest()) for connection in connections]
            answers = asyncio.create_task(late.all())
            start = time.monotonic()
            await server.end()
            assert time.monotonic() - start < DRAIN + 2
            for connection, end in zip(connections, ends, strict=True):
                assert re.search(rf"id: {cursor}\n.*\nretry: \d+\n\n$".encode(), await end, re.DOTALL)
                assert connection.complete
            waited, *rest = (await answers).split(b"HTTP/1.1 ")[1:]
            assert waited.endswith(b'"waited"')
            if loop.startswith("h11"):
                assert rest == []  # uvicorn itself closes the connection before the next request
            else:
                (refused,) = rest
                assert refused.startswith(b"503 ")
                assert b"content-type: application/problem+json\r\n" in refused
                assert b"retry-after: " in refused
        assert server.process.returncode == -signal.SIGTERM
        assert server.output.count("[left end draining]") == 205
        assert server.output.count("[left unread draining]") == 1
        assert server.troubles == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("name", ["bare", "fastapi", "portable"])
async def test_eager_tasks(http: str, name: str) -> None:
    """The application then runs within the server's parser, which needs its connection until it returns."""
    with closing(Uvicorn("--loop=asyncio", f"--http={http}", env={"EAGER": "1"})) as server:
        server.wait_for(server.port)
        async with await Wire.open(server.port) as connection, await server.open() as neighbour:
            await subscribe(server, neighbour, "eager")
            await connection.say(get(f"/{name}/events?topic=eager") + get("/large?size=3"))
            assert await connection.head() == 200
            assert (await connection.piece()).startswith(b"id: ")
            assert await server.ways("eager") == ["direct", "portable" if name == "portable" else "direct"]
            cursors = await server.publish("eager", 5)
            for each in (connection, neighbour):
                assert [event.id for event in await events(each, 5)] == cursors
        await server.left("eager")
        assert server.troubles == []
