"""The server's sockets, found by an application that runs in the same process.

ASGI does not report that a server is stopping, and an application cannot close a connection. Both are
possible from outside: a server that stops closes its listening socket first, which can be observed.
The connection of a request is reached in one of three ways:

- through ``receive`` and ``send``, which are methods of the server's objects, or closures of middleware
  around them: uvicorn, and hypercorn;
- by the addresses of its two ends, compared with every socket of the process, if the scope has both;
- not at all, for instance behind a proxy whose ``X-Forwarded-For`` replaced the address of the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

from .tcp_timeout import Socket, set_tcp_timeout
from .types import Scope, Send

T = TypeVar("T")

Address: TypeAlias = tuple[str, int | None]
"""A host and a port, or the path of a Unix socket and ``None``."""


class Ends(NamedTuple):
    """A TCP connection, known by the addresses of its two ends."""

    client: Address
    server: Address


class Unknown(NamedTuple):
    """Any connection to the server at an address: that of the request is not known, or not the request's alone."""

    server: Address


Connection: TypeAlias = asyncio.Transport | Ends | Unknown
"""The connection of a request, as well as it is known."""

Stuck: TypeAlias = dict[tuple[int, int | None], int]
"""Connections whose peer does not read, by descriptor and inode, each with a number that grows with its progress."""

_NO_DESCRIPTOR: Final = -1
_ANY_UNIX_SOCKET: Final = ("", None)
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 s

_BYTES_ACKED: Final = 120
"""Offset of the number of acknowledged bytes in struct tcp_info of Linux."""

_MAX_OBJECTS: Final = 64
"""Objects that the search for a transport looks at: ten layers of middleware have about 30."""

_LINKS: Final = (
    "transport",  # of uvicorn's cycles and protocols
    "_transport",
    "writer",  # hypercorn's TCP server
    "receive",
    "_receive",
    "send",
    "_send",
    "on_response",  # from uvicorn's cycle to its protocol
)
"""Attributes that lead from an object of a server or of middleware to the transport."""


# Listening sockets


class Listener:
    """The sockets that accept a server's connections.

    Arguments:
        descriptors: file descriptors with the inode that each had when it was found. A number is
            reused for another file as soon as it is free, an inode is not.
    """

    def __init__(self, descriptors: dict[int, int | None]) -> None:
        self._descriptors = descriptors

    @property
    def closed(self) -> bool:
        """True if one of them is closed. A server that inherited its socket keeps the original open."""
        return any(_inode(descriptor) != inode for descriptor, inode in self._descriptors.items())

    def __repr__(self) -> str:
        return f"<Listener descriptors={sorted(self._descriptors)} closed={self.closed}>"


def server_address(scope: Scope) -> Address:
    """Return the address at which the server of a request listens.

    If the scope does not name it, the server listens at a Unix socket, as hypercorn does.
    """
    return _address(scope.get("server")) or _ANY_UNIX_SOCKET


