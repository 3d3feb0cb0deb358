"""Every event that a client wanted is accounted for: delivered, declared, or superseded if it asked for that."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from support.hub import gap_of
from tickertape import ServerSentEvent
from tickertape.hub.topics import matches
from tickertape.wire import Cursor

__all__ = ["Account", "Ledger", "Published", "wanted"]

wanted = cache(matches)


class Published(NamedTuple):
    """An event that the log has taken."""

    topic: str
    data: str


@dataclass
class Ledger:
    """All that was published, by the life of the log, and what came of it."""

    truth: dict[str, dict[int, Published]] = field(default_factory=dict)
    subscriptions: int = 0
    delivered: int = 0
    declared: int = 0
    superseded: int = 0
    gaps: dict[str, int] = field(default_factory=lambda: {"expired": 0, "reset": 0})

    def between(self, patterns: tuple[str, ...], epoch: str, after: int, upto: int) -> list[int]:
        """Return the offsets of what an audience wants of a part of the log."""
        log = self.truth.get(epoch, {})
        return [
            offset for offset in range(after + 1, upto + 1) if offset in log and wanted(patterns, log[offset].topic)
        ]


class Account:
    """What one client was given: it goes from connection to connection with its ``Last-Event-ID``.

    Arguments:
        ledger: what it is held against.
        patterns: what it has subscribed to.
        policy: what it wants when it reads too slowly.
    """

    def __init__(self, ledger: Ledger, patterns: tuple[str, ...], policy: str) -> None:
        self.ledger = ledger
        self.patterns = patterns
        self.policy = policy
        self.at: Cursor | None = None
        self.owed: dict[str, int] = {}  # by topic, the newest event that was passed over for a newer one

    def open(self, place: str | None) -> None:
        """Note the place that the first block of a new stream gave."""
        assert place is not None
        if self.at is None:
            self.at = Cursor.parse(place)
        assert self.at is not None

    def take(self, event: ServerSentEvent) -> None:
        """Enter an event that came; each but a gap has to be the next that is wanted."""
        if event.event == "stream:gap":
            self._take_gap(event)
            return
        cursor = Cursor.parse(event.id or "")
        assert cursor is not None, event
        assert self.at is not None, event
        published = self.ledger.truth[cursor.epoch][cursor.offset]
        assert event.data == published.data, "an id never stands for two events"
        assert wanted(self.patterns, published.topic)
        assert cursor.epoch == self.at.epoch, (self.at, event)
        assert cursor.offset > self.at.offset, ("given twice, or out of order", self.at, event.id)
        self._pass_over(cursor.offset - 1)
        self.at = cursor
        self.ledger.delivered += 1
        self.owed.pop(published.topic, None)

    def _pass_over(self, upto: int) -> None:
        """Note that nothing came up to an offset: nothing was to come, or a newer one is to come instead."""
        assert self.at is not None
        passed = self.ledger.between(self.patterns, self.at.epoch, self.at.offset, upto)
        assert self.policy == "latest" or not passed, ("lost without a word", self.at, upto, passed)
        for offset in passed:
            self.owed[self.ledger.truth[self.at.epoch][offset].topic] = offset
            self.ledger.superseded += 1

    def _take_gap(self, event: ServerSentEvent) -> None:
        gap = gap_of(event)
        assert event.id == gap["resumed"]
        resumed, after = Cursor.parse(gap["resumed"]), Cursor.parse(gap["after"])
        assert resumed is not None
        assert self.at is not None
        self.ledger.gaps[gap["reason"]] += 1
        if gap["reason"] == "expired":
            assert after is not None
            assert after.epoch == resumed.epoch == self.at.epoch
            assert self.at.offset <= after.offset <= resumed.offset, (self.at, gap)
            self._pass_over(after.offset)
        upto = resumed.offset if resumed.epoch == self.at.epoch else max(self.ledger.truth.get(self.at.epoch, {0: 0}))
        self.ledger.declared += len(self.ledger.between(self.patterns, self.at.epoch, self.at.offset, upto))
        self.owed.clear()  # what is not to be had any more is not owed
        self.at = resumed

    def close(self, epoch: str, newest: int) -> None:
        """Nothing more comes: nothing may be missing."""
        if self.at is None:
            return
        assert self.at.epoch == epoch, self.at
        assert self.ledger.between(self.patterns, epoch, self.at.offset, newest) == [], ("never came", self.at, newest)
        assert not self.owed, ("superseded by what never came", self.owed)
