"""A hub on each broker: publishing, health checks, history and new streams at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest

from tickertape import Hub
from tickertape.broker import LogState, Retention
from tickertape.testing import ScriptedBroker
from tickertape.testing.contract import Log
from tickertape.testing.contract.checks import PATIENCE
from tickertape.wire import Cursor, Draft

from .nats_logs import NatsLog, nats_absent
from .postgres_logs import PostgresLog, postgres_absent
from .private_servers import require
from .redis_logs import RedisLog, redis_absent
from .sqlite_logs import SQLiteLog
from .test_contract import MemoryLog

LOGS: Final[dict[str, tuple[type[Log], Callable[[], str | None]]]] = {
    "memory": (MemoryLog, lambda: None),
    "sqlite": (SQLiteLog, lambda: None),
    "redis": (RedisLog, redis_absent),
    "postgres": (PostgresLog, postgres_absent),
    "nats": (NatsLog, nats_absent),
}

PUBLISHERS: Final = 4
EACH: Final = 40
TOTAL: Final = PUBLISHERS * EACH


@pytest.fixture
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    kind, absent = LOGS[request.param]
    require(absent())
    log = kind(tmp_path)
    yield log
    await log.remove()


class Users:
    """Users of a hub that do everything at once until all events have arrived.

    Attributes:
        epoch: the epoch of the log at the beginning.
        finished: set when the long stream has all events.
    """

    def __init__(self, hub: Hub, epoch: str) -> None:
        self.hub = hub
        self.epoch = epoch
        self.finished = asyncio.Event()

    async def publish(self, name: str) -> None:
        for number in range(EACH):
            await self.hub.publish(f"t/{name}", f"{number}")

    async def check(self) -> None:
        while not self.finished.is_set():
            assert (await self.hub.check()).epoch == self.epoch
            await asyncio.sleep(0)

    async def read_history(self) -> None:
        after = 0
        while after < TOTAL:
            events, gap = await self.hub.history("t/**", after=f"{Cursor(self.epoch, after)}", limit=10)
            assert gap is None
            offsets = [cursor.offset for cursor, _ in events]
            assert offsets == list(range(after + 1, after + 1 + len(events)))
            assert {cursor.epoch for cursor, _ in events} <= {self.epoch}
            after += len(events)
            await asyncio.sleep(0)

    async def follow(self) -> None:
        """Read one stream from the beginning to the end."""
        assert await self.read_stream(0, TOTAL) == TOTAL
        self.finished.set()

    async def reconnect(self) -> None:
        """Read new streams, each of which continues the one before it."""
        after = 0
        while after < TOTAL:
            after = await self.read_stream(after, min(TOTAL, after + 20))

    async def read_stream(self, after: int, last: int) -> int:
        async with self.hub.subscribe("t/**", last_event_id=f"{Cursor(self.epoch, after)}") as subscription:
            while after < last:
                event = await anext(subscription)
                assert event.event != "stream:gap", event.data
                after += 1
                assert event.id == f"{Cursor(self.epoch, after)}"
        return after


@pytest.mark.parametrize("log", LOGS, indirect=True)
async def test_everything_at_once(log: Log) -> None:
    """The epoch stays the same, no stream has a gap, and no event comes twice."""
    async with Hub(log.broker()) as hub, asyncio.timeout(PATIENCE):
        users = Users(hub, (await hub.check()).epoch)
        async with asyncio.TaskGroup() as tasks:
            for number in range(PUBLISHERS):
                tasks.create_task(users.publish(f"{number}"))
            for work in (users.check, users.read_history, users.follow, users.reconnect, users.reconnect):
                tasks.create_task(work())
        assert (await hub.check()) == LogState(users.epoch, 1, TOTAL)


async def test_catching_up_is_one_read_a_page() -> None:
    """A stream that is 5,000 events late costs 50 reads, and no other request to the store."""
    broker = ScriptedBroker()
    await broker.append([Draft("t", f"{number}") for number in range(5_000)])
    async with Hub(broker, retention=Retention(events=10)) as hub:
        broker.calls.clear()
        async with hub.subscribe("t", last_event_id=f"{Cursor(hub.epoch, 0)}") as subscription:
            for number in range(5_000):
                assert (await anext(subscription)).data == f"{number}"
        del broker.calls["tail"]
        assert broker.calls == {"read": 50}
