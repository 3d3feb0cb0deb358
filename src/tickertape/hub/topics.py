"""Topic patterns: their syntax, a matcher of bounded cost, and the index of the subscriptions to a topic.

A topic consists of segments between slashes: ``orders/42``. In a pattern, ``*`` stands for one segment
and ``**`` for any number of segments, also none: ``orders/*``, ``chat/**``, ``**``.

Anybody who may subscribe chooses patterns, and every publish is matched against them. So the cost of
the worst patterns counts, not the cost of the usual ones:

- a topic has at most :data:`~tickertape.wire.MAX_SEGMENTS` segments;
- :class:`PatternSet` follows all patterns of a subscription at once, as the bits of one integer;
- :class:`TopicIndex` follows a tree while that is cheap, and asks pattern sets for the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from functools import lru_cache
from itertools import chain
from typing import Final, Generic, TypeAlias, TypeVar

from ..errors import InvalidTopicError
from ..wire import MAX_SEGMENTS, check_segments

MAX_TOPICS: Final = 100
"""Patterns of one subscription: as many as fit well into a URL."""

MAX_ANY: Final = 2
"""``**`` in one pattern: ``**/a/**`` finds a segment anywhere, and no use for a third one is known."""

Patterns: TypeAlias = tuple[str, ...]
"""Patterns of one subscription: checked, sorted, each once."""

T = TypeVar("T", bound=Hashable)

_ONE: Final = "*"
_ANY: Final = "**"

_CACHED_MATCHES: Final = 256
"""Answers that a pattern set remembers, some 50 KiB: the active topics of most hubs. It forgets all when it is full."""

_CACHED_SETS: Final = 64
"""Compiled pattern sets that are kept: the largest legal one takes 2 MiB, a usual one 2 KiB."""

_CACHED_FINDS: Final = 65_536
"""Values that the index remembers for topics, 0.5 MiB of references. It forgets all when it is full."""

_MAX_VISITS: Final = 128
"""Nodes of the tree that the patterns of one value may make a topic visit. A literal and ``*`` below ``**`` are 97.
So many visits take 27 µs if nothing is shared; the largest pattern set takes 6 µs, but is asked for every topic."""


def check_patterns(patterns: str | Iterable[str], *, limit: int | None = MAX_TOPICS) -> Patterns:
    """Return the patterns sorted, each once, and ``**/**`` as ``**``.

    Arguments:
        patterns: one pattern or several.
        limit: the greatest number of patterns; ``None`` for any.

    Raises:
        InvalidTopicError: there are no patterns or too many, or one breaks the syntax.
    """
    if isinstance(patterns, str):
        patterns = (patterns,)
    given = set(patterns)
    if not given:
        raise InvalidTopicError("a subscription needs at least one topic")
    if limit is not None and len(given) > limit:
        raise InvalidTopicError(f"expected at most {limit} topics in a subscription, got {len(given)}")
    return tuple(sorted({_check_pattern(pattern) for pattern in sorted(given, key=str)}))


@lru_cache(maxsize=1_000)
def _check_pattern(pattern: str) -> str:
    segments = check_segments("topic pattern", pattern)
    if _ONE not in pattern:
        return pattern
    for segment in segments:
        if _ONE in segment and segment not in (_ONE, _ANY):
            raise InvalidTopicError(f"expected '*' or '**' as a whole segment, got {segment!r} in {pattern!r}")
    kept = [
        segment
        for before, segment in zip([None, *segments], segments, strict=False)
        if (before, segment) != (_ANY, _ANY)
    ]
    if kept.count(_ANY) > MAX_ANY:
        raise InvalidTopicError(
            f"expected at most {MAX_ANY} '**' in a topic pattern, got {kept.count(_ANY)} in {pattern!r}"
        )
    return "/".join(kept)


class PatternSet:
    """A compiled set of patterns; call it with a topic to learn whether any of them matches.

    Shift-And (Baeza-Yates and Gonnet, "A New Approach to Text Searching", 1992) over segments instead of
    characters. A pattern of n segments, its ``**`` not counted, has n + 1 states, which are adjacent bits of one
    integer for all patterns. Bit i is set when the first i segments have matched. A segment of the topic moves every
    bit whose segment it matches one place up; a bit before which ``**`` stands also stays. So a topic costs a few
    operations on an integer for each of its segments, whatever the patterns are: 6 µs for the largest legal set.

    Arguments:
        patterns: as returned by :func:`check_patterns`.

    Attributes:
        patterns: the patterns.
        wild: False if all patterns are topics, which is the case to look them up one by one.
    """

    __slots__ = ("_cache", "_final", "_initial", "_literal", "_loops", "_moves", "_star_moves", "patterns", "wild")

    def __init__(self, patterns: Patterns) -> None:
        self.patterns = patterns
        self._literal = frozenset(pattern for pattern in patterns if _ONE not in pattern)
        self.wild = len(self._literal) < len(patterns)
        self._initial = self._final = self._loops = self._star_moves = 0
        self._moves: dict[str, int] = {}
        self._cache: dict[str, bool] = {}
        bit = 1
        for pattern in patterns:
            if pattern not in self._literal:
                bit = self._compile(pattern, bit)
        for segment in self._moves:
            self._moves[segment] |= self._star_moves

    def _compile(self, pattern: str, bit: int) -> int:
        """Add the states of a pattern from ``bit`` on, and return the next free bit."""
        self._initial |= bit
        for segment in pattern.split("/"):
            if segment == _ANY:
                self._loops |= bit
                continue
            if segment == _ONE:
                self._star_moves |= bit
            else:
                self._moves[segment] = self._moves.get(segment, 0) | bit
            bit <<= 1
        self._final |= bit
        return bit << 1

    def __call__(self, topic: str) -> bool:
        """Return True if any of the patterns matches the topic."""
        if topic in self._literal:
            return True
        if not self.wild:
            return False
        match = self._cache.get(topic)
        if match is None:
            if len(self._cache) >= _CACHED_MATCHES:
                self._cache.clear()
            match = self._cache[topic] = self._match(topic)
        return match

    def _match(self, topic: str) -> bool:
        moves, star_moves, loops = self._moves.get, self._star_moves, self._loops
        states = self._initial
        for segment in topic.split("/"):
            states = (states & moves(segment, star_moves)) << 1 | states & loops
            if not states:
                return False
        return states & self._final != 0

    def __repr__(self) -> str:
        return f"PatternSet({self.patterns!r})"


@lru_cache(_CACHED_SETS)
def compile_patterns(patterns: Patterns) -> PatternSet:
    """Return the pattern set of some patterns; the last ones are kept."""
    return PatternSet(patterns)


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
        for segment in topic.split("/"):
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
