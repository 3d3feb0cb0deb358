"""NATS logs whose server is stopped, killed and restarted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tickertape.broker import Broker, create_broker
from tickertape.errors import BrokerError
from tickertape.testing.contract.checks import PATIENCE
from tickertape.testing.contract.steps import collect, tailing
from tickertape.wire import Draft

from .private_servers import PrivateNats


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[PrivateNats]:
    server = PrivateNats(tmp_path)
    try:
        await asyncio.to_thread(server.start)
        yield server
    finally:
        server.end()


@asynccontextmanager
async def opened(server: PrivateNats, options: str = "?timeout=1") -> AsyncIterator[Broker]:
    broker = create_broker(f"{server.url}/log{options}")
    try:
        await broker.open()
        yield broker
    finally:
        await broker.close()


async def refused(broker: Broker) -> str:
    with pytest.raises(BrokerError) as caught:
        async with asyncio.timeout(PATIENCE):
            await broker.append([Draft("t", "x")])
    return str(caught.value)


async def test_server_killed_and_restarted(server: PrivateNats) -> None:
    async with opened(server) as broker, tailing(broker, 0) as tail:
        before = await broker.open()
        await broker.append([Draft("t", "1")])
        waiting = asyncio.create_task(collect(tail, 3))
        server.signal(signal.SIGKILL)
        assert "NATS at 127.0.0.1" in await refused(broker)
        assert "cannot connect to NATS at 127.0.0.1" in await refused(broker)
        with pytest.raises(BrokerError):
            await broker.open()
        await asyncio.to_thread(server.start)
        assert (await broker.open()).epoch == before.epoch
        assert [cursor.offset for cursor in await broker.append([Draft("t", "2"), Draft("t", "3")])] == [2, 3]
        assert [record.data for record in await waiting] == ["1", "2", "3"]


async def test_stalled_server(
    server: PrivateNats,
) -> None:
    async with opened(server) as broker, tailing(broker, 0) as tail:
        await broker.append([Draft("t", "1", key="1")])
        server.signal(signal.SIGSTOP)
        assert await refused(broker) == f"no answer from NATS at 127.0.0.1:{server.port} within 1 s"
        server.signal(signal.SIGCONT)
        # The refused append may be stored all the same, now that the server continues.
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    cursors = await broker.append([Draft("t", "2", key="2")])
                    break
                except BrokerError:
                    continue
        records = await collect(tail, cursors[0].offset)
        assert [record.data for record in records] in (["1", "2"], ["1", "x", "2"])
        assert (await broker.read(0, 10)).records == records


async def test_acknowledged_records_survive_kills(server: PrivateNats) -> None:
    acknowledged: dict[str, int] = {}
    unknown: set[str] = set()
    stop = asyncio.Event()

    async def publish(broker: Broker, name: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            data = f"{name} {number}"
            while True:  # with a key, retrying is safe
                try:
                    cursors = await broker.append([Draft(name, data, key=data)])
                except BrokerError:
                    unknown.add(data)
                    await asyncio.sleep(0.05)
                else:
                    acknowledged[data] = cursors[0].offset
                    break

    async with opened(server) as one, opened(server) as two, tailing(two, 0) as tail:
        publishers = [
            asyncio.create_task(publish(broker, f"{kind}{number}"))
            for kind, broker in (("a", one), ("b", two))
            for number in range(5)
        ]
        followed = await collect(tail, 300)
        for _ in range(2):
            server.signal(signal.SIGKILL)
            await asyncio.to_thread(server.start)
            followed += await collect(tail, 300)
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*publishers)
        records = (await one.read(0, 1_000_000)).records
        followed += await collect(tail, len(records) - len(followed))
    assert followed == records
    assert unknown, "expected appends that failed while the server was down"
    assert {record.data: record.offset for record in records} == acknowledged
    assert [record.offset for record in records] == list(range(1, len(acknowledged) + 1))


async def test_connection_lost_between_appends(server: PrivateNats) -> None:
    async with opened(server) as broker:
        await broker.append([Draft("t", "1")])
        server.signal(signal.SIGKILL)
        await asyncio.to_thread(server.start)
        assert [cursor.offset for cursor in await broker.append([Draft("t", "2")])] == [2]


async def test_close_beside_stalled_server(server: PrivateNats) -> None:
    async with opened(server, "?timeout=30") as broker, tailing(broker, 0) as tail:
        await broker.append([Draft("t", "1")])
        await collect(tail, 1)
        waiting = asyncio.create_task(anext(tail, None))
        server.signal(signal.SIGSTOP)
        asking = asyncio.create_task(broker.append([Draft("t", "x")]))
        await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            await broker.close()
            assert await waiting is None
            assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], BrokerError)
