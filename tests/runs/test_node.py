"""Runs that are left without a producer, a reader, a log or an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from support.hub import settle
from support.runs import Source, read
from tickertape import Hub
from tickertape.errors import HubClosedError, StreamEndedError
from tickertape.runs import Run, Runs
from tickertape.testing import FakeClock, ScriptedBroker
from tickertape.wire import Gap

PATIENCE: Final = 30.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def hub(clock: FakeClock) -> AsyncIterator[Hub]:
    async with Hub(clock=clock) as hub:
        yield hub


async def found(runs: Runs, name: str) -> Run:
    run = await runs.get(name)
    assert run is not None
    return run


async def advance(clock: FakeClock, seconds: float) -> None:
    """Advance the clock in steps, and run what is due."""
    for _ in range(round(seconds * 2)):
        clock.advance(0.5)
        await settle()


async def started_elsewhere(hub: Hub, name: str, **fields: Any) -> None:
    """Store what a process stores that starts a run and dies before it does more."""
    record = {"key": None, "owner": None, "node": "gone", "nonce": "n", "ttl": 60, "on_disconnect": "continue"}
    await hub.publish(f"runs/{name}", {**record, "grace": 0, **fields}, event="run:start")


# The process that replaces a run, or starts one, dies.


async def test_replacing_process_dies(hub: Hub, clock: FakeClock) -> None:
    """Readers of the old run get its end, although the process that had to store it is gone."""
    runs = Runs(hub)
    old = await runs.open("job")
    await old.append("one")
    reading = asyncio.create_task(read(old))
    await settle()
    await started_elsewhere(hub, "job", replace=True)
    await advance(clock, 5)
    assert reading.done()
    assert await reading == ["one", "cancelled"]
    new = await found(runs, "job")
    assert new.id != old.id
    assert new.info.active
    await advance(clock, 5)
    assert await read(new) == ["orphaned"]


async def test_replaced_run_is_ended_once(hub: Hub, clock: FakeClock) -> None:
    """A run that was replaced in order is not ended again."""
    runs = Runs(hub)
    await runs.start("job", Source())
    await runs.start("job", Source(), replace=True)
    await advance(clock, 20)
    ends = [record for _, record in (await hub.history("run/**"))[0] if record.event == "run:end"]
    assert len(ends) == 1


@pytest.mark.parametrize("method", ["start", "open"])
async def test_abandoned_start(method: str) -> None:
    """A start that is cancelled after its record was stored leaves no active run."""
    broker = ScriptedBroker()
    async with Hub(broker, clock=FakeClock()) as hub:  # no time passes
        runs = Runs(hub)
        assert await runs.get("job") is None
        broker.hold("read")
        count = broker.calls["append"]
        starting = asyncio.create_task(runs.start("job", Source()) if method == "start" else runs.open("job"))
        while broker.calls["append"] == count:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await settle()
        starting.cancel()
        await asyncio.wait([starting])
        broker.release()
        assert await read(await found(runs, "job")) == ["orphaned"]
        await runs.start("job", Source())


async def test_first_sign_of_life(hub: Hub, clock: FakeClock) -> None:
    """A process that was silent since its last run is alive when it starts another one."""
    here, there = Runs(hub), Runs(hub)
    source = Source()
    source.give(None)
    await (await here.start("one", source)).wait()
    await advance(clock, 60)
    assert await there.get("two") is None
    run = await here.start("two", Source())
    await (await there._open())._end_lost_runs()  # as at its beat, before the first one of the other
    assert run.info.active


async def test_other_producers_are_left_alone(hub: Hub, clock: FakeClock) -> None:
    """Several ``Runs`` on one hub do not take each other's runs for abandoned ones."""
    here, there = Runs(hub), Runs(hub)
    runs = [await runs.start(f"job/{number}", Source()) for number, runs in enumerate((here, there, here))]
    await advance(clock, 30)
    assert [run.info.state for run in runs] == ["active"] * 3


# A run can be read for a time that begins at its end.


@pytest.mark.parametrize(
    ("started", "ended", "kept"),
    [(-100.0, None, True), (-100.0, -50.0, True), (-100.0, -61.0, False), (-30.0, -1.0, True)],
)
async def test_ttl_begins_at_the_end(hub: Hub, started: float, ended: float | None, kept: bool) -> None:
    runs, now = Runs(hub), time.time()
    await started_elsewhere(hub, "job", started=now + started, ttl=60)
    run = await found(runs, "job")
    if ended is not None:
        record = {"run": run.id, "state": "done", "error": None, "ended": now + ended}
        for topic in ("runs/job", f"run/job/{run.id}"):
            await hub.publish(topic, record, event="run:end")
    assert (await runs.get("job") is not None) == kept
    assert (await runs.get("job", run.id) is not None) == kept
    assert len(await runs.list_runs(active=False)) == kept


# The log is another one.


async def test_log_that_was_reset() -> None:
    """Readers get the gap and no more; the producer is cancelled, and the name is free."""
    broker = ScriptedBroker()
    async with Hub(broker) as hub:
        runs = Runs(hub)
        source = Source()
        run = await runs.start("job", source)
        source.give("one")
        waiting = asyncio.create_task(run.wait())
        async with asyncio.timeout(PATIENCE), aclosing(run.events()) as events:
            await anext(events)
            broker.reset()
            gap = await anext(events)
            assert isinstance(gap, Gap)
            assert gap.reason == "reset"
            with pytest.raises(StreamEndedError, match="the log was reset, and run 'job' with it"):
                await anext(events)
        async with asyncio.timeout(PATIENCE):
            assert (await waiting).state == "orphaned"
            await source.finished.wait()
        assert await runs.get("job") is None
        again = Source()
        again.give("two", None)
        assert await read(await runs.start("job", again)) == ["two", "done"]


