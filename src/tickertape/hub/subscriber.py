"""What every subscriber is: a cursor in the log, the patterns of its audience, and a policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import Any, NamedTuple

from ..asgi import DisconnectReason
from ..errors import SlowConsumerError
from ..wire import Cursor, Gap
from .delivery import Delivery, Range
from .topics import Patterns

__all__ = ["OverflowPolicy", "Start", "Subscriber", "SubscriberInfo"]


class OverflowPolicy(StrEnum):
    """Treatment of a subscriber that reads too slowly."""

    DISCONNECT = "disconnect"
    """End its stream when its next events are no longer kept. It reconnects and gets a gap."""
    SKIP = "skip"
    """Send it a gap and continue with live events."""
    LATEST = "latest"
    """When it falls behind, send it only the newest event of each topic: for dashboards and prices."""


class SubscriberInfo(NamedTuple):
    """Describe a subscriber to those who watch presence.

    Attributes:
        id: a number of its own within the hub.
        topics: its patterns.
        since: seconds since the Unix epoch at which it came.
        user: whatever the application said of it.
    """

    id: int
    topics: Patterns
    since: float
    user: Any = None


class Start(NamedTuple):
    """Say where a subscription starts.

    Attributes:
        cursor: the offset behind which it gets every event.
        gap: what it cannot get, if its own cursor is not to be had.
    """

    cursor: int
    gap: Gap | None = None


class Subscriber(ABC):
    """Keep a place in the log for one who listens.

    Attributes:
        cursor: the offset up to which it is served; of a live direct one, the head by definition.
        gap: what it is to be told before the next event.
        reason: why it ended, once it has.
    """

    __slots__ = ("_caught_up", "_delivery", "_on_end", "audience", "cursor", "gap", "info", "policy", "reason")

    def __init__(
        self, delivery: Delivery, info: SubscriberInfo, start: Start, policy: OverflowPolicy, on_end: Any = None
    ) -> None:
        self._delivery = delivery
        self._caught_up = False  # its history was given: from here on it can only fall behind
        self._on_end = on_end
        self.info = info
        self.cursor = start.cursor
        self.gap = start.gap
        self.policy = policy
        self.reason: DisconnectReason | None = None
        self.audience = delivery.add(self, info.topics)

    @property
    def resume_from(self) -> Cursor:
        """The cursor behind which the subscriber gets what comes next."""
        return Cursor(self._delivery.window.epoch, self.cursor)

    def end(self, reason: DisconnectReason) -> None:
        """Leave the hub; the first reason stays."""
        if self.reason is None:
            self.reason = reason
            counts = self._delivery.counters.disconnects
            counts[reason] = counts.get(reason, 0) + 1
            self._delivery.discard(self)
            if self._on_end is not None:
                self._on_end(self)

    def hand_over(self) -> None:
        """Leave the hub to a successor: nobody has come or gone."""
        self.reason = DisconnectReason.DRAINING
        self._delivery.discard(self)

    @abstractmethod
    def wake(self) -> None:
        """Look again what lies behind the cursor."""

    @property
    def position(self) -> int:
        """The offset up to which live subscribers are served."""
        return self._delivery.position

    def _in_window(self) -> bool:
        return self._delivery.window.oldest - 1 <= self.cursor

    def _next_in_window(self, upto: int, *, behind: bool) -> Range:
        """Return the next range of the window; ``cursor`` must lie within it.

        Arguments:
            upto: the offset to end at.
            behind: whether the subscriber was live and did not keep up, which one policy asks for.
        """
        if behind and self.policy is OverflowPolicy.LATEST:
            return self._delivery.latest(self.audience.patterns, self.cursor, upto)
        return self._delivery.range(self.audience.patterns, self.cursor, upto)

    async def _fetch(self) -> Range | None:
        """Read the next range from the broker; ``None`` if the subscriber's place is another by now.

        Raises:
            SlowConsumerError: the policy ends the subscription instead.
            BrokerError: the log cannot be read.
        """
        found = await self._delivery.fetch(self.audience.patterns, self.cursor)
        if found is None or not self._caught_up:
            return found
        if self.policy is OverflowPolicy.LATEST:
            return self._delivery.thin(found)
        if found.gap is None:
            return found
        if self.policy is OverflowPolicy.DISCONNECT:
            raise SlowConsumerError(str(self.resume_from))
        head = self._delivery.window.newest
        return Range(
            b"", head, [], Gap.create("expired", found.gap.after or "", Cursor(self._delivery.window.epoch, head))
        )
