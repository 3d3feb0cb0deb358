"""Event streams of the hub's own server: the short way for plain requests gives the same answers as the application."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import pytest
from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from support.servers import PATIENCE, Connection, connect, until
from tickertape.access import CredentialAccess, JWTVerifier, KeyFile, Revocations, add_key
from tickertape.hub import DirectOutput, Grant, Hub, Subscription
from tickertape.server import listen
from tickertape.server.app import create_app
from tickertape.server.connections import HTTPProtocol
from tickertape.server.limits import Guard, Limits
from tickertape.server.protocol import HubProtocol

FRIEND = "https://friend.example"


class CountingHub(Hub):
    """A hub that counts the streams which it opened for connections, without the application."""

    opened = 0

    def open_direct(self, *args: Any, **options: Any) -> Any:
        found = super().open_direct(*args, **options)
        self.opened += found is not None
        return found


class Served(NamedTuple):
    server: Server
    port: int
    hub: CountingHub


@asynccontextmanager
async def serving(
    *cors_origins: str,
    http: Any = HubProtocol,
    access_log: bool = False,
    proxies: tuple[str, ...] = (),
    client_streams: int | None = None,
    **options: Any,
) -> AsyncIterator[Served]:
    hub = CountingHub(max_event_size=1000, drain_window=0)
    limits = Limits(trusted_proxies=proxies, client_streams=client_streams)
    app = create_app(hub, cors_origins=cors_origins, guard=Guard(limits))
    listener = listen("127.0.0.1", 0)
    server = Server(Config(app, http=http, lifespan="on", ws="none", log_config=None, access_log=access_log, **options))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    try:
        yield Served(server, listener.getsockname()[1], hub)
    finally:
        server.should_exit = True
        await running
        listener.close()


class Case(NamedTuple):
    """A request, or several, and whether the connection answers it or the application."""

    target: str = "/events?topic=a"
    short: bool = False
    headers: str = "Host: localhost\r\n"
    method: str = "GET"
    version: str = "1.1"

    @property
    def request(self) -> bytes:
        return f"{self.method} {self.target} HTTP/{self.version}\r\n{self.headers}\r\n".encode("latin-1")


HOST = "Host: localhost\r\n"

CASES = {
    "plain": Case(short=True),
    "patterns": Case("/events?topic=a/*&topic=%C3%A4/**&on_overflow=skip", short=True),
    "all": Case("/events?topic=**", short=True),
    "envelope": Case("/events?topic=a&envelope=topic", short=True),
    "browser": Case(
        short=True,
        headers=f"{HOST}Connection: keep-alive\r\nCookie: a=b\r\nX-Forwarded-For: 1.2.3.4\r\n",
    ),
    "friend": Case(short=True, headers=f"{HOST}Origin: {FRIEND}\r\n"),
    "friend with cookie": Case(short=True, headers=f"{HOST}ORIGIN: {FRIEND}\r\nCookie: a=b\r\n"),
    "stranger": Case(short=True, headers=f"{HOST}Origin: https://stranger.example\r\n"),
    "empty id": Case(short=True, headers=f"{HOST}Last-Event-ID: \r\n"),
    "none kept": Case("/events?topic=a&last=0", short=True),
    "last": Case("/events?topic=a&last=3"),
    "foreign id": Case(headers=f"{HOST}Last-Event-ID: user-42\r\n"),
    "id in the query": Case("/events?topic=a&lastEventId=user-42"),
    "two origins": Case(headers=f"{HOST}Origin: {FRIEND}\r\nOrigin: {FRIEND}\r\n"),
    "no host": Case(headers="Accept: */*\r\n"),
    "two hosts": Case(headers=HOST * 2),
    "head": Case(method="HEAD"),
    "old": Case(version="1.0"),
    "close": Case(headers=f"{HOST}Connection: close\r\n"),
    "length": Case(headers=f"{HOST}Content-Length: 0\r\n"),
    "upgrade": Case(headers=f"{HOST}Connection: Upgrade\r\nUpgrade: h2c\r\n"),
    "absolute": Case("http://localhost/events?topic=a"),
    "no topic": Case("/events"),
    "empty segment": Case("/events?topic=a//b"),
    "too many": Case("/events?" + "&".join(f"topic={number}" for number in range(200))),
    "last too large": Case("/events?topic=a&last=99999999"),
    "unknown envelope": Case("/events?topic=a&envelope=no"),
    "policy": Case("/events?topic=a&on_overflow=wait"),
    "not utf-8": Case("/events?topic=%FF"),
    "another path": Case("/eventsx"),
    "below": Case("/events/a"),
    "garbage": Case("/events?topic=a b c"),
    "line folding": Case(headers=f"{HOST}X: a\r\n b\r\n"),
}


async def answer(port: int, request: bytes) -> bytes:
    """Return the head and the first bytes of the body of the first answer, without what differs by time and chance."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        received = b""
        end = b"\n\n" if b"HTTP/1.0" in request else b"\n\n\r\n"  # one is not chunked
        async with asyncio.timeout(PATIENCE):
            while not received.endswith(end) and (piece := await reader.read(65536)):
                received += piece
                head, _, body = received.partition(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                if length and len(body) >= int(length[1]):
                    break
                if request.startswith(b"HEAD") and b"\r\n\r\n" in received:
                    break
        ids = rb'x-request-id: [^\r]*\r\n|"request": ?"[^"]*"'
        return re.sub(rb"date: [^\r]*|\w{12}-|retry: \d+|" + ids, b"", received)
    finally:
        writer.close()


@pytest.mark.parametrize("cors_origins", [(), (FRIEND,), ("*",)], ids=["no-cors", "friend", "all-origins"])
async def test_same_answers_in_both_ways(cors_origins: tuple[str, ...]) -> None:
    async with serving(*cors_origins) as ours, serving(*cors_origins, http=HTTPProtocol) as application:
        for name, case in CASES.items():
            before = ours.hub.opened
            found = await answer(ours.port, case.request)
            assert found == await answer(application.port, case.request), name
            assert found.startswith((b"HTTP/1.1 200", b"HTTP/1.1 4")), (name, found)
            assert ours.hub.opened - before == case.short, name
            # Twice, as the second one is answered from caches; in two pieces, and with another request after it.
            assert await answer(ours.port, case.request) == found, name
            assert ours.hub.opened - before == 2 * case.short, name
        assert application.hub.opened == 0


SECRET = b"the secret of tokens in these tests."

TOKENS = {
    name: jwt.encode({"sub": name, "iat": 1, "exp": exp, "tickertape": {"subscribe": ["a/**"]}}, SECRET, "HS256")
    for name, exp in (("alice", 4e9), ("revoked", 4e9), ("late", 10))
}
FORGED = jwt.encode({"tickertape": {"admin": True}}, b"x" * 32, "HS256")

ACCESS_CASES = {
    "anonymous": Case("/events?topic=news", short=True),
    "anonymous, beyond": Case("/events?topic=a"),
    "token": Case("/events?topic=a/1", short=True, headers=f"{HOST}Authorization: Bearer {TOKENS['alice']}\r\n"),
    "token, beyond": Case("/events?topic=b", headers=f"{HOST}Authorization: Bearer {TOKENS['alice']}\r\n"),
    "token, expired": Case("/events?topic=a/1", headers=f"{HOST}Authorization: Bearer {TOKENS['late']}\r\n"),
    "token, revoked": Case("/events?topic=a/1", headers=f"{HOST}Authorization: Bearer {TOKENS['revoked']}\r\n"),
    "token, forged": Case("/events?topic=a/1", headers=f"{HOST}Authorization: Bearer {FORGED}\r\n"),
    "two tokens": Case("/events?topic=a/1", headers=HOST + f"Authorization: Bearer {TOKENS['alice']}\r\n" * 2),
    "key": Case("/events?topic=k", short=True, headers=f"{HOST}authorization: bearer KEY\r\n"),
    "unknown key": Case("/events?topic=k", headers=f"{HOST}authorization: bearer ttk_x\r\n"),
    "cookie": Case("/events?topic=k", short=True, headers=f"{HOST}Cookie: session=KEY\r\n"),
    "cookie of this site": Case(
        "/events?topic=k", short=True, headers=f"{HOST}Cookie: session=KEY\r\nSec-Fetch-Site: same-origin\r\n"
    ),
    "cookie of another site": Case(
        "/events?topic=k", headers=f"{HOST}Cookie: session=KEY\r\nSec-Fetch-Site: cross-site\r\n"
    ),
    "cookie of another origin": Case(
        "/events?topic=k", headers=f"{HOST}Cookie: session=KEY\r\nOrigin: https://stranger.example\r\n"
    ),
    "ticket": Case("/events?topic=news&%74icket=x"),
    "empty ticket": Case("/events?topic=news&ticket="),
}


async def test_access_in_both_ways(tmp_path: Path) -> None:
    """With access control, the connection decides what needs no other server, and as the application does."""
    key = add_key(tmp_path / "keys", "program", subscribe=["k"], now=1)
    keys, tokens = KeyFile(tmp_path / "keys"), JWTVerifier(SECRET)
    async with serving() as ours, serving(http=HTTPProtocol) as application:
        for served in (ours, application):
            revocations = Revocations(served.hub)
            served.hub.access = CredentialAccess(
                jwt=tokens, keys=keys, revocations=revocations, subscribe=["news"], cookie="session"
            )
            await revocations.revoke("revoked")
        for first in (True, False):
            # The first request with a credential reads the revocations in the log, so the application answers it.
            loaded = not first
            for name, case in ACCESS_CASES.items():
                before = ours.hub.opened
                request = case.request.replace(b"KEY", key.encode())
                found = await answer(ours.port, request)
                assert found == await answer(application.port, request), name
                assert found.startswith((b"HTTP/1.1 200", b"HTTP/1.1 401", b"HTTP/1.1 403")), (name, found)
                assert ours.hub.opened - before == (case.short and (loaded or name == "anonymous")), name
                loaded = loaded or name == "token"
        users = {info.user for info in ours.hub.presence}
        assert users <= {None, "alice", "program"}


async def test_access_that_waits() -> None:
    async def access(request: Any) -> Grant:
        return Grant(subscribe=("a",))

    async with serving() as served:
        served.hub.access = access
        assert (await answer(served.port, CASES["plain"].request)).startswith(b"HTTP/1.1 200")
        assert served.hub.opened == 0


async def test_end_of_a_token() -> None:
    """A stream that the connection has opened ends with its token."""
    async with serving() as served:
        served.hub.access = CredentialAccess(jwt=JWTVerifier(SECRET, leeway=0))
        claims = {"sub": "alice", "exp": time.time() + 1.5, "tickertape": {"subscribe": ["a"]}}
        token = jwt.encode(claims, SECRET, "HS256")
        async with await Connection.open(served.port) as subscriber:
            await subscriber.get("/events?topic=a", headers=f"Authorization: Bearer {token}\r\n")
            assert served.hub.opened == 1
            assert [info.user for info in served.hub.presence] == ["alice"]
            assert (await subscriber.event()).event == "stream:expired"


async def test_streams_of_a_user() -> None:
    """The limit of a client counts the streams of a user together, whichever way serves them."""
    async with serving(client_streams=2) as served:
        served.hub.access = CredentialAccess(jwt=JWTVerifier(SECRET))
        header = f"Authorization: Bearer {TOKENS['alice']}\r\n"
        async with AsyncExitStack() as stack:
            statuses = []
            for extra in ("", "Last-Event-ID: other-1\r\n", ""):
                stream = await stack.enter_async_context(await Connection.open(served.port))
                statuses.append(await stream.get("/events?topic=a/1", headers=header + extra))
            assert statuses == [200, 200, 429]
            assert served.hub.opened == 1


@pytest.mark.parametrize("request_", [CASES["plain"].request, CASES["browser"].request])
async def test_requests_in_pieces_and_together(request_: bytes) -> None:
    async with serving() as served:
        whole = await answer(served.port, request_)
        assert served.hub.opened == 1
        assert await answer(served.port, request_ * 2) == whole
        with connect(served.port) as sock:
            sock.sendall(request_[:20])
            await asyncio.sleep(0.05)
            sock.sendall(request_[20:])
            async with asyncio.timeout(PATIENCE):
                received = b""
                while not received.endswith(b"\n\n\r\n"):
                    received += await asyncio.to_thread(sock.recv, 65536)
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert served.hub.opened == 1


async def test_resume() -> None:
    async with serving() as served:
        cursors = [await served.hub.publish("a", str(number)) for number in range(3)]
        async with await Connection.open(served.port) as subscriber:
            await subscriber.get("/events?topic=a", headers=f"Last-Event-ID: {cursors[0]}\r\n")
            found = [await subscriber.event() for _ in range(2)]
            assert [event.id for event in found] == [str(cursor) for cursor in cursors[1:]]
            assert [event.data for event in found] == ["1", "2"]
        assert served.hub.opened == 1


async def test_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "uvicorn.access")
    async with (
        serving(access_log=True, proxies=("127.0.0.1",)) as served,
        await Connection.open(served.port) as subscriber,
    ):
        await subscriber.get("/events?topic=%C3%A4/*")
        client = subscriber._writer.get_extra_info("sockname")
        assert served.hub.opened == 1
        # Behind a proxy, uvicorn logs the address of its client.
        async with await Connection.open(served.port) as other:
            await other.get("/events?topic=b", headers="X-Forwarded-For: 192.0.2.1\r\n")
        assert served.hub.opened == 1
    assert [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"] == [
        f'127.0.0.1:{client[1]} - "GET /events?topic=%C3%A4/* HTTP/1.1" 200',
        '192.0.2.1:0 - "GET /events?topic=b HTTP/1.1" 200',
    ]


