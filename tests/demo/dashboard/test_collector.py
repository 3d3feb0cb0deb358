"""One collector for however many watch: when it takes samples, and what it makes of trouble."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.asgi import settle
from support.machine import EPOCH, FakeMachine
from tickertape import Hub
from tickertape.demo.dashboard import Collector
from tickertape.testing import FakeClock, ScriptedBroker


class Board:
    """A collector whose time the test turns, and those who watch."""

    def __init__(self, hub: Hub, clock: FakeClock, machine: FakeMachine, collector: Collector) -> None:
        self.hub = hub
        self.machine = machine
        self.collector = collector
        self._clock = clock
        self._start = clock.time()

    async def turn(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass, in steps, and all happen that falls due."""
        for _ in range(round(seconds / step)):
            self._clock.advance(step)
            await settle()

    @property
    def moments(self) -> list[float]:
        """Seconds since the start at which samples were taken."""
        return [moment - self._start for moment in self.machine.readings]

    async def samples(self) -> list[Any]:
        """What was published."""
        records, _ = await self.hub.history("metrics")
        assert {record.event for _, record in records} <= {"metrics"}
        return [json.loads(record.data) for _, record in records]


@asynccontextmanager
async def board(**options: Any) -> AsyncIterator[Board]:
    clock = FakeClock()
    machine = FakeMachine(clock)
    async with Hub(ScriptedBroker()) as hub, Collector(hub, read=machine, clock=clock, **options) as collector:
        await settle()
        yield Board(hub, clock, machine, collector)


async def test_while_nobody_watches_it_is_slow() -> None:
    async with board() as it:
        await it.turn(35)
        assert it.moments == [0, 10, 20, 30]
        assert repr(it.collector) == "<Collector interval=1.0 idle>"


async def test_the_first_viewer_starts_it_and_the_last_one_stops_it() -> None:
    async with board() as it:
        await it.turn(14.5)
        async with it.hub.subscribe("metrics"):
            await settle()
            assert it.moments == [0, 10, 14.5]  # at once
            assert repr(it.collector) == "<Collector interval=1.0 watched>"
            await it.turn(2)
            async with it.hub.subscribe("metrics"), it.hub.subscribe("*"):
                await it.turn(2.75)
            await it.turn(1)
        await it.turn(20)
        assert it.moments == [0, 10, 14.5, 15.5, 16.5, 17.5, 18.5, 19.5, 29.5, 39.5]


async def test_a_viewer_of_another_topic_is_none() -> None:
    async with board() as it, it.hub.subscribe("something/else"):
        await it.turn(15)
        assert it.moments == [0, 10]


async def test_one_who_comes_and_goes_and_comes_makes_no_burst() -> None:
    async with board(interval=2.0) as it:
        for _ in range(10):
            async with it.hub.subscribe("metrics"):
                await settle()
                await it.turn(0.25)
            await it.turn(0.25)
        assert it.moments == [0, 2, 4]


async def test_samples_name_the_one_before_and_hold_rates() -> None:
    async with board() as it, it.hub.subscribe("metrics"):
        await it.turn(2)
        samples = await it.samples()
    assert [sample["at"] - EPOCH - 1000 for sample in samples] == [0, 1, 2]
    assert [sample["after"] for sample in samples] == [None, samples[0]["at"], samples[1]["at"]]
    assert samples[2]["cpu"] == {"total": 25.0, "cores": [50.0, 0.0]}
    assert samples[2]["network"] == {"in": 2048.0, "out": 1024.0}
    assert samples[2]["hub"]["subscribers"] == 1
    assert samples[2]["hub"]["events"] == 1.0


async def test_slow_samples_follow_each_other_too() -> None:
    async with board() as it:
        await it.turn(20)
        async with it.hub.subscribe("metrics"):
            await it.turn(2)
        await it.turn(18)
        samples = await it.samples()
    assert [sample["after"] for sample in samples] == [None, *(sample["at"] for sample in samples[:-1])]


@pytest.mark.parametrize("away", [3600.0, -3600.0])
async def test_after_sleep_or_a_clock_that_was_set_there_is_a_gap(away: float) -> None:
    async with board() as it, it.hub.subscribe("metrics"):
        await it.turn(1)
        it.machine.away = away
        await it.turn(2)
        samples = await it.samples()
    assert [sample["after"] is None for sample in samples] == [True, False, True, False]
    assert samples[2]["network"] is None


async def test_after_a_stall_there_is_a_gap_and_no_burst() -> None:
    async with board() as it, it.hub.subscribe("metrics"):
        await it.turn(1)
        await it.turn(30, step=30)
        await it.turn(2)
        samples = await it.samples()
    assert it.moments == [0, 1, 31, 32, 33]
    assert [sample["after"] is None for sample in samples] == [True, False, True, False, False]


async def test_a_reading_that_fails_is_told_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    async with board() as it, it.hub.subscribe("metrics"):
        it.machine.broken = OSError("gone for a moment")
        await it.turn(3)
        samples = await it.samples()
    assert it.moments == [0, 2, 3]
    assert samples[1]["after"] == samples[0]["at"]
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.ERROR, "a sample was not published")
    ]


async def test_one_that_has_stopped_takes_no_more() -> None:
    async with board() as it:
        pass
    await it.turn(30)
    assert it.moments == [0]
    assert repr(it.collector) == "<Collector interval=1.0 stopped>"
    await it.collector.__aexit__(None, None, None)  # once more does nothing


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
async def test_what_cannot_be_an_interval_is_refused(interval: float) -> None:
    async with Hub() as hub:
        with pytest.raises(ValueError, match="expected an interval of more than 0 seconds"):
            Collector(hub, interval=interval)
