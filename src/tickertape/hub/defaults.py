"""Defaults and words that every event stream of ours shares."""

from __future__ import annotations

from typing import Final

__all__ = [
    "DEFAULT_DRAIN_WINDOW",
    "DEFAULT_MAX_EVENT_SIZE",
    "DEFAULT_RETRY",
]

DEFAULT_RETRY: Final = 3.0
"""Seconds until a client reconnects: what browsers wait by themselves."""

DEFAULT_DRAIN_WINDOW: Final = 5.0
"""Seconds over which a stopping hub ends its streams, so that they do not all come back at once."""

DEFAULT_MAX_EVENT_SIZE: Final = 1024 * 1024
"""Bytes of an event's data: what decoders take by default."""
