"""A log that fails, recovers, loses records or is replaced: no client hangs, and gaps are correct."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.hub import HubClient, gap_of, settle
from tickertape.broker import LogState, MemoryBroker, Retention
from tickertape.errors import BrokerError
from tickertape.hub import Hub
from tickertape.hub.window import Window
from tickertape.testing import FakeClock, ScriptedBroker
from tickertape.wire import Cursor

WAYS = pytest.mark.parametrize("direct", [False, True], ids=["portable", "direct"])


@asynccontextmanager
async def hub_of(**options: Any) -> AsyncIterator[tuple[Hub, ScriptedBroker, FakeClock]]:
    clock, broker = FakeClock(), ScriptedBroker(keep=options.pop("keep", None))
    async with Hub(broker, clock=clock, random=lambda: 0.5, **options) as hub:
        await settle()
        yield hub, broker, clock


async def read(client: HubClient) -> list[str]:
    return [event.data or "" for event in await client.read_all() if event.event is None]


@WAYS
async def test_backoff(direct: bool) -> None:
    """A lost log is followed again after growing pauses."""
    async with hub_of() as (hub, broker, clock):
        client = HubClient(hub, "t", direct=direct)
        await hub.publish("t", "before")
        assert await read(client) == ["before"]
        await hub.check()
        broker.fail("tail", "state", "append")
        await settle()
        with pytest.raises(BrokerError, match="scripted failure"):
            await hub.publish("t", "never stored")
        with pytest.raises(BrokerError):
            await hub.check()
        attempts = []
        for _ in range(20):
            before = broker.calls["state"]
            clock.advance(5)
            await settle()
            attempts.append(broker.calls["state"] - before)
        assert 8 <= sum(attempts) <= 20, attempts
        assert all(attempt <= 5 for attempt in attempts), attempts
        broker.recover()
        await hub.publish("t", "stored, and not seen yet")
        await settle()
        with pytest.raises(BrokerError, match="is reconnecting"):
            await hub.check()
        clock.advance(10)
        await settle()
        assert (await hub.check()).newest == 2
        assert await read(client) == ["stored, and not seen yet"]
        await client.close()


async def test_healthy_without_event() -> None:
    async with hub_of() as (hub, broker, clock):
        broker.fail("tail")
        await settle()
        broker.recover()
        clock.advance(1)
        await settle()
        assert (await hub.check()).newest == 0


async def test_tail_ends() -> None:
    class Ending(MemoryBroker):
        """A log whose first tail ends after one batch."""

        tails = 0

        async def tail(self, after: Cursor) -> AsyncIterator[Any]:
            self.tails += 1
            last = self.tails == 1
            async for records in super().tail(after):
                yield records
                if last:
                    return

    clock, broker = FakeClock(), Ending()
    async with Hub(broker, clock=clock) as hub, hub.subscribe("t") as subscription:
        for text in ("one", "two"):
            await hub.publish("t", text)
            await settle()
            clock.advance(1)
            assert (await asyncio.wait_for(anext(subscription), 5)).data == text
        assert broker.tails == 2


@WAYS
async def test_replaced_log(direct: bool) -> None:
    """Subscribers of a replaced log get a gap."""
    async with hub_of() as (hub, broker, _):
        client = HubClient(hub, "t", direct=direct)
        other = HubClient(hub, "silent", direct=direct)
        for number in range(3):
            await hub.publish("t", str(number))
        assert await read(client) == ["0", "1", "2"]
        epoch = hub.epoch
        broker.reset()
        await hub.publish("t", "new")
        events = await client.read_all()
        assert gap_of(events[0]) == {"reason": "reset", "after": f"{epoch}-3", "resumed": f"{hub.epoch}-0"}
        assert [event.data for event in events[1:]] == ["new"]
        assert hub.epoch != epoch
        assert [event.event for event in await other.read_all()] == ["stream:gap"]
        again = HubClient(hub, "t", direct=direct, last_event_id=f"{epoch}-2")
        events = await again.read_all()
        assert gap_of(events[0])["reason"] == "reset"
        for each in (client, other, again):
            await each.close()


@WAYS
async def test_replaced_without_tail(direct: bool) -> None:
    """A log that was replaced while its tail had failed gives a gap, too."""
    async with hub_of() as (hub, broker, clock):
        client = HubClient(hub, "t", direct=direct)
        await hub.publish("t", "old")
        assert await read(client) == ["old"]
        broker.fail("tail")
        await settle()
        broker.reset()
        for number in range(3):
            await hub.publish("t", f"new {number}")
        broker.recover()
        clock.advance(1)
        events = await client.read_all()
        assert gap_of(events[0])["reason"] == "reset"
        assert [event.data for event in events[1:]] == ["new 0", "new 1", "new 2"]
        await client.close()


@WAYS
async def test_lost_records(direct: bool) -> None:
    """Records that a log has lost give a gap, although its epoch is the same."""
    async with hub_of() as (hub, broker, _):
        client = HubClient(hub, "t", direct=direct)
        for number in range(5):
            await hub.publish("t", str(number))
        assert len(await read(client)) == 5
        broker.lose(2)
        await hub.publish("t", "under the id of another")
        events = await client.read_all()
        assert gap_of(events[0])["reason"] == "reset"
        assert events[-1].data == "under the id of another"
        await client.close()


@WAYS
async def test_burst_larger_than_log(direct: bool) -> None:
    """A burst larger than the log gives a gap for the part that is lost."""
    async with hub_of(keep=20, retention=Retention(events=10)) as (hub, _, _):
        client = HubClient(hub, "t", direct=direct, on_overflow="skip")
        late = HubClient(hub, "t", direct=direct, last_event_id=f"{hub.epoch}-0")
        await settle()
        await hub.publish_many([hub.draft("t", str(number)) for number in range(50)])
        events = await client.read_all()
        assert gap_of(events[0])["reason"] == "expired"
        await late.read_all()
        assert hub.statistics().gaps["expired"] >= 1
        await hub.publish("t", "next")
        assert (await read(client))[-1] == "next"
        for each in (client, late):
            await each.close()


@pytest.mark.parametrize("batches", [1, 100])
async def test_pending_records_are_bounded(batches: int) -> None:
    async with hub_of() as (hub, _, _):
        delivery = hub.delivery
        delivery.stride, delivery.turn = 1, 0.0
        clients = [HubClient(hub, "t", direct=True) for _ in range(3)]
        await settle()
        sent, count = 0, 500 // batches
        greatest = 0
        got: list[list[str]] = [[] for _ in clients]
        async with asyncio.timeout(30):
            while sent < 500 or any(len(each) < 500 for each in got):
                if sent < 500:
                    await hub.publish_many([hub.draft("t", f"{sent + i} " + "x" * 20_000) for i in range(count)])
                    sent += count
                await asyncio.sleep(0)
                greatest = max(greatest, sum(len(entry.block) for entry in delivery._pending))
                assert delivery._pending_bytes == sum(len(entry.block) for entry in delivery._pending)
                for data, client in zip(got, clients, strict=True):
                    data += [event.data.split()[0] for event in client.read() if event.data]
        assert got == [[str(number) for number in range(500)]] * 3
        assert 1024 * 1024 < greatest < 1024 * 1024 + 110 * 20_000 < 500 * 20_000
        for client in clients:
            await client.close()


async def test_replaced_during_round() -> None:
    """The current round ends before the log is replaced."""
    async with hub_of(keep=20) as (hub, broker, _):
        delivery = hub.delivery
        delivery.stride, delivery.turn = 1, 0.0
        clients = [HubClient(hub, "t", direct=True) for _ in range(10)]
        await settle()
        await hub.publish("t", "0")
        for _ in range(20):
            await asyncio.sleep(0)
            if delivery._served:
                break
        assert delivery._served, "expected that a part of the outputs has the event"
        await hub.publish_many([hub.draft("other", str(number)) for number in range(30)])
        broker.trim(keep=1)
        for client in clients:
            events = await client.read_all()
            assert [event.data for event in events if event.event is None] == ["0"]
            await client.close()


async def test_page_of_replaced_log() -> None:
    """A page requested just after the log was replaced follows the gap."""
    async with hub_of(retention=Retention(events=1)) as (hub, broker, _):
        client = HubClient(hub, "t", direct=True)
        await hub.publish("t", "old")
        await hub.publish("t", "older")
        assert await read(client) == ["old", "older"]
        broker.hold("tail")
        broker.reset()
        cursors = [await hub.publish("t", f"new {number}") for number in range(3)]
        output, delivery = client.output, hub.delivery
        assert output is not None
        output.subscription.audience.leave(output)
        output.subscription.cursor = 0
        output.wake()
        delivery.rebase(Window(cursors[0].epoch, 3, Retention()), LogState(cursors[0].epoch, 1, 3))
        events = await client.read_all()
        assert [event.event or event.data for event in events] == ["stream:gap", "new 0", "new 1", "new 2"]
        await client.close()


async def test_advance_twice() -> None:
    """An output that is advanced twice writes once."""
    async with hub_of() as (hub, _, _):
        client = HubClient(hub, "t", direct=True)
        await settle()
        assert client.output is not None
        for call in (client.output.advance, client.output.wake, client.output.resume_writing):
            call()
        await hub.publish("t", "once")
        assert await read(client) == ["once"]
        await client.close()


@WAYS
async def test_log_fails_during_catch_up(direct: bool) -> None:
    """A client whose old pages cannot be read is cut off, and resumes later."""
    async with hub_of(retention=Retention(events=5)) as (hub, broker, _):
        for number in range(30):
            await hub.publish("t", str(number))
        await settle()
        broker.hold("read")
        client = HubClient(hub, "t", direct=direct, last_event_id=f"{hub.epoch}-3")
        await settle()
        broker.fail("read")
        broker.release("read")
        await settle()
        client.read()
        if not direct:
            with pytest.raises(BrokerError):
                await client.task
        assert client.ended
        assert not client.complete
        assert hub.statistics().disconnects == {"error": 1}
        broker.recover()
        again = HubClient(hub, "t", direct=direct, last_event_id=client.last_event_id)
        assert await read(again) == [str(number) for number in range(3, 30)]
        await again.close()
        if client.transport is not None:
            client.transport.dispose()


async def test_close_while_log_is_lost() -> None:
    """An iterator that waits for another log ends with its hub."""
    async with hub_of(retention=Retention(events=5)) as (hub, broker, _):
        for number in range(30):
            await hub.publish("t", str(number))
        await settle()
        broker.hold("tail")
        broker.reset()
        async with hub.subscribe("t", last_event_id=f"{hub.epoch}-3") as subscription:
            waiting = asyncio.ensure_future(anext(subscription))
            await settle()
            assert not waiting.done()
            await hub.close()
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(waiting, 5)


async def test_open_fails() -> None:
    """If a hub cannot be opened, nothing stays open: its broker is closed."""
    broker = ScriptedBroker()
    broker.fail("open")
    hub = Hub(broker)
    with pytest.raises(BrokerError, match="scripted failure"):
        await hub.open()
    broker.recover()
    with pytest.raises(BrokerError, match="broker is closed"):
        await broker.state()
    assert "closed" in repr(hub)
