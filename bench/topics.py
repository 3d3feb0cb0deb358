"""The time of a publish beside audiences that do not want the event, and beside the costliest legal patterns."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from tickertape import Hub
from tickertape.hub.topics import TopicIndex
from tickertape.wire import MAX_SEGMENTS, MAX_TOPICS, Patterns, PatternSet, check_patterns

AUDIENCES: Final = (0, 10, 100, 1_000, 10_000)
EVENTS: Final = 2_000
ROUNDS: Final = 5

ADVERSARIES: Final = (1, 100, 1_000)
NEW_TOPICS: Final = 50


async def seconds(unrelated: int) -> float:
    """Return the time of publishing to one subscriber, beside so many with different patterns."""
    async with Hub() as hub, AsyncExitStack() as stack:
        for number in range(unrelated):
            patterns = (f"users/{number}/**", f"users/{number}/orders/*", f"rooms/{number}")
            await stack.enter_async_context(hub.subscribe(patterns))
        wanted = await stack.enter_async_context(hub.subscribe("orders/*"))
        best = float("inf")
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for number in range(EVENTS):
                await hub.publish(f"orders/{number}", "x" * 120)
            for _ in range(EVENTS):
                await anext(wanted)
            best = min(best, time.perf_counter() - start)
        return best


async def compare() -> None:
    """Print the times as ratios to the time without others."""
    await seconds(0)  # warm up
    alone = await seconds(0)
    print(f"{'unrelated audiences':>20}{'time':>8}")
    for unrelated in AUDIENCES:
        print(f"{unrelated:20,}{await seconds(unrelated) / alone:7.2f}x")


def ordinary(number: int) -> Patterns:
    """Return the patterns of a subscriber to a few topics."""
    return check_patterns([f"users/{number}/**", "orders/*/status", "news/**"])


def many_states(number: int) -> Patterns:
    """Return as many patterns as are legal, of the greatest length, which all follow the topic to its end."""
    chosen = random.Random(number)
    parts = (["**", *chosen.choices("a*", k=15), "**", *chosen.choices("a*", k=15)] for _ in range(MAX_TOPICS))
    return check_patterns(map("/".join, parts))


def many_branches(number: int) -> Patterns:
    """Return patterns of one segment and wildcards, just few enough to be kept in the tree."""
    chosen = random.Random(number)
    return check_patterns("/".join(chosen.choices("a*", k=MAX_SEGMENTS)) for _ in range(3))


KINDS: Final[Sequence[Callable[[int], Patterns]]] = (ordinary, many_states, many_branches)


def find_times(patterns_of: Callable[[int], Patterns], subscribers: int) -> tuple[float, float, float]:
    """Return the seconds of adding one subscriber, of the first event of a topic, and of a further one."""
    given = [patterns_of(number) for number in range(subscribers)]
    index: TopicIndex[int] = TopicIndex()
    start = time.perf_counter()
    for number, patterns in enumerate(given):
        index.add(patterns, number)
    added = time.perf_counter()
    topics = ["/".join([*"a" * (MAX_SEGMENTS - 1), str(number)]) for number in range(NEW_TOPICS)]
    for topic in topics:
        index.find(topic)
    first = time.perf_counter()
    for _ in range(1000):
        index.find(topics[-1])
    further = time.perf_counter()
    return (added - start) / subscribers, (first - added) / NEW_TOPICS, (further - first) / 1000


def match_time(patterns: Patterns) -> float:
    """Return the seconds of one match, as a reader of kept events needs it for each new topic."""
    compiled = PatternSet(patterns)
    topics = ["/".join([*"a" * (MAX_SEGMENTS - 1), str(number)]) for number in range(1000)]
    start = time.perf_counter()
    for topic in topics:
        compiled(topic)
    return (time.perf_counter() - start) / len(topics)


def measure_worst() -> None:
    """Print what finding the audiences of an event costs, in microseconds."""
    print(
        f"\n{'patterns':>16}{'subscribers':>14}{'subscribe':>12}{'new topic':>12}{'known topic':>13}{'one match':>12}"
    )
    for patterns_of in KINDS:
        match = match_time(patterns_of(1))
        for subscribers in ADVERSARIES:
            times = (*find_times(patterns_of, subscribers), match)
            columns = "".join(f"{time * 1e6:{width},.1f}" for time, width in zip(times, (12, 12, 13, 12), strict=True))
            print(f"{patterns_of.__name__:>16}{subscribers:14,}{columns} µs")


def main() -> None:
    asyncio.run(compare())
    measure_worst()


if __name__ == "__main__":
    main()
