"""``Subscription``, the state of one subscriber: its patterns, its position in the log, and how it ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from ..asgi import DisconnectReason
from ..broker import Marks
from ..wire import Cursor, Gap, Patterns, check_patterns
from .audience import Audience
from .statistics import Way
from .window import Entry

Overflow: TypeAlias = Literal["disconnect", "skip", "latest"]
"""The values of ``on_overflow=``."""


class OverflowPolicy(StrEnum):
    """Treatment of a subscriber that reads too slowly."""

    DISCONNECT = "disconnect"
    """End its stream when its next events are no longer kept. It reconnects and gets a gap."""
    SKIP = "skip"
    """Send it a gap and continue with live events."""
    LATEST = "latest"
    """When it falls behind, send it only the newest event of each topic: for dashboards and prices."""


def check_overflow(value: Overflow) -> OverflowPolicy:
    """Return the policy with this name.

    Raises:
        ValueError: there is none.
    """
    try:
        return OverflowPolicy(value)
    except ValueError:
        names = ", ".join(repr(str(policy)) for policy in OverflowPolicy)
        raise ValueError(f"expected on_overflow to be one of {names}, got {value!r}") from None


class SubscriberInfo(NamedTuple):
    """Description of a subscriber for presence.

    Attributes:
        id: a number that is unique within the hub.
        topics: its patterns.
        since: the time of its arrival, in seconds since the Unix epoch.
        user: the value that the application passed as ``user=``.
    """

    id: int
    topics: Patterns
    since: float
    user: Any = None


class Past(NamedTuple):
    """Past events for a stream that gets more topics.

    Attributes:
        entries: the newest events of the topics, oldest first.
        upto: the offset up to which they are complete, of the log with this epoch.
        epoch: the epoch.
    """

    entries: list[Entry]
    upto: int
    epoch: str


class Change:
    """A change of the topics of a subscription.

    Arguments:
        add: patterns to add. Those that it has are ignored.
        remove: patterns to remove. Those that it does not have are ignored.
        limit: the greatest number of patterns of a subscription.
        last: the number of past events of the added topics to send.
        done: gets the cursor after which the new topics hold, or the error.

    Attributes:
        past: events of all topics to add; ``None`` if none are wanted.

    Raises:
        InvalidTopicError: a pattern breaks the syntax.
    """

    __slots__ = ("add", "done", "last", "limit", "past", "remove")

    def __init__(
        self,
        add: str | Iterable[str],
        remove: str | Iterable[str],
        *,
        limit: int,
        last: int,
        done: asyncio.Future[Cursor],
    ) -> None:
        self.add = _check_some(add)
        self.remove = _check_some(remove)
        self.limit = limit
        self.last = last
        self.done = done
        self.past: Past | None = None

    def apply(self, patterns: Patterns) -> Patterns:
        """Return the patterns that a subscription has after the change.

        Raises:
            InvalidTopicError: these are none, or too many.
        """
        return check_patterns({*patterns} - {*self.remove} | {*self.add}, limit=self.limit)

    def fail(self, error: Exception) -> None:
        """Report an error, unless the caller was cancelled."""
        if not self.done.done():
            self.done.set_exception(error)


def _check_some(patterns: str | Iterable[str]) -> Patterns:
    given = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    return check_patterns(given, limit=None) if given else ()


class Changed(NamedTuple):
    """A change that holds, and of which the subscriber has no notice yet.

    Attributes:
        topics: the patterns from now on.
        past: events of the added topics that were published before.
    """

    topics: Patterns
    past: list[Entry]


class Output(Protocol):
    """The way in which a subscription is served: pulled by a reader, or written to a socket."""

    way: ClassVar[Way]
    """Its name in statistics."""

    @property
    def live(self) -> bool:
        """True if the subscriber has everything up to the delivery's position. Its cursor may be out of date then."""

    def settle(self) -> bool:
        """Store the exact cursor in the subscription, and leave its audience; False if that must wait for a round."""

    def wake(self) -> None:
        """Continue: there may be something after the cursor, or the cursor or the gap has changed."""

    def ended(self) -> None:
        """Release everything that waits: the subscription has ended."""


class Subscription:
    """The state of one subscriber; it computes nothing.

    Arguments:
        id: a number that is unique within the hub.
        audience: the subscribers with the same patterns.
        cursor: the offset after which the subscriber gets every event.
        gap: sent before the next event, if the subscriber could not start where it wanted to.
        policy: the treatment if it reads too slowly.
        since: the time of its arrival, in seconds since the Unix epoch.
        user: a value of the application.

    Attributes:
        output: the current way in which it is served; ``None`` until there is one.
        noted: the marks of dropped records whose loss needs no other notice.
        changed: changes of its topics of which it has no notice yet; ``None`` if there was never one.
        caught_up: it has reached the newest event once. From then on it can only fall behind.
        reason: why it ended; ``None`` while it is open.
        request: the id of the request that has opened it; ``None`` if there is none, or streams are not logged.
        events, bytes: the events that it was sent, and their bytes without the framing of HTTP.

    While a direct output is live, its cursor is the delivery's position, and ``cursor`` is out of date. So are
    ``events`` and ``bytes``: its audience counts for all of its live members.
    """

    # One for each connection: every slot costs 8 bytes of each.
    __slots__ = (
        "audience",
        "bytes",
        "caught_up",
        "changed",
        "cursor",
        "events",
        "gap",
        "id",
        "noted",
        "output",
        "policy",
        "reason",
        "request",
        "since",
        "user",
    )

    def __init__(
        self,
        id: int,
        audience: Audience,
        cursor: int,
        gap: Gap | None,
        policy: OverflowPolicy,
        since: float,
        user: Any,
    ) -> None:
        self.id = id
        self.audience = audience
        self.cursor = cursor
        self.gap = gap
        self.policy = policy
        self.since = since
        self.user = user
        self.events = 0
        self.bytes = 0
        self.output: Output | None = None
        self.noted: Marks = ()
        self.caught_up = False
        self.changed: deque[Changed] | None = None
        self.reason: DisconnectReason | None = None
        self.request: str | None = None

    def __repr__(self) -> str:
        return f"<Subscription {self.id} {self.audience.patterns} cursor={self.cursor} {self.reason or 'open'}>"

    @property
    def info(self) -> SubscriberInfo:
        """The description of the subscriber for presence."""
        return SubscriberInfo(self.id, self.audience.patterns, self.since, self.user)

    def take_gap(self) -> Gap | None:
        """Return the gap to send, and remove it."""
        gap, self.gap = self.gap, None
        return gap

    def add(self, events: int, size: int) -> None:
        """Count events that it was sent."""
        self.events += events
        self.bytes += size
