"""``Window``, the newest part of the log, in memory and encoded."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, dropwhile, islice, takewhile
from typing import Final

from ..broker import Record, Retention
from ..errors import BrokerError
from ..wire import encode_fields
from .topics import Patterns, matches

__all__ = ["Entry", "Window", "encode_block"]

_ENTRY_OVERHEAD: Final = 400
"""Bytes that an entry takes beside its topic and its block: objects, list and index."""

_SPARE: Final = 1024
"""Dropped entries at the list's start before it is cut: cutting moves all that follow."""


def encode_block(epoch: str, record: Record) -> bytes:
    """Return a record as it goes to every subscriber."""
    return encode_fields(record.data, record.event, f"{epoch}-{record.offset}")


class Entry:
    """A record with its bytes on the wire; shared by all who send it."""

    __slots__ = ("added", "block", "record")

    def __init__(self, record: Record, block: bytes, added: float) -> None:
        self.record = record
        self.block = block
        self.added = added

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


_GONE: Final = Entry(Record(0, "", None, ""), b"", 0.0)
"""Stands where an entry was dropped, until the list is cut."""


class Window:
    """Hold the newest records of a log without holes between them.

    Arguments:
        epoch: the life of the log.
        newest: the offset behind which the window starts, empty.
        retention: how much is held.
    """

    def __init__(self, epoch: str, newest: int, retention: Retention) -> None:
        self.epoch = epoch
        self.newest = newest
        self.bytes = 0
        self._retention = retention
        self._entries: list[Entry] = []
        self._dead = 0  # entries at the list's start that were dropped
        self._offsets: dict[str, deque[int]] = {}  # by topic

    def __len__(self) -> int:
        return len(self._entries) - self._dead

    def __repr__(self) -> str:
        return f"<Window {self.epoch} {self.oldest}..{self.newest} bytes={self.bytes} topics={len(self._offsets)}>"

    @property
    def oldest(self) -> int:
        """The offset of the oldest record held; ``newest + 1`` if there is none."""
        return self.newest - len(self) + 1

    @property
    def topics(self) -> Collection[str]:
        """The topics of the records held."""
        return self._offsets.keys()

    def reaches(self, after: int) -> bool:
        """Tell whether all that follows offset ``after`` is here."""
        return self.oldest - 1 <= after <= self.newest

    def append(self, records: Iterable[Record], now: float) -> list[Entry]:
        """Take the next records and return them encoded; drop what is over the limits."""
        added = [Entry(record, encode_block(self.epoch, record), now) for record in records]
        for offset, entry in enumerate(added, self.newest + 1):  # all or none: what was taken must be delivered
            if entry.offset != offset:
                raise BrokerError(f"expected a record with offset {offset}, got {entry.offset}")
        for entry in added:
            self.newest = entry.offset
            self.bytes += entry.size
            self._entries.append(entry)
            self._offsets.setdefault(entry.topic, deque()).append(entry.offset)
        self.trim(now)
        return added

    def trim(self, now: float) -> None:
        """Drop what the retention does not hold at the moment ``now``."""
        keep = self._retention
        deadline = None if keep.age is None else now - keep.age
        while self and (
            (keep.events is not None and len(self) > keep.events)
            or (keep.bytes is not None and self.bytes > keep.bytes)
            or (deadline is not None and self._entries[self._dead].added < deadline)
        ):
            self._drop_oldest()
        if self._dead > _SPARE:
            del self._entries[: self._dead]
            self._dead = 0

    def _drop_oldest(self) -> None:
        entry = self._entries[self._dead]
        self._entries[self._dead] = _GONE
        self._dead += 1
        self.bytes -= entry.size
        offsets = self._offsets[entry.topic]
        offsets.popleft()
        if not offsets:
            del self._offsets[entry.topic]

    def after(self, offset: int, patterns: Patterns, limit: int | None, upto: int) -> tuple[list[Entry], int]:
        """Return the entries behind ``offset``, up to ``upto``, that match.

        At most ``limit`` bytes of them, but at least one. The second value is the offset up to which
        nothing was left out.
        """
        found: list[Entry] = []
        size = 0
        for entry in self._candidates(offset, patterns, upto):
            size += len(entry.block)
            if found and limit is not None and size > limit:
                return found, found[-1].offset
            found.append(entry)
        return found, upto

    def latest(self, offset: int, patterns: Patterns, limit: int, upto: int) -> tuple[list[Entry], int, int]:
        """Return what :meth:`after` does, but for entries that have a newer one of their topic, and count those."""
        found: list[Entry] = []
        size = passed = 0
        for entry in self._candidates(offset, patterns, upto):
            if self.newest_of(entry.topic) > entry.offset:
                passed += 1
                continue
            size += len(entry.block)
            if found and size > limit:
                return found, entry.offset - 1, passed
            found.append(entry)
        return found, upto, passed

    def newest_of(self, topic: str) -> int:
        """Return the offset of a topic's newest record; 0 if there is none here."""
        offsets = self._offsets.get(topic)
        return offsets[-1] if offsets else 0

    def _candidates(self, offset: int, patterns: Patterns, upto: int) -> Iterator[Entry]:
        """Find the matching entries by whichever is shorter: the part of the log, or their topics' own records."""
        entry_at = self._entries.__getitem__
        shift = self._dead - self.oldest
        topics = [] if _wild(patterns) else list(self._matching(patterns))
        if not _wild(patterns) and sum(len(self._offsets[topic]) for topic in topics) < upto - offset:
            known = (_between(self._offsets[topic], offset, upto) for topic in topics)
            return (entry_at(found + shift) for found in sorted(chain.from_iterable(known)))
        wanted = _Memo(patterns)
        span = range(max(offset + 1, self.oldest) + shift, upto + 1 + shift)
        return (entry for entry in map(entry_at, span) if wanted[entry.topic])

    def last(self, count: int, patterns: Patterns) -> tuple[int, int]:
        """Find the newest ``count`` matching records: how many there are, and the offset behind which they stand."""
        newest_first = heapq.merge(
            *(reversed(self._offsets[topic]) for topic in self._matching(patterns)), reverse=True
        )
        offsets = list(islice(newest_first, count))
        return len(offsets), offsets[-1] - 1 if offsets else self.newest

    def _matching(self, patterns: Patterns) -> Iterator[str]:
        if _wild(patterns):
            return (topic for topic in self._offsets if matches(patterns, topic))
        return (pattern for pattern in patterns if pattern in self._offsets)


class _Memo(dict[str, bool]):
    """Which topics match, each found out once."""

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns

    def __missing__(self, topic: str) -> bool:
        self[topic] = match = matches(self._patterns, topic)
        return match


def _wild(patterns: Patterns) -> bool:
    return any("*" in pattern for pattern in patterns)


def _between(offsets: deque[int], after: int, upto: int) -> Iterator[int]:
    newest_first = dropwhile(lambda offset: offset > upto, reversed(offsets))
    return takewhile(lambda offset: offset > after, newest_first)