def find_listener(address: Address) -> Listener | None:
    """Return the listener of this process at ``address``, or ``None`` if there is none, as under a test client.

    The host is not compared: a server that listens at ``0.0.0.0`` is reached under many. If only
    connections are left at the address, the listener is one that has closed.
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


# Connections


CONNECTION: Final = "tickertape.connection"
"""The key in the scope of a request that was passed to a framework; the value is a :class:`Connection`."""


def with_connection(scope: Scope, *links: Any) -> Scope:
    """Return a copy of a scope that names the connection, for the stream of another library's response.

    Arguments:
        scope: of the request.
        links: the transport, or ``receive`` and ``send``, as far as the framework has them.
    """
    return {**scope, CONNECTION: find_connection(scope, *links)}


def find_connection(scope: Scope, *links: Any) -> Connection:
    """Return the connection of a request.

    A connection of HTTP/2 or later carries other requests too, and counts as unknown.

    Arguments:
        scope: of the request.
        links: ``receive`` and ``send``, or a transport.
    """
    server = server_address(scope)
    if not scope.get("http_version", "1.1").startswith("1"):
        return Unknown(server)
    transport = _find_transport(links)
    if transport is not None:
        return transport
    client = _address(scope.get("client"))
    if client is None or client[1] is None or server[1] is None:
        return Unknown(server)
    return Ends(client, server)


def _find_transport(callables: Iterable[Any]) -> asyncio.Transport | None:
    """Return the transport that ``receive`` and ``send`` lead to, or ``None``."""
    for found in _search(callables):
        if hasattr(type(found), "get_write_buffer_size"):
            return cast("asyncio.Transport", found)
    return None


def _search(callables: Iterable[Any]) -> Iterator[Any]:
    """Yield the objects that ``receive`` and ``send`` lead to, breadth first.

    Only methods, closures over a ``receive`` or ``send``, partials and the attributes in ``_LINKS`` are
    followed, so that only the sockets of the request itself are found.
    """
    queue = deque(callables)
    for _ in range(_MAX_OBJECTS):
        if not queue:
            return
        found = queue.popleft()
        yield found
        queue.extend(_linked(found))


def _linked(found: Any) -> Iterator[Any]:
    if isinstance(found, MethodType):
        yield found.__self__
    elif isinstance(found, partial):
        yield found.func
        yield from (value for name, value in found.keywords.items() if _is_link(name))
    elif isinstance(found, FunctionType):
        for name, cell in zip(found.__code__.co_freevars, found.__closure__ or (), strict=True):
            if _is_link(name):
                with contextlib.suppress(ValueError):  # the cell is empty
                    yield cell.cell_contents
    else:
        attributes = getattr(found, "__dict__", {})
        yield from (attributes[name] for name in _LINKS if name in attributes)


def _is_link(name: str) -> bool:
    return "send" in name or "receive" in name


def grace_period(send: Send) -> float | None:
    """Return the seconds after which a server that stops cancels its requests; ``None`` if that is not known.

    hypercorn has such a limit by default, and its ``send`` leads to its configuration.
    """
    for found in _search((send,)):
        configuration = getattr(found, "__dict__", {}).get("config")
        if configuration is not None:
            seconds = getattr(configuration, "graceful_timeout", None)
            return seconds if isinstance(seconds, (int, float)) else None
    return None


def set_timeout(transport: asyncio.Transport, seconds: float) -> None:
    """Set the TCP user timeout of a transport, if it is one of TCP."""
    connection = transport.get_extra_info("socket")
    if getattr(connection, "family", None) in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):  # the client has left
            set_tcp_timeout(connection, seconds)


def set_timeouts(timeouts: Mapping[Ends, float]) -> None:
    """Set the TCP user timeout, in seconds, of connections that are known by their ends, in one search."""
    for descriptor, ends in _find(timeouts):
        _ask(descriptor, partial(set_tcp_timeout, seconds=timeouts[ends]))


def abort_if_stuck(transport: asyncio.Transport) -> bool:
    """Abort a transport if it holds bytes that its peer does not read, with those that the kernel holds."""
    if not transport.get_write_buffer_size():
        return False
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):  # the client has left
            reset_on_close(connection)
    transport.abort()
    return True


def abort_stuck(connections: Collection[Ends]) -> int:
    """Abort those of the connections whose peer does not read, and return how many these are.

    What a server holds for such a peer is never sent, and a server that stops waits for it. One search
    serves all connections, since it looks at every descriptor of the process.
    """
    stuck = [descriptor for descriptor, _ in _find(connections) if _ask(descriptor, _is_stuck)]
    for descriptor in stuck:
        _ask(descriptor, _abort)
    return len(stuck)


def cut_off(connections: Collection[Ends]) -> None:
    """End the connections after the bytes sent so far, so that their responses cannot end cleanly."""
    for descriptor, _ in _find(connections):
        _ask(descriptor, _abort if _ask(descriptor, _is_stuck) else _end)


def stuck_at(address: Address) -> Stuck:
    """Return every connection to the server at ``address`` whose peer does not read."""
    found = {}
    for descriptor in _descriptors():
        if _is_at(address, _ask(descriptor, socket.socket.getsockname)) and _ask(descriptor, _is_stuck):
            found[descriptor, _inode(descriptor)] = _ask(descriptor, _progress) or 0
    return found


def abort(stuck: Stuck) -> None:
    """Abort connections found by :func:`stuck_at`."""
    for descriptor, inode in stuck:
        if _inode(descriptor) == inode:
            _ask(descriptor, _abort)


def _find(connections: Collection[Ends]) -> Iterator[tuple[int, Ends]]:
    clients = {ends.client for ends in connections}
    for descriptor in _descriptors():
        client: Address | None = _ask(descriptor, _client)
        if client in clients:
            server: Address | None = _ask(descriptor, _server)
            if server and (ends := Ends(client, server)) in connections:
                yield descriptor, ends


def _client(connection: socket.socket) -> Address | None:
    return _address(connection.getpeername())


def _server(connection: socket.socket) -> Address | None:
    return _address(connection.getsockname())


def _is_stuck(connection: socket.socket) -> bool:
    """Return whether the kernel accepts no more bytes. Only then can the server hold any."""
    connection.getpeername()  # raises OSError for a listening socket
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    return not poll.poll(0)


def _progress(connection: socket.socket) -> int:
    """Return a number that grows whenever the peer takes bytes.

    On Linux it counts the acknowledged bytes (``tcpi_bytes_acked``, ``linux/tcp.h``). Elsewhere, and for
    Unix sockets, it is the number of bytes that the kernel holds, negative.
    """
    import fcntl  # not on Windows, where no descriptor is found
    import termios

    if sys.platform == "linux":
        with contextlib.suppress(OSError, struct.error):
            information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
            return int(struct.unpack_from("Q", information, _BYTES_ACKED)[0])
    (held,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))
    return -int(held)


def reset_on_close(connection: Socket) -> None:
    """Reset a connection when it is closed, and drop its unsent bytes.

    A peer that does not read would not see a clean end, and the kernel would keep everything for it.

    Raises:
        OSError: the socket is closed.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def _abort(connection: socket.socket) -> None:
    reset_on_close(connection)
    connection.shutdown(socket.SHUT_RDWR)


def _end(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def _accepts(candidate: socket.socket) -> bool:
    return bool(candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


# Addresses and descriptors


def _is_at(address: Address, name: Any) -> bool:
    host, port = address
    if isinstance(name, tuple):
        return port is not None and name[1] == port
    return port is None and bool(name) and host.removeprefix("unix:") in ("", name)


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


def _ask(descriptor: int, question: Callable[[socket.socket], T | None]) -> T | None:
    """Call ``question`` with the socket of a descriptor, which stays open; return ``None`` if it is no socket."""
    with contextlib.suppress(OSError):
        # To find out family and type would double the time. The questions depend on neither, except for
        # the longest address that there is room for, which is that of a Unix socket.
        borrowed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=descriptor)
        try:
            return question(borrowed)
        finally:
            borrowed.detach()
    return None
