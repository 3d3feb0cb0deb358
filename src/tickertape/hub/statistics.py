"""Counters of a hub: streams, events, gaps, errors, and the distributions of its times."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from ..wire import GapReason
from .feeds import FeedStatistics

Way: TypeAlias = Literal["direct", "pull"]
"""The way in which a stream is served: written to a socket by the hub, or pulled by a response or a reader."""

Operation: TypeAlias = Literal["append", "read", "follow"]
"""The uses of the log."""

TIMES: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds, in seconds, for what takes milliseconds: an append to a log, a delivery."""

DURATIONS: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
"""Upper bounds, in seconds, for the life of a stream: from a probe to a page that stays open all day."""


class Distribution(NamedTuple):
    """A histogram at one moment.

    Attributes:
        bounds: the upper bounds of the classes, ascending; a value that equals a bound is in its class.
        counts: the number of values in each class, and at last of those above every bound.
        sum: the sum of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def total(self) -> int:
        """The number of values."""
        return sum(self.counts)


class Histogram:
    """Counts values in classes with fixed bounds."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def snapshot(self) -> Distribution:
        """Return the counts at this moment."""
        return Distribution(self._bounds, tuple(self._counts), self._sum)


@dataclass(slots=True)
class Counters:
    """Counts of what happened: nothing is lost silently."""

    opened: int = 0
    changed: int = 0
    delivered: int = 0
    delivered_bytes: int = 0
    superseded: int = 0
    delayed: int = 0
    skipped: int = 0
    active: dict[Way, int] = field(default_factory=lambda: {"direct": 0, "pull": 0})
    gaps: dict[GapReason, int] = field(default_factory=lambda: {"expired": 0, "reset": 0})
    disconnects: dict[str, int] = field(default_factory=dict)
    errors: dict[Operation, int] = field(default_factory=lambda: {"append": 0, "read": 0, "follow": 0})
    stream_seconds: Histogram = field(default_factory=lambda: Histogram(DURATIONS))
    append_seconds: Histogram = field(default_factory=lambda: Histogram(TIMES))
    read_seconds: Histogram = field(default_factory=lambda: Histogram(TIMES))
    delivery_seconds: Histogram = field(default_factory=lambda: Histogram(TIMES))


class HubStatistics(NamedTuple):
    """The state of a hub, and its counters since it was opened.

    Attributes:
        subscribers: the current number of subscribers.
        streams: the current number of those that are served, by the way: ``direct`` or ``pull``.
        topics: the number of topics with records in the window.
        window_events: records in the window.
        window_bytes: bytes of the window, approximately.
        lag: events of the log, as far as this hub knows it, that live subscribers have not been sent yet.
        published: events that this hub appended.
        opened: subscriptions that began.
        changed: changes of the topics of open subscriptions.
        delivered: events that went to subscribers.
        delivered_bytes: bytes of these events, without the framing of HTTP.
        superseded: events skipped for a newer one of their topic, as ``on_overflow="latest"`` asks.
        delayed: publications that waited for slow readers, by :meth:`Hub.wait_for_readers`.
        skipped: records of other programs that could not be encoded.
        gaps: gaps sent to subscribers, by reason.
        disconnects: subscribers that left, by reason.
        broker_errors: failures of the log, by its use: ``append``, ``read`` or ``follow``.
        stream_seconds: how long subscriptions lasted that have ended.
        append_seconds: how long the log took to store events.
        read_seconds: how long the log took to return a page to a subscriber that caught up.
        delivery_seconds: the time from the call of ``publish`` until all live subscribers were written to.
        feeds: the statistics of each feed, by name.
    """

    subscribers: int
    streams: dict[Way, int]
    topics: int
    window_events: int
    window_bytes: int
    lag: int
    published: int
    opened: int
    changed: int
    delivered: int
    delivered_bytes: int
    superseded: int
    delayed: int
    skipped: int
    gaps: dict[GapReason, int]
    disconnects: dict[str, int]
    broker_errors: dict[Operation, int]
    stream_seconds: Distribution
    append_seconds: Distribution
    read_seconds: Distribution
    delivery_seconds: Distribution
    feeds: dict[str, FeedStatistics]
