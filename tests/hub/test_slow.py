"""Clients that read slowly: the policies, the memory they hold, and that they do not delay others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.hub import HubClient, gap_of, settle
from tickertape import ServerSentEvent
from tickertape.broker import Retention
from tickertape.errors import SlowConsumerError
from tickertape.hub import DirectOutput, Hub
from tickertape.testing import FakeClock, ScriptedBroker

WAYS = pytest.mark.parametrize("direct", [False, True], ids=["portable", "direct"])
STALLED_OUTPUT = 256 * 1024
"""Bytes that one connection may hold in its transport and its subscriber."""


@asynccontextmanager
async def small_hub(**options: Any) -> AsyncIterator[tuple[Hub, ScriptedBroker, FakeClock]]:
    """Open a hub of ten events in memory, on a log of twenty."""
    clock, broker = FakeClock(), ScriptedBroker(keep=options.pop("keep", 20))
    options.setdefault("retention", Retention(events=10))
    async with Hub(broker, clock=clock, random=lambda: 0.5, **options) as hub:
        yield hub, broker, clock


async def fill(hub: Hub, client: HubClient, size: int = 40_000, count: int = 8) -> None:
    """Stall a client: publish more than its buffers hold."""
    await settle()
    for _ in range(count):
        await hub.publish("fill", "x" * size)
        await settle(10)


def data_of(events: list[ServerSentEvent]) -> list[str]:
    return [event.data or "" for event in events if event.event is None and not (event.data or "").startswith("x")]


@WAYS
@pytest.mark.parametrize("policy", ["disconnect", "skip", "latest"])
async def test_policies(direct: bool, policy: str) -> None:
    async with small_hub() as (hub, _, _):
        client = HubClient(hub, "**", direct=direct, on_overflow=policy)
        await fill(hub, client)
        for number in range(40):
            await hub.publish(f"t/{number % 3}", str(number))
            await settle(5)
        events = await client.read_all()
        gaps = [gap_of(event) for event in events if event.event]
        reasons = hub.statistics().disconnects
        if policy == "disconnect":
            assert client.ended
            assert (gaps, data_of(events)) == ([], [])
            assert reasons == {"slow_consumer": 1}
            again = HubClient(hub, "**", direct=direct, last_event_id=client.last_event_id)
            events = await again.read_all()
            assert gap_of(events[0])["reason"] == "expired"
            assert data_of(events) == [str(number) for number in range(20, 40)]
            await again.close()
        else:
            assert [gap["reason"] for gap in gaps] == ["expired"]
            assert data_of(events) == ([] if policy == "skip" else ["37", "38", "39"])
            await hub.publish("t/0", "live")
            assert data_of(await client.read_all()) == ["live"]
            assert reasons == {}
        assert hub.statistics().gaps["reset"] == 0
        await client.close()


@WAYS
async def test_latest(direct: bool) -> None:
    """``latest`` sends the newest event of each topic, also if it is no longer in memory."""
    async with small_hub(keep=None) as (hub, _, _):
        client = HubClient(hub, "**", direct=direct, on_overflow="latest")
        await fill(hub, client)
        await hub.publish("rare", "the only one")
        for number in range(50):
            await hub.publish(f"t/{number % 3}", str(number))
            await settle(5)
        events = data_of(await client.read_all())
        assert events[0] == "the only one"
        assert events[-3:] == ["47", "48", "49"]
        assert events == sorted(events, key=lambda data: -1 if data == "the only one" else int(data))
        given = hub.statistics()
        assert given.delivered + given.superseded == given.published
        assert given.gaps == {"expired": 0, "reset": 0}
        await client.close()


@WAYS
async def test_nothing_lost_while_kept(direct: bool) -> None:
    async with small_hub(keep=None) as (hub, _, _):
        client = HubClient(hub, "**", direct=direct)
        await fill(hub, client)
        for number in range(500):
            await hub.publish("t", str(number))
        assert data_of(await client.read_all(turns=20)) == [str(number) for number in range(500)]
        await client.close()


@WAYS
async def test_wait_for_readers(direct: bool) -> None:
    async with small_hub(send_timeout=None, heartbeat=None) as (hub, _, clock):
        client = HubClient(hub, "**", direct=direct)
        await fill(hub, client)
        published: list[str] = []
        while await hub.wait_for_readers(0) and len(published) < 10:
            published.append(str(len(published)))
            await hub.publish("t", published[-1])
            await settle(5)
            clock.advance(1)
        assert 0 < len(published) < 10
        waiting = asyncio.create_task(hub.wait_for_readers(3.0))
        for _ in range(2):
            await settle()
            clock.advance(1)
        assert not waiting.done()
        received = await client.read_all()
        clock.advance(0.5)
        assert await waiting
        assert (data_of(received), [event for event in received if event.event]) == (published, [])
        assert hub.statistics().delayed == 2
        await client.close()


@WAYS
@pytest.mark.parametrize("case", ["skip", "latest", "resuming", "rule", "lost"])
async def test_readers_that_delay_no_publisher(direct: bool, case: str) -> None:
    retention = Retention(events=10, topics={"fill": Retention(events=20)}) if case == "rule" else Retention(events=10)
    async with small_hub(send_timeout=None, heartbeat=None, retention=retention) as (hub, _, clock):
        if case == "resuming":
            first = str(await hub.publish("t"))
            for _ in range(8):
                await hub.publish("fill", "x" * 40_000)
            await settle()
            client = HubClient(hub, "**", direct=direct, last_event_id=first)
            await settle()
        else:
            client = HubClient(
                hub, "**", direct=direct, on_overflow=case if case in ("skip", "latest") else "disconnect"
            )
            await fill(hub, client, count=16 if case == "lost" else 8)
        for _ in range(16 if case != "rule" else 6):
            assert await hub.wait_for_readers(0)
            await hub.publish("fill" if case == "rule" else "t")
            await settle(5)
            clock.advance(1)
        await client.close()


async def test_slow_iterator() -> None:
    async with small_hub() as (hub, _, _), hub.subscribe("t") as subscription:
        await hub.publish("t", "1")
        assert (await anext(subscription)).data == "1"
        for number in range(2, 40):
            await hub.publish("t", str(number))
            await settle(5)
        with pytest.raises(SlowConsumerError, match=f"cursor {hub.epoch}-1 are no longer kept"):
            await anext(subscription)
        with pytest.raises(StopAsyncIteration):
            await anext(subscription)
        assert hub.statistics().disconnects == {"slow_consumer": 1}


async def check_timeout(hub: Hub, clock: FakeClock) -> None:
    """Check that a client that makes progress now stays for 29 s, and is dropped a little after 30."""
    for seconds, left in ((1, 1), (28, 1), (5, 0)):
        clock.advance(seconds)
        await settle()
        assert hub.subscribers() == left, seconds


@WAYS
async def test_send_timeout(direct: bool) -> None:
    async with small_hub(send_timeout=30.0, keep=None) as (hub, _, clock):
        client = HubClient(hub, "**", direct=direct)
        await fill(hub, client)
        clock.advance(29)
        await settle()
        assert hub.subscribers() == 1
        client.read(20_000)  # some progress: the time starts over
        await settle()
        await check_timeout(hub, clock)
        await client.close()
        assert hub.statistics().disconnects == {"send_timeout": 1}


async def test_unread_response_before_stream() -> None:
    """A client that does not read the response before its stream is dropped."""
    async with small_hub(send_timeout=30.0, keep=None) as (hub, _, clock):
        client = HubClient(hub, "**", direct=True)
        assert client.transport is not None
        client.transport.write(b"x" * 200_000)  # a response on the same connection, of which the kernel accepted a part
        await settle()
        assert client.output is not None
        await check_timeout(hub, clock)
        await client.close()
        assert hub.statistics().disconnects == {"send_timeout": 1}


async def test_late_read_before_stream() -> None:
    """A client that reads the response before its stream late is served then."""
    async with small_hub(send_timeout=30.0, keep=None) as (hub, _, clock):
        client = HubClient(hub, "**", direct=True)
        assert client.transport is not None
        client.transport.write(b"x" * 200_000)
        await settle()
        await hub.publish("t", "later")
        clock.advance(29)
        await settle()
        before = 0
        while before < 200_000:
            client.transport.pump()
            before += len(client.transport.read(min(4096, 200_000 - before)))
        clock.advance(29)
        await settle()
        assert data_of(await client.read_all()) == ["later"]
        clock.advance(60)
        await settle()
        assert hub.subscribers() == 1
        await client.close()


async def test_slow_reader_is_kept() -> None:
    async with small_hub(send_timeout=30.0, keep=None) as (hub, _, clock):
        client = HubClient(hub, "**", direct=True)
        await fill(hub, client)
        for _ in range(12):
            clock.advance(20)
            client.read(10_000)
            await settle(3)
        assert hub.subscribers() == 1
        await client.close()


def held(subscriber: DirectOutput) -> int:
    """Return the bytes that a connection holds."""
    transport = subscriber._transport
    assert transport is not None
    return transport.get_write_buffer_size() + (len(subscriber._rest) if subscriber._rest else 0)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("policy", ["disconnect", "skip", "latest"])
@pytest.mark.parametrize("size", [200, 3000, 60_000, 200_000])
async def test_memory_of_stalled_connection(size: int, policy: str, lazy: bool) -> None:
    async with small_hub(retention=Retention(events=50), keep=None) as (hub, _, _):
        client = HubClient(hub, "**", direct=True, lazy=lazy, on_overflow=policy)
        await settle()
        greatest = 0
        for number in range(60):
            await hub.publish_many([hub.draft(f"t/{number}/{i}", "x" * size) for i in range(10)])
            await settle(5)
            if number % 7 == 0:
                client.read(5000)
            assert client.output is not None
            greatest = max(greatest, held(client.output))
        assert 0 < greatest <= STALLED_OUTPUT
        await client.close()


async def test_memory_of_portable_stream() -> None:
    async with small_hub(retention=Retention(events=50), keep=None) as (hub, _, _):
        client = HubClient(hub, "**")
        for _ in range(60):
            await hub.publish_many([hub.draft("t", "x" * 3000) for _ in range(10)])
            await settle(5)
        assert client._unread <= STALLED_OUTPUT
        await client.close()


async def test_stalled_clients_share_bytes() -> None:
    """A stalled client does not delay others, and many stalled clients share their bytes."""
    async with small_hub(retention=Retention(events=1000), keep=None) as (hub, _, _):
        stalled = [HubClient(hub, "**", direct=True) for _ in range(200)]
        quick = HubClient(hub, "**", direct=True)
        await settle()
        sent = []
        for number in range(60):
            sent.append(f"{number}:" + "y" * 5000)
            await hub.publish("t", sent[-1])
            await settle()
            assert quick.read()[-1].data == sent[-1], "a stalled client delays the others"
        subscribers = [client.output for client in stalled if client.output is not None]
        assert len(subscribers) == len(stalled)
        assert sum(held(subscriber) for subscriber in subscribers) <= len(stalled) * 64 * 1024
        for client in stalled:
            assert data_of(await client.read_all(turns=2)) == sent
        for client in (*stalled, quick):
            await client.close()
