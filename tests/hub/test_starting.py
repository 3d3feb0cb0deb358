"""The start of a subscription, for all that a client may send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.asgi import settle
from tickertape.broker import Retention
from tickertape.errors import BrokerError
from tickertape.hub import Hub, HubEvent
from tickertape.hub.log import Start
from tickertape.testing import FakeClock, ScriptedBroker
from tickertape.wire import Cursor, Draft, Gap


class World:
    """A log of twenty events, ``a`` and ``b`` in turn, whose newest five a hub holds in its window.

    The log keeps the newest fifteen: offsets 6 to 20, of which 16 to 20 are in the window.
    """

    def __init__(self, hub: Hub, broker: ScriptedBroker, epoch: str) -> None:
        self.hub = hub
        self.broker = broker
        self.epoch = epoch

    async def start(self, *patterns: str, last_event_id: str | None = None, last: int | None = None) -> Start:
        text = None if last_event_id is None else last_event_id.format(epoch=self.epoch)
        return await self.hub.find_start(tuple(sorted(patterns)), text, last)


@asynccontextmanager
async def world_of(broker: ScriptedBroker) -> AsyncIterator[World]:
    async with Hub(broker, clock=FakeClock(), retention=Retention(events=5)) as hub:
        await hub.publish_many([hub.draft("ba"[number % 2], number) for number in range(1, 21)])
        await settle()
        broker.trim(keep=15)
        yield World(hub, broker, (await broker.open()).epoch)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with world_of(ScriptedBroker()) as world:
        yield world


async def test_start_now(world: World) -> None:
    assert await world.start("**") == Start(20)


# The last events


@pytest.mark.parametrize(
    ("patterns", "last", "start"),
    [
        (["**"], 0, 20),
        (["**"], 1, 19),
        (["**"], 5, 15),  # all of the window
        (["**"], 6, 14),  # one more than the window
        (["**"], 15, 5),  # all kept records
        (["**"], 16, 5),  # more than the log keeps
        (["**"], 1_000_000, 5),
        (["a"], 1, 18),
        (["a"], 2, 16),
        (["a"], 3, 14),
        (["b"], 3, 15),
        (["b"], 4, 13),
        (["a"], 100, 6),
        (["a", "b"], 7, 13),
        (["none"], 3, 20),
    ],
)
async def test_last_events(world: World, patterns: list[str], last: int, start: int) -> None:
    assert await world.start(*patterns, last=last) == Start(start)


async def test_log_is_read_if_window_is_too_short(world: World) -> None:
    before = world.broker.calls["read"]
    await world.start("**", last=5)
    await world.start("a", last=2)
    assert world.broker.calls["read"] == before
    await world.start("a", last=3)
    assert world.broker.calls["read"] == before + 1


async def test_oldest_match_in_window(world: World) -> None:
    """If the log has no older match, the start is the oldest match in the window."""
    await world.hub.publish("rare", "x")
    await settle()
    assert await world.start("rare", last=5) == Start(20)


async def test_many_pages() -> None:
    broker = ScriptedBroker()
    async with Hub(broker, clock=FakeClock(), retention=Retention(events=5)) as hub:
        await broker.append([Draft("ab"[number % 2], "x") for number in range(2500)])
        await settle()
        world = World(hub, broker, "")
        assert (await world.start("**", last=2400)).cursor == 100
        assert (await world.start("a", last=1200)).cursor == 100  # fifty of them are older
        assert (await world.start("**", last=20_000)).cursor == 0


async def test_last_is_limited() -> None:
    broker = ScriptedBroker()
    async with Hub(broker, clock=FakeClock()) as hub:
        await broker.append([Draft("a", "x")] * 10_100)
        await settle(turns=200)
        world = World(hub, broker, "")
        assert (await world.start("**", last=1_000_000)).cursor == 100


async def test_failing_log(world: World) -> None:
    world.broker.fail("read")
    with pytest.raises(BrokerError):
        await world.start("**", last=10)
    assert await world.start("**", last=5) == Start(15)  # from memory


# A cursor


@pytest.mark.parametrize("offset", [20, 19, 15, 14, 5, 4, 0])
@pytest.mark.parametrize("last", [None, 3])
async def test_cursor_of_this_log(world: World, offset: int, last: int | None) -> None:
    # An expired cursor is found out by the read: more records may be trimmed until then.
    before = world.broker.calls.copy()
    assert await world.start("a", last_event_id=f"{{epoch}}-{offset}", last=last) == Start(offset)
    assert world.broker.calls == before


GARBAGE = [
    "",
    " ",
    "nonsense",
    "{epoch}",
    "{epoch}-",
    "{epoch}--1",
    "{epoch}-x",
    "{epoch}-1 ",
    " {epoch}-1",
    "{epoch}-01",
    "{epoch}-1.0",
    "{epoch}-1\n",
    "{epoch}-٣",
    "{epoch}-" + "9" * 30,
    "-1",
    "1",
    "ü-1",
    "\ud800",
    "x" * 10_000,
]


@pytest.mark.parametrize("text", [*GARBAGE, "other-3", "other-0", "{epoch}-21", "{epoch}-999999999999999999"])
async def test_foreign_cursor(world: World, text: str) -> None:
    """An id that is not a cursor of this log is a reset, and starts before the oldest event."""
    start = await world.start("a", last_event_id=text)
    assert start.cursor == 5
    assert start.gap == Gap.create("reset", text.format(epoch=world.epoch), Cursor(world.epoch, 5))
    assert world.hub.statistics().gaps == {"reset": 1, "expired": 0}


async def test_cursor_ahead_of_hub(world: World) -> None:
    # Another hub on the same log was faster: the client comes from there.
    world.broker.hold("tail")
    publishing = [await world.broker.append([Draft("a", "x")]) for _ in range(3)]
    await settle()
    assert await world.start("**", last_event_id="{epoch}-22") == Start(22)
    async with world.hub.subscribe("**", last_event_id=str(publishing[1][0])) as subscription:
        waiting = asyncio.ensure_future(anext(subscription))
        await settle()
        assert not waiting.done()
        world.broker.release()
        async with asyncio.timeout(5):
            assert (await waiting).id == str(publishing[2][0])
    assert world.hub.statistics().gaps == {"reset": 0, "expired": 0}


async def test_state_fails(world: World) -> None:
    world.broker.fail("state")
    with pytest.raises(BrokerError):
        await world.start("**", last_event_id="other-3")
    assert await world.start("**", last_event_id="{epoch}-3") == Start(3)


# A log that is replaced during the search


@pytest.mark.parametrize("options", [{"last_event_id": "nonsense"}, {"last": 10}])
async def test_log_replaced_during_start(world: World, options: dict[str, Any]) -> None:
    world.broker.hold("state", "read")

    async def first_event() -> HubEvent:
        """The first event of the new log. Events of the old one that are still in memory may come before."""
        async with world.hub.subscribe("a", **options) as subscription:
            async for event in subscription:
                if isinstance(event, HubEvent) and str(event.id).startswith(new.epoch):
                    return event
        raise AssertionError("the subscription ended")

    starting = asyncio.ensure_future(first_event())
    await settle()
    world.broker.reset()
    world.broker.release()
    new = (await world.broker.append([Draft("a", "new")]))[0]
    async with asyncio.timeout(5):
        event = await starting
    assert (event.id, event.data) == (str(new), "new")
    assert new.epoch != world.epoch


# The events that follow


@pytest.mark.parametrize(
    ("text", "gap", "data"),
    [
        ("{epoch}-17", None, ["18", "19", "20"]),
        ("{epoch}-12", None, [str(number) for number in range(13, 21)]),
        ("{epoch}-5", None, [str(number) for number in range(6, 21)]),
        ("{epoch}-4", "expired", [str(number) for number in range(6, 21)]),
        ("{epoch}-0", "expired", [str(number) for number in range(6, 21)]),
        ("{epoch}-99", "reset", [str(number) for number in range(6, 21)]),
        ("other-17", "reset", [str(number) for number in range(6, 21)]),
    ],
)
async def test_kept_then_live(world: World, text: str, gap: str | None, data: list[str]) -> None:
    sent = text.format(epoch=world.epoch)
    async with world.hub.subscribe("**", last_event_id=sent) as subscription, asyncio.timeout(5):
        if gap is not None:
            notice = await anext(subscription)
            assert notice.event == "stream:gap"
            assert notice.json() == {"reason": gap, "after": sent, "resumed": f"{world.epoch}-5"}
            assert notice.id == f"{world.epoch}-5"
        await world.hub.publish("b", "live")
        assert [(await anext(subscription)).data for _ in range(len(data) + 1)] == [*data, "live"]
