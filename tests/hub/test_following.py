"""``Follower``: the log is followed, whatever happens to it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.asgi import settle
from tickertape.broker import Draft, Retention
from tickertape.errors import BrokerError
from tickertape.hub import Hub, Subscription
from tickertape.testing import FakeClock, ScriptedBroker


class World:
    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.broker = ScriptedBroker()
        self.hub = Hub(self.broker, clock=self.clock, random=lambda: 0.0, **options)

    async def publish(self, *data: Any) -> None:
        await self.broker.append([Draft("t", str(one)) for one in data])
        await settle()

    async def pass_time(self, seconds: float) -> None:
        await settle()
        self.clock.advance(seconds)
        await settle()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    async with world.hub:
        await settle()
        yield world


async def take(subscription: Subscription, count: int) -> list[Any]:
    """The next events: the data, or of a gap its reason and where it goes on."""
    async with asyncio.timeout(5):
        events = [await anext(subscription) for _ in range(count)]
    return [
        (event.json()["reason"], event.json()["after"], event.id) if event.event == "stream:gap" else event.data
        for event in events
    ]


# Opening


@pytest.mark.parametrize(("kept", "held"), [(0, 0), (5, 5), (2500, 2500), (12_000, 10_000)])
async def test_a_hub_opens_with_the_last_records_of_its_log(kept: int, held: int) -> None:
    world = World()
    await world.broker.append([Draft("t", str(number)) for number in range(kept)])
    async with world.hub:
        assert world.hub.statistics().window_events == held
        async with world.hub.subscribe("t", last=1) as subscription:
            await world.publish("live")
            assert await take(subscription, 1 + bool(kept)) == [*([str(kept - 1)] if kept else []), "live"]


async def test_the_window_holds_no_more_than_it_may() -> None:
    world = World(retention=Retention(events=7))
    await world.broker.append([Draft("t", str(number)) for number in range(50)])
    async with world.hub:
        assert world.hub.statistics().window_events == 7


# A log that is lost and comes back


async def test_a_tail_that_fails_is_begun_again_and_nothing_is_lost(world: World) -> None:
    async with world.hub.subscribe("t") as subscription:
        await world.publish("before")
        world.broker.fail("tail")
        await settle()
        await world.publish("meanwhile")
        world.broker.recover()
        await settle()
        assert world.hub.statistics().window_events == 1  # not before its time
        await world.pass_time(0.6)
        await world.publish("after")
        assert await take(subscription, 3) == ["before", "meanwhile", "after"]
    assert world.hub.statistics().gaps == {"expired": 0, "reset": 0}


async def test_check_says_whether_the_log_is_followed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    assert (await world.hub.check()).newest == 0
    world.broker.fail("tail")
    await settle()
    with pytest.raises(BrokerError, match="expected a hub that follows its log, got one that is connecting"):
        await world.hub.check()
    assert "lost the log: expected a log, got a scripted failure" in caplog.text
    assert "Traceback" not in caplog.text  # a lost log is no defect of the program
    world.broker.recover()
    await world.pass_time(0.6)
    assert (await world.hub.check()).newest == 0


async def test_what_is_no_failure_of_the_log_is_logged_with_its_traceback(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.broker.fail("tail", error=ZeroDivisionError("boom"))
    await settle()
    assert "Traceback" in caplog.text
    world.broker.recover()
    await world.pass_time(0.6)
    await world.hub.check()


async def test_a_lost_log_is_asked_for_less_and_less_often(world: World) -> None:
    world.broker.fail("tail", "open")
    await settle()
    moments = []
    before = world.broker.calls["open"]
    for quarter in range(4 * 60):
        await world.pass_time(0.25)
        if world.broker.calls["open"] > before:
            before = world.broker.calls["open"]
            moments.append(quarter / 4)
    pauses = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 1.0
    assert 8.0 <= pauses[-1] <= 8.5
    world.broker.recover()
    await world.pass_time(9)
    await world.hub.check()


async def test_a_tail_that_ends_is_a_log_that_is_lost() -> None:
    class Ending(ScriptedBroker):
        async def tail(self, after: int) -> AsyncIterator[Any]:
            self.calls["tail"] += 1
            for record in await self.read(after, 100):
                yield [record]

    broker = Ending()
    clock = FakeClock()
    async with Hub(broker, clock=clock) as hub:
        await settle()
        with pytest.raises(BrokerError, match="connecting to it again"):
            await hub.check()
        await broker.append([Draft("t", "x")])
        clock.advance(1)
        await settle()
        assert hub.statistics().window_events == 1


# A log that went on without the hub


async def test_another_log_is_a_gap_for_everyone(world: World) -> None:
    epoch = (await world.broker.open()).epoch
    async with world.hub.subscribe("t") as waiting, world.hub.subscribe("t", last_event_id=f"{epoch}-0") as behind:
        await world.publish("old", "too")
        assert await take(waiting, 2) == ["old", "too"]
        assert await take(behind, 1) == ["old"]
        world.broker.reset()
        await world.publish("new")
        await world.pass_time(1)
        new = (await world.broker.open()).epoch
        assert await take(waiting, 2) == [("reset", f"{epoch}-2", f"{new}-0"), "new"]
        await world.publish("live")
        # What was given to it before stays given.
        assert await take(behind, 4) == ["too", ("reset", f"{epoch}-2", f"{new}-0"), "new", "live"]
        assert await take(waiting, 1) == ["live"]
    assert world.hub.statistics().gaps == {"expired": 0, "reset": 2}
    assert await world.hub.check() == (new, 1, 2)


async def test_records_lost_under_the_same_epoch_are_a_gap_for_those_who_had_them(world: World) -> None:
    epoch = (await world.broker.open()).epoch
    async with world.hub.subscribe("t") as ahead, world.hub.subscribe("other") as quiet:
        await world.publish(1, 2, 3)
        assert await take(ahead, 3) == ["1", "2", "3"]
        world.broker.lose(2)
        await world.pass_time(1)
        assert await take(ahead, 2) == [("reset", f"{epoch}-3", f"{epoch}-0"), "1"]
        await world.broker.append([Draft("other", "x"), Draft("t", "y")])
        assert await take(ahead, 1) == ["y"]
        assert await take(quiet, 1) == ["x"]  # its place was before what was lost


async def test_records_trimmed_before_the_hub_saw_them_are_a_gap(world: World) -> None:
    epoch = (await world.broker.open()).epoch
    async with world.hub.subscribe("t", on_overflow="skip") as subscription:
        await world.publish("seen")
        assert await take(subscription, 1) == ["seen"]
        world.broker.hold("tail")
        await world.publish(*range(10))
        world.broker.trim(keep=3)
        world.broker.release()
        await world.pass_time(1)
        # Records that the hub never had in its window, and can have no more.
        [gap] = await take(subscription, 1)
        assert gap[:2] == ("expired", f"{epoch}-1")
        await world.publish("live")
        assert (await take(subscription, 1))[0] in ("live", "7")
    assert world.hub.statistics().gaps == {"expired": 1, "reset": 0}


async def test_closing_ends_the_following_also_while_the_log_is_lost() -> None:
    world = World()
    async with world.hub:
        world.broker.fail("tail", "open")
        await settle()
    async with asyncio.timeout(5):
        await world.hub.close()
    assert world.broker.calls["tail"] <= 1
