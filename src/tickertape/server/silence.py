"""Clients that vanish without a word: a laptop whose lid is closed, a phone in a tunnel."""

from __future__ import annotations

import socket
from typing import Final

__all__ = ["SILENCE_FACTOR", "copy_limit", "drop_silent_clients"]

SILENCE_FACTOR: Final = 1.5
"""Times the hub's send timeout: one that is there and does not read is the hub's to drop, with its own reason."""

_LIMIT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux has it


def drop_silent_clients(listener: socket.socket, *, after: float) -> None:
    """Let the kernel drop clients that acknowledge nothing of what they are sent.

    Nobody ends such a connection, and heartbeats go into it for as long as the kernel tries to get
    through: on Linux a quarter of an hour. So long somebody who has left would seem to be there.

    Does nothing where the system has no such limit (RFC 5482, "TCP User Timeout").

    Arguments:
        listener: the connections that it takes from now on inherit the limit.
        after: seconds since the first byte that was not acknowledged; a client that is there but
            does not read for so long is dropped too.
    """
    if _LIMIT is not None:
        listener.setsockopt(socket.IPPROTO_TCP, _LIMIT, int(after * 1000))


def copy_limit(source: socket.socket, listener: socket.socket) -> None:
    """Give ``listener`` the limit of ``source``."""
    if _LIMIT is not None:
        listener.setsockopt(socket.IPPROTO_TCP, _LIMIT, source.getsockopt(socket.IPPROTO_TCP, _LIMIT))
