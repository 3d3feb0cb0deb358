"""Sockets found from outside their server: listeners that close, connections whose peer does not read."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from tickertape.asgi.sockets import (
    Ends,
    Unknown,
    abort_stuck,
    cut_off,
    find_connection,
    find_listener,
    server_address,
)
from tickertape.asgi.types import Message, Receive, Send

FAMILIES = [
    pytest.param((socket.AF_INET, "127.0.0.1"), id="v4"),
    pytest.param((socket.AF_INET, "0.0.0.0"), id="v4-any"),
    pytest.param((socket.AF_INET6, "::1"), id="v6"),
    pytest.param((socket.AF_INET6, "::"), id="v6-any"),
]
LOOPBACK: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


@contextmanager
def connected(family: int = socket.AF_INET) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and the server's end of its connection, with small buffers between them."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((LOOPBACK[family], 0), family=family))
        client = stack.enter_context(socket.socket(family))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname()[:2])
        server = stack.enter_context(listener.accept()[0])
        server.setblocking(False)
        yield client, server


def fill(server: socket.socket) -> None:
    """Write until the kernel takes no more."""
    with suppress(BlockingIOError):
        while server.send(b"x" * 65536):
            pass


def read_all(client: socket.socket) -> int:
    count = 0
    while received := client.recv(1 << 20):
        count += len(received)
    return count


def ends_of(server: socket.socket) -> Ends:
    return Ends(server.getpeername()[:2], server.getsockname()[:2])


# Addresses


@pytest.mark.parametrize(
    ("server", "address"),
    [
        (("127.0.0.1", 8000), ("127.0.0.1", 8000)),
        (["::1", "8000"], ("::1", 8000)),
        (("/run/app.sock", None), ("/run/app.sock", None)),
        (("/run/app.sock", "0"), ("/run/app.sock", None)),
        (None, ("", None)),
    ],
)
def test_server_address(server: Any, address: tuple[str, int | None]) -> None:
    assert server_address({"server": server}) == address


async def receive() -> Message:
    raise NotImplementedError


async def send(message: Message) -> None:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("scope", "connection"),
    [
        ({"client": ("1.2.3.4", 5), "server": ("h", 80)}, Ends(("1.2.3.4", 5), ("h", 80))),
        ({"client": ["1.2.3.4", "5"], "server": ["h", "80"]}, Ends(("1.2.3.4", 5), ("h", 80))),
        ({"client": ("1.2.3.4", 5), "server": ("h", 80), "http_version": "1.0"}, Ends(("1.2.3.4", 5), ("h", 80))),
        ({"client": ("1.2.3.4", 5), "server": ("h", 80), "http_version": "2"}, Unknown(("h", 80))),
        ({"client": ("1.2.3.4", 0), "server": ("h", 80)}, Unknown(("h", 80))),
        ({"client": ("", "0"), "server": ("/run/app.sock", "0")}, Unknown(("/run/app.sock", None))),
        ({"client": None, "server": ("h", 80)}, Unknown(("h", 80))),
        ({"client": ("1.2.3.4", 5), "server": None}, Unknown(("", None))),
        ({}, Unknown(("", None))),
    ],
)
def test_find_by_scope(scope: dict[str, Any], connection: Any) -> None:
    found = find_connection(scope, receive, send)
    assert (type(found), found) == (type(connection), connection)


class FakeTransport:
    """A transport of uvicorn's cycle."""

    def get_write_buffer_size(self) -> int:
        return 0


class Cycle:
    """A request of uvicorn."""

    def __init__(self) -> None:
        self.transport: Any = FakeTransport()

    async def receive(self) -> Message:
        raise NotImplementedError

    async def send(self, message: Message) -> None:
        raise NotImplementedError


