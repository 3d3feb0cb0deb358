"""The sockets of this process, found from outside the server that owns them.

An ASGI application is not told that its server is stopping, nor can it drop a connection. Both can
be seen and done from the operating system's side, alike for every server and through any
middleware: a server that stops closes its listening socket first, and a connection is known by the
addresses of its two ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, TypeAlias, TypeVar

from .types import Scope

__all__ = [
    "Address",
    "Connection",
    "Listener",
    "abort_stuck",
    "connection_of",
    "cut_off",
    "find_listener",
    "server_address",
]

Address: TypeAlias = tuple[str, int | None]
"""A host and a port, or the path of a Unix socket and ``None``."""

Connection: TypeAlias = tuple[Address, Address]
"""The client's end and the server's."""

T = TypeVar("T")

_NO_DESCRIPTOR: Final = -1
_ANY_UNIX_SOCKET: Final = ("", None)
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, no time


class Listener:
    """Watch the sockets that accept a server's connections.

    Arguments:
        descriptors: file descriptors with the inode that each had when it was found: a number is
            reused for another file as soon as it is free, an inode is not.
    """

    def __init__(self, descriptors: dict[int, int | None]) -> None:
        self._descriptors = descriptors

    @property
    def closed(self) -> bool:
        """Whether one of them is gone: a server that was given its socket keeps the original open."""
        return any(_inode(descriptor) != inode for descriptor, inode in self._descriptors.items())

    def __repr__(self) -> str:
        return f"<Listener descriptors={sorted(self._descriptors)} closed={self.closed}>"


def server_address(scope: Scope) -> Address:
    """Return where the server of a request listens; without path or port if the server does not say.

    Those that do not say listen at a Unix socket: Hypercorn, for one.
    """
    return _address(scope.get("server")) or _ANY_UNIX_SOCKET


def connection_of(scope: Scope) -> Connection | None:
    """Return the TCP connection that a request came by; ``None`` if it is not known, or is not the request's alone.

    Clients of Unix sockets have no address, a proxy's headers may have put another in its place, and
    a connection of HTTP/2 or later carries other requests too.
    """
    client, server = _address(scope.get("client")), _address(scope.get("server"))
    if client is None or server is None or client[1] is None or not scope.get("http_version", "1.1").startswith("1"):
        return None
    return client, server


def find_listener(address: Address) -> Listener | None:
    """Return the listener of this process at ``address``; ``None`` if there is none, as behind a test client.

    The host is not compared: a server that listens at ``0.0.0.0`` is reached under many. If nothing
    is left at the address but connections, the listener is one that has closed.
    """
    accepting, connected = {}, False
    for descriptor in _descriptors():
        if _is_at(address, _ask(descriptor, socket.socket.getsockname)):
            if _ask(descriptor, _accepts):
                accepting[descriptor] = _inode(descriptor)
            elif _ask(descriptor, socket.socket.getpeername) is not None:
                connected = True
    if connected and not accepting:
        return Listener({_NO_DESCRIPTOR: 0})
    return Listener(accepting) if accepting else None


def _is_at(address: Address, name: Any) -> bool:
    host, port = address
    if isinstance(name, tuple):
        return port is not None and name[1] == port
    return port is None and bool(name) and host.removeprefix("unix:") in ("", name)


def abort_stuck(connections: Collection[Connection]) -> int:
    """Drop those of the connections whose peer does not read, unsent bytes with them; return how many.

    What a server holds for such a peer is never sent, and the server waits for it, also when it
    stops. One search serves them all: it asks every descriptor of the process.
    """
    stuck = [descriptor for descriptor in _find(connections) if _ask(descriptor, _is_stuck)]
    for descriptor in stuck:
        _ask(descriptor, _abort)
    return len(stuck)


def cut_off(connections: Collection[Connection]) -> None:
    """End the connections behind what was sent so far, so that nobody can end their responses cleanly."""
    for descriptor in _find(connections):
        _ask(descriptor, _abort if _ask(descriptor, _is_stuck) else _end)


def _find(connections: Collection[Connection]) -> Iterator[int]:
    clients = {client for client, _ in connections}
    for descriptor in _descriptors():
        client = _ask(descriptor, _client)
        if client in clients and (client, _ask(descriptor, _server)) in connections:
            yield descriptor


def _client(connection: socket.socket) -> Address | None:
    return _address(connection.getpeername())


def _server(connection: socket.socket) -> Address | None:
    return _address(connection.getsockname())


def _is_stuck(connection: socket.socket) -> bool:
    """Tell whether the kernel takes no more bytes: only then are there any left in the server."""
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    return not poll.poll(0)


def _abort(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    connection.shutdown(socket.SHUT_RDWR)


def _end(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def _accepts(candidate: socket.socket) -> bool:
    return bool(candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _address(value: Any) -> Address | None:
    """Read an address of ASGI or of the socket module: servers differ in lists, tuples and strings."""
    if not isinstance(value, (list, tuple)) or len(value) < 2:
        return None
    host, port = value[:2]
    return str(host), int(port or 0) or None


def _descriptors() -> Iterator[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):  # Linux, then the other Unixes
        with contextlib.suppress(OSError):
            yield from [int(name) for name in os.listdir(folder)]  # noqa: PTH208 (a path for each takes longer)
            return


def _inode(descriptor: int) -> int | None:
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return None


def _ask(descriptor: int, question: Callable[[socket.socket], T]) -> T | None:
    """Put a question to the socket behind a descriptor, which stays its owner's; ``None`` if it is no socket."""
    with contextlib.suppress(OSError):
        # To find out family and type would double the time. What is asked depends on neither, but for
        # the longest address that there is room for, which is that of a Unix socket.
        borrowed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=descriptor)
        try:
            return question(borrowed)
        finally:
            borrowed.detach()
    return None
