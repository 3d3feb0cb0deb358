"""An index of a NATS stream, in memory: where each kept record is, its key, and the marks of those that are gone."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from ..kept import Kept
from ..records import OTHERS, LogState
from ..retention import Retention
from .link import Link
from .messages import Marks, Message, digest

_SILENCE: Final = 2.0
"""Seconds without an expected message after which reading starts again."""

_SPARE_MESSAGES: Final = 250
"""Messages that may stay in the stream although all of their records were dropped. Removing them costs one message."""

_COLLECTING: Final = 60.0
"""Seconds, at most, that a publisher of all marks takes to remove the messages that they replace."""

_SPARE_BYTES: Final = 8 * 1024 * 1024
"""Bytes of such messages."""


class Entry(NamedTuple):
    """A record that is kept: its offset, its topic (empty if no rule matches it), and the sequence of its message."""

    offset: int
    topic: str
    sequence: int


class _Slot:
    """A message with records: how many of them are kept, and its bytes."""

    __slots__ = ("kept", "size")

    def __init__(self, kept: int, size: int) -> None:
        self.kept = kept
        self.size = size


class Index:
    """The records of a stream up to a message, by the limits of the log.

    It is made from the headers of all messages when the log is opened, and then follows the stream: by the messages
    that are appended or read here, and by reading the headers of others.

    Arguments:
        retention: the limits of the log.
        epoch: the epoch. Keys of other epochs are unknown.

    Attributes:
        upto: the sequence of the last message in the index.
        newest: the newest offset.
        unused: messages that are of no more use, each with its bytes.
    """

    def __init__(self, retention: Retention, epoch: str) -> None:
        self.epoch = epoch
        self.upto = 0
        self.newest = 0
        self.unused: dict[int, int] = {}
        self._kept = Kept[Entry](retention, self._removed)
        self._slots: dict[int, _Slot] = {}  # in the order of the stream
        self._whole = 0  # the sequence of the newest message with all marks
        self._marks: deque[int] = deque()  # messages with marks since then
        self._ruled: set[str] = set()  # lanes of which the log knows
        self._stored: dict[str, int] = {}  # the offsets up to which lanes were trimmed, by the marks in the stream
        self._reading = asyncio.Lock()

    # Following the stream.

    async def catch_up(self, link: Link, sequence: int) -> None:
        """Add all messages up to a sequence."""
        async with self._reading:
            if self.upto == sequence - 1:
                message = await link.get(sequence)
                if message is not None:
                    self.add(message)
            while self.upto < sequence:
                async with link.consume(self.upto + 1, headers_only=True) as inbox:
                    while self.upto < sequence and (messages := await inbox.take(_SILENCE)):
                        for message in messages:
                            whole = await link.get(message.sequence) if message.partial else message
                            if whole is not None:
                                self.add(whole)
            self.trim()

    def follow(self, message: Message) -> None:
        """Add a message if it is the next one."""
        if message.sequence == self.upto + 1 and not message.partial:
            self.add(message)

    def add(self, message: Message) -> None:
        """Add a message. All before it that are in the stream must be in the index."""
        if message.sequence <= self.upto:
            return
        self.upto = message.sequence
        self.newest = message.newest
        if message.marks is not None:
            self._apply(message, message.marks)
            return
        self._slots[message.sequence] = _Slot(message.total, sum(message.sizes))
        ruled: dict[int, str] = {}
        for lane, topics in message.lanes.items():
            placed = {place: topic for topic, places in topics.items() for place in places}
            self._add_records(message, lane, sorted(placed), placed)
            ruled |= placed
        if len(ruled) < message.total:
            self._add_records(message, OTHERS, [place for place in range(message.total) if place not in ruled], {})

    def _add_records(self, message: Message, lane: str, places: list[int], topics: dict[int, str]) -> None:
        self._ruled.add(lane)
        first, sequence = message.first, message.sequence
        entries = [Entry(first + place, topics.get(place, ""), sequence) for place in places]
        keys: list[str | None] = []
        if message.keys and message.epoch == self.epoch:
            known = {offset: key for key, offset in message.keys}
            keys = [known.get(entry.offset) for entry in entries]
        self._kept.extend(entries, lane, message.time, [message.sizes[place] for place in places], keys)

    def _apply(self, message: Message, marks: Marks) -> None:
        self._ruled.update(marks.lanes)
        for name, (trimmed, dropped) in marks.lanes.items():
            lane = self._kept.lane(name)
            lane.keep_after(trimmed)
            lane.mark(dropped)
            self._stored[name] = lane.trimmed
        if marks.whole:
            self._kept.discarded.clear()
            if message.time > time.time() - _COLLECTING:
                self.unused.clear()  # its publisher is about to remove them
            self.unused.update(dict.fromkeys((*self._marks, self._whole), 0))
            self._marks.clear()
            self._whole = message.sequence
        else:
            self._marks.append(message.sequence)
        for topic, offset in marks.discarded.items():
            self._kept.discard(topic, offset)
            self._kept.mark_discarded(topic, offset)

    def _removed(self, entry: Entry) -> None:
        slot = self._slots[entry.sequence]
        slot.kept -= 1
        if not slot.kept:
            self.unused[entry.sequence] = slot.size
            del self._slots[entry.sequence]

    def trim(self) -> None:
        """Drop the records over the limits."""
        self._kept.trim(time.time())

    def lose_before(self, sequence: int) -> None:
        """Drop the records of messages before a sequence, which someone else has removed."""
        if self._slots and next(iter(self._slots)) < sequence:
            for lane in self._kept.lanes.values():
                gone = [entry.offset for entry in lane.items if entry.sequence < sequence]
                if gone:
                    lane.keep_after(gone[-1])

    def lose(self, entries: list[Entry]) -> None:
        """Drop records that are not in the stream, although no marks announce it."""
        lost = set(entries)
        for lane in self._kept.lanes.values():
            lane.mark(lane.discard(lost.__contains__))

    # Questions.

    def state(self) -> LogState:
        """Return the state of the log."""
        self.trim()
        oldest = self._kept.oldest(self.newest)
        return LogState(self.epoch, oldest, self.newest, self._kept.marks(oldest))

    def after(self, offset: int, limit: int | None = None) -> list[Entry]:
        """Return the entries of records after an offset, in order."""
        return self._kept.after(offset, limit)

    def newest_of(self, topic: str, upto: int) -> int:
        """Return the offset of the newest record of a topic with a rule up to an offset; 0 if there is none."""
        return self._kept.newest_of(topic, upto)

    def find(self, key: str) -> int | None:
        """Return the offset of a key's record."""
        return self._kept.keys.get(digest(key))

    # Marks, and messages without use.

    @property
    def knows_rules(self) -> bool:
        """True if the log knows our rules."""
        return self._ruled.issuperset(self._kept.lane_of.names)

    @property
    def is_over(self) -> bool:
        """True if so many messages are of no use that they should be removed."""
        unused = len(self.unused) + len(self._marks)
        return unused > _SPARE_MESSAGES or sum(self.unused.values()) > _SPARE_BYTES

    @property
    def has_trimmed(self) -> bool:
        """True if records were trimmed since the last marks. A broker with other limits does not know of them."""
        return any(lane.trimmed > self._stored.get(name, 0) for name, lane in self._kept.lanes.items())

    def marks(self) -> Marks:
        """Return all marks, with those of rules that the log does not know.

        Until now, records of a new rule were dropped with the others: readers must not trust older cursors.
        """
        lanes = {
            name: (lane.trimmed, lane.dropped if not name or name in self._ruled else self.newest)
            for name, lane in self._kept.lanes.items()
        }
        return Marks(True, lanes, dict(self._kept.discarded))

    def merge_marks(self, count: int) -> None:
        """Make the oldest marks of discarded topics those of their rules."""
        for _ in range(min(count, len(self._kept.discarded))):
            self._kept.merge_oldest_mark()

    def collect(self) -> tuple[int, list[int]]:
        """Return what can be removed as soon as our marks are stored right after the index.

        Returns:
            The sequence before which no message is of use, and the other messages without use.
        """
        first = next(iter(self._slots), self.upto + 1)
        unused = {*self.unused, *self._marks, self._whole}
        return first, sorted(sequence for sequence in unused if sequence > first)

    def forget(self, first: int, sequences: Iterable[int]) -> None:
        """Forget messages that were removed: those before ``first``, and others."""
        removed = {*sequences, *(sequence for sequence in self.unused if sequence < first)}
        self.unused = {sequence: size for sequence, size in self.unused.items() if sequence not in removed}

    def put_back(self, sequences: Iterable[int]) -> None:
        """Note messages that could not be removed."""
        self.unused.update(dict.fromkeys(sequences, 0))