class Holder:
    """Middleware that is an object."""

    def __init__(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    async def call(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError


def closure(send: Any) -> Any:
    async def wrapped(message: Message) -> None:
        await send(message)

    return wrapped


def unrelated(database: Any) -> Send:
    async def wrapped(message: Message) -> None:
        await database(message)

    return wrapped


def cached(receive: Receive) -> Receive:
    """Wrap ``receive`` as ``BaseHTTPMiddleware`` does."""
    wrapped_receive = Holder("_receive", receive).call

    async def receive_or_disconnect() -> Message:
        message: Message = await wrapped_receive()
        return message

    return receive_or_disconnect


WRAPPED: dict[str, tuple[Callable[[Cycle], tuple[Any, Any]], bool]] = {
    "uvicorn": (lambda cycle: (cycle.receive, cycle.send), True),
    "receive alone": (lambda cycle: (cycle.receive, send), True),
    "closure": (lambda cycle: (receive, closure(cycle.send)), True),
    "ten closures": (
        lambda cycle: (receive, functools.reduce(lambda inner, _: closure(inner), range(10), cycle.send)),
        True,
    ),
    "partial": (lambda cycle: (receive, functools.partial(Holder("x", 1).call, send=cycle.send)), True),
    "partial method": (lambda cycle: (receive, functools.partial(cycle.send)), True),
    "object": (lambda cycle: (receive, Holder("send", cycle.send).call), True),
    "BaseHTTPMiddleware": (lambda cycle: (cached(cycle.receive), send), True),
    "hypercorn": (
        lambda cycle: (
            receive,
            Holder("send", Holder("send", Holder("writer", Holder("_transport", cycle.transport)).call).call).call,
        ),
        True,
    ),
    "unrelated closure": (lambda cycle: (receive, unrelated(cycle.send)), False),
    "unrelated attribute": (lambda cycle: (receive, Holder("database", cycle.send).call), False),
    "nothing": (lambda cycle: (receive, send), False),
    "mock": (lambda cycle: (AsyncMock(), AsyncMock()), False),
    "a circle": (lambda cycle: (receive, circle()), False),
}


def circle() -> Any:
    one = Holder("send", None)
    one.send = one.call  # type: ignore[attr-defined]
    return one.call


@pytest.mark.parametrize("name", WRAPPED)
def test_find_by_callables(name: str) -> None:
    cycle = Cycle()
    wrap, found = WRAPPED[name]
    connection = find_connection({"server": ("h", 80)}, *wrap(cycle))
    assert connection == (cycle.transport if found else Unknown(("h", 80)))


def test_transport_of_http_2() -> None:
    """It carries other requests too."""
    cycle = Cycle()
    assert find_connection({"http_version": "2"}, cycle.receive, cycle.send) == Unknown(("", None))


# Listeners


@pytest.mark.parametrize("listening", FAMILIES)
def test_listener(listening: tuple[int, str]) -> None:
    family, host = listening
    with closing(socket.create_server((host, 0), family=family)) as server:
        port = server.getsockname()[1]
        listener = find_listener((LOOPBACK[family], port))
        assert listener is not None
        assert not listener.closed
        assert repr(listener) == f"<Listener descriptors=[{server.fileno()}] closed=False>"
    assert listener.closed


@pytest.mark.parametrize("address", ["{path}", "unix:{path}", ""])
def test_unix_listener(address: str, tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(path)
        server.listen()
        listener = find_listener((address.format(path=path), None))
        assert listener is not None
        assert not listener.closed
        assert find_listener((f"{path}.other", None)) is None
    assert listener.closed


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "unix", "any unix"])
def test_closed_listener_with_connections(name: str, tmp_path: Path) -> None:
    """A stream may be the first that anybody asks for, and be late: its server has stopped listening."""
    with ExitStack() as stack:
        if "unix" in name:
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(str(tmp_path / "app.sock"))
            server.listen()
        else:
            family = socket.AF_INET6 if ":" in name else socket.AF_INET
            server = stack.enter_context(socket.create_server((name, 0), family=family))
        client = stack.enter_context(socket.socket(server.family))
        client.connect(server.getsockname())
        here = stack.enter_context(server.accept()[0])
        address = server_address({"server": None if name == "any unix" else as_asgi(here)})
        server.close()
        listener = find_listener(address)
        assert listener is not None
        assert listener.closed


def as_asgi(server: socket.socket) -> tuple[str, int | None]:
    name = server.getsockname()
    return (name, None) if isinstance(name, str) else name[:2]


def test_no_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert find_listener(("127.0.0.1", port)) is None
    one, other = socket.socketpair()  # as every event loop has: a Unix socket without a name
    with one, other:
        assert find_listener(("", None)) is None


def test_reused_descriptor() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    number, port = server.fileno(), server.getsockname()[1]
    listener = find_listener(("127.0.0.1", port))
    assert listener is not None
    with socket.create_server(("127.0.0.1", 0)) as another:
        server.close()
        os.dup2(another.fileno(), number)
        try:
            assert listener.closed
        finally:
            os.close(number)


def test_inherited_listener() -> None:
    """A server that inherits its socket, for example from systemd, listens at a copy and leaves the original open."""
    with socket.create_server(("127.0.0.1", 0)) as original:
        copy = original.dup()
        listener = find_listener(original.getsockname())
        assert listener is not None
        assert not listener.closed
        copy.close()
        assert listener.closed


# Connections


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_abort_stuck(family: int) -> None:
    with connected(family) as (client, server), connected(family) as (_, other_server):
        fill(server)
        fill(other_server)
        connection = ends_of(server)
        assert abort_stuck({connection}) == 1
        with pytest.raises(BrokenPipeError):
            server.send(b"x")
        with pytest.raises(BlockingIOError):
            other_server.send(b"x")
        server.close()
        client.settimeout(5)
        with pytest.raises(ConnectionResetError):  # what was unsent is not sent
            read_all(client)


def test_abort_stuck_keeps_readers() -> None:
    with connected() as (client, server):
        server.send(b"unread, but there is room for more")
        connection = ends_of(server)
        assert abort_stuck({connection}) == 0
        assert client.recv(100) == b"unread, but there is room for more"


def test_abort_many() -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(connected())[1] for _ in range(5)]
        for server in servers:
            fill(server)
        connections = [ends_of(server) for server in servers[1:]]
        assert abort_stuck(connections) == 4


def test_cut_off() -> None:
    with connected() as (client, server), connected() as (_, other):
        server.send(b"sent")
        connection = ends_of(server)
        cut_off({connection})
        with pytest.raises(BrokenPipeError):
            server.send(b"not sent")
        other.send(b"sent")
        client.settimeout(5)
        assert (client.recv(100), client.recv(100)) == (b"sent", b"")


def test_cut_off_delivers() -> None:
    with connected() as (client, server):
        server.send(b"x" * 100_000)  # more than the client has room for
        connection = ends_of(server)
        cut_off({connection})
        server.close()
        client.settimeout(5)
        assert read_all(client) == 100_000


def test_cut_off_stuck() -> None:
    with connected() as (client, server):
        fill(server)
        connection = ends_of(server)
        cut_off({connection})
        server.close()
        client.settimeout(5)
        with pytest.raises(ConnectionResetError):
            read_all(client)


def test_unknown_ends() -> None:
    with connected() as (_, server):
        fill(server)
        client, here = ends_of(server)
        others = {Ends((client[0], (client[1] or 0) ^ 1), here), Ends(client, (here[0], (here[1] or 0) ^ 1))}
        assert abort_stuck(others) == 0
        cut_off(others)
        with pytest.raises(BlockingIOError):
            server.send(b"x")
