"""The TCP user timeout of sockets and transports."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tickertape.asgi import copy_tcp_timeout, set_tcp_timeout, tcp_timeout_for
from tickertape.asgi.sockets import Ends, set_timeout, set_timeouts

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no TCP_USER_TIMEOUT")


def timeout_of(connection: socket.socket) -> int:
    """Return the timeout of a socket, in milliseconds."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


def test_longer_than_send_timeout() -> None:
    assert tcp_timeout_for(30) == 45


@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(2.5, 2500), (0.0001, 1), (1e9, 2**31 - 1), (float("inf"), 2**31 - 1)]
)
def test_set(seconds: float, milliseconds: int) -> None:
    with socket.socket() as connection:
        set_tcp_timeout(connection, seconds)
        assert timeout_of(connection) == milliseconds


def test_inherited_by_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        set_tcp_timeout(listener, 2.5)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
            assert timeout_of(connection) == 2500


def test_copy() -> None:
    with socket.socket() as source, socket.socket() as target:
        set_tcp_timeout(source, 2.5)
        copy_tcp_timeout(source, target)
        assert timeout_of(target) == 2500


def test_unix_socket() -> None:
    with socket.socket(socket.AF_UNIX) as connection, pytest.raises(OSError, match="not supported"):
        set_tcp_timeout(connection, 1)


async def test_transport() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=client)
        set_timeout(transport, 2.5)
        assert timeout_of(client) == 2500
        transport.close()


async def test_unix_transport() -> None:
    one, other = socket.socketpair()
    with other:
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=one)
        set_timeout(transport, 2.5)  # does nothing
        transport.close()


def test_by_ends() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as connection,
    ):
        set_timeouts({Ends(connection.getpeername(), connection.getsockname()): 2.5})
        assert (timeout_of(connection), timeout_of(client)) == (2500, 0)
