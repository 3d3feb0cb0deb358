"""Attacks on a real server: each is ended by its limit, counted, and costs little memory."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import repeat
from typing import Final, NamedTuple

import psutil
import pytest

from support.program import Serve, serving
from support.servers import PATIENCE, Connection
from tickertape.server.descriptors import raise_descriptor_limit

MIB: Final = 1024 * 1024

GROWTH: Final = 48 * MIB
"""Bytes by which the memory of the server may grow: what it reads at once, and 32 MiB before it collects garbage."""

SENT: Final = 16 * MIB
"""Bytes that an attacker sends if nothing stops it."""


def memory(server: Serve) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


async def counts(server: Serve) -> dict[str, int]:
    """Return how often each limit was reached."""
    async with await Connection.open(server.port) as connection:
        assert await connection.get("/metrics") == 200
        text = (await connection.rest()).decode()
    found = re.findall(r'^tickertape_limits_total\{limit="(\w+)"\} ([\d.]+)$', text, re.MULTILINE)
    return {name: int(float(count)) for name, count in found if float(count)}


@asynccontextmanager
async def connect(server: Serve) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def received(reader: asyncio.StreamReader) -> bytes:
    """Return everything up to the end of the connection."""
    found = b""
    async with asyncio.timeout(PATIENCE):
        try:
            while piece := await reader.read(65536):
                found += piece
        except ConnectionError:
            pass  # it was reset: the server did not read everything
    return found


# Clients that send too slowly

TIMES: Final = ("--head-timeout=0.4", "--body-timeout=0.4", "--body-rate=1MiB", "--keep-alive=0.4")

POST: Final = b"POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n"


class Slow(NamedTuple):
    """Bytes that a client sends before it sends no more, and the beginning of the answer.

    Attributes:
        sent: the bytes.
        answer: the first bytes of the last answer; none for a connection that is closed without one.
        limit: the name of the limit.
    """

    sent: bytes
    answer: bytes
    limit: str


SLOW: Final = {
    "silent": Slow(b"", b"", "head_timeout"),
    "line breaks": Slow(b"\r\n\r\n", b"", "head_timeout"),
    "half a line": Slow(b"GET /events?to", b"HTTP/1.1 408 ", "head_timeout"),
    "half a head": Slow(b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"HTTP/1.1 408 ", "head_timeout"),
    "half a second head": Slow(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT", b"HTTP/1.1 200 ", ""),
    "no body": Slow(POST, b"HTTP/1.1 408 ", "body_timeout"),
    "half a body": Slow(POST + b"x" * 250_000, b"HTTP/1.1 408 ", "body_timeout"),
    "half a chunk": Slow(
        b"POST /events/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc",
        b"HTTP/1.1 408 ",
        "body_timeout",
    ),
    "body of a refused request": Slow(
        b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\nx", b"HTTP/1.1 40", ""
    ),
    "idle": Slow(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HTTP/1.1 200 ", ""),
}


@pytest.mark.parametrize("name", SLOW)
async def test_slow_client(name: str) -> None:
    case = SLOW[name]
    async with serving("--broker=memory://", *TIMES) as server:
        async with connect(server) as (reader, writer):
            writer.write(case.sent)
            answers = await received(reader)
        assert answers.rpartition(b"HTTP/1.1")[2].startswith(case.answer.removeprefix(b"HTTP/1.1"))
        expected = [{case.limit: 1} if case.limit else {}]
        if name == "body of a refused request":
            expected.append({"body_timeout": 1})  # if the time for the body is over before the connection is closed
        assert await counts(server) in expected
        assert "Traceback" not in server.output


async def test_body_that_drips() -> None:
    """A body may take as long as its bytes come at the least rate, and no longer."""
    async with serving("--broker=memory://", "--body-timeout=0.4", "--body-rate=100KiB") as server:
        async with connect(server) as (reader, writer):
            writer.write(POST)
            answer = asyncio.ensure_future(received(reader))
            for piece in repeat(b"x", 300):  # 6 s at 50 bytes a second
                if answer.done():
                    break
                writer.write(piece)
                await asyncio.sleep(0.02)
            assert (await answer).startswith(b"HTTP/1.1 408 ")
        assert await counts(server) == {"body_timeout": 1}


# Clients that send too much

HEAD: Final = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED: Final = b"POST /events/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


class Endless(NamedTuple):
    """Bytes that a client sends again and again after the first ones, and the limit that ends it."""

    first: bytes
    again: bytes
    limit: str


ENDLESS: Final = {
    "header lines": Endless(HEAD, b"x: y\r\n" * 1000, "headers"),
    "long header lines": Endless(HEAD, b"x: " + b"y" * 30_000 + b"\r\n", "head_size"),
    "header value": Endless(HEAD + b"x: ", b"y" * 6000, "head_size"),
    "header name": Endless(HEAD, b"y" * 6000, "head_size"),
    "url": Endless(b"GET /", b"y" * 6000, "head_size"),
    "query of a stream": Endless(b"GET /events?topic=", b"y" * 6000, "head_size"),
    "line breaks": Endless(b"", b"\r\n" * 3000, "head_size"),
    "trailers": Endless(CHUNKED + b"0\r\n", b"x: y\r\n" * 1000, "headers"),
    "trailer value": Endless(CHUNKED + b"0\r\nx: ", b"y" * 6000, "head_size"),
    "chunk extension": Endless(CHUNKED + b"1;x=", b"y" * 6000, "head_size"),
}


def pieces(first: bytes, again: bytes) -> Iterator[bytes]:
    yield first
    yield from repeat(again, SENT // len(again))


async def send_all(writer: asyncio.StreamWriter, first: bytes, again: bytes) -> int:
    """Send until the server closes the connection; return the number of bytes."""
    sent = 0
    try:
        for piece in pieces(first, again):
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
    except ConnectionError:
        pass
    return sent


@pytest.mark.parametrize("name", ENDLESS)
async def test_endless_request(name: str) -> None:
    case = ENDLESS[name]
    async with serving("--broker=memory://") as server:
        before = memory(server)
        async with connect(server) as (reader, writer):
            sending = asyncio.ensure_future(send_all(writer, case.first, case.again))
            await received(reader)
            assert await sending < SENT
        assert memory(server) - before < GROWTH
        assert await counts(server) == {case.limit: 1}
        assert "Traceback" not in server.output


async def test_refused_head() -> None:
    """The client sees why."""
    options = ("--broker=memory://", "--max-headers=10")
    async with serving(*options) as server, await Connection.open(server.port) as connection:
        assert await connection.get("/health/live", headers="x: y\r\n" * 9) == 200
        await connection.rest()
        assert await connection.get("/events?topic=a", headers="x: y\r\n" * 10) == 431
        assert json.loads(await connection.rest())["detail"].startswith("expected at most 10 headers")
        assert await connection.closed()


async def test_pipelined_requests() -> None:
    """They wait in the buffers of the network, and each gets its answer in its turn."""
    request = HEAD + b"\r\n"
    async with serving("--broker=memory://") as server:
        before = memory(server)
        async with connect(server) as (_, writer):
            sending = asyncio.ensure_future(send_all(writer, b"", request * 1000))
            async with await Connection.open(server.port) as other:
                for _ in range(20):
                    assert await other.get("/health/live") == 200
                    await other.rest()
            assert memory(server) - before < GROWTH
            sending.cancel()
        async with connect(server) as (reader, writer):
            writer.write(request * 3000 + HEAD + b"Connection: close\r\n\r\n")
            assert (await received(reader)).count(b"HTTP/1.1 200 OK") == 3001


async def test_unfinished_bodies() -> None:
    """They share a part of the memory, of which a client gets a quarter; usual events are published all the same."""
    options = ("--max-body-memory=8MiB", "--max-event-size=1MiB")
    start = (
        b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 8000000\r\n\r\n"
    )
    async with serving("--broker=memory://", *options) as server, AsyncExitStack() as stack:
        before = memory(server)
        for _ in range(20):
            _, writer = await stack.enter_async_context(connect(server))
            writer.write(start + b"[" + b" " * 4_000_000)
        async with await Connection.open(server.port) as connection:
            while (await counts(server)).get("body_memory", 0) < 19:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            body = "Content-Length: 5\r\n\r\nhello"
            assert await connection.get("/events/a", method="POST", headers=body) == 201
        assert memory(server) - before < GROWTH


# Pages of other hosts


@pytest.mark.parametrize(
    ("host", "options", "allowed"),
    [
        ("evil.example", (), False),
        ("localhost.evil.example", (), False),
        ("127.0.0.1.evil.example:80", (), False),
        ("", (), False),
        ("localhost", (), True),
        ("LOCALHOST.:8000", (), True),
        ("app.localhost:80", (), True),
        ("127.0.0.1:8000", (), True),
        ("[::1]:8000", (), True),
        ("hub.example.org", ("--allowed-hosts=hub.example.org",), True),
        ("a.example.org:444", ("--allowed-hosts=*.example.org",), True),
        ("example.org", ("--allowed-hosts=*.example.org",), False),
        ("evil.example", ("--allowed-hosts=*",), True),
    ],
)
async def test_host(host: str, options: tuple[str, ...], allowed: bool) -> None:
    """A page whose name was made to resolve to this machine may neither read nor publish."""
    line = f"Host: {host}\r\nOrigin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n".encode()
    requests = {
        b"GET /events?topic=a HTTP/1.1\r\n%b\r\n": 200,
        b"GET /history?topic=a HTTP/1.1\r\n%b\r\n": 200,
        b"POST /events/a HTTP/1.1\r\n%bContent-Length: 0\r\n\r\n": 201,
    }
    async with serving("--broker=memory://", *options) as server:
        for request, status in requests.items():
            async with connect(server) as (reader, writer):
                writer.write(request % line)
                assert int((await reader.readline()).split()[1]) == (status if allowed else 421)
        assert (await counts(server)).get("hosts", 0) == (0 if allowed else len(requests))


# Rates, and numbers of streams and connections


async def test_publish_rate() -> None:
    async with serving("--broker=memory://", "--client-publish-rate=2") as server:
        async with await Connection.open(server.port) as connection:
            statuses = []
            for _ in range(4):
                statuses.append(await connection.get("/events/a", method="POST", headers="Content-Length: 0\r\n"))
                retry = connection.headers.get("retry-after")
                await connection.rest()
        assert statuses == [201, 201, 429, 429]
        assert retry == "1"
        assert await counts(server) == {"publish_rate": 2}


async def test_streams_behind_a_proxy() -> None:
    """Each client of a trusted proxy has its own number of streams; a client cannot choose its name."""
    options = ("--client-streams=2", "--trusted-proxies=127.0.0.1")
    async with serving("--broker=memory://", *options) as server, AsyncExitStack() as stack:
        statuses = []
        for client in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "9.9.9.9, 192.0.2.1", "192.0.2.2"):
            connection = await stack.enter_async_context(await Connection.open(server.port))
            statuses.append(await connection.get("/events?topic=a", headers=f"X-Forwarded-For: {client}\r\n"))
        assert statuses == [200, 200, 429, 429, 200]
        assert await counts(server) == {"streams": 2}


@pytest.mark.parametrize("options", [("--client-streams=2",), ("--max-streams=2",)])
async def test_streams_end(options: tuple[str, ...]) -> None:
    """A stream that has ended makes room for another one; without a trusted proxy, its headers do not count."""
    async with serving("--broker=memory://", *options) as server:
        for _ in range(3):
            async with AsyncExitStack() as stack:
                for number, status in enumerate([200, 200, 429]):
                    connection = await stack.enter_async_context(await Connection.open(server.port))
                    forwarded = f"X-Forwarded-For: 192.0.2.{number}\r\n"
                    assert await connection.get("/events?topic=a", headers=forwarded) == status
            while await subscribers(server):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await counts(server) == {"streams": 3}


async def test_streams_that_never_read() -> None:
    """They cost no memory for events, and another client gets each event."""
    raise_descriptor_limit()
    options = ("--broker=memory://", "--send-timeout=none", "--head-timeout=none")
    async with serving(*options) as server, AsyncExitStack() as stack:
        before = memory(server)
        for _ in range(2000):
            silent = await Connection.open(server.port, receive_buffer=4096)
            stack.callback(silent.abort)
            await silent.ask("/events?topic=a")
        reader = await stack.enter_async_context(await Connection.open(server.port))
        publisher = await stack.enter_async_context(await Connection.open(server.port))
        assert await reader.get("/events?topic=a") == 200
        for number in range(100):
            data = str(number).ljust(20_000, "x")
            headers = f"Content-Length: {len(data)}\r\n\r\n{data[:-2]}"
            assert await publisher.get("/events/a", method="POST", headers=headers) == 201
            await publisher.rest()
            while (event := await reader.event()).data in (None, ""):
                pass
            assert (event.data or "").startswith(str(number))
        assert await subscribers(server) == 2001
        assert memory(server) - before < GROWTH


async def subscribers(server: Serve) -> int:
    async with await Connection.open(server.port) as connection:
        await connection.get("/subscribers")
        return int(json.loads(await connection.rest())["subscribers"])


async def test_connections_of_one_address() -> None:
    async with serving("--broker=memory://", "--client-connections=5") as server, AsyncExitStack() as stack:
        for _ in range(5):
            connection = await stack.enter_async_context(await Connection.open(server.port))
            assert await connection.get("/events?topic=a") == 200
        async with connect(server) as (reader, _):
            assert await received(reader) == b""
        await connection.close()
        while await subscribers_or_none(server) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        assert (await counts(server))["client_connections"] >= 1


async def subscribers_or_none(server: Serve) -> int | None:
    try:
        return await subscribers(server)
    except ConnectionError:
        return None


# Headers of answers


async def test_nosniff() -> None:
    requests = {
        HEAD: 200,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n": 200,
        b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n": 404,
        b"GET /events?topic=a HTTP/1.1\r\nHost: localhost\r\n": 200,
        b"GET /events HTTP/1.1\r\nHost: localhost\r\n": 400,
        b"nonsense\r\n": 400,
    }
    async with serving("--broker=memory://") as server:
        for request, status in requests.items():
            async with connect(server) as (reader, writer):
                writer.write(request + b"\r\n")
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                assert head.startswith(b"http/1.1 %d " % status)
                assert head.count(b"x-content-type-options: nosniff\r\n") == 1


async def test_preflight_with_credentials() -> None:
    page = "Origin: https://page.example\r\n"
    options = ("--cors-origin=https://page.example", "--cors-credentials", "--cors-max-age=77")
    async with serving("--broker=memory://", *options) as server, await Connection.open(server.port) as connection:
        asked = f"{page}Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n"
        assert await connection.get("/events", method="OPTIONS", headers=asked) == 200
        assert connection.headers["access-control-max-age"] == "77"
        assert "Authorization" in connection.headers["access-control-allow-headers"]
        await connection.rest()
        assert await connection.get("/events?topic=a", headers=f"{page}Cookie: a=b\r\n") == 200
        assert connection.headers["access-control-allow-credentials"] == "true"
        assert connection.headers["access-control-allow-origin"] == "https://page.example"


# Bodies that take long to parse


def event_of(data: str) -> str:
    return '{"topic":"a","data":' + data + "}"


BODIES: Final = {
    "unknown fields": ("{" + ",".join(f'"k{number}":1' for number in range(500_000)) + "}", 413),
    "small values": (event_of("[" + "1," * 2_000_000 + "1]"), 413),
    "nested values": (event_of("[" + "[]," * 2_000_000 + "1]"), 413),
    "large integers": (event_of("[" + ",".join(["9" * 4000] * 1500) + "]"), 400),
    "item of a batch": ("[" + event_of('["' + "x" * 600_000 + '",' + "1," * 2_000_000 + "1]") + "]", 413),
    "array in a batch": ("[[" + "1," * 2_000_000 + "1]]", 413),
    "quotes without an end": (event_of('"' + "," * 60_000 + '\\"' * 2_000_000), 400),
    "text of many lines": (event_of(json.dumps("x,\n" * 300_000)), 201),
    "batch of large items": ("[" + ",".join([event_of(json.dumps("x," * 350_000))] * 8) + "]", 201),
}


@pytest.mark.parametrize("name", BODIES)
async def test_body_does_not_block(name: str) -> None:
    """Another request is answered before the server has used much processor time."""
    text, status = BODIES[name]
    request = (
        f"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
    )
    async with serving("--broker=memory://") as server, await Connection.open(server.port) as other:
        used = psutil.Process(server.process.pid).cpu_times
        async with connect(server) as (reader, writer):
            writer.write(f"{request}\r\n\r\n{text}".encode())
            answer = asyncio.ensure_future(reader.readline())
            longest = 0.0
            while not answer.done():
                before = used()
                assert await other.get("/health/live") == 200
                await other.rest()
                longest = max(longest, used().user - before.user)
            assert int((await answer).split()[1]) == status
        assert longest < 0.4  # seconds


async def test_event_type_counts() -> None:
    async with serving("--broker=memory://", "--max-event-size=1000") as server, connect(server) as (reader, writer):
        body = json.dumps({"topic": "a", "data": "x", "event": "e" * 2000})
        head = (
            f"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        writer.write(f"{head}\r\n\r\n{body}".encode())
        assert int((await reader.readline()).split()[1]) == 413


async def test_publishers_wait_for_a_reader() -> None:
    """A reader that stalls gets every event: publishers are refused until it reads again."""
    options = ("--broker=memory://", "--retention-events=80", "--publish-wait=0.2", "--send-timeout=none")
    post = "Content-Length: 100000\r\n\r\n" + "x" * 100_000
    async with serving(*options) as server, await Connection.open(server.port) as publisher:
        async with await Connection.open(server.port, receive_buffer=4096) as reader:
            assert await reader.get("/events?topic=a") == 200
            published, status = 0, 201
            while status == 201 and published < 200:
                status = await publisher.get("/events/a", method="POST", headers=post[:-2])
                await publisher.rest()
                published += status == 201
            assert (status, publisher.headers.get("retry-after")) == (429, "1"), (published, publisher.body)
            assert 80 <= published < 200
            for _ in range(published - 40):
                assert (await reader.event()).event is None
            assert await publisher.get("/events/a", method="POST", headers=post[:-2]) == 201
            await publisher.rest()
            for _ in range(41):
                assert (await reader.event()).event is None
        assert await counts(server) == {"publish_wait": 1}


@pytest.mark.parametrize("closing", [False, True])
async def test_answers_that_are_not_read(closing: bool) -> None:
    """A client gets no second large answer before it has read the first, which it must do in time."""
    options = ("--broker=memory://", "--max-history-bytes=16MiB", "--max-answer-memory=16MiB", "--send-timeout=2")
    headers = "Connection: close\r\n" if closing else ""
    async with serving(*options) as server, await Connection.open(server.port) as other:
        for _ in range(12):
            post = f"Content-Length: {MIB}\r\n\r\n" + "x" * MIB
            assert await other.get("/events/a", method="POST", headers=post[:-2]) == 201
            await other.rest()
        async with await Connection.open(server.port, receive_buffer=4096) as unread:
            await unread.ask("/history?topic=a", headers=headers)
            await unread.stall()
            assert await other.get("/history?topic=a") == 503
            assert other.headers["retry-after"]
            await other.rest()
            assert await other.get("/health/live") == 200
            await other.rest()
            await unread.dropped()
        assert await other.get("/history?topic=a") == 200
        assert len(await other.rest()) > 12 * MIB
        assert await counts(server) == {"answer_memory": 1, "send_timeout": 1}


async def test_history_is_bounded_by_bytes() -> None:
    """The pages together have every event."""
    async with serving("--broker=memory://", "--max-history-bytes=1000KB") as server:
        async with await Connection.open(server.port) as connection:
            for _ in range(40):
                headers = "Content-Length: 50000\r\n\r\n" + "x" * 50_000
                await connection.get("/events/a", method="POST", headers=headers[:-2])
                await connection.rest()
            sizes: list[int] = []
            after = ""
            while not sizes or sizes[-1]:
                await connection.get(f"/history?topic=a&limit=1000{after}")
                events = json.loads(await connection.rest())["events"]
                sizes.append(len(events))
                after = f"&after={events[-1]['cursor']}" if events else ""
        assert sizes == [20, 20, 0]
