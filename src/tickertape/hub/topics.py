"""The index of the subscriptions to a topic.

Anybody who may subscribe chooses patterns, and every publish is matched against them. So the cost of the worst
patterns counts: :class:`TopicIndex` follows a tree while that is cheap, and asks pattern sets for the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import chain
from typing import Final, Generic, TypeVar

from ..wire import INTERNAL, MAX_SEGMENTS, Patterns, PatternSet

T = TypeVar("T", bound=Hashable)

_ONE: Final = "*"
_ANY: Final = "**"

_CACHED_FINDS: Final = 65_536
"""Values that the index remembers for topics, 0.5 MiB of references. It forgets all when it is full."""

_MAX_VISITS: Final = 128
"""Nodes of the tree that the patterns of one value may make a topic visit. A literal and ``*`` below ``**`` are 97.
So many visits take 27 µs if nothing is shared; the largest pattern set takes 6 µs, but is asked for every topic."""


class _Node(Generic[T]):
    """A place in the tree of patterns, reached by their first segments."""

    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.values: dict[T, None] = {}  # a set that keeps its order

    def add(self, pattern: str, value: T) -> None:
        node = self
        for segment in pattern.split("/"):
            child = node.children.get(segment)
            if child is None:
                child = node.children[segment] = _Node()
            node = child
        node.values[value] = None

    def remove(self, pattern: str, value: T) -> None:
        """Remove a value, and the branches that are left without values."""
        segments = pattern.split("/")
        path = [self]
        for segment in segments:
            path.append(path[-1].children[segment])
        del path[-1].values[value]
        for parent, segment in zip(reversed(path[:-1]), reversed(segments), strict=True):
            node = parent.children[segment]
            if node.values or node.children:
                break
            del parent.children[segment]

    def find(self, topic: str) -> dict[T, None]:
        """Return the values whose patterns match: follow the topic down the tree, all branches at the same time.

        Each node is visited at most once for each segment. A node below ``**`` may be reached after any number of
        segments; the others only after as many as there are above them.
        """
        found: dict[T, None] = {}
        looping: dict[_Node[T], None] = {}  # nodes of `**`: once reached, they stay
        reached: list[_Node[T]] = [self]
        segments = topic.split("/")
        if segments[0] in INTERNAL:
            named = self.children.get(segments.pop(0))
            reached = [] if named is None else [named]
        for segment in segments:
            for node in reached:
                node._reach_any(looping, found)
            children = [node.children for node in chain(reached, looping)]
            reached = [below[segment] for below in children if segment in below]
            reached += [below[_ONE] for below in children if _ONE in below]
        for node in reached:
            node._reach_any(looping, found)
            found.update(node.values)
        return found

    def _reach_any(self, looping: dict[_Node[T], None], found: dict[T, None]) -> None:
        node = self.children.get(_ANY)
        if node is not None and node not in looping:
            found.update(node.values)  # a pattern that ends in `**` matches whatever follows
            if node.children:
                looping[node] = None

    def most_visits(self, times: int = 1) -> int:
        """Return a bound of the visits that one topic may cause here and below.

        Of the children by name a topic visits one, and beside it those of the wildcards. A node below ``**`` is
        visited at each segment in the worst case.
        """
        named = [node for segment, node in self.children.items() if segment not in (_ONE, _ANY)]
        visits = times + max((node.most_visits(times) for node in named), default=0)
        if one := self.children.get(_ONE):
            visits += one.most_visits(times)
        if rest := self.children.get(_ANY):
            visits += rest.most_visits(MAX_SEGMENTS) if rest.children else 1
        return visits


class TopicIndex(Generic[T]):
    """Find the values whose patterns match a topic, at a cost that does not grow with those that do not match.

    The patterns are in a tree by their segments. Patterns that would make a topic visit many nodes are kept apart
    and matched by their :class:`PatternSet`, so that one value costs at most some 30 µs for a new topic.
    Results are kept until patterns are added or removed.
    """

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._apart: dict[tuple[Patterns, T], PatternSet] = {}
        self._found: dict[str, tuple[T, ...]] = {}
        self._room = _CACHED_FINDS

    def add(self, patterns: Patterns, value: T) -> None:
        """Add a value under each of the patterns."""
        self._forget()
        if _is_costly(patterns):
            self._apart[patterns, value] = PatternSet(patterns)
            return
        for pattern in patterns:
            self._root.add(pattern, value)

    def remove(self, patterns: Patterns, value: T) -> None:
        """Remove a value from each of the patterns."""
        self._forget()
        if self._apart.pop((patterns, value), None) is not None:
            return
        for pattern in patterns:
            self._root.remove(pattern, value)

    def find(self, topic: str) -> tuple[T, ...]:
        """Return the values whose patterns match ``topic``, each once."""
        found = self._found.get(topic)
        if found is None:
            found = tuple(dict.fromkeys(self._find(topic)))
            self._remember(topic, found)
        return found

    def _find(self, topic: str) -> Iterator[T]:
        yield from self._root.find(topic)
        for (_, value), matches_topic in self._apart.items():
            if matches_topic(topic):
                yield value

    def _remember(self, topic: str, found: tuple[T, ...]) -> None:
        weight = len(found) + 8  # what an entry takes without values
        if weight > self._room:
            self._forget()
        if weight <= self._room:
            self._found[topic] = found
            self._room -= weight

    def _forget(self) -> None:
        self._found.clear()
        self._room = _CACHED_FINDS


def _is_costly(patterns: Patterns) -> bool:
    """Return True if one topic may visit too many nodes of a tree of these patterns."""
    wild = [pattern for pattern in patterns if _ONE in pattern]
    tree: _Node[None] = _Node()
    for count, pattern in enumerate(wild, 1):
        tree.add(pattern, None)
        # More patterns never cost less, so the worst sets are found early; at powers of two all looks cost little.
        if (count & count - 1 == 0 or count == len(wild)) and tree.most_visits() > _MAX_VISITS:
            return True
    return False
