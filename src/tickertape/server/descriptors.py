"""File descriptors: raise their limit, and close or refuse connections before they run out.

Each connection takes one descriptor. A server without free descriptors cannot accept connections and, what is worse,
cannot open files and connections for its broker. So a reserve is kept: connections beyond it are closed at once, before
they send a request. uvicorn would answer them 503, but a browser's ``EventSource`` never reconnects after an error
status, but does after a lost connection. A connection that never sends a request counts too.

If the reserve is used up all the same, as by the other programs of a system or after its limit was lowered, the server
accepts nothing for a while. New connections then wait in the kernel. Otherwise the event loop would close each of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

if sys.platform != "win32":
    import resource

logger = logging.getLogger("tickertape.server")

RESERVE: Final = 128
"""Descriptors that are not for connections: some 30 of the program, those of the broker, and some for a short time."""

ACCEPTOR: Final = "tickertape.acceptor"
"""The key in the state of the application's lifespan; the value is an :class:`Acceptor`."""

_SPARE: Final = 16
"""Free descriptors below which nothing is accepted: a few connections to a broker and files fit."""

_PAUSE: Final = 1.0
"""Seconds until a server that accepts nothing looks for free descriptors again, as in asyncio."""

_RELIEF: Final = 0.95
"""Share of the limit below which the server is no longer full, so that the log does not report each single client."""

_USUAL_MOST: Final = 10_240
"""The most that macOS allows, whatever its hard limit is (OPEN_MAX)."""


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open descriptors to the hard one."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (hard, _USUAL_MOST):
        if soft != resource.RLIM_INFINITY and (limit == resource.RLIM_INFINITY or limit > soft):
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            except (OSError, ValueError):
                continue
            return


def most_connections() -> int | None:
    """Return the number of connections beside which the reserve remains free; ``None`` if there is no limit."""
    if sys.platform == "win32":
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else max(1, soft - RESERVE)


def is_full(state: Any, connections: int, limit: int) -> bool:
    """Return True if there is no room for another connection; log when that changes."""
    full = connections >= limit - 1  # at the limit itself, uvicorn would answer 503
    was_full = getattr(state, "tickertape_full", False)
    if full and not was_full:
        state.tickertape_full = True
        logger.warning("full: closing new connections beyond %d, to keep %d descriptors free", limit - 1, RESERVE)
    elif was_full and connections < _RELIEF * limit:
        state.tickertape_full = False
        logger.warning("no longer full: %d connections", connections)
    return full


class Acceptor:
    """The listening sockets of a server, which accepts no connections while descriptors are used up.

    Arguments:
        listeners: the sockets, which stay open all the time, so that new connections wait.
        servers: the servers on duplicates of them; changed in place.
        listen: begins to accept on a duplicate.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        servers: list[asyncio.Server],
        listen: Callable[[socket.socket], Awaitable[asyncio.Server]],
    ) -> None:
        self._listeners = listeners
        self._servers = servers
        self._listen = listen
        self._waiting: asyncio.Task[None] | None = None

    def check(self) -> bool:
        """Look for free descriptors. If there are too few, accept nothing until there are more, and return False.

        Call it for each new connection.
        """
        if self._waiting is not None or _are_free(_SPARE, self._listeners[0]):
            return True
        for server in self._servers:
            server.close()
        self._servers.clear()
        logger.warning("fewer than %d descriptors are free: new connections wait", _SPARE)
        self._waiting = asyncio.get_running_loop().create_task(self._resume(), name="tickertape accept")
        return False

    async def _resume(self) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            if _are_free(2 * _SPARE, self._listeners[0]):
                break
        for listener in self._listeners:
            self._servers.append(await self._listen(listener.dup()))
        self._waiting = None
        logger.warning("accepting connections again")

    async def close(self) -> None:
        """Accept nothing any more; does nothing if that was not paused."""
        if self._waiting is not None:
            self._waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._waiting


def _are_free(count: int, listener: socket.socket) -> bool:
    """Return whether descriptors are free. A new one gets the lowest number that is, so all below it are in use."""
    if sys.platform == "win32":
        return True
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        lowest = os.dup(listener.fileno())
    except OSError:
        return False
    os.close(lowest)
    return soft == resource.RLIM_INFINITY or lowest + count <= soft
