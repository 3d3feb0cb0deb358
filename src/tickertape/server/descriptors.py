"""File descriptors: raise their limit, and close connections before they run out.

Each connection takes one descriptor. A server without free descriptors cannot accept connections and, what is worse,
cannot open files and connections for its broker. So a reserve is kept: connections beyond it are closed at once, before
they send a request. uvicorn would answer them 503, but a browser's ``EventSource`` never reconnects after an error
status, but does after a lost connection. A connection that never sends a request counts too.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

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
