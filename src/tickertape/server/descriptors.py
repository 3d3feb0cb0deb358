"""File descriptors: as many as the system gives, and what happens when they run out.

Each connection takes one. A server that has none left cannot accept, and worse, cannot open what
its broker needs. So connections end where a reserve begins: those beyond it are closed at once,
before they have said anything. uvicorn would answer them 503; but a browser's ``EventSource`` gives
up for good on a status, while it comes back after a lost connection. A connection that never asks
for anything is counted as well.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if sys.platform != "win32":
    import resource

__all__ = ["LimitedHTTPProtocol", "most_connections", "raise_descriptor_limit"]

logger = logging.getLogger("tickertape.server")

RESERVE: Final = 128
"""Descriptors kept back: some 30 that a program has open, the broker's, and room for what it opens for a while."""

_RELIEF: Final = 0.95
"""Part of the limit under which a server is no longer full: one client that goes and one that comes are one episode."""

_USUAL_MOST: Final = 10_240
"""What macOS allows at most, whatever its hard limit says (OPEN_MAX)."""


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
    """Return how many connections leave a reserve of descriptors; ``None`` if there is no limit."""
    if sys.platform == "win32":
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else max(1, soft - RESERVE)


class LimitedHTTPProtocol(HttpToolsProtocol):
    """Close connections beyond ``limit_concurrency``; say so when it begins, and when it is over."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or close it."""
        limit = self.limit_concurrency
        if limit is not None and _is_full(self.server_state, len(self.connections), limit):
            transport.abort()
        super().connection_made(transport)


def _is_full(state: Any, connections: int, limit: int) -> bool:
    """Tell whether one more connection is too much; the episode is remembered with the server's state."""
    full = connections >= limit - 1  # at the limit itself, uvicorn would answer 503
    was_full = getattr(state, "tickertape_full", False)
    if full and not was_full:
        state.tickertape_full = True
        logger.warning("full: closing new connections beyond %d, so that %d descriptors are left", limit - 1, RESERVE)
    elif was_full and connections < _RELIEF * limit:
        state.tickertape_full = False
        logger.warning("no longer full: %d connections", connections)
    return full
