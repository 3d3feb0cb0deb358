"""``Window``, the newest part of the log, in memory and encoded."""

from __future__ import annotations

import heapq
import json
import logging
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Final

from ..broker import OTHERS, Lanes, Record, Retention, TopicFilter, relevant_marks
from ..errors import BrokerError, InvalidEventError
from ..wire import END_EVENT, TOPIC_END_EVENT, Patterns, compile_patterns, encode_fields

logger = logging.getLogger("tickertape.hub")

_ENTRY_OVERHEAD: Final = 400
"""Bytes of an entry besides its topic and its block: objects, list and index."""

_SPARE: Final = 1024
"""Dropped entries at the start of the list before it is cut: cutting moves all that follow."""

_MAX_ENDED: Final = 100_000
"""Topics of which a window remembers the end, some 10 MiB. Beyond them, it forgets those that ended first."""

_HOLES: Final = 100_000
"""Empty places in the middle, 0.8 MiB. If there are more, the window becomes shorter."""

_SCAN: Final = 500
"""Entries that one call examines: some milliseconds if all have new topics and there are a hundred patterns."""


def encode_record(epoch: str, record: Record) -> bytes:
    """Return a record as the block that goes to every subscriber; empty if it cannot be encoded.

    Only another program can have stored such a record: drafts are checked when they are built. It is
    skipped and logged, so that it does not stop every hub on the log.
    """
    try:
        return encode_fields(record.data, record.event, f"{epoch}-{record.offset}")
    except InvalidEventError as error:
        logger.error("skipped record %s-%d, which another program has written: %s", epoch, record.offset, error)
        return b""


def envelope_of(topic: str, data: str) -> str:
    """Return data with its topic. The data stays text, so that a reader gets exactly the text that was published."""
    return json.dumps({"topic": topic, "data": data}, ensure_ascii=False, separators=(",", ":"))


class Entry:
    """A record with its bytes on the wire, shared by all outputs that send it."""

    __slots__ = ("_other", "added", "block", "ends_topic", "record")

    def __init__(self, record: Record, block: bytes, added: float) -> None:
        self.record = record
        self.block = block
        self.added = added
        self.ends_topic = record.event == END_EVENT
        self._other: bytes | None = None  # the block with an envelope, or the notice

    def block_without_id(self, envelope: bool) -> bytes:
        """Return the block of a past event, which does not move the position of a client."""
        data = envelope_of(self.record.topic, self.record.data) if envelope else self.record.data
        return encode_fields(data, self.record.event, None)

    def block_in(self, envelope: bool) -> bytes:
        """Return the block, or the one with the topic beside the data; empty if it cannot be encoded."""
        if not envelope or not self.block or self.ends_topic:
            return self.block
        if self._other is None:
            self._other = encode_fields(envelope_of(self.topic, self.record.data), self.record.event, self.cursor)
        return self._other

    @property
    def notice(self) -> bytes:
        """The block that reports the end of the topic to streams that have others."""
        if self._other is None:
            self._other = encode_fields(self.record.data, TOPIC_END_EVENT, self.cursor)
        return self._other

    @property
    def cursor(self) -> str:
        """The id of the block, which is not empty."""
        return self.block[len(b"id: ") : self.block.index(b"\n")].decode()

    def __repr__(self) -> str:
        return f"<Entry {self.offset} {self.topic!r} {len(self.block)} bytes>"

    @property
    def offset(self) -> int:
        return self.record.offset

    @property
    def topic(self) -> str:
        return self.record.topic

    @property
    def size(self) -> int:
        return len(self.block) + len(self.record.topic) + len(self.record.data) + _ENTRY_OVERHEAD


_SOON: Final = 1 / 8
"""The part of a window that is dropped soon: one client that stalls does not hold up publishers for most of it."""

_GONE: Final = Entry(Record(0, "", None, ""), b"", 0.0)
"""Takes the place of a dropped entry until the list is cut."""


class _Lane:
    """The offsets of the records of one rule in the window, in order."""

    __slots__ = ("bytes", "dropped", "limits", "offsets")

    def __init__(self, limits: Retention) -> None:
        self.offsets: deque[int] = deque()
        self.bytes = 0
        self.dropped = 0  # the newest offset that was dropped after others that are still here
        self.limits = limits


