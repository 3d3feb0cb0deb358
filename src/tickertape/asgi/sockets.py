"""The sockets of this process, found from outside the server that owns them.

An ASGI application is not told that its server is stopping, nor can it drop a connection. Both can
be seen and done from the operating system's side, alike for every server and through any
middleware: a server that stops closes its listening socket first, and a connection is known by the
addresses of its two ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from .types import Scope

__all__ = ["Listener", "abort_connection", "find_listener", "server_address"]

Address: TypeAlias = tuple[str, int | None]
T = TypeVar("T")

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, no time


class Listener:
    """Watch the sockets that accept a server's connections.

    Arguments:
        descriptors: file descriptors with the inode that each had when it was found: a number is
            reused for another file as soon as it is free, an inode is not.
    """

    def __init__(self, descriptors: dict[int, int]) -> None:
        self._descriptors = descriptors

    @property
    def closed(self) -> bool:
        """Whether none of them accepts any more."""
        return all(_inode(descriptor) != inode for descriptor, inode in self._descriptors.items())

    def __repr__(self) -> str:
        return f"<Listener descriptors={sorted(self._descriptors)} closed={self.closed}>"


def server_address(scope: Scope) -> Address | None:
    """Return where the server of a request listens, as a host and a port, or a path and ``None``."""
    return _address(scope.get("server"))


def find_listener(address: Address) -> Listener | None:
    """Return the listener of this process at ``address``; ``None`` if there is none, as behind a test client.

    The host is not compared: a server that listens at ``0.0.0.0`` is reached under many.
    """
    host, port = address
    found = {}
    for descriptor in _descriptors():
        if not _ask(descriptor, _accepts):
            continue
        name = _ask(descriptor, socket.socket.getsockname)
        at = name[1] if isinstance(name, tuple) and port is not None else name
        if at == (port if port is not None else host.removeprefix("unix:")) and (inode := _inode(descriptor)):
            found[descriptor] = inode
    return Listener(found) if found else None


def abort_connection(scope: Scope) -> bool:
    """Drop the TCP connection of a request at once, unsent bytes with it; return whether it was found.

    A connection of HTTP/2 or later carries other requests too and is left alone.
    """
    server, client = _address(scope.get("server")), _address(scope.get("client"))
    if server is None or client is None or not scope.get("http_version", "1.1").startswith("1"):
        return False
    for descriptor in _descriptors():
        if _address(_ask(descriptor, socket.socket.getpeername)) == client and (
            _address(_ask(descriptor, socket.socket.getsockname)) == server
        ):
            _ask(descriptor, _abort)
            return True
    return False


def _abort(connection: socket.socket) -> bool:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    connection.shutdown(socket.SHUT_RDWR)
    return True


def _accepts(candidate: socket.socket) -> bool:
    return bool(candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _address(value: Any) -> Address | None:
    """Read an address of ASGI or of the socket module: servers differ in lists, tuples and strings."""
    if not isinstance(value, (list, tuple)) or len(value) < 2:
        return None
    host, port = value[:2]
    return str(host), None if port is None else int(port)


def _descriptors() -> Iterator[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):  # Linux, then the other Unixes
        with contextlib.suppress(OSError):
            yield from [int(path.name) for path in Path(folder).iterdir()]
            return


def _inode(descriptor: int) -> int | None:
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return None


def _ask(descriptor: int, question: Callable[[socket.socket], T]) -> T | None:
    """Put a question to the socket behind a descriptor, which stays its owner's; ``None`` if it is no socket."""
    with contextlib.suppress(OSError):
        borrowed = socket.socket(fileno=descriptor)
        try:
            return question(borrowed)
        finally:
            borrowed.detach()
    return None
