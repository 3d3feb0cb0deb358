"""Why a stream ended: the closed set that code, logs and metrics share."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["DisconnectReason"]


class DisconnectReason(StrEnum):
    """Name why a stream ended although its events did not."""

    CLIENT_CLOSED = "client_closed"
    """The client left."""
    SLOW_CONSUMER = "slow_consumer"
    """The client read too slowly: its cursor fell off the log."""
    SEND_TIMEOUT = "send_timeout"
    """The client stayed connected and did not read."""
    EXPIRED = "expired"
    """The time granted to the stream was over."""
    DRAINING = "draining"
    """The server is going down, or its program ended the stream."""
    REPLACED = "replaced"
    """The same subscriber opened another stream."""
    ERROR = "error"
    """The events failed: an exception, which is in the log."""
