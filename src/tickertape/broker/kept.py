"""``Kept``: what a log keeps by its limits, with its marks and keys, for brokers that hold this in memory."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, repeat
from math import inf
from typing import Generic, Protocol, TypeVar

from .records import OTHERS, Marks, marks_after
from .retention import MAX_MARKS, Lanes, Retention


class Item(Protocol):
    """A record, or what stands for it."""

    @property
    def offset(self) -> int: ...
    @property
    def topic(self) -> str: ...


T = TypeVar("T", bound=Item)


class Lane(Generic[T]):
    """The items of a rule, or all others, in order.

    Attributes:
        items: the items.
        dropped: the offset of the newest record that is no longer here; 0 if none was dropped.
        trimmed: the same for records over the limits, without those of discarded topics.
    """

    __slots__ = ("_appended", "_bytes", "_forget", "_limits", "dropped", "items", "trimmed")

    def __init__(self, limits: Retention, forget: Callable[[T, str | None], None]) -> None:
        self.items: deque[T] = deque()
        self.dropped = 0
        self.trimmed = 0
        self._limits = limits
        self._forget = forget
        self._appended: deque[tuple[float, int, str | None]] = deque()  # time, bytes and key of each item
        self._bytes = 0

    def append(self, item: T, now: float, size: int, key: str | None) -> None:
        self.items.append(item)
        self._appended.append((now, size, key))
        self._bytes += size

    def extend(self, items: Iterable[T], now: float, sizes: Sequence[int], keys: Iterable[str | None]) -> None:
        """Append items that were stored at the same time."""
        self.items.extend(items)
        self._appended.extend(zip(repeat(now), sizes, keys))
        self._bytes += sum(sizes)

    def trim(self, now: float) -> None:
        """Drop the items over the limits, and their keys."""
        keep, items, appended = self._limits, self.items, self._appended
        most_events = inf if keep.events is None else keep.events
        most_bytes = inf if keep.bytes is None else keep.bytes
        deadline = -inf if keep.age is None else now - keep.age
        while items and (len(items) > most_events or self._bytes > most_bytes or appended[0][0] < deadline):
            self._drop_first()

    def keep_after(self, offset: int) -> None:
        """Drop the items up to an offset."""
        while self.items and self.items[0].offset <= offset:
            self._drop_first()
        self.trimmed = max(self.trimmed, offset)
        self.mark(offset)

    def mark(self, offset: int) -> None:
        """Raise the mark to an offset; the items stay."""
        self.dropped = max(self.dropped, offset)

    def lose(self, newest: int) -> None:
        """Drop the items after an offset, without a mark."""
        while self.items and self.items[-1].offset > newest:
            self._remove(self.items.pop(), self._appended.pop())

    def discard(self, chosen: Callable[[T], bool]) -> int:
        """Drop the chosen items, and return the offset of the newest one; 0 for none."""
        found = 0
        if not any(map(chosen, self.items)):
            return found
        before = list(zip(self.items, self._appended, strict=True))
        self.items, self._appended = deque(), deque()
        for item, appended in before:
            if chosen(item):
                found = item.offset
                self._remove(item, appended)
            else:
                self.items.append(item)
                self._appended.append(appended)
        return found

    def after(self, offset: int, limit: int | None = None) -> list[T]:
        """Return items after an offset. The newest ones cost only their number."""
        start = bisect_right(self.items, offset, key=_offset_of)
        if limit is not None and start < len(self.items) // 2:
            return list(islice(self.items, start, start + limit))
        items = list(islice(reversed(self.items), len(self.items) - start))
        items.reverse()
        return items[:limit]

    def _drop_first(self) -> None:
        item = self.items.popleft()
        offset = self.trimmed = item.offset
        if offset > self.dropped:
            self.dropped = offset
        self._remove(item, self._appended.popleft())

    def _remove(self, item: T, appended: tuple[float, int, str | None]) -> None:
        self._bytes -= appended[1]
        self._forget(item, appended[2])


def _offset_of(item: Item) -> int:
    return item.offset


class Kept(Generic[T]):
    """The items of a log, lane by lane.

    Arguments:
        retention: the limits of the log.
        removed: called with each item that is dropped.

    Attributes:
        lanes: the lane of each rule and of all others. One whose rule was removed may be added.
        discarded: discarded topics, each with the offset of its newest record that was removed.
        keys: the offsets of records with a key.
    """

    def __init__(self, retention: Retention, removed: Callable[[T], None] | None = None) -> None:
        self.lane_of = Lanes(retention)
        self._removed = removed
        self.discarded: dict[str, int] = {}
        self.keys: dict[str, int] = {}
        self.lanes: dict[str, Lane[T]] = {}
        for name in (OTHERS, *self.lane_of.names):
            self.lane(name)

    def lane(self, name: str) -> Lane[T]:
        """Return a lane. If it is not there yet, it is added."""
        if name not in self.lanes:
            self.lanes[name] = Lane(self.lane_of.limits(name), self._forget)
        return self.lanes[name]

    def _forget(self, item: T, key: str | None) -> None:
        if key is not None and self.keys.get(key) == item.offset:
            del self.keys[key]
        if self._removed is not None:
            self._removed(item)

    def oldest(self, newest: int) -> int:
        """Return the offset of the oldest item; ``newest + 1`` if there is none."""
        return min((lane.items[0].offset for lane in self.lanes.values() if lane.items), default=newest + 1)

    def marks(self, oldest: int) -> Marks:
        """Return the marks for the state of the log."""
        return marks_after(oldest, ((name, lane.dropped) for name, lane in self.lanes.items()), self.discarded.items())

    def append(self, item: T, lane: str, now: float, size: int, key: str | None) -> None:
        """Add an item of a lane; ``size`` is in bytes, ``now`` in seconds."""
        if key is not None:
            self.keys[key] = item.offset
        self.lane(lane).append(item, now, size, key)

    def extend(
        self, items: Sequence[T], lane: str, now: float, sizes: Sequence[int], keys: Sequence[str | None] = ()
    ) -> None:
        """Add items of a lane that were stored at the same time. ``keys`` may be empty if none has a key."""
        self.keys.update((key, item.offset) for item, key in zip(items, keys, strict=False) if key is not None)
        self.lane(lane).extend(items, now, sizes, keys or repeat(None))

    def trim(self, now: float) -> None:
        """Drop the items over the limits."""
        for lane in self.lanes.values():
            if lane.items:
                lane.trim(now)

    def newest_of(self, topic: str, upto: int) -> int:
        """Return the offset of the newest record of a topic with a rule up to an offset; 0 if there is none."""
        lanes = [lane.items for name, lane in self.lanes.items() if name != OTHERS]
        found = (item.offset for items in lanes for item in items if item.topic == topic and item.offset <= upto)
        return max(found, default=0)

    def discard(self, topic: str, upto: int) -> None:
        """Drop the items of a topic up to an offset. Topics without a rule keep theirs."""

        def chosen(item: T) -> bool:
            return item.topic == topic and item.offset <= upto

        found = max((lane.discard(chosen) for name, lane in self.lanes.items() if name != OTHERS), default=0)
        if found:
            self.mark_discarded(topic, found)

    def mark_discarded(self, topic: str, offset: int) -> None:
        """Note the newest record of a discarded topic. If there are too many, merge the oldest mark."""
        self.discarded[topic] = max(self.discarded.get(topic, 0), offset)
        while len(self.discarded) > MAX_MARKS:
            self.merge_oldest_mark()

    def merge_oldest_mark(self) -> None:
        """Make the oldest mark of a discarded topic that of its rule."""
        oldest = min(self.discarded, key=self.discarded.__getitem__)
        self.lane(self.lane_of(oldest)).mark(self.discarded.pop(oldest))

    def after(self, offset: int, limit: int | None = None) -> list[T]:
        """Return the items after an offset, in order."""
        found = [items for lane in self.lanes.values() if lane.items and (items := lane.after(offset, limit))]
        if len(found) == 1:
            return found[0]
        return list(islice(heapq.merge(*found, key=_offset_of), limit))
