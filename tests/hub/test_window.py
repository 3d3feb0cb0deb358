"""``Window``: the newest part of the log, in order, without holes, within its limits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickertape.broker import Record, Retention
from tickertape.errors import BrokerError
from tickertape.hub.window import Entry, Window, encode_record
from tickertape.wire import Patterns, check_patterns, compile_patterns

UNLIMITED = Retention(events=None, bytes=None, age=None)
NO_LIMIT = 1 << 30


def record(offset: int, topic: str = "a", data: str = "x", event: str | None = None) -> Record:
    return Record(offset, topic, event, data)


def window_of(*topics: str, newest: int = 0, retention: Retention = UNLIMITED) -> Window:
    window = Window("e", newest, retention)
    window.append([record(newest + place, topic) for place, topic in enumerate(topics, 1)], 0.0)
    return window


def offsets(entries: list[Entry]) -> list[int]:
    return [entry.offset for entry in entries]


# Order


@pytest.mark.parametrize(
    ("given", "block"),
    [
        (record(1), b"id: e-1\ndata: x\n\n"),
        (record(12, event="tick"), b"id: e-12\nevent: tick\ndata: x\n\n"),
        (record(3, data=""), b"id: e-3\ndata: \n\n"),
        (record(4, data="two\nlines"), b"id: e-4\ndata: two\ndata: lines\n\n"),
    ],
)
def test_record_on_the_wire(given: Record, block: bytes) -> None:
    assert encode_record("e", given) == block
    window = Window("e", given.offset - 1, UNLIMITED)
    [entry] = window.append([given], 7.0)
    assert (entry.record, entry.block, entry.added) == (given, block, 7.0)


@pytest.mark.parametrize("newest", [0, 41])
def test_empty_window(newest: int) -> None:
    window = Window("e", newest, UNLIMITED)
    assert (len(window), window.oldest, window.newest, window.bytes) == (0, newest + 1, newest, 0)
    assert list(window.topics) == []
    assert window.after(newest, ("**",), NO_LIMIT, newest) == ([], newest)
    assert window.last(5, ("**",), newest) == ([], newest)


def test_order_and_topics() -> None:
    window = window_of("a", "b", "a", newest=10)
    assert (len(window), window.oldest, window.newest) == (3, 11, 13)
    assert sorted(window.topics) == ["a", "b"]
    assert (window.newest_of("a"), window.newest_of("b"), window.newest_of("c")) == (13, 12, 0)


@pytest.mark.parametrize(
    ("next_offsets", "expected", "wrong"),
    [([2], 3, 2), ([4], 3, 4), ([3, 5], 4, 5), ([3, 3], 4, 3), ([3, 4, 6, 7], 5, 6), ([4, 3], 3, 4)],
)
def test_hole(next_offsets: list[int], expected: int, wrong: int) -> None:
    window = window_of("a", "a")
    before = window.bytes
    with pytest.raises(BrokerError, match=f"expected a record with offset {expected}, got {wrong}"):
        window.append([record(offset) for offset in next_offsets], 0.0)
    assert (len(window), window.newest, window.bytes) == (2, 2, before)
    assert offsets(window.append([record(3)], 0.0)) == [3]


# Retention


def test_limit_of_events() -> None:
    window = Window("e", 0, Retention(events=3, bytes=None))
    for number in range(1, 10):
        window.append([record(number, f"t/{number}")], 0.0)
        assert (window.oldest, window.newest) == (max(1, number - 2), number)
    assert sorted(window.topics) == ["t/7", "t/8", "t/9"]  # a topic is removed with its last record
    assert window.newest_of("t/1") == 0


def test_limit_of_bytes() -> None:
    one = window_of("a").bytes
    assert one > len(b"id: e-1\ndata: x\n\n")
    window = Window("e", 0, Retention(events=None, bytes=4 * one))
    for number in range(1, 10):
        window.append([record(number)], 0.0)
        assert (len(window), window.bytes) == (min(number, 4), min(number, 4) * one)
    big = window.append([record(10, data="x" * 1000)], 0.0)[0]
    assert window.bytes <= 4 * one
    assert window.oldest + len(window) - 1 == 10
    window.append([record(11, data="x" * 10 * one)], 0.0)  # a record above the limit is not held either
    assert (len(window), window.bytes, window.oldest, window.newest) == (0, 0, 12, 11)
    assert big.size > 2000


def test_limit_of_age() -> None:
    window = Window("e", 0, Retention(events=None, bytes=None, age=10.0))
    for number, now in enumerate((0.0, 4.0, 8.0), 1):
        window.append([record(number)], now)
    for now, oldest in ((10.0, 1), (10.5, 2), (14.0, 2), (14.5, 3), (30.0, 4)):
        window.trim(now)
        assert window.oldest == oldest, now
    assert (len(window), window.newest, window.bytes) == (0, 3, 0)
    assert offsets(window.append([record(4)], 30.0)) == [4]


def test_append_returns_all() -> None:
    window = Window("e", 0, Retention(events=2))
    assert offsets(window.append([record(number) for number in range(1, 6)], 0.0)) == [1, 2, 3, 4, 5]
    assert (window.oldest, window.newest) == (4, 5)


def test_dropped_entries_are_released() -> None:
    window = Window("e", 0, Retention(events=10))
    for number in range(1, 5001):
        window.append([record(number, "ab"[number % 2])], 0.0)
        if number % 500 == 0:  # also while the dead start of the list is not cut yet
            found, upto = window.after(number - 3, ("**",), NO_LIMIT, number)
            assert (offsets(found), upto) == ([number - 2, number - 1, number], number)
            assert offsets(window.after(number - 4, ("b",), NO_LIMIT, number)[0]) == [number - 3, number - 1]
    assert len(window._entries) < 1100
    assert sum(1 for entry in window._entries if entry.offset) == 10


# Records after an offset


@pytest.mark.parametrize(
    ("offset", "patterns", "limit", "upto", "found", "reached"),
    [
        (10, ("**",), NO_LIMIT, 15, [11, 12, 13, 14, 15], 15),
        (10, ("**",), NO_LIMIT, 13, [11, 12, 13], 13),
        (13, ("**",), NO_LIMIT, 15, [14, 15], 15),
        (15, ("**",), NO_LIMIT, 15, [], 15),
        (10, ("a",), NO_LIMIT, 15, [11, 13, 15], 15),
        (11, ("a",), NO_LIMIT, 14, [13], 14),
        (10, ("a", "b"), NO_LIMIT, 15, [11, 12, 13, 14, 15], 15),
        (10, ("c",), NO_LIMIT, 15, [], 15),
        (10, ("*",), 1, 15, [11], 11),  # at least one, however big
        (10, ("a",), 1, 15, [11], 11),
        (13, ("b",), 1, 15, [14], 15),  # the limit left nothing out
        (10, ("**",), 40, 15, [11, 12], 12),
        (10, ("b", "c"), 40, 15, [12, 14], 15),
    ],
)
def test_after(offset: int, patterns: Patterns, limit: int, upto: int, found: list[int], reached: int) -> None:
    window = window_of("a", "b", "a", "b", "a", newest=10)  # blocks of 18 bytes
    entries, upto = window.after(offset, patterns, limit, upto)
    assert (offsets(entries), upto) == (found, reached)


topics = st.sampled_from(["a", "b", "a/x", "b/x", "c"])
pattern_sets = st.lists(
    st.sampled_from(["a", "b", "c", "a/x", "*", "*/x", "a/**", "**", "other"]), min_size=1, max_size=3
).map(check_patterns)
logs = st.lists(st.tuples(topics, st.integers(0, 60)), max_size=40)


@settings(max_examples=100)
@given(
    log=logs,
    patterns=pattern_sets,
    keep=st.integers(1, 50),
    limit=st.just(NO_LIMIT) | st.integers(0, 300),
    data=st.data(),
)
def test_pages_equal_naive_list(
    log: list[tuple[str, int]], patterns: Patterns, keep: int, limit: int, data: Any
) -> None:
    window = Window("e", 100, Retention(events=keep, bytes=None))
    records = [record(101 + place, topic, "x" * size) for place, (topic, size) in enumerate(log)]
    window.append(records, 0.0)
    kept = [one for one in records if one.offset >= window.oldest]
    assert len(kept) == len(window) == min(keep, len(records))
    offset = data.draw(st.integers(window.oldest - 1, window.newest), label="offset")
    upto = data.draw(st.integers(offset, window.newest), label="upto")
    wanted = [one for one in kept if offset < one.offset <= upto and compile_patterns(patterns)(one.topic)]

    pages = []
    at = offset
    while at < upto:
        entries, reached = window.after(at, patterns, limit, upto)
        assert reached > at
        assert len(entries) <= 1 or sum(len(entry.block) for entry in entries) <= limit
        assert [entry.offset for entry in entries] == [one.offset for one in wanted if at < one.offset <= reached]
        pages += entries
        at = reached
    assert [entry.record for entry in pages] == wanted

    newest = {one.topic: one.offset for one in kept}
    thinned, at, passed = [], offset, 0
    while at < upto:
        entries, reached, count = window.latest(at, patterns, limit, upto)
        assert reached > at
        thinned += entries
        passed += count
        at = reached
    assert [entry.record for entry in thinned] == [one for one in wanted if newest[one.topic] == one.offset]
    assert passed == len(wanted) - len(thinned)


@given(log=logs, patterns=pattern_sets, keep=st.integers(1, 50), count=st.integers(1, 50))
def test_last_equals_naive_list(log: list[tuple[str, int]], patterns: Patterns, keep: int, count: int) -> None:
    window = Window("e", 100, Retention(events=keep, bytes=None))
    window.append([record(101 + place, topic) for place, (topic, _) in enumerate(log)], 0.0)
    held, _ = window.after(window.oldest - 1, patterns, NO_LIMIT, window.newest)
    wanted = held[-count:]
    found, at = window.last(count, patterns, window.newest)
    assert found == [entry.offset for entry in reversed(wanted)]
    assert at == window.oldest - 1
    some, at = window.last(count, patterns, window.newest - 1)
    assert some == [entry.offset for entry in reversed([each for each in held if each.offset < window.newest][-count:])]


@pytest.mark.parametrize(
    ("offset", "patterns", "limit", "upto", "found", "reached", "passed"),
    [
        (0, ("**",), 1000, 6, [3, 5, 6], 6, 3),
        (0, ("a",), 1000, 6, [5], 6, 2),
        (0, ("**",), 1000, 4, [3], 4, 3),  # also counts if the newer one follows after the end
        (5, ("**",), 1000, 6, [6], 6, 0),
        (6, ("**",), 1000, 6, [], 6, 0),
        (0, ("**",), 1, 6, [3], 4, 3),  # a page ends before the first that did not fit
        (0, ("**",), 36, 6, [3, 5], 5, 3),
    ],
)
def test_latest(
    offset: int, patterns: Patterns, limit: int, upto: int, found: list[int], reached: int, passed: int
) -> None:
    window = window_of("a", "b", "c", "a", "a", "b")
    entries, at, count = window.latest(offset, patterns, limit, upto)
    assert (offsets(entries), at, count) == (found, reached, passed)


def test_repr() -> None:
    window = window_of("a", newest=4)
    assert repr(window) == f"<Window e 5..5 bytes={window.bytes} topics=1>"
    assert repr(window.after(4, ("a",), NO_LIMIT, 5)[0][0]) == "<Entry 5 'a' 17 bytes>"


# Rules for some topics

BUSY = Retention(events=3, bytes=None, topics={"busy/*": Retention(events=2, bytes=None)})


def held(window: Window, patterns: Patterns = ("**",)) -> list[int]:
    return offsets(window.after(window.oldest - 1, patterns, NO_LIMIT, window.newest)[0])


def test_rule_drops_from_the_middle() -> None:
    window = window_of("quiet", "busy/a", "busy/b", "quiet", "busy/a", "busy/a", retention=BUSY)
    assert held(window) == [1, 4, 5, 6]
    assert (len(window), window.oldest, sorted(window.topics)) == (4, 1, ["busy/a", "quiet"])
    assert window.last(3, ("**",), 6)[0] == [6, 5, 4]
    assert window.last(5, ("busy/a", "quiet"), 6)[0] == [6, 5, 4, 1]
    for patterns, after in {("busy/a",): 3, ("busy/*",): 3, ("**",): 3, ("quiet",): 0, ("*",): 0}.items():
        assert window.complete_after(patterns) == after, patterns
    assert window.bytes == sum(entry.size for entry in window.after(0, ("**",), NO_LIMIT, 6)[0])


def test_rule_and_others_do_not_push_each_other_out() -> None:
    window = window_of("quiet", *["busy/a"] * 50, retention=BUSY)
    assert held(window) == [1, 50, 51]
    window = window_of("quiet", "quiet", *["busy/a"] * 2, "quiet", retention=BUSY)
    assert held(window) == [1, 2, 3, 4, 5]


def test_old_records_of_a_rule() -> None:
    window = Window("e", 0, Retention(topics={"busy/*": Retention(age=10)}))
    for offset, topic in enumerate(("quiet", "busy/a", "quiet", "busy/a"), 1):
        window.append([record(offset, topic)], float(offset))
    window.trim(13.0)
    assert held(window) == [1, 3, 4]
    window.trim(100.0)
    assert (held(window), window.complete_after(("busy/a",)), window.complete_after(("quiet",))) == ([1, 3], 4, 0)


def test_window_of_holes_becomes_shorter() -> None:
    """One old record of a quiet topic does not keep the places of all dropped ones."""
    window = window_of("quiet", *["busy/a"] * 5, retention=BUSY)
    for start in range(7, 150_007, 10_000):
        window.append([record(offset, "busy/a") for offset in range(start, start + 10_000)], 0.0)
    assert held(window) == [150_005, 150_006]
    assert window.complete_after(("quiet",)) >= 1


def test_discarded_topic() -> None:
    window = window_of("a", "busy/a", "a", "busy/b", "busy/a", retention=Retention(topics={"busy/*": Retention()}))
    window.discard("busy/a", 4)
    window.discard("busy/a", 4)
    window.discard("a", 3)
    window.discard("unknown", 3)
    assert held(window) == [1, 3, 4, 5]
    assert window.complete_after(("busy/a",)) == 2


operations = st.lists(st.tuples(st.sampled_from(["quiet", "busy/a", "busy/b", "other"]), st.floats(0, 3)), max_size=60)


@given(operations, st.integers(1, 4), st.integers(1, 4), st.sampled_from([None, 4.0]))
def test_rules_like_a_model(given: list[tuple[str, float]], events: int, ruled: int, age: float | None) -> None:
    """The window holds what its rules keep, in order, and knows from where on."""
    rules = Retention(events=events, bytes=None, topics={"busy/*": Retention(events=ruled, bytes=None, age=age)})
    window, now = Window("e", 0, rules), 0.0
    kept: list[tuple[int, str, float]] = []
    for offset, (topic, pause) in enumerate(given, 1):
        now += pause
        window.append([record(offset, topic)], now)
        kept.append((offset, topic, now))
        others = [each for each in kept if "/" not in each[1]][-events:]
        busy = [each for each in kept if "/" in each[1]][-ruled:]
        kept = sorted([*others, *(each for each in busy if age is None or each[2] >= now - age)])
        wanted = [offset for offset, _, _ in kept if offset >= window.oldest]
        assert held(window) == wanted
        for patterns in (("busy/*",), ("quiet", "other")):
            all_of = [each for each, (name, _) in enumerate(given[:offset], 1) if compile_patterns(patterns)(name)]
            complete = [each for each in all_of if each > window.complete_after(patterns)]
            assert held(window, patterns)[-len(complete) :] == complete or not complete
