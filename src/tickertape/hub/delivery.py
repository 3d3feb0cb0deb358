"""From the log to its subscribers: who gets what, and when.

One fan-out, a *round*, runs at a time. It takes the records that came since the last one, joins the
bytes that each audience wants, and writes them. Between rounds every live direct subscriber is
served up to the same offset, ``position``. A round that takes long lets the loop go on in between;
whoever wants to join meanwhile waits for its end, so that nothing is lost or repeated.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from ..broker import Broker, Record
from ..timing import Clock
from ..wire import Cursor, Gap, GapReason
from .audience import Audience, Pace
from .topics import Patterns, TopicIndex, matches
from .window import Entry, Window, encode_block

if TYPE_CHECKING:
    from .direct import DirectSubscriber
    from .subscriber import Subscriber

__all__ = ["PAGE", "Counters", "Delivery", "Range"]

logger = logging.getLogger("tickertape.hub")

PAGE: Final = 32 * 1024
"""Bytes in which a subscriber that is behind catches up: what it holds if it stops reading again."""

_PAGE_RECORDS: Final = 100
"""Records asked of the broker at a time."""

_PAGE_BYTES: Final = 128 * 1024
"""Bytes taken of them: what is over is read again, and is not held for a subscriber that reads slowly."""

_ROUND: Final = 64 * 1024
"""Bytes of a round: more would not fit into a socket at once, and make a slow consumer of everyone."""

_MOST_PENDING: Final = 1024 * 1024
"""Bytes that wait for their round: beyond them no more is taken from the log, which keeps what is to come."""

_MEMO: Final = 64
"""Ranges of the log kept joined: clients that lost their connection together come back with one cursor."""


@dataclass(slots=True)
class Counters:
    """Count what happened; nothing is lost silently."""

    published: int = 0
    delivered: int = 0
    gaps: dict[str, int] = field(default_factory=lambda: {"expired": 0, "reset": 0})
    superseded: int = 0
    disconnects: dict[str, int] = field(default_factory=dict)


class Range(NamedTuple):
    """A part of the log for one subscriber.

    Attributes:
        chunk: the blocks of the entries, joined.
        upto: the offset up to which the subscriber is served then.
        entries: what it gets.
        gap: what it cannot get, told before the entries.
    """

    chunk: bytes
    upto: int
    entries: list[Entry]
    gap: Gap | None = None

    @classmethod
    def of(cls, entries: list[Entry], upto: int, gap: Gap | None = None) -> Range:
        """Join the entries' blocks."""
        return cls(b"".join([entry.block for entry in entries]), upto, entries, gap)


