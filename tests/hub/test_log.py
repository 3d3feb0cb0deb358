"""A log with foreign records, a log that changes all the time, and events that cannot be taken in at once."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.hub import HubClient, settle
from tickertape.broker import OTHERS, LogState, MemoryBroker, Record, Retention
from tickertape.errors import LogResetError
from tickertape.hub import Hub
from tickertape.testing import FakeClock, ScriptedBroker
from tickertape.wire import Cursor

WAYS = pytest.mark.parametrize("direct", [False, True], ids=["portable", "direct"])


@asynccontextmanager
async def hub_of(broker: Any, **options: Any) -> AsyncIterator[tuple[Hub, FakeClock]]:
    clock = FakeClock()
    async with Hub(broker, clock=clock, random=lambda: 0.5, **options) as hub:
        await settle()
        yield hub, clock


async def read(client: HubClient) -> list[str]:
    return [event.event or event.data or "" for event in await client.read_all()]


def store_foreign_records(path: Path, *events: str) -> None:
    """Append records to a SQLite log as another program might, with event types that do not fit into one line."""
    with sqlite3.connect(path) as database:
        ((newest,),) = database.execute("SELECT newest FROM log")
        for offset, event in enumerate(events, newest + 1):
            row = (offset, 4e9, 1, "t", event, None, "foreign")
            database.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        database.execute("UPDATE log SET newest = newest + ?", (len(events),))
    database.close()


async def test_foreign_record_from_sqlite(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A record that cannot be encoded is skipped, counted and logged. It stops no hub and no subscriber."""
    path = tmp_path / "log.db"
    url = f"sqlite:///{path}"
    async with Hub(url) as hub, hub.subscribe("t") as events, asyncio.timeout(20):
        await hub.publish("t", "before")
        store_foreign_records(path, "a\nb", "c\rd")
        await hub.publish("t", "after")
        assert [(await anext(events)).data for _ in range(2)] == ["before", "after"]
        assert hub.statistics().skipped == 2
        assert (await hub.check()).newest == 4
    assert caplog.text.count("which another program has written: expected event without") == 2
    async with Hub(url) as hub, hub.subscribe("t", last=10) as events, asyncio.timeout(20):
        assert [(await anext(events)).data for _ in range(2)] == ["before", "after"]


class Foreign(MemoryBroker):
    """A log in which every third record cannot be encoded."""

    def _append(self, draft: Any, now: float) -> int:
        offset = super()._append(draft, now)
        if offset % 3 == 0:
            self._kept.lane(OTHERS).items[-1] = Record(offset, draft.topic, "a\nb", draft.data)
        return offset


@WAYS
async def test_foreign_records_are_skipped(direct: bool) -> None:
    """Also when a client catches up from memory, and from the log."""
    async with hub_of(Foreign(), retention=Retention(events=4)) as (hub, _):
        clients = [HubClient(hub, "t", direct=direct)]
        for number in range(1, 10):
            await hub.publish("t", str(number))
        await settle()
        wanted = ["1", "2", "4", "5", "7", "8"]
        clients += [HubClient(hub, "*", direct=direct, last_event_id=f"{hub.epoch}-0")]
        clients += [HubClient(hub, "t", direct=direct, last_event_id=f"{hub.epoch}-5")]
        assert [await read(client) for client in clients] == [wanted, wanted, ["7", "8"]]
        assert hub.statistics().skipped >= 3
        for client in clients:
            await client.close()


class Restless(ScriptedBroker):
    """A log whose tail reports a reset each time."""

    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        self.calls["tail"] += 1
        if self.calls["tail"]:
            raise LogResetError("again")
        yield []


async def test_resets_without_end_are_followed_with_pauses() -> None:
    broker = Restless()
    async with hub_of(broker) as (_, clock):
        await settle(200)
        assert broker.calls["tail"] <= 4
        for _ in range(40):
            clock.advance(0.25)
            await settle()
        assert 5 <= broker.calls["tail"] <= 12


