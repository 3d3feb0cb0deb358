"""A hub that opens itself, and the bytes of a stream for frameworks with their own response."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from support.hub import settle
from tickertape import Decoder, Hub, ServerSentEvent
from tickertape.errors import BrokerError, HubClosedError
from tickertape.hub import HubEvent
from tickertape.testing import FakeClock, ScriptedBroker
from tickertape.wire import HEARTBEAT


async def take(stream: AsyncGenerator[bytes], count: int) -> list[ServerSentEvent]:
    """Read until there are ``count`` events with data."""
    decoder = Decoder()
    events: list[ServerSentEvent] = []
    while len(events) < count:
        events += decoder.feed(await anext(stream))
    return events


async def test_first_use_opens() -> None:
    broker = ScriptedBroker()
    hub = Hub(broker)
    assert hub.subscribers() == 0
    await asyncio.gather(*(hub.publish("t", f"{number}") for number in range(5)))
    assert broker.calls["open"] == 1
    async with hub.subscribe("t", last=1) as subscription:
        event = await anext(subscription)
        assert isinstance(event, HubEvent)
    await hub.close()


async def test_opening_that_fails_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    hub = Hub(f"sqlite:///{folder}/log.db")
    with pytest.raises(BrokerError):
        await hub.publish("t")
    folder.mkdir()
    assert (await hub.publish("t")).offset == 1
    await hub.close()


async def test_lifespan_after_first_use() -> None:
    """A lifespan closes the hub, also if it was in use before."""
    hub = Hub()
    cursor = await hub.publish("t")
    async with hub.lifespan():
        assert (await hub.publish("t")).epoch == cursor.epoch
    with pytest.raises(HubClosedError, match="hub is closed"):
        await hub.publish("t")


def test_each_event_loop_has_an_open_hub(tmp_path: Path) -> None:
    hub = Hub(f"sqlite:///{tmp_path}/log.db")

    async def publish() -> int:
        return (await hub.publish("t")).offset

    assert [asyncio.run(publish()) for _ in range(3)] == [1, 2, 3]


async def test_another_loop_at_the_same_time() -> None:
    hub = Hub()
    await hub.publish("t")
    with pytest.raises(HubClosedError, match="another event loop: from other threads, use publish_sync"):
        await asyncio.to_thread(asyncio.run, hub.publish("t"))
    await hub.close()


async def test_it_closes_with_its_streams() -> None:
    broker = ScriptedBroker()
    clock = FakeClock()
    hub = Hub(broker, clock=clock)
    stream = hub.stream("t")
    await anext(stream)
    hub.drain()
    assert b"".join([chunk async for chunk in stream]).startswith(b"retry: ")
    clock.advance(1.0)
    await settle()
    assert "closed" in repr(hub)
    with pytest.raises(BrokerError):
        await broker.state()


async def test_stream() -> None:
    hub = Hub()
    await hub.publish("t", "before")
    stream = hub.stream("t", last=1)
    opening = await anext(stream)
    assert opening.startswith(b"id: ")
    assert b"retry: " in opening
    assert [event.data for event in await take(stream, 1)] == ["before"]
    reading = asyncio.create_task(take(stream, 2))
    await settle()
    assert hub.subscribers("t") == 1
    await hub.publish("t", "one")
    cursor = await hub.publish("t", "two")
    assert [event.data for event in await reading] == ["one", "two"]
    await stream.aclose()
    assert hub.subscribers("t") == 0
    assert hub.statistics().disconnects == {"client_closed": 1}
    await hub.publish("t", "three")
    resumed = hub.stream("t", request={"headers": [(b"last-event-id", str(cursor).encode())]})
    assert [event.data for event in await take(resumed, 1)] == ["three"]
    await resumed.aclose()
    await hub.close()


async def test_stream_while_nothing_happens() -> None:
    clock = FakeClock()
    async with Hub(clock=clock, heartbeat=10.0) as hub:
        stream = hub.stream("t")
        await anext(stream)
        for _ in range(3):
            reading = asyncio.create_task(anext(stream))
            await settle()
            clock.advance(5.0)
            await settle()
            assert not reading.done()
            clock.advance(6.0)
            assert await reading == HEARTBEAT
        await stream.aclose()


async def test_stream_with_a_gap() -> None:
    broker = ScriptedBroker()
    async with Hub(broker) as hub:
        stream = hub.stream("t")
        await anext(stream)
        await hub.publish("t", "x")
        broker.reset()
        broker.trim(keep=0)
        await settle()
        rest = b"".join([chunk async for chunk in until_gap(stream)])
        assert b"stream:gap" in rest


async def until_gap(stream: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async for chunk in stream:
        yield chunk
        if b"stream:gap" in chunk:
            await stream.aclose()


async def test_stream_ends_when_its_server_stops() -> None:
    """The listening socket is the only sign of a server without scopes."""
    hub = Hub()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = hub.stream("t", request={"server": listener.getsockname()})
        await anext(stream)
    async with asyncio.timeout(5):
        assert [chunk[:7] async for chunk in stream] == [b"retry: "]
    await hub.close()


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{folder}/log.db"])
async def test_closing_stores_events_published_soon(url: str, tmp_path: Path) -> None:
    async with Hub(url.format(folder=tmp_path)) as hub:
        tasks = [hub.publish_soon("t", f"{number}") for number in range(10)]
    assert [(await task).offset for task in tasks] == list(range(1, 11))
