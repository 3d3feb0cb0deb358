"""The one tree of exceptions.

::

    TickertapeError
    ├── InvalidEventError (ValueError)      you built an event that the wire cannot carry
    ├── EventTooLargeError                  the peer sent an event over the limit
    └── StreamEndedError                    another event was awaited, and the stream has ended
"""

from __future__ import annotations

__all__ = ["EventTooLargeError", "InvalidEventError", "StreamEndedError", "TickertapeError"]


class TickertapeError(Exception):
    """Base of every exception that tickertape raises on purpose."""


class InvalidEventError(TickertapeError, ValueError):
    """A field of an event has a value that the event stream format cannot carry."""


class EventTooLargeError(TickertapeError):
    """A stream contains an event over the decoder's limit.

    Attributes:
        size: bytes of the event seen so far (it may have been longer still).
        limit: the greatest number of bytes allowed.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"expected an event of at most {self.limit} bytes, got {self.size} bytes or more"


class StreamEndedError(TickertapeError):
    """Another event was awaited of a stream that has ended."""