class Delivery:
    """Take records in, and bring every subscriber what lies between its cursor and the head.

    Arguments:
        broker: where records are read that are no longer in the window.
        window: the newest part of the log.
        clock: what last writes are measured on.
    """

    def __init__(self, broker: Broker, window: Window, clock: Clock) -> None:
        self.window = window
        self.position = window.newest
        self.counters = Counters()
        self.subscribers: set[Subscriber] = set()
        self.behind: set[DirectSubscriber] = set()  # those that are not live
        self.clock = clock
        self.pace = Pace()
        self._audiences: dict[Patterns, Audience] = {}
        self._broker = broker
        self._index: TopicIndex[Audience] = TopicIndex()
        self._pending: deque[Entry] = deque()
        self._pending_bytes = 0
        self._room = asyncio.Event()
        self._joining: dict[DirectSubscriber, None] = {}  # a set that keeps its order
        self._replaced = asyncio.Event()
        self._closed = False
        self._round: Iterator[None] | None = None
        self._upto = self.position  # where the round ends
        self._served: Collection[Audience] = ()  # by the round that runs: who of them was written to is not known
        self._loop = asyncio.get_running_loop()
        self._memo: dict[tuple[Patterns, int, int], Range] = {}

    # Subscribers come and go.

    def add(self, subscriber: Subscriber, patterns: Patterns) -> Audience:
        """Count a subscriber in and return its audience."""
        audience = self._audiences.get(patterns)
        if audience is None:
            audience = self._audiences[patterns] = Audience(patterns, self.clock.time())
            self._index.add(patterns, audience)
        audience.members += 1
        self.subscribers.add(subscriber)
        return audience

    def discard(self, subscriber: Subscriber) -> None:
        """Count a subscriber out; the last one takes its audience with it."""
        self.subscribers.discard(subscriber)
        audience = subscriber.audience
        audience.members -= 1
        if not audience.members:
            del self._audiences[audience.patterns]
            self._index.remove(audience.patterns, audience)

    def join(self, member: DirectSubscriber) -> None:
        """Make a subscriber live if it is served up to the head; else let it advance after the round."""
        if self._round is None and member.cursor == self.position:
            member.audience.join(member, self.clock.time())
            self.behind.discard(member)
        else:
            self._joining[member] = None

    def forget(self, member: DirectSubscriber) -> None:
        """Let go of a direct subscriber that has ended."""
        self.behind.discard(member)
        self._joining.pop(member, None)

    def count(self, topic: str | None = None) -> int:
        """Return the number of subscribers, of those who get what is published to ``topic``."""
        if topic is None:
            return len(self.subscribers)
        return sum(audience.members for audience in self._index.find(topic))

    def patterns(self) -> dict[Patterns, int]:
        """Return the patterns in use with the number of their subscribers."""
        return {patterns: audience.members for patterns, audience in self._audiences.items()}

    def check(self, send_timeout: float) -> None:
        """Drop direct subscribers whose peers have taken nothing for ``send_timeout`` seconds."""
        now = self.clock.time()
        for member in list(self.behind):
            member.check(now, send_timeout)

    def beat(self, heartbeat: bytes, interval: float) -> None:
        """Write a heartbeat to direct subscribers that were silent for ``interval`` seconds."""
        for audience in list(self._audiences.values()):
            if audience not in self._served:
                audience.compact()
                audience.beat(heartbeat, self.clock.time(), interval)

    # Records come in and go out.

    def ingest(self, records: list[Record]) -> None:
        """Take the next records of the log; they go out in the loop's next turn, together with others."""
        entries = self.window.append(records, self.clock.time())
        self._pending.extend(entries)
        self._pending_bytes += sum(len(entry.block) for entry in entries)
        self._start_round()

    async def wait_for_room(self) -> None:
        """Return when more records may come: a hub that is slower than its publishers is a cursor in the log too."""
        while self._pending_bytes > _MOST_PENDING:
            self._room.clear()
            await self._room.wait()

    def _start_round(self) -> None:
        if self._round is None and self._pending:
            entries = self._take_pending()
            self._upto = entries[-1].offset
            self._round = self._fan_out(entries)
            self._loop.call_soon(self._continue, self._round)

    def _take_pending(self) -> list[Entry]:
        entries: list[Entry] = []
        size = 0
        while self._pending:
            size += len(self._pending[0].block)
            if entries and size > _ROUND:
                break
            entries.append(self._pending.popleft())
            self._pending_bytes -= len(entries[-1].block)
        self._room.set()
        return entries

    def _fan_out(self, entries: list[Entry]) -> Iterator[None]:
        wanted: dict[Audience, list[bytes]] = {}
        for entry in entries:
            for audience in self._index.find(entry.topic):
                wanted.setdefault(audience, []).append(entry.block)
        self._served = wanted
        for audience, blocks in wanted.items():
            audience.compact()
            if audience.live:
                live = audience.live
                yield from audience.write(b"".join(blocks), self._upto, self.clock.time(), self.pace)
                self.counters.delivered += live * len(blocks)
            audience.wake(self.position)

    def _continue(self, running: Iterator[None]) -> None:
        if running is not self._round:  # the log was replaced meanwhile
            return
        if self._step(running):
            self._loop.call_soon(self._continue, running)
        else:
            self._end_round()
            joining, self._joining = self._joining, {}
            for member in joining:
                member.advance()
            self._start_round()

    def _step(self, running: Iterator[None]) -> bool:
        """Let a round go on for its share of time; return whether there is more to do."""
        try:
            next(running)
        except StopIteration:
            return False
        except Exception:
            # Who has been written to is not known: all come back, each from its own last event.
            logger.exception("a fan-out failed; its subscribers are disconnected and resume")
            for audience in list(self._audiences.values()):
                for member in audience.leave_all():
                    member.abort()
                audience.wake(self.position)
            return False
        return True

    def _end_round(self) -> None:
        self._round = None
        self._served = ()
        self.position = self._upto
        self._memo.clear()

    def rebase(self, window: Window, oldest: int) -> None:
        """Go on with another window: everyone catches up from its cursor, or is told of a gap.

        Arguments:
            window: the new one, of the same log or of another.
            oldest: the offset of the oldest record that its log keeps.
        """
        if self._round is not None:
            # Some of its subscribers have been served and some not: with its end all are in one place.
            while self._step(self._round):
                pass
            self._end_round()
        self._replaced.set()
        self._replaced = asyncio.Event()
        before, self.window = self.window, window
        position, self.position = self.position, window.newest
        self._pending.clear()
        self._pending_bytes = 0
        self._joining = {}
        self._memo.clear()
        for audience in self._audiences.values():
            for member in audience.leave_all():
                member.cursor = position
            audience.wake(position)
        for subscriber in list(self.subscribers):
            if window.epoch != before.epoch or subscriber.cursor > window.newest:
                after = Cursor(before.epoch, subscriber.cursor)
                subscriber.cursor = oldest - 1
                subscriber.gap = self.gap("reset", str(after), oldest - 1)
            subscriber.wake()

    def close(self) -> None:
        """Let those go who wait for another log."""
        self._closed = True
        self._replaced.set()

    # Ranges of the log, for those who are behind.

    def range(self, patterns: Patterns, cursor: int, upto: int) -> Range:
        """Return the next page behind a cursor within the window, joined."""
        key = patterns, cursor, upto
        known = self._memo.get(key)
        if known is None:
            entries, reached = self.window.after(cursor, patterns, PAGE, upto)
            known = Range.of(entries, reached)
            if len(self._memo) >= _MEMO:
                self._memo.clear()
            self._memo[key] = known
        return known

    def latest(self, patterns: Patterns, cursor: int, upto: int) -> Range:
        """Return the next page of events that are the newest of their topics; the others are counted as superseded."""
        entries, reached, passed = self.window.latest(cursor, patterns, PAGE, upto)
        self.counters.superseded += passed
        return Range.of(entries, reached)

    def thin(self, found: Range) -> Range:
        """Leave out of a page that was read from the broker what is superseded by a newer event of its topic."""
        newest = {entry.topic: entry for entry in found.entries if self.window.newest_of(entry.topic) <= entry.offset}
        entries = [entry for entry in found.entries if newest.get(entry.topic) is entry]
        self.counters.superseded += len(found.entries) - len(entries)
        return Range.of(entries, found.upto, found.gap)

    async def fetch(self, patterns: Patterns, cursor: int) -> Range | None:
        """Read the next page behind a cursor from the broker, for a cursor older than the window.

        Returns ``None`` if the log was replaced meanwhile: its subscribers are in another place then.

        Raises:
            BrokerError: the log cannot be read.
        """
        window = self.window
        known = window.newest
        state, records = await self._broker.read(cursor, _PAGE_RECORDS, lambda topic: matches(patterns, topic))
        while state.epoch != window.epoch and self.window is window and not self._closed:
            await self._replaced.wait()
        if self.window is not window or self._closed:
            return None
        last = records[-1].offset if records else cursor
        upto = last if len(records) == _PAGE_RECORDS else max(known, last)
        now = self.clock.time()
        entries: list[Entry] = []
        size = 0
        for record in records:
            entry = Entry(record, encode_block(state.epoch, record), now)
            size += len(entry.block)
            if entries and size > _PAGE_BYTES:
                upto = entries[-1].offset
                break
            entries.append(entry)
        if state.oldest <= cursor + 1:
            return Range.of(entries, upto)
        gap = self.gap("expired", str(Cursor(state.epoch, cursor)), state.oldest - 1)
        return Range.of(entries, max(upto, state.oldest - 1), gap)

    def gap(self, reason: GapReason, after: str, resumed: int) -> Gap:
        """Make a gap, and count it."""
        self.counters.gaps[reason] += 1
        return Gap.create(reason, after, Cursor(self.window.epoch, resumed))
