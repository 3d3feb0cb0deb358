"""Defaults and words that every event stream of ours shares."""

from __future__ import annotations

from typing import Final

__all__ = [
    "DEFAULT_DRAIN_WINDOW",
    "DEFAULT_HEARTBEAT",
    "DEFAULT_MAX_EVENT_SIZE",
    "DEFAULT_RETRY",
    "DEFAULT_SEND_TIMEOUT",
    "HEARTBEAT",
]

HEARTBEAT: Final = b": heartbeat\n\n"
"""A comment: it keeps proxies from closing an idle connection, and shows the client that the server lives."""

DEFAULT_HEARTBEAT: Final = 15.0
"""Seconds. The specification advises a comment "every 15 seconds or so"; proxies cut at 30 to 60."""

DEFAULT_SEND_TIMEOUT: Final = 30.0
"""Seconds. A phone that changes networks is back sooner; a client that is not holds memory for nothing."""

DEFAULT_RETRY: Final = 3.0
"""Seconds until a client reconnects: what browsers wait by themselves."""

DEFAULT_DRAIN_WINDOW: Final = 5.0
"""Seconds over which a stopping hub ends its streams, so that they do not all come back at once."""

DEFAULT_MAX_EVENT_SIZE: Final = 1024 * 1024
"""Bytes of an event's data: what decoders take by default."""
