"""Topic patterns: their syntax, a matcher of bounded cost, and the relation of two patterns.

A topic consists of segments between slashes: ``orders/42``. In a pattern, ``*`` stands for one segment
and ``**`` for any number of segments, also none: ``orders/*``, ``chat/**``, ``**``.

Topics whose first segment is one of :data:`INTERNAL` hold records of the hub itself. A pattern that starts with a
wildcard does not match them, as in MQTT 5.0, section 4.7.2, for topics that start with ``$``. So ``**`` means all
events of the application, and no client sees the records of runs or of tickets by accident.

Anybody who may subscribe chooses patterns, and every publish is matched against them. So the cost of the worst
patterns counts, not the cost of the usual ones: a topic has at most :data:`MAX_SEGMENTS` segments, and
:class:`PatternSet` follows all patterns of a subscription at once, as the bits of one integer.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, TypeAlias

from ..errors import InvalidTopicError
from .draft import check_segments

MAX_TOPICS: Final = 100
"""Patterns of one subscription: as many as fit well into a URL."""

MAX_ANY: Final = 2
"""``**`` in one pattern: ``**/a/**`` finds a segment anywhere, and no use for a third one is known."""

Patterns: TypeAlias = tuple[str, ...]
"""Patterns of one subscription: checked, sorted, each once."""

INTERNAL: Final = frozenset({"hub-access", "hub-changes", "hub-statistics", "run", "run-nodes", "runs"})
"""First segments of the topics in which the hub keeps its own records."""

ONE: Final = "*"
"""The segment of a pattern that stands for one segment."""

ANY: Final = "**"
"""The segment of a pattern that stands for any number of segments, also none."""

_UNNAMED: Final = "/"
"""Stands for any segment that no pattern names; no segment contains a slash."""

_MAX_STEPS: Final = 100_000
"""Steps of one check of containment, some 50 ms. Patterns that need more count as not covered."""

_CACHED_CHECKS: Final = 1_000
"""Answers of :func:`covers` that are kept: clients reconnect with the same patterns."""

_CACHED_MATCHES: Final = 256
"""Answers that a pattern set remembers, some 50 KiB: the active topics of most hubs. It forgets all when it is full."""

_CACHED_SETS: Final = 64
"""Compiled pattern sets that are kept: the largest legal one takes 2 MiB, a usual one 2 KiB."""


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
    if ONE not in pattern:
        return pattern
    for segment in segments:
        if ONE in segment and segment not in (ONE, ANY):
            raise InvalidTopicError(f"expected '*' or '**' as a whole segment, got {segment!r} in {pattern!r}")
    kept = [
        segment for before, segment in zip([None, *segments], segments, strict=False) if (before, segment) != (ANY, ANY)
    ]
    if kept.count(ANY) > MAX_ANY:
        raise InvalidTopicError(
            f"expected at most {MAX_ANY} '**' in a topic pattern, got {kept.count(ANY)} in {pattern!r}"
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
        topics: compile the patterns that are topics too, which :meth:`covers` needs and matching does not.

    Attributes:
        patterns: the patterns.
        wild: False if all patterns are topics, which is the case to look them up one by one.
    """

    __slots__ = (
        "_cache",
        "_final",
        "_initial",
        "_literal",
        "_loops",
        "_moves",
        "_named",
        "_star_moves",
        "patterns",
        "wild",
    )

    def __init__(self, patterns: Patterns, *, topics: bool = False) -> None:
        self.patterns = patterns
        self._literal = frozenset(pattern for pattern in patterns if ONE not in pattern)
        self.wild = len(self._literal) < len(patterns)
        self._initial = self._final = self._loops = self._star_moves = 0
        self._named = 0  # the first states of patterns whose first segment is a name
        self._moves: dict[str, int] = {}
        self._cache: dict[str, bool] = {}
        bit = 1
        for pattern in patterns:
            if topics or pattern not in self._literal:
                bit = self._compile(pattern, bit)
        for segment in self._moves:
            self._moves[segment] |= self._star_moves

    def _compile(self, pattern: str, bit: int) -> int:
        """Add the states of a pattern from ``bit`` on, and return the next free bit."""
        self._initial |= bit
        if not pattern.startswith(ONE):
            self._named |= bit
        for segment in pattern.split("/"):
            if segment == ANY:
                self._loops |= bit
                continue
            if segment == ONE:
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
        segments = topic.split("/")
        states = self._named if segments[0] in INTERNAL else self._initial
        for segment in segments:
            states = (states & moves(segment, star_moves)) << 1 | states & loops
            if not states:
                return False
        return states & self._final != 0

    def covers(self, other: PatternSet, steps: int) -> int:
        """Return the steps that are left if every topic that ``other`` matches is matched by this set; else 0.

        Both sets have compiled topics.

        The sets are automata, and this is the inclusion of one language in the other. It follows the states of both
        together, for each segment that is named in one of them, and for one that is not. If ``other`` has matched in a
        state in which this set has not, there is a topic that is not covered.
        """
        every = {*self._moves, *other._moves, _UNNAMED}
        seen: set[tuple[int, int]] = set()
        todo = [(other._initial, self._initial, every - INTERNAL), (other._named, self._named, INTERNAL)]
        while todo:
            states, covering, segments = todo.pop()
            steps -= len(segments)
            if steps <= 0:
                return 0
            for segment in segments:
                reached = other._step(states, segment)
                pair = reached, self._step(covering, segment)
                if reached & other._final and not pair[1] & self._final:
                    return 0
                if reached and pair not in seen:
                    seen.add(pair)
                    todo.append((*pair, every))
        return steps

    def _step(self, states: int, segment: str) -> int:
        """Return the states after one more segment."""
        return (states & self._moves.get(segment, self._star_moves)) << 1 | states & self._loops

    def __repr__(self) -> str:
        return f"PatternSet({self.patterns!r})"


@lru_cache(_CACHED_SETS)
def compile_patterns(patterns: Patterns) -> PatternSet:
    """Return the pattern set of some patterns; the last ones are kept."""
    return PatternSet(patterns)


@lru_cache(_CACHED_CHECKS)
def covers(granted: Patterns, wanted: Patterns) -> bool:
    """Return True if every topic that one of ``wanted`` matches is matched by one of ``granted``.

    Arguments:
        granted: as returned by :func:`check_patterns`, or empty.
        wanted: likewise.
    """
    missing = [pattern for pattern in wanted if pattern not in granted]
    if not missing:
        return True
    grants_topic = compile_patterns(granted)
    if not all(grants_topic(topic) for topic in missing if ONE not in topic):
        return False
    whole, steps = PatternSet(granted, topics=True), _MAX_STEPS
    for pattern in missing:
        if ONE in pattern:
            steps = whole.covers(PatternSet((pattern,)), steps)
    return steps > 0


def is_internal(topic: str) -> bool:
    """Return True if a topic or a pattern names the topics in which the hub keeps its own records."""
    return topic.partition("/")[0] in INTERNAL


def overlap(one: str, other: str) -> bool:
    """Return True if some topic matches both patterns."""
    return _overlap(tuple(one.split("/")), tuple(other.split("/")))


@lru_cache(1_000)
def _overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    if not one or not other:
        return all(segment == ANY for segment in (*one, *other))
    for first, second in ((one, other), (other, one)):
        if first[0] == ANY:
            return _overlap(first[1:], second) or _overlap(first, second[1:])
    return (one[0] == other[0] or ONE in (one[0], other[0])) and _overlap(one[1:], other[1:])
