"""All exceptions of tickertape, in one tree.

::

    TickertapeError
    ├── AccessError                         a request may not do what it asks for
    │   ├── AccessUnavailableError          it is unknown, because an issuer of keys cannot be reached
    │   ├── ForbiddenError                  the grant of its credential does not cover it
    │   └── UnauthorizedError               it has no credential, or an invalid one
    ├── BrokerError                         the log cannot be reached, read or written
    │   ├── LogResetError                   the log has a new epoch: its offsets start over
    │   ├── LogTrimmedError                 the requested records are no longer kept
    │   └── BatchTooLargeError              the log cannot store so much at once (also an EventTooLargeError)
    ├── ClientError                         a client failed, or lost its stream
    │   ├── ContentTypeError                the response is not an event stream
    │   ├── GaveUpError                     the limit of attempts or of time is reached
    │   ├── PublishError                    the hub refused an event
    │   ├── RedirectError                   a redirect has no usable target, or there are too many
    │   └── StatusError                     the response has an error status
    ├── HubClosedError                      the hub is closed, or draining, or not yet open
    ├── InvalidCursorError (ValueError)     an epoch or an offset is out of range
    ├── InvalidEventError (ValueError)      you built an event that the wire cannot carry
    ├── InvalidTopicError (ValueError)      a topic or a pattern breaks the syntax, or there are too many
    ├── EventTooLargeError                  an event is over the limit
    ├── RunActiveError                      another run of the name is active
    ├── RunEndedError                       items were added to a run that has ended
    ├── RunOwnerError                       a run belongs to another owner
    ├── SlowConsumerError                   a subscription was read too slowly: its next events are no longer kept
    ├── StreamEndedError                    the stream ended while you waited for an event
    ├── SubscriptionBusyError               a stream has not been sent its last changes yet
    └── SubscriptionNotFoundError           no open stream has an id
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "AccessError",
    "AccessUnavailableError",
    "BatchTooLargeError",
    "BrokerError",
    "ClientError",
    "ContentTypeError",
    "EventTooLargeError",
    "ForbiddenError",
    "GaveUpError",
    "HubClosedError",
    "InvalidCursorError",
    "InvalidEventError",
    "InvalidTopicError",
    "LogResetError",
    "LogTrimmedError",
    "PublishError",
    "RedirectError",
    "RunActiveError",
    "RunEndedError",
    "RunOwnerError",
    "SlowConsumerError",
    "StatusError",
    "StreamEndedError",
    "SubscriptionBusyError",
    "SubscriptionNotFoundError",
    "TickertapeError",
    "UnauthorizedError",
]


class TickertapeError(Exception):
    """Base of every exception that tickertape raises on purpose."""


class AccessError(TickertapeError):
    """A request may not do what it asks for. The message is for its sender, and contains no credential."""


class AccessUnavailableError(AccessError):
    """It cannot be found out at the moment if a credential is valid: status 503."""


class ForbiddenError(AccessError):
    """The grant of a request's credential does not cover what it asks for: status 403."""


class UnauthorizedError(AccessError):
    """A request has no credential, or an invalid one: status 401."""


class InvalidCursorError(TickertapeError, ValueError):
    """The epoch or the offset of a cursor is out of range."""


class InvalidEventError(TickertapeError, ValueError):
    """A field of an event has a value that the event stream format cannot carry."""


