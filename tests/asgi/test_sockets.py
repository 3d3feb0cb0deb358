"""Sockets found from outside their server: listeners that close, connections whose peer does not read."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tickertape.asgi.sockets import abort_stuck, connection_of, cut_off, find_listener, server_address

FAMILIES = [
    pytest.param((socket.AF_INET, "127.0.0.1"), id="v4"),
    pytest.param((socket.AF_INET, "0.0.0.0"), id="v4-any"),
    pytest.param((socket.AF_INET6, "::1"), id="v6"),
    pytest.param((socket.AF_INET6, "::"), id="v6-any"),
]
LOOPBACK: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


@contextmanager
def connected(family: int = socket.AF_INET) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and the server's end of its connection, with little room on the way."""
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


def scope_of(server: socket.socket, version: str = "1.1") -> dict[str, Any]:
    client, here = server.getpeername()[:2], server.getsockname()[:2]
    return {"client": client, "server": here, "http_version": version}


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
def test_where_the_server_listens(server: Any, address: tuple[str, int | None]) -> None:
    assert server_address({"server": server}) == address


@pytest.mark.parametrize(
    ("scope", "connection"),
    [
        ({"client": ("1.2.3.4", 5), "server": ("h", 80)}, (("1.2.3.4", 5), ("h", 80))),
        ({"client": ["1.2.3.4", "5"], "server": ["h", "80"]}, (("1.2.3.4", 5), ("h", 80))),
        ({"client": ("1.2.3.4", 5), "server": ("h", 80), "http_version": "1.0"}, (("1.2.3.4", 5), ("h", 80))),
        ({"client": ("1.2.3.4", 5), "server": ("h", 80), "http_version": "2"}, None),
        ({"client": ("1.2.3.4", 0), "server": ("h", 80)}, None),
        ({"client": ("", "0"), "server": ("/run/app.sock", "0")}, None),
        ({"client": None, "server": ("h", 80)}, None),
        ({"client": ("1.2.3.4", 5), "server": None}, None),
        ({}, None),
    ],
)
def test_the_connection_of_a_request(scope: dict[str, Any], connection: Any) -> None:
    assert connection_of(scope) == connection


# Listeners


@pytest.mark.parametrize("listening", FAMILIES)
def test_a_listener_is_found_by_its_port_and_seen_to_close(listening: tuple[int, str]) -> None:
    family, host = listening
    with closing(socket.create_server((host, 0), family=family)) as server:
        port = server.getsockname()[1]
        listener = find_listener((LOOPBACK[family], port))
        assert listener is not None
        assert not listener.closed
        assert repr(listener) == f"<Listener descriptors=[{server.fileno()}] closed=False>"
    assert listener.closed


@pytest.mark.parametrize("address", ["{path}", "unix:{path}", ""])
def test_a_unix_socket_is_found_by_its_path_or_as_any(address: str, tmp_path: Path) -> None:
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
def test_a_listener_of_which_only_connections_are_left_has_closed(name: str, tmp_path: Path) -> None:
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


def test_a_port_where_nobody_is_has_no_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert find_listener(("127.0.0.1", port)) is None
    one, other = socket.socketpair()  # as every event loop has: a Unix socket without a name
    with one, other:
        assert find_listener(("", None)) is None


def test_a_descriptor_that_is_used_again_is_not_the_listener() -> None:
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


def test_a_listener_with_a_copy_of_its_socket_has_closed_when_one_of_them_has() -> None:
    """A server that is given its socket, by systemd say, listens at a copy and leaves the original open."""
    with socket.create_server(("127.0.0.1", 0)) as original:
        copy = original.dup()
        listener = find_listener(original.getsockname())
        assert listener is not None
        assert not listener.closed
        copy.close()
        assert listener.closed


# Connections


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_connection_is_dropped_if_its_peer_does_not_read(family: int) -> None:
    with connected(family) as (client, server), connected(family) as (_, other_server):
        fill(server)
        fill(other_server)
        connection = connection_of(scope_of(server))
        assert connection is not None
        assert abort_stuck({connection}) == 1
        with pytest.raises(BrokenPipeError):
            server.send(b"x")
        with pytest.raises(BlockingIOError):
            other_server.send(b"x")
        server.close()
        client.settimeout(5)
        with pytest.raises(ConnectionResetError):  # what was unsent is not sent
            read_all(client)


def test_a_connection_is_kept_if_its_peer_reads() -> None:
    with connected() as (client, server):
        server.send(b"unread, but there is room for more")
        connection = connection_of(scope_of(server))
        assert connection is not None
        assert abort_stuck({connection}) == 0
        assert client.recv(100) == b"unread, but there is room for more"


def test_many_connections_are_dropped_in_one_search() -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(connected())[1] for _ in range(5)]
        for server in servers:
            fill(server)
        connections = [connection for server in servers[1:] if (connection := connection_of(scope_of(server)))]
        assert abort_stuck(connections) == 4


def test_a_connection_is_cut_off_behind_what_was_sent() -> None:
    with connected() as (client, server), connected() as (_, other):
        server.send(b"sent")
        connection = connection_of(scope_of(server))
        assert connection is not None
        cut_off({connection})
        with pytest.raises(BrokenPipeError):
            server.send(b"not sent")
        other.send(b"sent")
        client.settimeout(5)
        assert (client.recv(100), client.recv(100)) == (b"sent", b"")


def test_a_connection_that_is_cut_off_delivers_what_was_sent() -> None:
    with connected() as (client, server):
        server.send(b"x" * 100_000)  # more than the client has room for
        connection = connection_of(scope_of(server))
        assert connection is not None
        cut_off({connection})
        server.close()
        client.settimeout(5)
        assert read_all(client) == 100_000


def test_a_connection_that_is_stuck_is_cut_off_with_what_was_sent() -> None:
    with connected() as (client, server):
        fill(server)
        connection = connection_of(scope_of(server))
        assert connection is not None
        cut_off({connection})
        server.close()
        client.settimeout(5)
        with pytest.raises(ConnectionResetError):
            read_all(client)


def test_a_connection_of_http_2_is_left_alone() -> None:
    with connected() as (_, server):
        assert connection_of(scope_of(server, "2")) is None


def test_a_connection_that_is_not_there_is_not_found() -> None:
    with connected() as (_, server):
        fill(server)
        client, here = server.getpeername()[:2], server.getsockname()[:2]
        others = {((client[0], client[1] ^ 1), here), (client, (here[0], here[1] ^ 1))}
        assert abort_stuck(others) == 0
        cut_off(others)
        with pytest.raises(BlockingIOError):
            server.send(b"x")
