"""``Subscription``, the state of one subscriber: its patterns, its position in the log, and how it ended."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from ..asgi import DisconnectReason
from ..broker import Marks
from ..wire import Gap, Patterns
from .audience import Audience
from .statistics import Way

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


class Output(Protocol):
    """The way in which a subscription is served: pulled by a reader, or written to a socket."""

    way: ClassVar[Way]
    """Its name in statistics."""

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
        caught_up: it has reached the newest event once. From then on it can only fall behind.
        reason: why it ended; ``None`` while it is open.
        events, bytes: the events that it was sent, and their bytes without the framing of HTTP.

    While a direct output is live, its cursor is the delivery's position, and ``cursor`` is out of date. So are
    ``events`` and ``bytes``: its audience counts for all of its live members.
    """

    # One for each connection: every slot costs 8 bytes of each.
    __slots__ = (
        "audience",
        "bytes",
        "caught_up",
        "cursor",
        "events",
        "gap",
        "id",
        "noted",
        "output",
        "policy",
        "reason",
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
        self.reason: DisconnectReason | None = None

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
