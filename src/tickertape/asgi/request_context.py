"""``request_id``, the id of the request that is being served."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

request_id: Final[ContextVar[str | None]] = ContextVar("tickertape.request_id", default=None)
"""The id of the request that is being served; ``None`` if it has none. A middleware sets it. Then the problem that
answers the request contains it, and so do the lines of the log about its stream."""
