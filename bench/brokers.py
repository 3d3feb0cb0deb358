"""Brokers beside the bare clients of their stores: acknowledged publishes a second, and times to delivery.

Both sides store the same events in the same server, or on the same disk, as durably, and take turns: bare,
ours, bare, ours. A ratio is the median of those of the rounds, against the faster way of the bare client.
Times to delivery are from before the publication to its arrival at a second broker on the same log, as in
another process; those of the bare client at a separate connection. Servers that are absent are left out, and named.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvloop

from tickertape.broker import Broker, create_broker
from tickertape.wire import Cursor, Draft

from .brokers_stores import KINDS, MANY, Contest, Follow, Publish
from .fanout import percentile

EVENT: Final = Draft(
    "bench/prices", '{"symbol":"ACME","bid":101.25,"ask":101.5,"volume":1234}'.ljust(120), event="price"
)
BATCH: Final = 100
MOST: Final = 20_000
"""Events of one turn at most."""

PATIENCE: Final = 30.0


class Shape(NamedTuple):
    """The number of publishers, the events of a batch, and the publishers of the bare client if that differs."""

    publishers: int
    batch: int
    bare_publishers: int
    aim: Callable[[str], float | None] = lambda name: None

    def __str__(self) -> str:
        what = f"batches of {self.batch}" if self.batch > 1 else "singles"
        beside = f", bare {self.bare_publishers}" if self.bare_publishers != self.publishers else ""
        return f"{what}, {self.publishers} at once{beside}"


SHAPES: Final = (
    Shape(1, 1, 1),
    Shape(MANY, 1, MANY),
    Shape(MANY, 1, 1, lambda name: 10.0 if name == "SQLite normal" else None),
    Shape(1, BATCH, 1, lambda name: 0.5),
    Shape(MANY, BATCH, MANY, lambda name: 0.5),
)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """The amount of work in a measurement.

    Attributes:
        rounds: turns of each side.
        turn: seconds of a turn, approximately.
        deliveries: events that are timed, on each side.
    """

    rounds: int
    turn: float
    deliveries: int


class Rates(NamedTuple):
    """Events a second of one shape; ``way`` is the fastest way to publish of the bare client."""

    shape: Shape
    ours: float
    way: str | None
    bare: float | None
    ratio: float | None


class Delays(NamedTuple):
    """Seconds to delivery."""

    ours: list[float]
    bare: list[float]


# Rates.


class Counted:
    """Publish, and count the events."""

    def __init__(self, publish: Publish) -> None:
        self.publish = publish
        self.events = 0

    async def turn(self, publishers: int, batch: int, events: int) -> float:
        """Return the seconds in which the publishers store the events, in batches."""
        drafts = [EVENT] * batch
        batches = iter(range(events // batch))

        async def publisher() -> None:
            for _ in batches:
                await self.publish(drafts)

        start = time.perf_counter()
        await asyncio.gather(*(publisher() for _ in range(publishers)))
        self.events += events
        return time.perf_counter() - start


async def measure_rates(ours: Counted, ways: dict[str, Counted], shape: Shape, effort: Effort) -> Rates:
    """Store the same number of events on all sides, in turns."""
    events = await calibrate(next(iter([*ways.values(), ours])), shape, effort.turn)
    await ours.turn(shape.publishers, shape.batch, events)  # warm up
    taken: list[float] = []
    bare: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(effort.rounds):
        for name, way in ways.items():
            bare[name].append(await way.turn(shape.bare_publishers, shape.batch, events))
        taken.append(await ours.turn(shape.publishers, shape.batch, events))
    rate = events / statistics.median(taken)
    if not bare:
        return Rates(shape, rate, None, None, None)
    best = min(bare, key=lambda name: statistics.median(bare[name]))
    ratio = statistics.median(theirs / own for theirs, own in zip(bare[best], taken, strict=True))
    return Rates(shape, rate, best, events / statistics.median(bare[best]), ratio)


async def calibrate(side: Counted, shape: Shape, turn: float) -> int:
    """Return how many events a side stores in the time of a turn: whole batches, at least one of every publisher."""
    least = shape.batch * max(shape.publishers, shape.bare_publishers)
    events = least
    while (taken := await side.turn(shape.bare_publishers, shape.batch, events)) < turn / 4 and 2 * events <= MOST:
        events *= 2
    wanted = int(events * turn / taken)
    return min(max(wanted, least), MOST) // least * least


# Times to delivery.


class Follower:
    """Record the time when each event arrives."""

    def __init__(self, follow: Follow) -> None:
        self._follow = follow
        self._arrived: dict[str, float] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        async for data in self._follow():
            self._arrived[data.strip()] = time.perf_counter()
            self._changed.set()

    async def arrival(self, name: str, patience: float = PATIENCE) -> float:
        async with asyncio.timeout(patience):
            while name not in self._arrived:
                self._changed.clear()
                await self._changed.wait()
        return self._arrived[name]


async def measure_delays(sides: Sequence[tuple[Publish, Follow]], deliveries: int) -> list[list[float]]:
    """Publish one event after the other on all sides in turns, and return how long each took to arrive."""
    chance = random.Random(0)
    followers = [Follower(follow) for _, follow in sides]
    tasks = [asyncio.create_task(follower.run()) for follower in followers]
    delays: list[list[float]] = [[] for _ in sides]
    try:
        for (publish, _), follower in zip(sides, followers, strict=True):
            await begin(publish, follower)
        for number in range(deliveries):
            for (publish, _), follower, own in zip(sides, followers, delays, strict=True):
                # Not in step with a client that polls at intervals.
                await asyncio.sleep(chance.uniform(0, 0.01))
                start = time.perf_counter()
                await publish([named(f"{number}")])
                own.append(await follower.arrival(f"{number}") - start)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return delays


async def begin(publish: Publish, follower: Follower) -> None:
    """Publish until an event arrives: the reader is ready then."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        await publish([named("first")])
        try:
            await follower.arrival("first", 0.1)
        except TimeoutError:
            continue
        return
    raise TimeoutError(f"expected an event within {PATIENCE} s, got none")


