"""``Collector``: its intervals, and errors."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.asgi import settle
from tickertape import Hub
from tickertape.demo.dashboard.demo import TOPIC, Collector
from tickertape.testing import FakeClock, ScriptedBroker

from .machine import EPOCH, FakeMachine


class Collecting:
    """A collector with a fake clock, and the hub of its viewers."""

    def __init__(self, hub: Hub, clock: FakeClock, machine: FakeMachine, collector: Collector) -> None:
        self.hub = hub
        self.machine = machine
        self.collector = collector
        self._clock = clock
        self._start = clock.time()

    async def advance(self, seconds: float, step: float = 0.25) -> None:
        """Advance the clock in steps, and run all callbacks that are due."""
        for _ in range(round(seconds / step)):
            self._clock.advance(step)
            await settle()

    @property
    def times(self) -> list[float]:
        """The times of the samples, in seconds since the start."""
        return [time - self._start for time in self.machine.readings]

    async def samples(self) -> list[Any]:
        """Return the published samples."""
        records, _ = await self.hub.history(TOPIC)
        assert {record.event for _, record in records} <= {"metrics"}
        return [json.loads(record.data) for _, record in records]


@asynccontextmanager
async def collecting(**options: Any) -> AsyncIterator[Collecting]:
    clock = FakeClock()
    machine = FakeMachine(clock)
    async with Hub(ScriptedBroker()) as hub, Collector(hub, read=machine, clock=clock, **options) as collector:
        await settle()
        yield Collecting(hub, clock, machine, collector)


async def test_idle_interval() -> None:
    async with collecting() as it:
        await it.advance(35)
        assert it.times == [0, 10, 20, 30]
        assert repr(it.collector) == "<Collector interval=1.0 idle>"


async def test_interval_follows_viewers() -> None:
    async with collecting() as it:
        await it.advance(14.5)
        async with it.hub.subscribe(TOPIC):
            await settle()
            assert it.times == [0, 10, 14.5]  # at once
            assert repr(it.collector) == "<Collector interval=1.0 watched>"
            await it.advance(2)
            async with it.hub.subscribe(TOPIC), it.hub.subscribe("dashboard/*"):
                await it.advance(2.75)
            await it.advance(1)
        await it.advance(20)
        assert it.times == [0, 10, 14.5, 15.5, 16.5, 17.5, 18.5, 19.5, 29.5, 39.5]


async def test_other_topics_do_not_count() -> None:
    async with collecting() as it, it.hub.subscribe("something/else"):
        await it.advance(15)
        assert it.times == [0, 10]


async def test_no_burst_by_reconnects() -> None:
    async with collecting(interval=2.0) as it:
        for _ in range(10):
            async with it.hub.subscribe(TOPIC):
                await settle()
                await it.advance(0.25)
            await it.advance(0.25)
        assert it.times == [0, 2, 4]


async def test_samples() -> None:
    async with collecting() as it, it.hub.subscribe(TOPIC):
        await it.advance(2)
        samples = await it.samples()
    assert [sample["at"] - EPOCH - 1000 for sample in samples] == [0, 1, 2]
    assert [sample["after"] for sample in samples] == [None, samples[0]["at"], samples[1]["at"]]
    assert samples[2]["cpu"] == {"total": 25.0, "cores": [50.0, 0.0]}
    assert samples[2]["network"] == {"in": 2048.0, "out": 1024.0}
    assert samples[2]["hub"]["subscribers"] == 1
    assert samples[2]["hub"]["events"] == 1.0


async def test_no_gaps_when_idle() -> None:
    async with collecting() as it:
        await it.advance(20)
        async with it.hub.subscribe(TOPIC):
            await it.advance(2)
        await it.advance(18)
        samples = await it.samples()
    assert [sample["after"] for sample in samples] == [None, *(sample["at"] for sample in samples[:-1])]


@pytest.mark.parametrize("offset", [3600.0, -3600.0])
async def test_gap_after_clock_change(offset: float) -> None:
    async with collecting() as it, it.hub.subscribe(TOPIC):
        await it.advance(1)
        it.machine.wall_offset = offset
        await it.advance(2)
        samples = await it.samples()
    assert [sample["after"] is None for sample in samples] == [True, False, True, False]
    assert samples[2]["network"] is None


async def test_gap_after_blocked_loop() -> None:
    async with collecting() as it, it.hub.subscribe(TOPIC):
        await it.advance(1)
        await it.advance(30, step=30)
        await it.advance(2)
        samples = await it.samples()
    assert it.times == [0, 1, 31, 32, 33]
    assert [sample["after"] is None for sample in samples] == [True, False, True, False, False]


async def test_failed_reading(caplog: pytest.LogCaptureFixture) -> None:
    async with collecting() as it, it.hub.subscribe(TOPIC):
        it.machine.error = OSError("gone for a moment")
        await it.advance(3)
        samples = await it.samples()
    assert it.times == [0, 2, 3]
    assert samples[1]["after"] == samples[0]["at"]
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.ERROR, "cannot publish a sample")
    ]


async def test_stopped_collector() -> None:
    async with collecting() as it:
        pass
    await it.advance(30)
    assert it.times == [0]
    assert repr(it.collector) == "<Collector interval=1.0 stopped>"
    await it.collector.__aexit__(None, None, None)  # a second time has no effect


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
async def test_invalid_interval(interval: float) -> None:
    async with Hub() as hub:
        with pytest.raises(ValueError, match="expected an interval of more than 0 seconds"):
            Collector(hub, interval=interval)
