"""The stream of the dashboard: history first, then live, and the present for those who fall behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.asgi import settle
from support.machine import EPOCH, FakeMachine, until
from tickertape import Hub, ServerSentEvent
from tickertape.demo import Site
from tickertape.demo.dashboard import dashboard_demo
from tickertape.testing import EventStream, EventStreamClient, FakeClock

EVENTS = "/dashboard/events"


class Running(NamedTuple):
    """The demo, on a clock of its own."""

    client: EventStreamClient
    clock: FakeClock
    machine: FakeMachine

    async def turn(self) -> None:
        """Let a second pass, and a sample be taken and sent."""
        count = len(self.machine.readings)
        await until(lambda: "timers=1" in repr(self.clock))
        self.clock.advance(1)
        await until(lambda: len(self.machine.readings) > count)


@asynccontextmanager
async def running(folder: Path, now: float = 0.0, **options: Any) -> AsyncIterator[Running]:
    clock = FakeClock(now)
    machine = FakeMachine(clock)
    demo = dashboard_demo(folder=folder, read=machine, clock=clock, **options)
    async with EventStreamClient(Site([demo])) as client:
        await until(lambda: machine.readings and "timers=1" in repr(clock))
        yield Running(client, clock, machine)


async def fill(folder: Path, count: int) -> None:
    """Leave a history of samples behind."""
    async with Hub(f"sqlite:///{folder}/metrics.db") as hub:
        await hub.publish_many([hub.draft("metrics", {"number": number}, event="metrics") for number in range(count)])


async def moments(stream: EventStream, count: int) -> list[float]:
    """The moments of the next samples."""
    events = [await stream.next_event() for _ in range(count)]
    assert {event.event for event in events} == {"metrics"}
    return [moment_of(event) for event in events]


def moment_of(event: ServerSentEvent) -> float:
    moment: float = event.json()["at"] - EPOCH
    return moment


@pytest.mark.parametrize(("interval", "last"), [(1.0, 900), (2.0, 450)])
async def test_a_quarter_of_an_hour_comes_first_and_then_what_is_now(
    tmp_path: Path, interval: float, last: int
) -> None:
    await fill(tmp_path, 1000)
    async with running(tmp_path, interval=interval) as it, it.client.open(EVENTS) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        numbers = []
        while "number" in (event := await stream.next_event()).json():
            numbers.append(event.json()["number"])
        assert len(numbers) in (last - 1, last)  # the demo's own first sample is the last of them, or just after
        assert numbers == list(range(1000 - len(numbers), 1000))
        assert moment_of(event) == 0
        for second in range(1, 4):
            it.clock.advance(interval)
            assert await moments(stream, 1) == [second * interval]
            await until(lambda: "timers=1" in repr(it.clock))


async def test_a_client_that_was_away_gets_what_it_missed(tmp_path: Path) -> None:
    async with running(tmp_path) as it, it.client.open(EVENTS) as stays:
        assert await moments(stays, 1) == [0]
        place = stays.last_event_id
        for _ in range(3):
            await it.turn()
        assert await moments(stays, 3) == [1, 2, 3]
        async with it.client.open(EVENTS, last_event_id=place) as back:
            assert await moments(back, 3) == [1, 2, 3]


async def test_a_restart_goes_on_in_the_same_history_with_a_gap(tmp_path: Path) -> None:
    async with running(tmp_path) as it, it.client.open(EVENTS) as stream:
        await it.turn()
        assert await moments(stream, 2) == [0, 1]
        place = stream.last_event_id
    async with running(tmp_path, now=60) as it, it.client.open(EVENTS, last_event_id=place) as stream:
        first = await stream.next_event()
        assert (moment_of(first), first.json()["after"]) == (60, None)
        await it.turn()
        second = await stream.next_event()
        assert second.json()["after"] == first.json()["at"]


async def test_one_who_reads_too_slowly_is_given_the_present(tmp_path: Path) -> None:
    async with running(tmp_path) as it, it.client.open(EVENTS) as stream, it.client.open(EVENTS) as quick:
        assert await moments(stream, 1) == [0]
        for _ in range(300):
            await it.turn()
            await moments(quick, 2 if it.clock.time() == 1 else 1)
        await settle()
        seen = await moments(stream, 1)
        while seen[-1] < 300:
            seen += await moments(stream, 1)
        assert len(seen) < 250
        assert seen == sorted(seen)
        await it.turn()
        told = await stream.next_event()
        assert told.json()["hub"]["drops"] == 300 - len(seen)  # in the one second since the sample before


async def test_folders_of_every_name(tmp_path: Path) -> None:
    folder = tmp_path / "what? 100 % #1"
    folder.mkdir()
    async with running(folder):
        pass
    assert (folder / "metrics.db").exists()