class Window:
    """The newest records of a log.

    The records of topics with a rule are dropped by their rule, also from the middle. In the list their places are
    taken by an entry without a topic. Everything else is dropped from the start only, and then whatever is there:
    the broker has it.

    Arguments:
        epoch: the epoch of the log.
        newest: the offset after which the window starts, empty.
        retention: the limits of what it holds.

    Attributes:
        ended: the topics whose newest record is their end, with its offset; also if the window has dropped it.
    """

    def __init__(self, epoch: str, newest: int, retention: Retention) -> None:
        self.epoch = epoch
        self.newest = newest
        self.bytes = 0
        self.skipped = 0  # records that could not be encoded
        self.ended: dict[str, int] = {}
        self._retention = retention
        self._lane_of = Lanes(retention)
        self._lanes: dict[str, _Lane] = {}  # of the rules that have records here
        self._ruled = 0  # records in them
        self._ruled_bytes = 0
        self._holes = 0
        self._holed = 0  # the newest offset that was dropped from the middle
        self._entries: list[Entry] = []
        self._dead = 0  # dropped entries at the start of the list
        self._offsets: dict[str, _Offsets] = {}  # by topic

    def __len__(self) -> int:
        return self._span - self._holes

    @property
    def _span(self) -> int:
        return len(self._entries) - self._dead

    def __repr__(self) -> str:
        return f"<Window {self.epoch} {self.oldest}..{self.newest} bytes={self.bytes} topics={len(self._offsets)}>"

    @property
    def oldest(self) -> int:
        """The offset of the oldest record held, or of a place before it; ``newest + 1`` if there is none."""
        return self.newest - self._span + 1

    def complete_after(self, patterns: Patterns) -> int:
        """Return the offset after which the window holds all records of these topics that were appended."""
        if not self._holed:
            return self.oldest - 1
        relevant = relevant_marks(self._lane_of.names, patterns)
        dropped = (lane.dropped for name, lane in self._lanes.items() if name in relevant)
        return max((self.oldest - 1, *dropped))

    def next_to_drop(self) -> int:
        """Return the offset up to which records are dropped soon, as more arrive; ``oldest - 1`` if there is much room.

        These are the oldest eighth, if seven eighths of the allowed number or bytes are in use. Topics with a rule do
        not count: a rule is there to drop their records.
        """
        keep, most = self._retention, 1 - _SOON
        is_full = (keep.events is not None and len(self) - self._ruled >= most * keep.events) or (
            keep.bytes is not None and self.bytes - self._ruled_bytes >= most * keep.bytes
        )
        return self.oldest - 1 + (math.ceil(_SOON * self._span) if is_full else 0)

    @property
    def topics(self) -> Collection[str]:
        """The topics of the records held."""
        return self._offsets.keys()

    def records_of(self, *topics: str) -> list[Record]:
        """Return the records of some topics, oldest first; this looks at all."""
        return [entry.record for entry in self._entries[self._dead :] if entry.topic in topics]

    # Records arrive and are dropped.

    def append(self, records: Iterable[Record], now: float) -> list[Entry]:
        """Append the next records and return them encoded, then drop the records over the limits.

        Raises:
            BrokerError: a record does not follow the one before it. Nothing is appended then.
        """
        added = [Entry(record, encode_record(self.epoch, record), now) for record in records]
        for offset, entry in enumerate(added, self.newest + 1):
            if entry.offset != offset:
                raise BrokerError(f"expected a record with offset {offset}, got {entry.offset}")
        for entry in added:
            offsets = self._offsets.get(entry.topic)
            if offsets is None:
                offsets = self._offsets[entry.topic] = _Offsets(self._lane(entry.topic))
            offsets.items.append(entry.offset)
            if offsets.lane is not None:
                self._add_ruled(offsets.lane, entry)
            self._entries.append(entry)
            self.newest = entry.offset
            self.bytes += entry.size
            self.skipped += not entry.block
            if self.ended:
                self.ended.pop(entry.topic, None)
            if entry.ends_topic:
                self._remember_end(entry)
        self.trim(now)
        return added

    def _remember_end(self, entry: Entry) -> None:
        if len(self.ended) >= _MAX_ENDED:
            del self.ended[next(iter(self.ended))]
        self.ended[entry.topic] = entry.offset

    def end_of(self, patterns: Patterns) -> int | None:
        """Return the offset after which no more follows: all patterns are topics, and all of them have ended."""
        if not self.ended:
            return None
        ends = [self.ended.get(pattern) for pattern in patterns]
        return None if None in ends else max(end for end in ends if end is not None)

    def _lane(self, topic: str) -> _Lane | None:
        name = self._lane_of(topic)
        if name == OTHERS:
            return None
        if name not in self._lanes:
            self._lanes[name] = _Lane(self._lane_of.limits(name))
        return self._lanes[name]

    def _add_ruled(self, lane: _Lane, entry: Entry) -> None:
        lane.offsets.append(entry.offset)
        lane.bytes += entry.size
        self._ruled += 1
        self._ruled_bytes += entry.size

    def trim(self, now: float) -> None:
        """Drop the records that the retention does not keep at the time ``now``."""
        keep = self._retention
        deadline = None if keep.age is None else now - keep.age
        for lane in self._lanes.values():
            self._trim_lane(lane, now)
        while self._span and (
            self._entries[self._dead] is _GONE
            or (keep.events is not None and len(self) - self._ruled > keep.events)
            or (keep.bytes is not None and self.bytes - self._ruled_bytes > keep.bytes)
            or (deadline is not None and self._is_outdated(self._entries[self._dead], deadline))
            or self._holes > _HOLES
        ):
            self._drop_oldest()
        if self._dead > _SPARE:
            del self._entries[: self._dead]
            self._dead = 0

    def _is_outdated(self, entry: Entry, deadline: float) -> bool:
        return entry.added < deadline and self._offsets[entry.topic].lane is None

    def _trim_lane(self, lane: _Lane, now: float) -> None:
        keep, offsets = lane.limits, lane.offsets
        deadline = None if keep.age is None else now - keep.age
        while offsets and (
            (keep.events is not None and len(offsets) > keep.events)
            or (keep.bytes is not None and lane.bytes > keep.bytes)
            or (deadline is not None and self._entry_at(offsets[0]).added < deadline)
        ):
            self._drop_ruled(lane, offsets.popleft())

    def discard(self, topic: str, upto: int) -> None:
        """Drop the records of a topic up to an offset, if the topic has a rule."""
        known = self._offsets.get(topic)
        if known is None or known.lane is None:
            return
        dropped = set(known.between(0, upto))
        known.lane.offsets = deque(offset for offset in known.lane.offsets if offset not in dropped)
        for offset in sorted(dropped):
            self._drop_ruled(known.lane, offset)

    def _entry_at(self, offset: int) -> Entry:
        return self._entries[offset - self.oldest + self._dead]

    def _drop_ruled(self, lane: _Lane, offset: int) -> None:
        """Put an empty place where a record of a rule was, whose offset is no longer in its lane."""
        place = offset - self.oldest + self._dead
        entry = self._entries[place]
        self._entries[place] = _GONE
        self._holes += 1
        self._holed = max(self._holed, offset)
        lane.dropped = max(lane.dropped, offset)
        self._forget(entry, lane)

    def _drop_oldest(self) -> None:
        entry = self._entries[self._dead]
        self._entries[self._dead] = _GONE
        self._dead += 1
        if entry is _GONE:
            self._holes -= 1
            return
        lane = self._offsets[entry.topic].lane
        if lane is not None:
            lane.offsets.popleft()
        self._forget(entry, lane)

    def _forget(self, entry: Entry, lane: _Lane | None) -> None:
        self.bytes -= entry.size
        if lane is not None:
            lane.bytes -= entry.size
            self._ruled -= 1
            self._ruled_bytes -= entry.size
        if self._offsets[entry.topic].drop_first():
            del self._offsets[entry.topic]

    # Finding records. A call examines a bounded number of them, and returns how far it got.

    def after(self, offset: int, patterns: Patterns, limit: int, upto: int) -> tuple[list[Entry], int]:
        """Return matching entries after ``offset``, up to ``upto``.

        Arguments:
            offset: must not be older than the window.
            patterns: the topics to return.
            limit: bytes of all entries together; at least one is returned if there is any.
            upto: the last offset to examine.

        Returns:
            The entries, and the offset up to which none is left out.
        """
        found: list[Entry] = []
        size = 0
        candidates, reached = self._candidates(offset, patterns, upto)
        for entry in candidates:
            size += len(entry.block)
            if found and size > limit:
                return found, found[-1].offset
            found.append(entry)
        return found, reached

    def records(self, offset: int, upto: int, topics: TopicFilter) -> list[Record] | None:
        """Return the records with the right topics after ``offset``, up to ``upto``; ``None`` if some are not here."""
        if offset + 1 < self.oldest or offset < self._holed:
            return None
        shift = self._dead - self.oldest
        span = self._entries[offset + 1 + shift : upto + 1 + shift] if offset < upto else ()
        return [entry.record for entry in span if topics(entry.topic)]

    def latest(self, offset: int, patterns: Patterns, limit: int, upto: int) -> tuple[list[Entry], int, int]:
        """Return the same as :meth:`after` without entries that have a newer one of their topic, and count those."""
        found: list[Entry] = []
        size = superseded = 0
        candidates, reached = self._candidates(offset, patterns, upto)
        for entry in candidates:
            if self.newest_event_of(entry.topic) > entry.offset:
                superseded += 1
                continue
            size += len(entry.block)
            if found and size > limit:
                return found, entry.offset - 1, superseded
            found.append(entry)
        return found, reached, superseded

    def last(self, count: int, patterns: Patterns, upto: int) -> tuple[list[int], int]:
        """Find the newest matching records up to the offset ``upto``, without ends of topics.

        Returns:
            At most ``count`` offsets, newest first, and the offset before which to continue; if that is
            older than the window, there are no more.
        """
        wanted = compile_patterns(patterns)
        shift = self._dead - self.oldest
        if wanted.wild:
            stop = max(self.oldest, upto - _SCAN + 1)
            span = (self._entries[at + shift] for at in range(upto, stop - 1, -1))
            span = (entry for entry in span if entry is not _GONE and not entry.ends_topic)
            matching = (entry.offset for entry in span if wanted(entry.topic))
            found = list(islice(matching, count))
            return found, stop - 1
        known = (self._offsets[topic].newest_first(upto) for topic in patterns if topic in self._offsets)
        events = (at for at in heapq.merge(*known, reverse=True) if not self._entries[at + shift].ends_topic)
        return list(islice(events, count)), self.oldest - 1

    def newest_of(self, topic: str) -> int:
        """Return the offset of the newest record of a topic; 0 if there is none here."""
        offsets = self._offsets.get(topic)
        return offsets.items[-1] if offsets is not None else 0

    def newest_event_of(self, topic: str) -> int:
        """Return the offset of the newest record of a topic that is not its end; 0 if there is none here."""
        offsets = self._offsets.get(topic)
        if offsets is None:
            return 0
        shift = self._dead - self.oldest
        events = (at for at in offsets.newest_first(self.newest) if not self._entries[at + shift].ends_topic)
        return next(events, 0)

    def _candidates(self, offset: int, patterns: Patterns, upto: int) -> tuple[Iterator[Entry], int]:
        """Return matching entries, from the records of their topics or else from a part of the log.

        The second value is the offset up to which the entries are complete.
        """
        entry_at = self._entries.__getitem__
        shift = self._dead - self.oldest
        first = max(offset + 1, self.oldest)
        if len(patterns) == 1 and patterns[0] in self._offsets:  # a topic, since no topic contains a wildcard
            only = self._offsets[patterns[0]].between(offset, upto)
            return (entry for entry in map(entry_at, (at + shift for at in only)) if entry.block), upto
        wanted = compile_patterns(patterns)
        if not wanted.wild:
            known = (self._offsets[topic].between(offset, upto) for topic in patterns if topic in self._offsets)
            found = (entry_at(at + shift) for at in heapq.merge(*known))
            return (entry for entry in found if entry.block), upto
        reached = min(upto, first + _SCAN - 1)
        span = map(entry_at, range(first + shift, reached + 1 + shift))
        return (entry for entry in span if entry.block and wanted(entry.topic)), reached


class _Offsets:
    """The offsets of one topic, in order. The first of the list may be dead: cutting moves all that follow."""

    __slots__ = ("_dead", "items", "lane")

    def __init__(self, lane: _Lane | None) -> None:
        self.items: list[int] = []
        self.lane = lane  # of the topic's rule; None for a topic without one
        self._dead = 0

    def drop_first(self) -> bool:
        """Drop the oldest offset, and return whether none is left."""
        self._dead += 1
        if self._dead == len(self.items):
            return True
        if self._dead > 16 and 2 * self._dead > len(self.items):
            del self.items[: self._dead]
            self._dead = 0
        return False

    def between(self, after: int, upto: int) -> Iterator[int]:
        start = bisect_right(self.items, after, self._dead)
        return map(self.items.__getitem__, range(start, bisect_right(self.items, upto, start)))

    def newest_first(self, upto: int) -> Iterator[int]:
        end = bisect_right(self.items, upto, self._dead)
        return map(self.items.__getitem__, range(end - 1, self._dead - 1, -1))
