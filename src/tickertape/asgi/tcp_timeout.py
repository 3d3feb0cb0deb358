"""The TCP user timeout: the kernel closes a connection whose peer acknowledges nothing (RFC 5482).

A client that vanishes, such as a laptop whose lid is closed or a phone in a tunnel, does not end its
connection. Heartbeats go into the connection for as long as the kernel retransmits, which takes Linux
a quarter of an hour, and until then the client counts as present.
"""

from __future__ import annotations

import socket
from typing import Final, Protocol

_FACTOR: Final = 1.5
"""Times the send timeout, so that the stream itself drops a client that is present and does not read."""

_OPTION: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux has it


_MAX: Final = 2**31 - 1
"""Milliseconds: the option is an int of C."""


class Socket(Protocol):
    """A socket, or what a transport of asyncio or uvloop returns as one."""

    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None: ...


def tcp_timeout_for(send_timeout: float) -> float:
    """Return the TCP user timeout that goes with the ``send_timeout`` of a stream, both in seconds."""
    return _FACTOR * send_timeout


def set_tcp_timeout(connection: Socket, seconds: float) -> None:
    """Close ``connection`` if its peer acknowledges nothing for ``seconds`` after something was sent.

    A client that is present and does not read for as long is dropped too. If ``connection`` is a
    listening socket, the connections that it accepts from now on inherit the timeout. Does nothing on
    systems without ``TCP_USER_TIMEOUT``.

    Raises:
        OSError: the socket is not a TCP socket, or is closed.
    """
    if _OPTION is not None:
        connection.setsockopt(socket.IPPROTO_TCP, _OPTION, max(1, int(min(seconds * 1000, _MAX))))


def copy_tcp_timeout(source: socket.socket, target: socket.socket) -> None:
    """Set the timeout of ``source`` on ``target``."""
    if _OPTION is not None:
        target.setsockopt(socket.IPPROTO_TCP, _OPTION, source.getsockopt(socket.IPPROTO_TCP, _OPTION))
