"""``Retention``, the limits of what a log keeps, and ``Lanes``, which finds the limits of a topic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

from ..wire import PatternSet, check_patterns
from .records import OTHERS

MAX_RULES: Final = 32
"""Rules of a log: stores look at each of them with every append."""

MAX_MARKS: Final = 1_000
"""Discarded topics that a log remembers one by one. Beyond that, the one with the oldest records counts as dropped by
its rule."""

_CACHED_TOPICS: Final = 10_000
"""Topics whose lane is remembered, some 2 MiB. All are forgotten when there are more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The limits of what a log keeps. The first limit that is reached counts; ``None`` for no limit.

    Arguments:
        events: number of records, at least 1.
        bytes: bytes of topics, types and data together, at least 1.
        age: seconds since the append, greater than 0.
        topics: rules for some topics, at most 29: from a topic pattern to its limits. The first pattern that matches
            a topic counts. Records of all topics of a rule count against its limits together, and not against the
            limits of the log. Rules for the records of runs follow, unless you give rules for the same patterns.

    Raises:
        ValueError: a limit is out of its range, or a rule has rules.
        InvalidTopicError: a pattern breaks the syntax.
    """

    events: int | None = 100_000
    bytes: int | None = 64 * 1024 * 1024
    age: float | None = None
    topics: Mapping[str, Retention] | Iterable[tuple[str, Retention]] = ()

    def __post_init__(self) -> None:
        for name in ("events", "bytes"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"expected {name} to be an int of at least 1, or None, got {value!r}")
        age: object = self.age
        if age is not None and (isinstance(age, bool) or not isinstance(age, (int, float)) or not age > 0):
            raise ValueError(f"expected age to be a number of seconds greater than 0, or None, got {age!r}")
        object.__setattr__(self, "topics", _checked(self.topics))

    @property
    def rules(self) -> Rules:
        """All rules in their order, those for runs included."""
        given = cast(Rules, self.topics)  # since it was checked
        patterns = {pattern for pattern, _ in given}
        return given + tuple((pattern, limits) for pattern, limits in RUNS if pattern not in patterns)


Rules: TypeAlias = tuple[tuple[str, Retention], ...]
"""Patterns of topics and their limits."""


def _checked(topics: Mapping[str, Retention] | Iterable[tuple[str, Retention]]) -> Rules:
    rules: dict[str, Retention] = {}
    for given, limits in topics.items() if isinstance(topics, Mapping) else topics:
        (pattern,) = check_patterns(given)
        if not isinstance(limits, Retention):
            raise ValueError(f"expected the rule for {given!r} to be a Retention, got {limits!r}")
        if limits.topics:
            raise ValueError(f"expected the rule for {given!r} to have no rules of its own")
        if pattern in rules:
            raise ValueError(f"expected one rule for {pattern!r}, got two")
        rules[pattern] = limits
    if len(rules) + len(RUNS) > MAX_RULES:
        raise ValueError(f"expected at most {MAX_RULES - len(RUNS)} rules, got {len(rules)}")
    return tuple(rules.items())


RUNS: Rules = ()  # while its own rules are built
RUNS = (
    # Signs of life: a producer counts as gone after 8 s.
    ("run-nodes/*", Retention(events=10_000, bytes=1024 * 1024, age=60.0)),
    # Starts and ends, which make a run known, and the events of runs: `Runs` discards both when their time is over.
    ("runs/**", Retention(events=None)),
    ("run/**", Retention(events=None)),
)
"""The rules for the records of runs, whatever their number: they are limited by bytes."""

DEFAULT_RETENTION: Final = Retention()
"""Also the limits of a hub's memory: several minutes of a busy service, and less memory than its process needs."""


class Lanes:
    """Find the lane of a topic: the pattern of its rule, or :data:`OTHERS`.

    Arguments:
        retention: the limits of the log.

    Attributes:
        names: all lanes of rules.
    """

    def __init__(self, retention: Retention) -> None:
        self._others = retention
        self._limits = dict(retention.rules)
        self._rules = [(pattern, PatternSet((pattern,))) for pattern in self._limits]
        self._known: dict[str, str] = {}
        self.names = tuple(self._limits)

    def __call__(self, topic: str) -> str:
        """Return the lane of a topic."""
        lane = self._known.get(topic)
        if lane is None:
            if len(self._known) >= _CACHED_TOPICS:
                self._known.clear()
            lane = next((pattern for pattern, matches in self._rules if matches(topic)), OTHERS)
            self._known[topic] = lane
        return lane

    def limits(self, lane: str) -> Retention:
        """Return the limits of a lane. A lane whose rule was removed has those of the log, for itself."""
        return self._limits.get(lane, self._others)