class Watched(MemoryBroker):
    """A log that knows how many of its tails are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open_tails = 0

    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        self.open_tails += 1
        try:
            async for records in super().tail(after):
                yield records
        finally:
            self.open_tails -= 1


async def test_tail_is_closed() -> None:
    """The tail is finalised by the hub, not by the garbage collector: after a failure, and at close."""
    broker = Watched()
    async with hub_of(broker) as (hub, clock):
        await hub.publish("t", "1")
        await settle()
        assert broker.open_tails == 1
        append = hub.delivery.window.append
        hub.delivery.window.append = failing(MemoryError(), append)  # type: ignore[method-assign]
        await hub.publish("t", "2")
        await settle()
        assert broker.open_tails == 0
        clock.advance(1)
        await settle()
        assert broker.open_tails == 1
    assert broker.open_tails == 0


def failing(error: Exception, append: Any) -> Any:
    """Return a function that does half of its work and fails once, then works."""
    failed = False

    def fail(records: list[Record], now: float) -> Any:
        nonlocal failed
        if failed:
            return append(records, now)
        failed = True
        append(records[: len(records) // 2], now)
        raise error

    return fail


@WAYS
@pytest.mark.parametrize("count", [1, 2, 7])
async def test_out_of_memory(direct: bool, count: int, caplog: pytest.LogCaptureFixture) -> None:
    """Events that could not be taken in are delivered later, in order, once."""
    caplog.set_level(logging.CRITICAL)
    async with hub_of("memory://") as (hub, clock):
        client = HubClient(hub, "t", direct=direct)
        await hub.publish("t", "before")
        assert await read(client) == ["before"]
        hub.delivery.window.append = failing(MemoryError(), hub.delivery.window.append)  # type: ignore[method-assign]
        await hub.publish_many([hub.draft("t", str(number)) for number in range(count)])
        await settle()
        await hub.publish("t", "after")
        clock.advance(1)
        await settle()
        assert await read(client) == [*map(str, range(count)), "after"]
        await client.close()


async def test_catching_up_costs_one_read_a_page() -> None:
    """5,000 events that are only in the log: 50 reads, and no other request to the store."""
    broker = ScriptedBroker()
    async with hub_of(broker, retention=Retention(events=100)) as (hub, _):
        for _ in range(50):
            await hub.publish_many([hub.draft("t", "x") for _ in range(100)])
            await settle()
        before = broker.calls.copy()
        client = HubClient(hub, "t", last_event_id=f"{hub.epoch}-0")
        assert len(await read(client)) == 5000
        calls = broker.calls - before
        assert calls["read"] <= 50
        assert {name for name, count in calls.items() if count} == {"read"}
        await client.close()


async def test_state_is_not_open() -> None:
    """A hub opens its log once, and asks for its state from then on."""
    broker = ScriptedBroker()
    async with hub_of(broker) as (hub, _):
        assert isinstance(await hub.check(), LogState)
        await hub.history("t")
        async with hub.subscribe("t", last_event_id="foreign"):
            pass
        assert broker.calls["open"] == 1


async def publish_all(hub: Hub, count: int, topic: str = "t") -> None:
    await hub.publish_many([hub.draft(topic, str(number)) for number in range(count)])


async def test_quick_publisher_waits_for_the_follower() -> None:
    """A second batch waits while the first is not followed yet; a small one that fits does not."""
    broker = ScriptedBroker()
    async with hub_of(broker, retention=Retention(events=100_000)) as (hub, clock):
        broker.hold("tail")
        await publish_all(hub, 4000)
        second = asyncio.create_task(publish_all(hub, 4000))
        await settle(200)
        assert not second.done()
        await publish_all(hub, 1000)
        broker.release("tail")
        await settle(400)
        assert second.done()
        await publish_all(hub, 9000)  # larger than the limit: it goes alone
        assert (await hub.check()).newest == 18_000
        clock.advance(1)


async def test_bounded_wait_for_the_follower() -> None:
    broker = ScriptedBroker()
    async with hub_of(broker) as (hub, clock):
        broker.hold("tail")
        await publish_all(hub, 4000)
        second = asyncio.create_task(publish_all(hub, 4000))
        await settle(100)
        assert not second.done()
        clock.advance(1.5)
        await settle(100)
        assert second.done()
        broker.fail("tail")  # the log is lost: publishers do not wait for the follower
        await settle()
        await asyncio.wait_for(publish_all(hub, 4000), 5)


async def test_flood_loses_no_event(caplog: pytest.LogCaptureFixture) -> None:
    """Large batches of one topic, in a log that keeps little more than one of them: no reader misses an event."""
    async with hub_of("memory://", retention=Retention(events=16_000, bytes=None)) as (hub, _):
        async with hub.subscribe("quiet") as quiet, asyncio.timeout(60):
            floods = [asyncio.create_task(publish_all(hub, 10_000, "busy")) for _ in range(6)]
            for number in range(10):
                await hub.publish("quiet", number)
                assert (await anext(quiet)).data == str(number)
            await asyncio.gather(*floods)
        assert hub.statistics().gaps == {"expired": 0, "reset": 0}
    assert not caplog.records


@pytest.mark.parametrize(
    ("after", "upto", "epoch", "found"),
    [
        (0, 4, None, ["0", "2"]),
        (1, 4, None, ["2"]),
        (1, 2, None, []),
        (4, 4, None, []),
        (4, 2, None, []),
        (0, 4, "another", None),
        (-1_000, 4, None, None),
        (0, 5, None, None),
    ],
)
async def test_read_recent(after: int, upto: int, epoch: str | None, found: list[str] | None) -> None:
    """Records in memory; nothing of another log, of before the window, and of what is not there in time."""
    async with Hub() as hub:
        for number in range(4):
            await hub.publish("even" if number % 2 == 0 else "odd", str(number))
        records = await hub.read_recent(after, Cursor(epoch or hub.epoch, upto), lambda topic: topic == "even")
        assert (None if records is None else [record.data for record in records]) == found


async def test_read_recent_after_retention() -> None:
    async with Hub(retention=Retention(events=2)) as hub:
        for number in range(4):
            cursor = await hub.publish("t", str(number))
        assert await hub.read_recent(0, cursor, lambda topic: True) is None
        records = await hub.read_recent(2, cursor, lambda topic: True)
        assert records is not None
        assert [record.data for record in records] == ["2", "3"]