# The event loop is another one.


def test_each_event_loop(tmp_path: Path) -> None:
    """After a loop that was closed with its runs, another loop begins again, and ends the runs that are left."""
    runs = Runs(Hub(f"sqlite:///{tmp_path}/log.db"))

    async def work(number: int) -> None:
        left = await runs.get("left")
        assert (left is None) == (number == 0)
        if left is not None:
            assert await read(left) == ["orphaned"]
        source = Source()
        source.give("x", None)
        assert await read(await runs.start(f"job/{number}", source)) == ["x", "done"]
        await runs.start("left", Source())

    for number in range(3):
        asyncio.run(work(number))


def test_hub_that_is_opened_again(tmp_path: Path) -> None:
    hub = Hub(f"sqlite:///{tmp_path}/log.db")
    runs = Runs(hub)

    async def work(number: int) -> None:
        for part in range(2):
            async with hub:
                source = Source()
                source.give("x", None)
                assert await read(await runs.start(f"job/{number}/{part}", source)) == ["x", "done"]
                assert len(await runs.list_runs(active=False)) == 2 * number + part + 1

    for number in range(2):
        asyncio.run(work(number))


async def test_hub_that_was_closed(tmp_path: Path) -> None:
    """A call while the hub is closed is an error and has no effect on later ones."""
    hub = Hub(f"sqlite:///{tmp_path}/log.db")
    runs = Runs(hub)
    async with hub:
        pass
    with pytest.raises(HubClosedError):
        await runs.get("job")
    async with hub:
        source = Source()
        source.give("x", None)
        assert await read(await runs.start("job", source)) == ["x", "done"]


async def test_another_loop_at_the_same_time(hub: Hub) -> None:
    runs = Runs(hub)
    assert await runs.get("job") is None
    with pytest.raises(HubClosedError, match="the runs belong to another event loop, as their hub does"):
        await asyncio.to_thread(asyncio.run, runs.get("job"))


# Readers in several processes, if a run is cancelled when its last reader has left.


class Place:
    """A process with readers of one run."""

    def __init__(self, hub: Hub) -> None:
        self.runs = Runs(hub)
        self._readers: list[AsyncGenerator[Any]] = []

    async def join(self) -> None:
        """Add a reader that waits for the next event."""
        reader = (await found(self.runs, "job")).events()
        await anext(reader)
        self._readers.append(reader)
        await settle()

    async def leave(self) -> None:
        """Remove a reader."""
        await self._readers.pop().aclose()
        await settle()

    async def close(self) -> None:
        while self._readers:
            await self.leave()


class Places(NamedTuple):
    """The process of the producer, and another one."""

    clock: FakeClock
    hub: Hub
    here: Place
    there: Place


async def no_reader(places: Places) -> None:
    await advance(places.clock, 25)


async def join_and_leave(places: Places) -> None:
    await places.there.join()
    await advance(places.clock, 60)
    await places.there.leave()
    await advance(places.clock, 25)


async def stay_there(places: Places) -> None:
    await places.here.join()
    await places.there.join()
    await places.here.leave()
    await advance(places.clock, 60)


async def return_in_time(places: Places) -> None:
    await places.here.join()
    await places.here.leave()
    await advance(places.clock, 25)
    await places.there.join()
    await advance(places.clock, 60)


async def replace_each_other(places: Places) -> None:
    """Of many readers that come and go in one turn, one stays."""
    for _ in range(10):
        await asyncio.gather(places.here.join(), places.there.join(), places.there.join())
        await asyncio.gather(places.here.leave(), places.there.leave())
        await places.there.join()
        await places.there.leave()
    await advance(places.clock, 60)


async def die_there(places: Places) -> None:
    """A third process reports a reader, and no sign of life."""
    run = await found(places.here.runs, "job")
    await places.hub.publish("runs/job", {"run": run.id, "node": "gone", "here": True}, event="run:readers")
    await advance(places.clock, 35)


SCENES: Final[dict[str, tuple[Callable[[Places], Awaitable[None]], float, str]]] = {
    "no reader": (no_reader, 10, "cancelled"),
    "joined and left": (join_and_leave, 10, "cancelled"),
    "stayed there": (stay_there, 0, "active"),
    "returned in time": (return_in_time, 0, "active"),
    "replaced each other": (replace_each_other, 0, "active"),
    "died there": (die_there, 10, "cancelled"),
}
"""For each, the actions of readers, the seconds after which the run is cancelled, and its state then."""


@pytest.mark.parametrize("scene", SCENES)
async def test_readers_of_several_processes(hub: Hub, clock: FakeClock, scene: str) -> None:
    act, later, state = SCENES[scene]
    places = Places(clock, hub, Place(hub), Place(hub))
    source = Source()
    source.give("one")
    run = await places.here.runs.start("job", source, on_disconnect="cancel", grace=30)
    await act(places)
    assert run.info.active
    await advance(clock, later)
    assert run.info.state == state
    assert source.finished.is_set() == (state != "active")
    await places.here.close()
    await places.there.close()


async def test_busy_process_does_not_give_up_its_own_runs(hub: Hub, clock: FakeClock) -> None:
    """Its event loop was held so long that its signs of life are late."""
    runs = Runs(hub)
    source = Source()
    run = await runs.start("job", source)
    source.give("one")
    await settle()
    clock.advance(60)
    await (await runs._open())._end_lost_runs()  # as at its beat, if its own sign of life is not read yet
    assert run.info.active
    source.give("two", None)
    assert await read(run) == ["one", "two", "done"]
