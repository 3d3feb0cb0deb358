"""Topics and patterns: what is one, what matches, and what the index costs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickertape.errors import InvalidTopicError
from tickertape.hub import MAX_TOPICS, check_patterns
from tickertape.hub.topics import Patterns, TopicIndex, matches
from tickertape.wire import MAX_TOPIC_LENGTH, check_topic

# What is a topic


@pytest.mark.parametrize(
    "topic",
    ["a", "orders/42", "a/b/c/d", "with space", "ünïcödé/→", "a.b-c_d:e", "#", "+", "?", "0", "x" * MAX_TOPIC_LENGTH],
)
def test_what_is_a_topic_is_a_pattern_too(topic: str) -> None:
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
        (b"a", "as a str, got b'a'"),
        (None, "as a str, got None"),
        (5, "as a str, got 5"),
    ],
)
def test_what_is_neither_a_topic_nor_a_pattern(text: Any, sentence: str) -> None:
    with pytest.raises(InvalidTopicError) as topic:
        check_topic(text)
    assert str(topic.value) == f"expected a topic {sentence}"
    with pytest.raises(InvalidTopicError) as pattern:
        check_patterns([text])
    assert str(pattern.value) == f"expected a topic pattern {sentence}"


@pytest.mark.parametrize("topic", ["*", "**", "a/*", "a/**/b", "a*b"])
def test_nothing_is_published_to_a_pattern(topic: str) -> None:
    with pytest.raises(InvalidTopicError) as error:
        check_topic(topic)
    assert str(error.value) == f"expected a topic without '*', got {topic!r}: wildcards are for subscriptions"


# What is a pattern


@pytest.mark.parametrize(
    ("given", "checked"),
    [
        ("a/b", ("a/b",)),  # not its letters
        ("*", ("*",)),
        (["**"], ("**",)),
        (["*/a/**", "**/**"], ("**/**", "*/a/**")),
        (["b", "a", "b"], ("a", "b")),
        ({"a", "b"}, ("a", "b")),
        ((name for name in "cba"), ("a", "b", "c")),
    ],
)
def test_patterns_are_sorted_each_once(given: Any, checked: Patterns) -> None:
    assert check_patterns(given) == checked


@pytest.mark.parametrize(
    ("pattern", "segment"), [("a*", "a*"), ("*a/b", "*a"), ("x/a*b/y", "a*b"), ("***", "***"), ("a/****", "****")]
)
def test_a_wildcard_is_a_whole_segment(pattern: str, segment: str) -> None:
    with pytest.raises(InvalidTopicError) as error:
        check_patterns(["fine", pattern])
    assert str(error.value) == f"expected '*' or '**' as a whole segment, got {segment!r} in {pattern!r}"


@pytest.mark.parametrize("empty", [[], (), {}])
def test_a_subscription_is_to_something(empty: Any) -> None:
    with pytest.raises(InvalidTopicError, match="expected at least one topic to subscribe to, got none"):
        check_patterns(empty)


@pytest.mark.parametrize(("count", "limit"), [(MAX_TOPICS + 1, MAX_TOPICS), (3, 2), (1, 0)])
def test_a_subscription_is_to_so_many_patterns(count: int, limit: int) -> None:
    names = [f"t/{number}" for number in range(count)]
    with pytest.raises(InvalidTopicError, match=f"expected at most {limit} topics in a subscription, got {count}"):
        check_patterns(names, limit=limit)
    assert len(check_patterns(names[:limit] * 2 or ["a"], limit=limit or 1)) == (limit or 1)  # each counts once
    assert len(check_patterns(names, limit=None)) == count


# What matches


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
def test_what_a_pattern_takes_in(pattern: str, taken: list[str], left: list[str]) -> None:
    index: TopicIndex[str] = TopicIndex()
    index.add((pattern,), "found")
    for topic in taken:
        assert matches((pattern,), topic), topic
        assert index.find(topic) == ["found"], topic
    for topic in left:
        assert not matches((pattern,), topic), topic
        assert index.find(topic) == [], topic


def test_one_of_several_patterns_is_enough() -> None:
    assert matches(("a", "b/*"), "b/1")
    assert not matches(("a", "b/*"), "c")
    assert not matches((), "a")


# The index against the plainest matcher there is

segment = st.sampled_from("ab")
topics = st.lists(segment, min_size=1, max_size=5).map("/".join)
patterns = st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=5).map("/".join)
pattern_sets = st.lists(patterns, min_size=1, max_size=3).map(check_patterns)


def naive(pattern: list[str], topic: list[str]) -> bool:
    if not pattern:
        return not topic
    if pattern[0] == "**":
        return any(naive(pattern[1:], topic[skipped:]) for skipped in range(len(topic) + 1))
    return bool(topic) and pattern[0] in ("*", topic[0]) and naive(pattern[1:], topic[1:])


def naive_any(patterns: Patterns, topic: str) -> bool:
    return any(naive(pattern.split("/"), topic.split("/")) for pattern in patterns)


@given(pattern=patterns, topic=topics)
def test_matching_is_what_the_naive_matcher_says(pattern: str, topic: str) -> None:
    assert matches((pattern,), topic) == naive_any((pattern,), topic)


@settings(max_examples=150)
@given(members=st.lists(pattern_sets, max_size=12), leaving=st.sets(st.integers(0, 11)), asked=st.lists(topics))
def test_the_index_finds_what_matches_and_no_one_who_left(
    members: list[Patterns], leaving: set[int], asked: list[str]
) -> None:
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


def test_a_branch_stays_while_anything_is_on_it() -> None:
    index: TopicIndex[str] = TopicIndex()
    index.add(("a/b/c",), "long")
    index.add(("a",), "short")
    index.add(("a/b/c",), "other")
    index.remove(("a/b/c",), "long")
    assert index.find("a/b/c") == ["other"]
    index.remove(("a/b/c",), "other")
    assert index.find("a") == ["short"]
    assert list(index._root.children["a"].children) == []


# What it costs: counted in calls, which no busy machine changes


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
def test_a_thousand_unrelated_audiences_cost_a_publish_nothing(prefix: str) -> None:
    index: TopicIndex[int] = TopicIndex()
    index.add(("orders/42", "orders/*", "**/42"), -1)
    alone = calls_of(lambda: index.find("orders/42"))
    for number in range(1000):
        index.add(
            (f"{prefix}/{number}/x", f"orders/{number + 1000}", f"orders/42/{number}", f"{prefix}/{number}"), number
        )
    crowded = calls_of(lambda: index.find("orders/42"))
    assert index.find("orders/42") == ([-1] if prefix != "*" and prefix != "**" else [-1, 42])
    assert crowded <= alone + (30 if prefix.startswith("*") else 0)


LONG = "/".join(["a"] * 127)


@pytest.mark.parametrize(
    "pattern",
    [
        "/".join(["**", "a"] * 40 + ["b"]),
        "/".join(["**"] * 80),
        "/".join(["**", "*"] * 40 + ["b"]),
        "/".join(["*", "**"] * 40 + ["a", "b"]),
        "/".join(["**", "a", "a", "a", "b"] * 12),
    ],
)
def test_no_pattern_makes_matching_slow(pattern: str) -> None:
    # A matcher that tries all splits would need more steps than there is time: here each segment of the
    # pattern meets each of the topic at most once, for some calls.
    most = 20 * len(pattern.split("/")) * len(LONG.split("/"))
    check_patterns([pattern])
    assert calls_of(lambda: matches((pattern,), LONG)) < most
    index: TopicIndex[str] = TopicIndex()
    index.add((pattern,), "found")
    assert calls_of(lambda: index.find(LONG)) < most
    assert index.find(LONG) == (["found"] if matches((pattern,), LONG) else [])


def test_many_adversarial_patterns_share_their_branches() -> None:
    index: TopicIndex[int] = TopicIndex()
    for number in range(1, 60):
        index.add(("/".join(["**", "a"] * number),), number)
    found: list[int] = []
    assert calls_of(lambda: found.extend(index.find(LONG))) < 20 * 120 * 127
    assert sorted(found) == list(range(1, 60))
