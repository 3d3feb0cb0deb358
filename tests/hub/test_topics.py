"""Topics and patterns: their syntax, matching, and the cost of both the matcher and the index."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from itertools import product
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickertape.errors import InvalidTopicError
from tickertape.hub.topics import TopicIndex
from tickertape.wire import (
    MAX_SEGMENTS,
    MAX_TOPIC_LENGTH,
    MAX_TOPICS,
    Patterns,
    PatternSet,
    check_patterns,
    check_topic,
    compile_patterns,
    covers,
)

# Topics


@pytest.mark.parametrize(
    "topic",
    [
        "a",
        "orders/42",
        "a/b/c/d",
        "with space",
        "ünïcödé/→",
        "a.b-c_d:e",
        "#",
        "+",
        "?",
        "x" * MAX_TOPIC_LENGTH,
        "/".join("a" * MAX_SEGMENTS),
    ],
)
def test_topic(topic: str) -> None:
    assert check_topic(topic) is topic
    assert check_patterns([topic]) == (topic,)


LENGTH = "of 1 to 255 characters, got"
SPACES = "of printable characters without spaces around, got"
EMPTY = "without empty segments, got"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", f"{LENGTH} 0"),
        ("x" * 256, f"{LENGTH} 256"),
        (" a", f"{SPACES} ' a'"),
        ("a ", f"{SPACES} 'a '"),
        (" ", f"{SPACES} ' '"),
        ("a\n", f"{SPACES} 'a\\n'"),
        ("a\nb", f"{SPACES} 'a\\nb'"),
        ("a\0b", f"{SPACES} 'a\\x00b'"),
        ("a\x7fb", f"{SPACES} 'a\\x7fb'"),
        ("a\u2028b", f"{SPACES} 'a\\u2028b'"),
        ("a\ud800", f"{SPACES} 'a\\ud800'"),
        ("/", f"{EMPTY} '/'"),
        ("/a", f"{EMPTY} '/a'"),
        ("a/", f"{EMPTY} 'a/'"),
        ("a//b", f"{EMPTY} 'a//b'"),
        ("/".join("a" * 33), "of at most 32 segments, got 33"),
        (b"a", "as a str, got b'a'"),
        (None, "as a str, got None"),
        (5, "as a str, got 5"),
    ],
)
def test_invalid_topic(text: Any, sentence: str) -> None:
    with pytest.raises(InvalidTopicError) as topic:
        check_topic(text)
    assert str(topic.value) == f"expected a topic {sentence}"
    with pytest.raises(InvalidTopicError) as pattern:
        check_patterns([text])
    assert str(pattern.value) == f"expected a topic pattern {sentence}"


@pytest.mark.parametrize("topic", ["*", "**", "a/*", "a/**/b", "a*b"])
def test_no_wildcards_in_a_topic(topic: str) -> None:
    with pytest.raises(InvalidTopicError) as error:
        check_topic(topic)
    assert str(error.value) == f"expected a topic without '*', got {topic!r}: wildcards are for subscriptions"


# Patterns


@pytest.mark.parametrize(
    ("given", "checked"),
    [
        ("a/b", ("a/b",)),  # not its letters
        ("*", ("*",)),
        (["**"], ("**",)),
        (["*/a/**", "**/**"], ("**", "*/a/**")),
        (["**/**/a/**/**/**", "**/a/**"], ("**/a/**",)),
        ("a/**/**", ("a/**",)),
        (["b", "a", "b"], ("a", "b")),
        ({"a", "b"}, ("a", "b")),
        ((name for name in "cba"), ("a", "b", "c")),
    ],
)
def test_patterns_are_sorted(given: Any, checked: Patterns) -> None:
    assert check_patterns(given) == checked


@pytest.mark.parametrize(
    ("pattern", "segment"), [("a*", "a*"), ("*a/b", "*a"), ("x/a*b/y", "a*b"), ("***", "***"), ("a/****", "****")]
)
def test_wildcard_is_a_whole_segment(pattern: str, segment: str) -> None:
    with pytest.raises(InvalidTopicError) as error:
        check_patterns(["fine", pattern])
    assert str(error.value) == f"expected '*' or '**' as a whole segment, got {segment!r} in {pattern!r}"


@pytest.mark.parametrize("pattern", ["**/a/**/b/**", "**/*/**/*/**", "a/**/b/**/c/**/d"])
def test_number_of_double_wildcards(pattern: str) -> None:
    with pytest.raises(InvalidTopicError) as error:
        check_patterns(pattern)
    assert str(error.value) == f"expected at most 2 '**' in a topic pattern, got 3 in {pattern!r}"


@pytest.mark.parametrize("empty", [[], (), {}])
def test_no_patterns(empty: Any) -> None:
    with pytest.raises(InvalidTopicError, match="a subscription needs at least one topic"):
        check_patterns(empty)


@pytest.mark.parametrize(("count", "limit"), [(MAX_TOPICS + 1, MAX_TOPICS), (3, 2), (1, 0)])
def test_number_of_patterns(count: int, limit: int) -> None:
    names = [f"t/{number}" for number in range(count)]
    with pytest.raises(InvalidTopicError, match=f"expected at most {limit} topics in a subscription, got {count}"):
        check_patterns(names, limit=limit)
    assert len(check_patterns(names[:limit] * 2 or ["a"], limit=limit or 1)) == (limit or 1)  # each counts once
    assert len(check_patterns(names, limit=None)) == count


# Matching


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("a", ["a"], ["b", "a/b", "A", "aa"]),
        ("a/b", ["a/b"], ["a", "b", "a/b/c", "a/c"]),
        ("*", ["a", "ü"], ["a/b"]),
        ("a/*", ["a/b", "a/c"], ["a", "a/b/c", "b/b"]),
        ("*/b", ["a/b", "b/b"], ["b", "a/b/b", "a/c"]),
        ("**", ["a", "a/b", "a/b/c"], []),
        ("a/**", ["a", "a/b", "a/b/c"], ["b", "b/a"]),
        ("**/b", ["b", "a/b", "a/a/b", "b/b"], ["a", "b/a"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b", "a/b/b"], ["a", "b", "a/b/c"]),
        ("**/b/**", ["b", "a/b", "b/a", "a/b/c"], ["a", "a/c"]),
        ("*/**", ["a", "a/b"], []),
        ("**/*", ["a", "a/b"], []),
        ("*/*/**", ["a/b", "a/b/c"], ["a"]),
        ("**/**", ["a", "a/b/c"], []),
        ("**/a/**/a", ["a/a", "a/b/a", "x/a/y/a"], ["a", "a/b"]),
        ("**/a/b", ["a/b", "a/a/b", "a/b/a/b"], ["a/b/a"]),
    ],
)
def test_matching(pattern: str, taken: list[str], left: list[str]) -> None:
    index: TopicIndex[str] = TopicIndex()
    index.add(check_patterns(pattern), "found")
    for topic in taken:
        assert compile_patterns((pattern,))(topic), topic
        assert index.find(topic) == ("found",), topic
    for topic in left:
        assert not compile_patterns((pattern,))(topic), topic
        assert index.find(topic) == (), topic


def test_several_patterns() -> None:
    assert compile_patterns(("a", "b/*"))("b/1")
    assert not compile_patterns(("a", "b/*"))("c")
    assert not compile_patterns(())("a")


# Against a naive matcher

segment = st.sampled_from("ab")
topics = st.lists(segment, min_size=1, max_size=5).map("/".join)
segments = st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=6)
patterns = segments.filter(lambda chosen: chosen.count("**") <= 2).map("/".join)
pattern_sets = st.lists(patterns, min_size=1, max_size=8).map(check_patterns)


def naive(pattern: list[str], topic: list[str]) -> bool:
    if not pattern:
        return not topic
    if pattern[0] == "**":
        return any(naive(pattern[1:], topic[skipped:]) for skipped in range(len(topic) + 1))
    return bool(topic) and pattern[0] in ("*", topic[0]) and naive(pattern[1:], topic[1:])


def naive_any(patterns: Patterns, topic: str) -> bool:
    return any(naive(pattern.split("/"), topic.split("/")) for pattern in patterns)


@given(pattern=patterns, topic=topics)
def test_equals_naive_matcher(pattern: str, topic: str) -> None:
    assert compile_patterns((pattern,))(topic) == naive_any((pattern,), topic)


@settings(max_examples=150)
@given(members=st.lists(pattern_sets, max_size=12), leaving=st.sets(st.integers(0, 11)), asked=st.lists(topics))
def test_index_equals_naive_matcher(members: list[Patterns], leaving: set[int], asked: list[str]) -> None:
    index: TopicIndex[int] = TopicIndex()
    for value, of in enumerate(members):
        index.add(of, value)
    present = dict(enumerate(members))
    for value in leaving & present.keys():
        index.remove(present.pop(value), value)
    for topic in asked:
        found = index.find(topic)
        assert sorted(found) == [value for value, of in present.items() if naive_any(of, topic)]  # each once
    for value, of in present.items():
        index.remove(of, value)
    assert index._root.children == {}  # no branch is left without values


def test_branches_are_removed() -> None:
    index: TopicIndex[str] = TopicIndex()
    index.add(("a/b/c",), "long")
    index.add(("a",), "short")
    index.add(("a/b/c",), "other")
    index.remove(("a/b/c",), "long")
    assert index.find("a/b/c") == ("other",)
    index.remove(("a/b/c",), "other")
    assert index.find("a") == ("short",)
    assert list(index._root.children["a"].children) == []


# Cost, counted in calls, which do not depend on the load of the machine


def calls_of(function: Callable[[], Any]) -> int:
    """Count the calls that a function makes, those of built-in ones included."""
    counts: Counter[str] = Counter()

    def note(frame: FrameType, event: str, arg: Any) -> None:
        counts[event] += 1

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return counts["call"] + counts["c_call"]


@pytest.mark.parametrize("prefix", ["b", "ab", "*", "**"])
def test_unrelated_audiences_cost_nothing(prefix: str) -> None:
    index: TopicIndex[int] = TopicIndex()
    index.add(("orders/42", "orders/*", "**/42"), -1)
    alone = calls_of(lambda: index.find("orders/42"))
    for number in range(1000):
        index.add(
            (f"{prefix}/{number}/x", f"orders/{number + 1000}", f"orders/42/{number}", f"{prefix}/{number}"), number
        )
    crowded = calls_of(lambda: index.find("orders/42"))
    assert index.find("orders/42") == ((-1, 42) if prefix in ("*", "**") else (-1,))
    assert crowded <= alone + (30 if prefix.startswith("*") else 0)


LONGEST = "/".join("a" * MAX_SEGMENTS)


def longest(*parts: str) -> str:
    """Fill up a pattern with the segment ``a`` until it has as many segments as is legal."""
    segments = "/".join(parts).split("/")
    return "/".join(segments[:-1] + ["a"] * (MAX_SEGMENTS - len(segments)) + segments[-1:])


def worst_patterns(seed: int) -> Patterns:
    """As many patterns as are legal, of the greatest length, in which each segment of ``LONGEST`` moves every state."""
    chosen = random.Random(seed)
    parts = (["**", *chosen.choices("a*", k=15), "**", *chosen.choices("a*", k=15)] for _ in range(MAX_TOPICS))
    return check_patterns(map("/".join, parts))


@pytest.mark.parametrize(
    "pattern",
    [longest("**", "b"), longest("**", "a", "**", "b"), longest("**/*/a", "*/**"), longest("**/a/a/b", "**/a/a/b")],
)
def test_cost_of_one_pattern(pattern: str) -> None:
    """A matcher that tries all splits would need more steps than there is time."""
    most = 10 * MAX_SEGMENTS
    compiled = PatternSet(check_patterns(pattern))
    assert calls_of(lambda: compiled(LONGEST)) < most
    index: TopicIndex[str] = TopicIndex()
    index.add(check_patterns(pattern), "found")
    assert calls_of(lambda: index.find(LONGEST)) < most
    assert index.find(LONGEST) == (("found",) if compile_patterns((pattern,))(LONGEST) else ())


def test_cost_of_the_worst_patterns() -> None:
    """A hundred subscriptions with a hundred patterns each cost a publish some calls for each of them, once."""
    index: TopicIndex[int] = TopicIndex()
    for number in range(100):
        index.add(worst_patterns(number), number)
    assert calls_of(lambda: index.find(LONGEST)) < 100 * 2 * MAX_SEGMENTS
    assert calls_of(lambda: index.find(LONGEST)) < 10
    assert index.find(LONGEST) == tuple(range(100))


@pytest.mark.parametrize("wildcards", ["*", "**"])
def test_cost_of_patterns_in_the_tree(wildcards: str) -> None:
    """Patterns of one segment and wildcards would make a tree visit each of its nodes, at each segment below ``**``."""
    index: TopicIndex[int] = TopicIndex()
    chosen = random.Random(1)
    for number in range(100):
        names = [*chosen.choices("a*", k=10), wildcards, *chosen.choices("a*", k=5)]
        index.add(check_patterns(["/".join(names)]), number)
    assert calls_of(lambda: index.find(LONGEST)) < 100 * 200


def test_results_are_kept_until_patterns_change() -> None:
    index: TopicIndex[str] = TopicIndex()
    index.add(("a",), "first")
    assert index.find("a") is index.find("a")
    index.add(("*",), "second")
    assert index.find("a") == ("first", "second")
    index.remove(("a",), "first")
    assert index.find("a") == ("second",)


def test_kept_results_are_bounded() -> None:
    index: TopicIndex[int] = TopicIndex()
    for number in range(1000):
        index.add(("**",), number)
    for number in range(200):
        assert len(index.find(f"a/{number}")) == 1000
        assert sum(map(len, index._found.values())) <= 65_536
    compiled = PatternSet(("b/*",))
    for number in range(1000):
        assert compiled(f"b/{number}")
        assert len(compiled._cache) <= 256


# Topics of the hub itself


@pytest.mark.parametrize(
    ("pattern", "topic", "matches"),
    [
        ("**", "runs/a", False),
        ("*/a", "runs/a", False),
        ("**/a", "runs/a", False),
        ("**/runs/a", "runs/a", False),
        ("runs/**", "runs/a", True),
        ("runs/*", "runs/a", True),
        ("runs/a", "runs/a", True),
        ("**", "a/runs", True),
        ("*/runs", "a/runs", True),
        ("**", "runsx/a", True),
    ],
)
def test_internal_topics(pattern: str, topic: str, matches: bool) -> None:
    """A pattern that starts with a wildcard matches no topic of the hub itself."""
    patterns = check_patterns(pattern)
    index: TopicIndex[int] = TopicIndex()
    index.add(patterns, 1)
    assert PatternSet(patterns)(topic) is matches
    assert bool(index.find(topic)) is matches


# Containment

SEGMENTS = ("a", "b", "runs", "unnamed")
ALL_TOPICS = ["/".join(each) for size in range(1, 6) for each in product(SEGMENTS, repeat=size)]


def sets_of(least: int) -> st.SearchStrategy[Patterns]:
    segments = st.lists(st.sampled_from(("a", "b", "runs", "*", "**")), min_size=1, max_size=3).map("/".join)
    return st.lists(segments, min_size=least, max_size=3).map(lambda found: check_patterns(found) if found else ())


@given(sets_of(0), sets_of(1))
@settings(max_examples=400, deadline=None)
def test_covers(granted: Patterns, wanted: Patterns) -> None:
    """The answer is that of all topics of up to five segments; longer ones bring nothing new to patterns of three."""
    matches, asks = PatternSet(granted), PatternSet(wanted)
    assert covers(granted, wanted) is all(matches(topic) for topic in ALL_TOPICS if asks(topic))


@pytest.mark.parametrize(
    ("granted", "wanted", "covered"),
    [
        (["orders/**"], ["orders/*"], True),
        (["orders/**"], ["orders"], True),
        (["orders/*"], ["orders/**"], False),
        (["a", "a/*/**"], ["a/**"], True),  # together only
        (["a/*/**"], ["a/**"], False),
        (["*/**"], ["**"], True),
        (["**"], ["runs/a"], False),
        (["**"], ["runs/**"], False),
        (["runs/**"], ["runs/*"], True),
        (["**", "runs/**"], ["*/a", "runs/a"], True),
        ([], ["a"], False),
        (["**/a/**"], ["**/b/a/**"], True),
        (["users/1/**"], ["users/1/**", "users/2/a"], False),
    ],
)
def test_covers_examples(granted: list[str], wanted: list[str], covered: bool) -> None:
    assert covers(check_patterns(granted) if granted else (), check_patterns(wanted)) is covered


def test_cost_of_containment() -> None:
    """Patterns whose states multiply count as not covered after a bounded number of steps."""
    ladder = ["/".join(["**", "a", *"*" * count, "**"]) for count in range(1, 27)]
    granted = PatternSet(check_patterns(["/".join(["**", "a", *"*" * 26])]), topics=True)
    steps = granted.covers(PatternSet(("**/a/**",)), 1_000)
    assert steps == 0
    assert not covers(check_patterns(ladder[5:]), ("**/a/*",))