class EventTooLargeError(TickertapeError):
    """An event is larger than the limit of the hub or of the decoder.

    Attributes:
        size: bytes of the event that were seen; the event may be longer.
        limit: the greatest number of bytes allowed.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"expected an event of at most {self.limit} bytes, got {self.size} bytes or more"


class StreamEndedError(TickertapeError):
    """The stream ended while its reader waited for another event."""


class ClientError(TickertapeError):
    """A client failed; the base class of the errors of :mod:`tickertape.client`."""


class StatusError(ClientError):
    """A server answered the request for a stream with an error status that another request would not change.

    Attributes:
        status: the HTTP status.
        url: the requested URL, without credentials and query.
        detail: the server's explanation, shortened; ``""`` if there is none.
    """

    def __init__(self, status: int, url: str = "", detail: str = "") -> None:
        super().__init__(status, url, detail)
        self.status = status
        self.url = url
        self.detail = detail

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"expected status 200 from {self.url}, got {self.status}{detail}"


class ContentTypeError(ClientError):
    """A server answered the request for a stream with another content type.

    Attributes:
        content_type: the value of the header; ``""`` if there is none.
        url: the requested URL, without credentials and query.
    """

    def __init__(self, content_type: str, url: str = "") -> None:
        super().__init__(content_type, url)
        self.content_type = content_type
        self.url = url

    def __str__(self) -> str:
        return f"expected content type 'text/event-stream' from {self.url}, got {self.content_type!r}"


class RedirectError(ClientError):
    """A redirect cannot be followed, or there are too many in a row.

    Attributes:
        status: the HTTP status of the redirect.
        location: its ``Location``, shortened; ``""`` if it is empty or missing.
        redirects: the number of redirects in a row, including this one.
        too_many: the redirect itself is sound; False if its target is missing or not an http or https URL.
    """

    def __init__(self, status: int, location: str, redirects: int, too_many: bool = True) -> None:
        super().__init__(status, location, redirects, too_many)
        self.status = status
        self.location = location
        self.redirects = redirects
        self.too_many = too_many

    def __str__(self) -> str:
        if not self.location:
            return f"the redirect with status {self.status} has no Location"
        if not self.too_many:
            return f"cannot follow the redirect to {self.location!r}: it is not an http or https URL"
        return f"more than {self.redirects - 1} redirects in a row, the last one to {self.location!r}"


class GaveUpError(ClientError):
    """A client retried until its limit; the cause is the last error.

    Attributes:
        attempts: the number of attempts that failed in a row.
        seconds: the time since the first of them began.
        reason: why the last one failed, in words.
        error: the exception of the last attempt; ``None`` if the server ended the stream cleanly.
    """

    def __init__(self, attempts: int, seconds: float, reason: str, error: Exception | None = None) -> None:
        super().__init__(attempts, seconds, reason, error)
        self.attempts = attempts
        self.seconds = seconds
        self.reason = reason
        self.error = error

    @property
    def status(self) -> int | None:
        """The HTTP status of the last attempt; ``None`` if it did not fail by one."""
        return self.error.status if isinstance(self.error, StatusError) else None

    def __str__(self) -> str:
        attempts = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        return f"gave up after {attempts} in {self.seconds:.1f} s, the last one: {self.reason}"


class PublishError(ClientError):
    """A hub refused an event. The attributes are the fields of its problem description (RFC 9457).

    Attributes:
        status: the HTTP status.
        title: the kind of problem in words, or the fault of an unexpected response.
        detail: this occurrence in words; ``""`` if there is no explanation.
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
        words = ": ".join(part for part in (self.title, self.detail) if part)
        return f"expected status 201, got {self.status} {words}".rstrip()


class BrokerError(TickertapeError):
    """The log cannot be reached, read or written."""


class LogResetError(BrokerError):
    """The epoch of the log has changed since it was opened: the log was wiped, or replaced by another."""


class LogTrimmedError(BrokerError):
    """The requested records are no longer kept.

    Attributes:
        after: the offset after which records were requested.
        oldest: the offset of the oldest record that is kept.
    """

    def __init__(self, after: int, oldest: int) -> None:
        super().__init__(after, oldest)
        self.after = after
        self.oldest = oldest

    def __str__(self) -> str:
        return f"records after offset {self.after} are no longer kept: the oldest is {self.oldest}"


class BatchTooLargeError(EventTooLargeError, BrokerError):
    """Events published together, or one event, are larger than what the log can store at once. Nothing was stored.

    Attributes:
        size: bytes of the batch, as the log stores it.
        limit: the greatest number of bytes that the log stores at once.
        setting: the setting that limits it.
    """

    def __init__(self, size: int, limit: int, setting: str) -> None:
        super().__init__(size, limit)
        self.args = (size, limit, setting)
        self.setting = setting

    def __str__(self) -> str:
        return f"expected events of at most {self.limit} bytes together ({self.setting}), got {self.size} bytes"


class HubClosedError(TickertapeError):
    """The hub accepts no events and no subscriptions: it is closed, or draining, or not yet open."""


class InvalidTopicError(TickertapeError, ValueError):
    """A topic or a topic pattern breaks the syntax, or a subscription has too many of them."""


class SlowConsumerError(TickertapeError):
    """A subscription was read too slowly: the events after its cursor are no longer kept.

    Attributes:
        cursor: the text of the last cursor that was delivered. Resuming from it gives a gap.
    """

    def __init__(self, cursor: str) -> None:
        super().__init__(cursor)
        self.cursor = cursor

    def __str__(self) -> str:
        return f"the subscriber read too slowly: events after its cursor {self.cursor} are no longer kept"


class RunActiveError(TickertapeError):
    """A run cannot be started while another one of the same name is active."""

    def __init__(self, name: str) -> None:
        super().__init__(f"run {name!r} is active: wait for its end, cancel it, or start with replace=True")
        self.name = name


class RunEndedError(TickertapeError):
    """A run has ended before items could be added to it: its readers do not get them.

    Attributes:
        name: the name of the run.
        state: how it has ended.
    """

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"run {name!r} has ended ({state})")
        self.name = name
        self.state = state


class RunOwnerError(TickertapeError):
    """A run belongs to another owner than the one that wants to join it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"run {name!r} has another owner")
        self.name = name


class SubscriptionBusyError(TickertapeError):
    """The topics of a stream cannot be changed now: its client does not read, or too many changes wait. Try again."""


class SubscriptionNotFoundError(TickertapeError):
    """No open stream has this id: it has ended, or it belongs to another user."""

    def __init__(self, message: str = "no open stream has this id") -> None:
        super().__init__(message)
