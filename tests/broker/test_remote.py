"""Brokers on a server: fencing, pages and reconnecting, against a server in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any

import pytest

from tickertape.broker.records import LogState, Page, Record
from tickertape.broker.remote import RemoteBroker
from tickertape.errors import BrokerError, LogResetError
from tickertape.wire import Cursor, Draft

PATIENCE = 10.0


class FakeServer:
    """A log in memory.

    Attributes:
        epoch: its epoch.
        records: what it keeps.
        down: True if it cannot be reached.
        deaf: True if only tails cannot reach it.
        requests: the primitives that were called, in order.
        slow: an event that answers wait for after they were computed; ``None`` to answer at once.
    """

    def __init__(self) -> None:
        self.epoch = "e1"
        self.records: list[Record] = []
        self.down = self.deaf = False
        self.requests: list[str] = []
        self.slow: asyncio.Event | None = None
        self.changed = asyncio.Event()

    def state(self) -> LogState:
        return LogState(self.epoch, 1, len(self.records))

    def change(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def stop(self) -> None:
        self.down = True
        self.change()

    def check(self) -> None:
        if self.down:
            raise BrokerError("the server is down")

    async def answer(self, name: str) -> None:
        self.requests.append(name)
        self.check()
        if self.slow is not None:
            await self.slow.wait()


class FakeBroker(RemoteBroker):
    """A broker of a fake server; the pauses of its tails would last for days."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__(random=lambda: -1e6)
        self.server = server

    async def _fence(self, seen: Cursor) -> LogState:
        state = self.server.state()
        if seen.epoch == state.epoch and seen.offset > state.newest:
            self.server.epoch += "x"
        await self.server.answer("fence")
        return state._replace(epoch=self.server.epoch)

    async def _state(self) -> LogState:
        state = self.server.state()
        await self.server.answer("state")
        return state

    async def _page(self, after: int, limit: int) -> Page:
        page = Page(self.server.state(), self.server.records[after : after + limit])
        await self.server.answer("page")
        return page

    async def _store(self, epoch: str, drafts: Sequence[Draft]) -> list[int] | None:
        self.server.requests.append("store")
        self.server.check()
        if epoch != self.server.epoch:
            return None
        records = self.server.records
        for draft in drafts:
            records.append(Record(len(records) + 1, draft.topic, draft.event, draft.data))
        self.server.change()
        return list(range(len(records) - len(drafts) + 1, len(records) + 1))

    async def _follow(self, epoch: str, after: int) -> AsyncGenerator[list[Record], None]:
        self.server.requests.append("follow")
        while True:
            self.server.check()
            if self.server.deaf:
                raise BrokerError("the connection was refused")
            if after < len(self.server.records):
                records = self.server.records[after:]
                after = len(self.server.records)
                yield records
            else:
                await self.server.changed.wait()

    async def _release(self) -> None:
        self.server.stop()

    def _where(self) -> str:
        return "a server in memory"


async def follow(broker: FakeBroker, received: list[str]) -> None:
    async for records in broker.tail(Cursor((await broker.state()).epoch, 0)):
        received += [record.data for record in records]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - turns of the loop
            await asyncio.sleep(0)


def drafts(count: int) -> list[Draft]:
    return [Draft("even" if number % 2 else "odd", str(number)) for number in range(count)]


# Reconnecting.


async def test_tail_reconnects_when_a_request_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    server = FakeServer()
    broker = FakeBroker(server)
    await broker.open()
    received: list[str] = []
    tail = asyncio.create_task(follow(broker, received))
    await broker.append([Draft("t", "1")])
    await until(lambda: received == ["1"])
    server.stop()
    with pytest.raises(BrokerError, match="is down"):
        await broker.append([Draft("t", "x")])
    await until(lambda: "tail stopped after offset 1" in caplog.text)
    server.down = False
    await broker.append([Draft("t", "2")])
    await until(lambda: received == ["1", "2"])
    await broker.close()
    await tail


async def test_tail_that_alone_fails_keeps_its_pauses() -> None:
    server = FakeServer()
    broker = FakeBroker(server)
    await broker.open()
    server.deaf = True
    tail = asyncio.create_task(follow(broker, []))
    for number in range(20):
        await broker.append([Draft("t", str(number))])
        await asyncio.sleep(0)
    assert server.requests.count("follow") == 1
    await broker.close()
    await tail


# Requests.


async def test_catching_up_costs_one_request_per_page() -> None:
    server = FakeServer()
    broker = FakeBroker(server)
    await broker.open()
    await broker.append(drafts(5000))
    server.requests.clear()
    after = 0
    while after < 5000:
        page = await broker.read(after, 100)
        assert page.state == LogState("e1", 1, 5000)
        after = page.records[-1].offset
    assert server.requests == ["page"] * 50
    await broker.close()


async def test_filtered_read_scans_to_the_end() -> None:
    server = FakeServer()
    broker = FakeBroker(server)
    await broker.open()
    await broker.append(drafts(2500))
    server.requests.clear()
    page = await broker.read(0, 5000, lambda topic: topic == "odd")
    assert [record.data for record in page.records] == [str(number) for number in range(0, 2500, 2)]
    assert server.requests == ["page"] * 3
    assert len((await broker.read(0, 7, lambda topic: topic == "odd")).records) == 7
    await broker.close()


async def test_filtered_read_of_a_log_that_is_reset() -> None:
    server = FakeServer()
    broker = FakeBroker(server)
    await broker.open()
    await broker.append(drafts(2500))

    def wanted(topic: str) -> bool:
        server.epoch = "e2"
        return False

    with pytest.raises(LogResetError, match="epoch e2 instead of e1"):
        await broker.read(0, 10, wanted)
    await broker.close()


async def test_state_and_read_never_fence() -> None:
    server = FakeServer()
    broker = FakeBroker(server)
    await broker.open()
    await broker.append(drafts(3))
    server.records.pop()
    server.requests.clear()
    assert await broker.state() == LogState("e1", 1, 2)
    assert (await broker.read(0, 10)).state == LogState("e1", 1, 2)
    assert server.requests == ["state", "page"]
    assert (await broker.open()).epoch == "e1x"
    await broker.close()


# Fencing.


@pytest.mark.parametrize("request_of", [FakeBroker.open, FakeBroker.state, lambda broker: broker.read(0, 10)])
async def test_appends_during_a_request_are_no_loss(
    request_of: Callable[[FakeBroker], Coroutine[Any, Any, object]],
) -> None:
    """The state that a request returns is older than what was appended before it arrives."""
    server = FakeServer()
    broker = FakeBroker(server)
    await broker.open()
    await broker.append(drafts(1))
    server.slow = asyncio.Event()
    server.requests.clear()
    waiting = asyncio.create_task(request_of(broker))
    await until(lambda: bool(server.requests))
    await broker.append(drafts(5))
    server.slow.set()
    await waiting
    assert (await broker.open()).epoch == "e1"
    assert await broker.append(drafts(1)) == [Cursor("e1", 7)]
    await broker.close()


async def test_append_to_a_log_that_keeps_changing() -> None:
    server = FakeServer()
    broker = FakeBroker(server)
    await broker.open()

    async def never(epoch: str, drafts: Sequence[Draft]) -> None:
        return None

    broker._store = never  # type: ignore[method-assign]
    with pytest.raises(BrokerError, match="was reset 3 times while appending; giving up"):
        await broker.append(drafts(1))
    await broker.close()
