"""File descriptors: raise their limit, and close connections before they run out.

Each connection takes one descriptor. A server without free descriptors cannot accept connections and, what is worse,
cannot open files and connections for its broker. So a reserve is kept: connections beyond it are closed at once, before
they send a request. uvicorn would answer them 503, but a browser's ``EventSource`` never reconnects after an error
status, but does after a lost connection. A connection that never sends a request counts too.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if sys.platform != "win32":
    import resource

logger = logging.getLogger("tickertape.server")

RESERVE: Final = 128
"""Descriptors that are not for connections: some 30 of the program, those of the broker, and some for a short time."""

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


class LimitedHTTPProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with three changes.

    - Connections beyond ``limit_concurrency`` are closed. The log reports the begin and the end of that state.
    - An HTTP/1.0 client gets no chunked body, which it could not decode; the end of the connection ends the body.
    - A connection that is lost leaves no timer behind that would keep it in memory.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or close it."""
        limit = self.limit_concurrency
        if limit is not None and is_full(self.server_state, len(self.connections), limit):
            transport.abort()
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn does so after a clean end only

    def on_headers_complete(self) -> None:
        """Start the request."""
        super().on_headers_complete()
        cycle: Any = self.cycle
        if cycle is not None and cycle.scope["http_version"] == "1.0":
            # The application starts later, in a task. Neither chunked nor of a known length is unknown to uvicorn.
            cycle.chunked_encoding = False
            cycle.expected_content_length = _UnknownLength()


class _UnknownLength(int):
    """The length of a body that ends with its connection: equal to, and never less than, whatever was sent."""

    def __lt__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return False

    def __sub__(self, other: object) -> _UnknownLength:
        return self


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
