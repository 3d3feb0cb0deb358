"""Clients that vanish without a word: a laptop whose lid is closed, a phone in a tunnel."""

from __future__ import annotations

import socket

__all__ = ["drop_silent_clients"]


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
    limit = getattr(socket, "TCP_USER_TIMEOUT", None)
    if limit is not None:
        listener.setsockopt(socket.IPPROTO_TCP, limit, int(after * 1000))
