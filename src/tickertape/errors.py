"""The one tree of exceptions.

::

    TickertapeError
    ├── BrokerError                         the log cannot be reached, read or written
    │   ├── LogResetError                   the log has begun another life: its offsets start over
    │   └── LogTrimmedError                 records that were asked for are no longer kept
    ├── ClientError                         a client could not do what it was asked, or lost its stream
    │   ├── ContentTypeError                the answer is not an event stream
    │   ├── GaveUpError                     the limit of attempts or of time is reached
    │   ├── PublishError                    the hub refused what was published
    │   ├── RedirectError                   a redirect leads nowhere, or there are too many
    │   └── StatusError                     the answer's status is not one of a stream
    ├── HubClosedError                      the hub is closed, or draining, or not yet open
    ├── InvalidEventError (ValueError)      you built an event that the wire cannot carry
    ├── InvalidTopicError (ValueError)      a topic or a pattern breaks the syntax, or there are too many
    ├── EventTooLargeError                  an event is over the limit
    ├── SlowConsumerError                   a subscription was read too slowly: the log has moved on
    └── StreamEndedError                    another event was awaited, and the stream has ended
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "BrokerError",
    "ClientError",
    "ContentTypeError",
    "EventTooLargeError",
    "GaveUpError",
    "HubClosedError",
    "InvalidEventError",
    "InvalidTopicError",
    "LogResetError",
    "LogTrimmedError",
    "PublishError",
    "RedirectError",
    "SlowConsumerError",
    "StatusError",
    "StreamEndedError",
    "TickertapeError",
]


class TickertapeError(Exception):
    """Base of every exception that tickertape raises on purpose."""


class InvalidEventError(TickertapeError, ValueError):
    """A field of an event has a value that the event stream format cannot carry."""


class EventTooLargeError(TickertapeError):
    """An event is larger than the hub takes, or than the decoder was allowed to hold.

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


class ClientError(TickertapeError):
    """A client could not do what it was asked; the base of what :mod:`tickertape.client` raises."""


class StatusError(ClientError):
    """A server answered the request for a stream with a status that asking again will not change.

    Attributes:
        status: the HTTP status.
        url: what was asked for, without credentials and query.
        detail: what the server said, shortened; ``""`` if nothing.
    """

    def __init__(self, status: int, url: str = "", detail: str = "") -> None:
        super().__init__(status, url, detail)
        self.status = status
        self.url = url
        self.detail = detail

    def __str__(self) -> str:
        said = f": {self.detail}" if self.detail else ""
        return f"expected status 200 from {self.url}, got {self.status}{said}"


class ContentTypeError(ClientError):
    """A server answered the request for a stream with something else than an event stream.

    Attributes:
        content_type: the value of the header; ``""`` if there is none.
        url: what was asked for, without credentials and query.
    """

    def __init__(self, content_type: str, url: str = "") -> None:
        super().__init__(content_type, url)
        self.content_type = content_type
        self.url = url

    def __str__(self) -> str:
        return f"expected content type 'text/event-stream' from {self.url}, got {self.content_type!r}"


class RedirectError(ClientError):
    """A redirect has no target, or there are too many in a row.

    Attributes:
        status: the HTTP status of the redirect.
        location: its ``Location``; ``""`` if it is empty or missing.
        redirects: how many came in a row, this one included.
    """

    def __init__(self, status: int, location: str, redirects: int) -> None:
        super().__init__(status, location, redirects)
        self.status = status
        self.location = location
        self.redirects = redirects

    def __str__(self) -> str:
        if not self.location:
            return f"expected a Location with status {self.status}, got none"
        return f"expected at most {self.redirects - 1} redirects in a row, got another one to {self.location!r}"


class GaveUpError(ClientError):
    """A client tried again until the limit that it was given; the cause is the last error.

    Attributes:
        attempts: how many in a row came to nothing.
        seconds: since the first of them began.
        reason: why the last one failed, in words.
    """

    def __init__(self, attempts: int, seconds: float, reason: str) -> None:
        super().__init__(attempts, seconds, reason)
        self.attempts = attempts
        self.seconds = seconds
        self.reason = reason

    def __str__(self) -> str:
        return f"gave up after {self.attempts} attempts in {self.seconds:.1f} s, the last one: {self.reason}"


class PublishError(ClientError):
    """A hub refused what was published; the fields of its problem description (RFC 9457).

    Attributes:
        status: the HTTP status.
        title: the kind of problem in words, or what was unexpected about the answer.
        detail: this occurrence in words; ``""`` if the hub said nothing.
        type: a URI that names the kind of problem.
        instance: a URI of this occurrence; ``""`` if there is none.
        extensions: all other members of the description.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str = "",
        type: str = "about:blank",
        instance: str = "",
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, title, detail, type, instance, extensions)
        self.status = status
        self.title = title
        self.detail = detail
        self.type = type
        self.instance = instance
        self.extensions: Mapping[str, Any] = extensions or {}

    def __str__(self) -> str:
        said = ": ".join(part for part in (self.title, self.detail) if part)
        return f"expected status 201, got {self.status} {said}".rstrip()


class BrokerError(TickertapeError):
    """The log cannot be reached, read or written."""


class LogResetError(BrokerError):
    """The log has another epoch than when it was opened: it was wiped, or replaced by another."""


class LogTrimmedError(BrokerError):
    """Records that were asked for are no longer kept.

    Attributes:
        after: the offset behind which records were asked for.
        oldest: the offset of the oldest record that is kept.
    """

    def __init__(self, after: int, oldest: int) -> None:
        super().__init__(after, oldest)
        self.after = after
        self.oldest = oldest

    def __str__(self) -> str:
        return f"expected records behind offset {self.after}, got a log whose oldest is {self.oldest}"


class HubClosedError(TickertapeError):
    """The hub takes no events and no subscriptions: it is closed, or draining, or not yet open."""


class InvalidTopicError(TickertapeError, ValueError):
    """A topic or a topic pattern breaks the syntax, or a subscription has too many of them."""


class SlowConsumerError(TickertapeError):
    """A subscription was read too slowly: what follows its cursor is no longer kept.

    Attributes:
        cursor: the text of the last cursor that was delivered, to resume from, with a gap.
    """

    def __init__(self, cursor: str) -> None:
        super().__init__(cursor)
        self.cursor = cursor

    def __str__(self) -> str:
        return f"expected a subscriber that keeps up, got one whose cursor {self.cursor} is no longer kept"
