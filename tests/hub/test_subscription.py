"""``PullOutput``: its items, and readers that are too slow."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.asgi import settle
from tickertape import ServerSentEvent
from tickertape.broker import Retention
from tickertape.errors import BrokerError, SlowConsumerError
from tickertape.hub import Hub, HubEvent, Overflow, PullOutput
from tickertape.testing import FakeClock, ScriptedBroker


class SmallHub:
    """A hub whose window holds five events, and whose log keeps ten."""

    def __init__(self) -> None:
        self.broker = ScriptedBroker(keep=10)
        self.hub = Hub(self.broker, clock=FakeClock(), retention=Retention(events=5))
        self.number = 0

    async def publish(self, count: int, topic: str = "t") -> None:
        for _ in range(count):
            self.number += 1
            await self.hub.publish(topic, self.number)
            await settle()


async def take(subscription: PullOutput, count: int) -> list[Any]:
    """Return the data of the next events, and for a gap its reason, after and resumed offset."""
    async with asyncio.timeout(5):
        events = [await anext(subscription) for _ in range(count)]
    return [values_of(event) for event in events]


def values_of(event: ServerSentEvent) -> Any:
    if event.event != "stream:gap":
        return int(event.data or "0")
    gap = event.json()
    assert event.id == gap["resumed"]
    return gap["reason"], *(int(gap[name].rpartition("-")[2]) for name in ("after", "resumed"))


async def test_topic_and_cursor() -> None:
    small = SmallHub()
    async with small.hub as hub, hub.subscribe("a/*") as subscription:
        cursor = await hub.publish("a/b", {"x": 1}, event="tick")
        event = await anext(subscription)
        assert isinstance(event, HubEvent)
        assert (event.topic, event.event, event.id, event.json()) == ("a/b", "tick", str(cursor), {"x": 1})
        assert (event.retry, event.comment) == (None, None)
        assert event.encode() == f'id: {cursor}\nevent: tick\ndata: {{"x":1}}\n\n'.encode()
        with pytest.raises(AttributeError):
            event.topic = "other"


async def test_gap_is_an_item() -> None:
    small = SmallHub()
    async with small.hub as hub, hub.subscribe("t", last_event_id="elsewhere-1") as subscription:
        gap = await anext(subscription)
        assert not isinstance(gap, HubEvent)
        assert gap.json()["after"] == "elsewhere-1"
        await small.publish(1)
        assert await take(subscription, 1) == [1]


@pytest.mark.parametrize(
    ("policy", "behind", "expected"),
    [
        ("disconnect", 5, [2, 3, 4, 5, 6]),  # all in the window
        ("disconnect", 10, list(range(2, 12))),  # all in the log
        ("skip", 10, list(range(2, 12))),
        ("skip", 11, [("expired", 1, 12)]),  # and then live
        ("skip", 30, [("expired", 1, 31)]),
        ("latest", 3, [4]),
        ("latest", 10, [11]),
        ("latest", 30, [("expired", 1, 21), 31]),
    ],
)
async def test_nothing_lost_while_kept(policy: Overflow, behind: int, expected: list[Any]) -> None:
    small = SmallHub()
    async with small.hub as hub, hub.subscribe("t", on_overflow=policy) as subscription:
        waiting = asyncio.ensure_future(take(subscription, 1))
        await settle()
        await small.publish(1)
        assert await waiting == [1]
        waiting = asyncio.ensure_future(take(subscription, 1))  # it has caught up, and waits
        await settle()
        waiting.cancel()
        await small.publish(behind)
        assert await take(subscription, len(expected)) == expected
        await small.publish(1)
        assert await take(subscription, 1) == [behind + 2]


async def test_slow_consumer() -> None:
    small = SmallHub()
    async with small.hub as hub, hub.subscribe("t") as subscription:
        waiting = asyncio.ensure_future(take(subscription, 1))
        await settle()
        await small.publish(1)
        assert await waiting == [1]
        waiting = asyncio.ensure_future(take(subscription, 1))
        await settle()
        waiting.cancel()
        await small.publish(11)
        epoch = (await hub.check()).epoch
        with pytest.raises(SlowConsumerError) as error:
            await take(subscription, 1)
        assert error.value.cursor == f"{epoch}-1"
        assert (
            str(error.value) == f"the subscriber read too slowly: events after its cursor {epoch}-1 are no longer kept"
        )
        assert subscription.reason == "slow_consumer"
        assert [event async for event in subscription] == []  # ended is ended
        assert hub.statistics().disconnects == {"slow_consumer": 1}
        async with hub.subscribe("t", last_event_id=error.value.cursor) as again:
            assert await take(again, 11) == [("expired", 1, 2), *range(3, 13)]


async def test_latest() -> None:
    small = SmallHub()
    async with small.hub as hub, hub.subscribe("**", on_overflow="latest", last=0) as subscription:
        waiting = asyncio.ensure_future(take(subscription, 1))
        await settle()
        await small.publish(1, "a")
        assert await waiting == [1]
        waiting = asyncio.ensure_future(take(subscription, 1))
        await settle()
        waiting.cancel()
        for topic in "abab":
            await small.publish(1, topic)
        assert await take(subscription, 2) == [4, 5]
        assert hub.statistics().superseded == 2


async def test_close_while_waiting() -> None:
    small = SmallHub()
    async with small.hub as hub, hub.subscribe("t") as subscription:
        waiting = asyncio.ensure_future(anext(subscription, "ended"))
        await settle()
        subscription.close()
        async with asyncio.timeout(5):
            assert await waiting == "ended"
        assert "client_closed" in repr(subscription)


async def test_cancelled_wait() -> None:
    small = SmallHub()
    async with small.hub as hub, hub.subscribe("t") as subscription:
        for number in range(1, 4):
            waiting = asyncio.ensure_future(take(subscription, 1))
            await settle()
            waiting.cancel()
            await small.publish(1)
            assert await take(subscription, 1) == [number]
        assert hub.statistics().delivered == 3


async def test_failed_read_is_repeated() -> None:
    small = SmallHub()
    async with small.hub as hub:
        await small.publish(8)
        epoch = (await hub.check()).epoch
        async with hub.subscribe("t", last_event_id=f"{epoch}-1") as subscription:
            small.broker.fail("read")
            with pytest.raises(BrokerError):
                await take(subscription, 1)
            small.broker.recover()
            assert await take(subscription, 7) == [2, 3, 4, 5, 6, 7, 8]


async def test_close_during_read() -> None:
    small = SmallHub()
    async with small.hub as hub:
        await small.publish(8)
        epoch = (await hub.check()).epoch
        async with hub.subscribe("t", last_event_id=f"{epoch}-1") as subscription:
            small.broker.hold("read")
            waiting = asyncio.ensure_future(anext(subscription, "ended"))
            await settle()
            subscription.close()
            small.broker.release()
            assert await waiting == "ended"
