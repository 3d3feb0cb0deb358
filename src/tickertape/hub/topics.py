"""Topics, the patterns that subscribe to them, and the index that finds who wants an event.

A topic is segments between slashes: ``orders/42``. In a pattern ``*`` stands for one segment and
``**`` for any number of them, none included: ``orders/*``, ``chat/**``, ``**``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Generic, TypeAlias, TypeVar

from ..errors import InvalidTopicError
from ..wire import check_segments

__all__ = ["MAX_TOPICS", "Patterns", "TopicIndex", "check_patterns", "matches"]

MAX_TOPICS: Final = 100
"""Patterns of one subscription: as many as fit well into a URL."""

Patterns: TypeAlias = tuple[str, ...]
"""Patterns of one subscription: checked, sorted, each once."""

T = TypeVar("T")

_ONE: Final = "*"
_ANY: Final = "**"


def check_patterns(patterns: Iterable[str], *, limit: int | None = MAX_TOPICS) -> Patterns:
    """Return the patterns sorted, each once.

    Raises:
        InvalidTopicError: there are none or too many, or one is no pattern.
    """
    if isinstance(patterns, str):
        patterns = (patterns,)
    unique = sorted(set(patterns))
    if not unique:
        raise InvalidTopicError("expected at least one topic to subscribe to, got none")
    if limit is not None and len(unique) > limit:
        raise InvalidTopicError(f"expected at most {limit} topics in a subscription, got {len(unique)}")
    for pattern in unique:
        for segment in check_segments("topic pattern", pattern):
            if "*" in segment and segment not in (_ONE, _ANY):
                raise InvalidTopicError(f"expected '*' or '**' as a whole segment, got {segment!r} in {pattern!r}")
    return tuple(unique)


def matches(patterns: Patterns, topic: str) -> bool:
    """Tell whether any of the patterns takes the topic in."""
    return any(_match(pattern.split("/"), topic.split("/")) for pattern in patterns)


def _match(pattern: list[str], topic: list[str]) -> bool:
    """Match segment by segment; behind the last ``**`` that was passed, retry one segment further on."""
    at = seen = 0
    retry: tuple[int, int] | None = None
    while seen < len(topic):
        if at < len(pattern) and pattern[at] == _ANY:
            retry = at + 1, seen
            at += 1
        elif at < len(pattern) and pattern[at] in (_ONE, topic[seen]):
            at += 1
            seen += 1
        elif retry is not None:
            retry = retry[0], retry[1] + 1
            at, seen = retry
        else:
            return False
    return all(segment == _ANY for segment in pattern[at:])


class _Node(Generic[T]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.values: dict[T, None] = {}  # a set that keeps its order


class TopicIndex(Generic[T]):
    """Find the values whose patterns match a topic, at a cost that does not grow with those that do not.

    A tree by segments: a topic visits its own segments and the wildcards beside them, nothing else.
    """

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, patterns: Patterns, value: T) -> None:
        """Put ``value`` under each of the patterns."""
        for pattern in patterns:
            node = self._root
            for segment in pattern.split("/"):
                node = node.children.setdefault(segment, _Node())
            node.values[value] = None

    def remove(self, patterns: Patterns, value: T) -> None:
        """Take ``value`` from each of the patterns; branches without values go with it."""
        for pattern in patterns:
            segments = pattern.split("/")
            path = [self._root]
            for segment in segments:
                path.append(path[-1].children[segment])
            del path[-1].values[value]
            for parent, segment in zip(reversed(path[:-1]), reversed(segments), strict=True):
                node = parent.children[segment]
                if node.values or node.children:
                    break
                del parent.children[segment]

    def find(self, topic: str) -> list[T]:
        """Return the values whose patterns match ``topic``, each once."""
        segments = topic.split("/")
        found: dict[T, None] = {}
        todo: list[tuple[_Node[T], int]] = [(self._root, 0)]
        reached: dict[int, int] = {}  # by `**`: the first place that leads to it leads to all further ones
        while todo:
            node, at = todo.pop()
            if at == len(segments):
                found.update(node.values)
            else:
                beside = (node.children.get(segments[at]), node.children.get(_ONE))
                todo.extend((child, at + 1) for child in beside if child is not None)
            rest = node.children.get(_ANY)
            if rest is not None:
                before = reached.get(id(rest), len(segments) + 1)
                if at < before:
                    reached[id(rest)] = at
                    todo.extend((rest, further) for further in range(at, before))
        return list(found)