def named(name: str) -> Draft:
    return EVENT.replace(data=name.ljust(len(EVENT.data)))


# The whole measurement.


async def measure(contest: Contest, effort: Effort, shapes: Sequence[Shape]) -> tuple[list[Rates], Delays]:
    """Measure a broker, and check that all acknowledged events are there."""
    broker = create_broker(contest.url)
    other = create_broker(contest.url) if contest.bare is not None else broker
    try:
        await broker.open()
        ours = Counted(broker.append)
        ways = {name: Counted(publish) for name, publish in contest.bare.ways.items()} if contest.bare else {}
        comparable = [shape for shape in shapes if ways or shape.bare_publishers == shape.publishers]
        rates = [await measure_rates(ours, ways, shape, effort) for shape in comparable]
        newest = (await other.open()).newest
        expect("our", newest, ours.events)
        if contest.bare is not None:
            expect("the bare", await contest.bare.stored(), sum(way.events for way in ways.values()))
        sides: list[tuple[Publish, Follow]] = [(broker.append, lambda: following(other, newest))]
        if contest.bare is not None and contest.bare.follow is not None:
            sides.append((contest.bare.notify, contest.bare.follow))
        delays = await measure_delays(sides, effort.deliveries)
        return rates, Delays(delays[0], delays[1] if len(delays) > 1 else [])
    finally:
        await broker.close()
        await other.close()


def expect(whose: str, stored: int, acknowledged: int) -> None:
    if stored != acknowledged:
        raise AssertionError(f"expected {acknowledged} events in {whose} log, as acknowledged, got {stored}")


async def following(broker: Broker, after: int) -> AsyncIterator[str]:
    tail: Any = broker.tail(Cursor((await broker.state()).epoch, after))
    async with aclosing(tail):
        async for records in tail:
            for record in records:
                yield record.data


HEAD: Final = f"{'acknowledged events a second':50}{'ours':>10}{'bare':>12}  {'by':14}{'of bare':>8}  aim"
DELAY_HEAD: Final = (
    f"{'milliseconds to delivery':26}{'p50':>8}{'p99':>8}{'bare p50':>12}{'p99':>8}{'of bare':>11}{'p99':>8}"
)


def rate_line(name: str, rates: Rates) -> str:
    shape, ours, way, bare, ratio = rates
    line = f"{name:15}{shape!s:35}{ours:10,.0f}"
    if bare is None or ratio is None:
        return line
    aim = shape.aim(name)
    verdict = "" if aim is None else f"  {'PASS' if ratio >= aim else 'short of'} {aim:g}"
    return f"{line}{bare:12,.0f}  {way:14}{ratio:8.2f}{verdict}"


def delay_line(name: str, delays: Delays) -> str:
    ours, bare = ([1000 * percentile(own, share) for share in (0.5, 0.99)] for own in delays)
    line = f"{name:26}{ours[0]:8.2f}{ours[1]:8.2f}"
    if not delays.bare:
        return line
    return f"{line}{bare[0]:12.2f}{bare[1]:8.2f}{ours[0] / bare[0]:11.2f}{ours[1] / bare[1]:8.2f}"


async def compare(names: Sequence[str], effort: Effort) -> None:
    """Measure brokers, and print the tables."""
    delays: dict[str, Delays] = {}
    print(HEAD)
    for name in names:
        if absent := KINDS[name].absent():
            print(f"{name:15}left out: {absent}")
            continue
        with tempfile.TemporaryDirectory() as directory:
            async with KINDS[name].enter(Path(directory)) as contest:
                rates, delays[name] = await measure(contest, effort, SHAPES)
        for each in rates:
            print(rate_line(name, each), flush=True)
    print(f"\n{DELAY_HEAD}")
    for name, own in delays.items():
        print(delay_line(name, own))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=KINDS, help="a broker; all if none is given")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turn", type=float, default=0.2, help="seconds")
    parser.add_argument("--deliveries", type=int, default=300)
    options, _ = parser.parse_known_args()
    effort = Effort(rounds=options.rounds, turn=options.turn, deliveries=options.deliveries)
    uvloop.run(compare(options.only or [*KINDS], effort))


if __name__ == "__main__":
    main()
