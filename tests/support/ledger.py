"""A ledger of events: each is delivered to a client, declared by a gap, or superseded if the policy is ``latest``."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from support.hub import gap_of
from tickertape import ServerSentEvent
from tickertape.wire import Cursor, Patterns, compile_patterns

__all__ = ["Account", "Ledger", "Published", "wanted"]


@cache
def wanted(patterns: Patterns, topic: str) -> bool:
    """Return True if one of the patterns matches the topic."""
    return compile_patterns(patterns)(topic)


class Published(NamedTuple):
    """An event that was appended to the log."""

    topic: str
    data: str


@dataclass
class Ledger:
    """All published events by epoch and offset, and the number of those that were delivered, declared or superseded."""

    published: dict[str, dict[int, Published]] = field(default_factory=dict)
    subscriptions: int = 0
    delivered: int = 0
    declared: int = 0
    superseded: int = 0
    gaps: dict[str, int] = field(default_factory=lambda: {"expired": 0, "reset": 0})

    def between(self, patterns: tuple[str, ...], epoch: str, after: int, upto: int) -> list[int]:
        """Return the offsets that match the patterns in a part of the log."""
        log = self.published.get(epoch, {})
        return [
            offset for offset in range(after + 1, upto + 1) if offset in log and wanted(patterns, log[offset].topic)
        ]


class Account:
    """The events that one client received, over all of its connections.

    Arguments:
        ledger: the published events.
        patterns: its subscription.
        policy: the treatment if it reads too slowly.
    """

    def __init__(self, ledger: Ledger, patterns: tuple[str, ...], policy: str) -> None:
        self.ledger = ledger
        self.patterns = patterns
        self.policy = policy
        self.cursor: Cursor | None = None
        self.awaiting_newer: dict[str, int] = {}  # by topic, the last event that was skipped for a newer one

    def open(self, cursor: str | None) -> None:
        """Record the cursor in the first block of a new stream."""
        assert cursor is not None
        if self.cursor is None:
            self.cursor = Cursor.parse(cursor)
        assert self.cursor is not None

    def receive(self, event: ServerSentEvent) -> None:
        """Record an event. It must be a gap, or the next event that matches."""
        if event.event == "stream:gap":
            self._receive_gap(event)
            return
        cursor = Cursor.parse(event.id or "")
        assert cursor is not None, event
        assert self.cursor is not None, event
        published = self.ledger.published[cursor.epoch][cursor.offset]
        assert event.data == published.data, "an id was used for two events"
        assert wanted(self.patterns, published.topic)
        assert cursor.epoch == self.cursor.epoch, (self.cursor, event)
        assert cursor.offset > self.cursor.offset, ("delivered twice, or out of order", self.cursor, event.id)
        self._skip(cursor.offset - 1)
        self.cursor = cursor
        self.ledger.delivered += 1
        self.awaiting_newer.pop(published.topic, None)

    def _skip(self, upto: int) -> None:
        """Record that no event was delivered up to an offset: none matches, or a newer one must follow."""
        assert self.cursor is not None
        skipped = self.ledger.between(self.patterns, self.cursor.epoch, self.cursor.offset, upto)
        assert self.policy == "latest" or not skipped, ("lost silently", self.cursor, upto, skipped)
        for offset in skipped:
            self.awaiting_newer[self.ledger.published[self.cursor.epoch][offset].topic] = offset
            self.ledger.superseded += 1

    def _receive_gap(self, event: ServerSentEvent) -> None:
        gap = gap_of(event)
        assert event.id == gap["resumed"]
        resumed, after = Cursor.parse(gap["resumed"]), Cursor.parse(gap["after"])
        assert resumed is not None
        assert self.cursor is not None
        self.ledger.gaps[gap["reason"]] += 1
        if gap["reason"] == "expired":
            assert after is not None
            assert after.epoch == resumed.epoch == self.cursor.epoch
            assert self.cursor.offset <= after.offset <= resumed.offset, (self.cursor, gap)
            self._skip(after.offset)
        log = self.ledger.published.get(self.cursor.epoch, {0: 0})
        upto = resumed.offset if resumed.epoch == self.cursor.epoch else max(log)
        self.ledger.declared += len(self.ledger.between(self.patterns, self.cursor.epoch, self.cursor.offset, upto))
        self.awaiting_newer.clear()  # events that are no longer kept need not follow
        self.cursor = resumed

    def close(self, epoch: str, newest: int) -> None:
        """Check at the end that no event is missing."""
        if self.cursor is None:
            return
        assert self.cursor.epoch == epoch, self.cursor
        missing = self.ledger.between(self.patterns, epoch, self.cursor.offset, newest)
        assert not missing, ("not delivered", self.cursor, newest, missing)
        assert not self.awaiting_newer, ("superseded by events that were not delivered", self.awaiting_newer)
