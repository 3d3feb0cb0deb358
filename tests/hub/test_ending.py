"""Heartbeats, the drain and the end of a hub."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from support.hub import HubClient, settle
from tickertape.asgi.shutdown import open_streams
from tickertape.errors import HubClosedError
from tickertape.hub import Hub, OverflowPolicy
from tickertape.hub.log import Start
from tickertape.testing import FakeClock

WAYS = pytest.mark.parametrize("direct", [False, True], ids=["portable", "direct"])


@asynccontextmanager
async def hub_of(**options: Any) -> AsyncIterator[tuple[Hub, FakeClock]]:
    clock = FakeClock()
    async with Hub(clock=clock, random=random.Random(1).random, **options) as hub:
        yield hub, clock


def comments(client: HubClient) -> int:
    client.read()
    return sum(event.comment == "heartbeat" for event in client.events)


@WAYS
async def test_heartbeat_after_silence(direct: bool) -> None:
    async with hub_of(heartbeat=15.0) as (hub, clock):
        silent, busy = HubClient(hub, "silent", direct=direct), HubClient(hub, "busy", direct=direct)
        await settle()
        for _ in range(60):
            await hub.publish("busy", "x")
            clock.advance(1)
            await settle()
            busy.read()
            silent.read()
        assert comments(busy) == 0
        assert comments(silent) in (3, 4)
        for client in (silent, busy):
            await client.close()


async def test_no_heartbeat() -> None:
    async with hub_of(heartbeat=None) as (hub, clock):
        clients = [HubClient(hub, "t", direct=direct) for direct in (False, True)]
        await settle()
        clock.advance(100)
        await settle()
        for client in clients:
            assert comments(client) == 0
            await client.close()


async def test_heartbeats_are_spread() -> None:
    """Streams that become silent together get their heartbeats spread over time."""
    async with hub_of(heartbeat=15.0) as (hub, clock):
        clients = [HubClient(hub, "t", direct=True) for _ in range(120)]
        await settle()
        await hub.publish("t", "all are silent from now on")
        await settle()
        at: Counter[float] = Counter()
        start = clock.time()
        for _ in range(80):
            clock.advance(0.25)
            for client in clients:
                if any(event.comment is not None for event in client.read()):
                    at[clock.time() - start] += 1
        assert sum(at.values()) == len(clients)
        assert max(at.values()) <= 12
        assert 15 <= min(at) <= max(at) <= 19
        for client in clients:
            await client.close()


async def test_heartbeat_beside_busy_topic() -> None:
    """Silent topics get heartbeats although another topic is busy all the time."""
    async with hub_of(heartbeat=15.0) as (hub, clock):
        hub.delivery.stride, hub.delivery.turn = 1, 0.0
        busy = [HubClient(hub, "busy", direct=True) for _ in range(20)]
        silent = HubClient(hub, "silent", direct=True)
        await settle()
        for _ in range(40):
            await hub.publish("busy", "x")
            for _ in range(10):
                if not hub.delivery._served:  # the fan-out has not begun
                    await asyncio.sleep(0)
            assert hub.delivery._served
            clock.advance(0.5)
            await settle(30)
            for client in busy:
                client.read()
        assert comments(silent) == 1
        for client in (*busy, silent):
            await client.close()


async def test_failed_heartbeat(caplog: pytest.LogCaptureFixture) -> None:
    async with hub_of(heartbeat=15.0) as (hub, clock):
        clients = [HubClient(hub, f"t/{number}", direct=True) for number in range(5)]
        await settle()
        clients[0].leave(noticed=False)
        for _ in range(80):
            clock.advance(0.25)
            await settle(2)
        assert hub.subscribers() == 4
        assert [comments(client) for client in clients[1:]] == [1, 1, 1, 1]
        assert not caplog.records
        for client in clients:
            await client.close()


async def test_no_heartbeat_within_chunk() -> None:
    async with hub_of(heartbeat=0.25, send_timeout=None) as (hub, clock):
        client = HubClient(hub, "t", direct=True)
        await settle()
        for number in range(200):
            await hub.publish("t", f"{number}:" + "x" * 9000)
            clock.advance(0.25)
            await settle(2)
            client.read(3000)  # the chunks' syntax is checked as they are read
        events = await client.read_all()
        assert [int((event.data or "").split(":")[0]) for event in client.events if event.comment is None] == list(
            range(200)
        )
        assert events
        await client.close()


@pytest.mark.parametrize(
    ("streams", "window", "seconds"),
    [(0, 5.0, 0.0), (1, 5.0, 0.0), (2, 5.0, 0.002), (501, 5.0, 1.0), (4000, 5.0, 5.0), (4000, 1.0, 1.0), (9, 0.0, 0.0)],
)
async def test_drain_in_proportion(streams: int, window: float, seconds: float) -> None:
    """Many streams end evenly over the drain window; few take less time, and a single one ends at once."""
    async with hub_of(drain_window=window) as (hub, clock):
        for _ in range(streams):
            hub.subscribe_at(Start(0), ("t",), OverflowPolicy.DISCONNECT, None)
        assert hub.drain() == pytest.approx(seconds)
        if not seconds:
            assert hub.subscribers() == 0
        left = [hub.subscribers()]
        for _ in range(int(seconds / 0.25) + 1):
            clock.advance(0.25)
            left.append(hub.subscribers())
        assert left[-1] == 0
        ended = [before - after for before, after in pairwise(left)]
        assert max(ended) <= max(10, 2 * streams * 0.25 / max(seconds, 0.25))


@pytest.mark.parametrize(("within", "seconds"), [(None, 5.0), (1.5, 1.5), (60.0, 5.0)])
async def test_drain_within(within: float | None, seconds: float) -> None:
    """The server may grant less time than the drain window."""
    async with hub_of(drain_window=5.0) as (hub, clock):
        for _ in range(4000):
            hub.subscribe_at(Start(0), ("t",), OverflowPolicy.DISCONNECT, None)
        assert hub.drain(within) == pytest.approx(seconds)
        clock.advance(seconds + 0.25)
        assert hub.subscribers() == 0


@WAYS
async def test_drain_refuses_new_streams(direct: bool) -> None:
    async with hub_of(drain_window=5.0, retry=3.0) as (hub, clock):
        clients = [HubClient(hub, "t", direct=direct) for _ in range(100)]
        await settle()
        await hub.publish("t", "last")
        assert hub.drain() == pytest.approx(0.198)
        assert hub.drain() == pytest.approx(0.198)
        await settle()
        assert hub.subscribers() == 100
        clock.advance(0.5)
        await settle()
        for client in clients:
            client.read()
        assert all(client.ended for client in clients)
        retries = set()
        for client in clients:
            assert client.complete
            assert [event.data for event in client.events] == ["last"]
            last_block = client.body.rsplit(b"\n\n", 2)[1]
            assert last_block.startswith(b"retry: ")
            retries.add(int(last_block[7:]))
        assert len(retries) > 20
        assert 2400 <= min(retries) <= max(retries) <= 3600
        late = HubClient(hub, "t", direct=direct)
        await asyncio.wait([late.task])
        late.read()
        assert late.status == 503
        assert late.headers["content-type"] == "application/problem+json"
        assert int(late.headers["retry-after"]) > 0
        with pytest.raises(HubClosedError):
            async with hub.subscribe("t"):
                pass
        await hub.publish("t", "requests under way may publish")
        assert hub.statistics().disconnects == {"draining": 100}
        for client in (*clients, late):
            await client.close()


async def test_drain_drops_stalled_client() -> None:
    async with hub_of(drain_window=1.0) as (hub, clock):
        client = HubClient(hub, "t", direct=True)
        await settle()
        for _ in range(10):
            await hub.publish("t", "x" * 50_000)
            await settle()
        hub.drain()
        clock.advance(2)
        await settle()
        assert client.ended
        assert not client.complete
        await client.close()


async def test_unread_last_block() -> None:
    """A last block that the peer does not read does not delay the stop."""
    async with hub_of(drain_window=1.0) as (hub, clock):
        client = HubClient(hub, "t", direct=True)
        await settle()
        assert client.transport is not None
        ours = client.transport.get_extra_info("socket")
        for size in (4096, 1):
            while True:  # the kernel's buffer is full, and the hub has not noticed yet
                try:
                    ours.send(b"x" * size)
                except BlockingIOError:
                    break
        hub.drain()
        clock.advance(2)
        await settle()
        assert client.ended
        await client.close()


@pytest.mark.parametrize("moment", [0, 1, 2, 3, 4, 5, 6, 8, 10])
@WAYS
async def test_open_during_drain(direct: bool, moment: int) -> None:
    """A stream that opens while the hub begins to drain ends too."""
    async with hub_of(drain_window=1.0) as (hub, clock):
        client = HubClient(hub, "t", direct=direct, last_event_id="garbage")
        for _ in range(moment):
            await asyncio.sleep(0)
        hub.drain()
        for _ in range(8):
            await settle(10)
            clock.advance(0.25)
        await settle()
        client.read()
        assert client.ended
        assert hub.subscribers() == 0
        await client.close()


@WAYS
async def test_no_handover_during_drain(direct: bool) -> None:
    """A stream whose first bytes are still unsent when the drain begins is not handed over."""
    async with hub_of(drain_window=1.0) as (hub, clock):
        client = HubClient(hub, "t", direct=direct)
        client._unread = 1 << 20  # nothing is taken
        await settle()
        assert hub.subscribers() == 1
        hub.drain()
        client._unread = 0
        client.read()
        for _ in range(8):
            await settle()
            clock.advance(0.25)
        client.read()
        assert client.output is None
        assert client.complete
        assert hub.subscribers() == 0
        await client.close()


@WAYS
async def test_close_ends_streams(direct: bool) -> None:
    async with hub_of() as (hub, _):
        client = HubClient(hub, "t", direct=direct)
        await settle()
        events = []

        async def iterate() -> None:
            async with hub.subscribe("t") as subscription:
                events.extend([event.data async for event in subscription])

        task = asyncio.create_task(iterate())
        await settle()
        await hub.publish("t", "one")
        await settle()
        await hub.close()
        await hub.close()
        await asyncio.wait_for(task, 5)
        await client.read_all()
        assert events == ["one"]
        assert client.ended
        assert client.complete
        for call in (hub.publish("t"), hub.publish_many([]), hub.check(), hub.history("t")):
            with pytest.raises(HubClosedError):
                await call
        for closed in (hub.statistics, hub.topics, hub.subscribers, lambda: hub.publish_soon("t"), lambda: hub.epoch):
            with pytest.raises(HubClosedError):
                closed()
        late = HubClient(hub, "t", direct=direct)
        await asyncio.wait([late.task])
        late.read()
        assert late.status == 503
        for each in (client, late):
            await each.close()
    assert len(open_streams) == 0


async def test_head() -> None:
    async with hub_of() as (hub, _):
        client = HubClient(hub, "t", direct=True, method="HEAD")
        await asyncio.wait([client.task])
        client.read()
        assert (client.status, client.body) == (200, b"")
        assert client.headers["content-type"] == "text/event-stream"
        assert hub.subscribers() == 0
        await client.close()