KINDS = (DirectOutput, Subscription, HubProtocol, HTTPProtocol, RequestResponseCycle)


@pytest.mark.parametrize("name", ["plain", "last"])
async def test_closed_streams_leave_nothing_behind(name: str) -> None:
    """Objects of a stream must be freed when it is closed, not by a later collection."""

    def left() -> list[type]:
        return [type(each) for each in gc.get_objects() if type(each) in KINDS]

    async with serving() as served:
        gc.collect()
        gc.disable()
        try:
            async with await Connection.open(served.port) as subscriber:
                await subscriber.get(CASES[name].target)
                await subscriber.piece()
                await until(
                    lambda: sorted(left(), key=KINDS.index) == [DirectOutput, Subscription], lambda: str(left())
                )
            await until(lambda: not left(), lambda: str(left()))
        finally:
            gc.enable()


async def test_draining() -> None:
    async with serving() as served:
        served.hub.drain()
        found = await answer(served.port, CASES["plain"].request)
        assert found.startswith(b"HTTP/1.1 503 ")
        assert b"application/problem+json" in found


async def test_connections_of_the_server() -> None:
    async with serving(limit_concurrency=4) as served:
        connections = served.server.server_state.connections
        async with await Connection.open(served.port) as idle, await Connection.open(served.port) as subscriber:
            await subscriber.get("/events?topic=a")
            assert sorted(type(connection).__name__ for connection in connections) == ["DirectOutput", "HubProtocol"]
            assert served.server.server_state.total_requests == 1
            async with await Connection.open(served.port) as third:
                await third.get("/health/live")
                async with await Connection.open(served.port) as refused:
                    with pytest.raises(ConnectionError):
                        await refused.get("/events?topic=a")
            served.server.should_exit = True
            await subscriber.rest()
            assert subscriber.complete
            assert await idle.closed()
        async with asyncio.timeout(PATIENCE):
            while connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("cors_origins", [(), ("https://friend.example",)])
@pytest.mark.parametrize("headers", ["", "Origin: https://friend.example\r\n"])
async def test_streams_with_cors(cors_origins: tuple[str, ...], headers: str) -> None:
    async with serving(*cors_origins) as (server, port, _), await Connection.open(port) as subscriber:
        assert await subscriber.get("/events?topic=a", headers=headers) == 200
        assert ("access-control-allow-origin" in subscriber.headers) is bool(cors_origins and headers)
        assert b"retry: " in await subscriber.piece()
        async with await Connection.open(port) as publisher:
            await publisher.get("/events/a?event=e", method="POST")
            assert publisher.status == 201
            event = await subscriber.event()
            assert (event.event, event.data) == ("e", "")
        kinds: list[type] = [type(connection) for connection in server.server_state.connections]
        assert DirectOutput in kinds


async def test_connection_after_large_body() -> None:
    async with serving() as (_, port, _), await Connection.open(port) as connection:
        assert await connection.get("/events/a", method="POST", headers="Content-Length: 200000\r\n") == 413
        await connection.rest()
        connection._writer.write(b"x" * 200_000)  # a body that is sent anyway is read and dropped
        assert await connection.get("/health/live") == 200
