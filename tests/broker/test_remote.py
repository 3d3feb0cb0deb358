"""What the logs on a server have in common, on a server that is made up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest

from tickertape.broker.records import LogState, Record
from tickertape.broker.remote import RemoteBroker
from tickertape.errors import BrokerError
from tickertape.wire import Cursor, Draft

PATIENCE = 10.0


class MadeUp(RemoteBroker):
    """A log in memory, whose server is away when the test says so; its tails would wait for days then.

    Attributes:
        away: whether nothing of the server can be reached.
        deaf: whether only what follows the log cannot be.
        followed: how often it was tried to follow the log.
    """

    def __init__(self) -> None:
        super().__init__(random=lambda: 1e6)
        self.away = self.deaf = False
        self.followed = 0
        self._records: list[Record] = []
        self._changed = asyncio.Event()

    def lose(self) -> None:
        self.away = True
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _check(self) -> None:
        if self.away:
            raise BrokerError("expected a server, got none")

    async def _establish(self, seen: Cursor) -> LogState:
        self._check()
        return LogState("e", 1, len(self._records))

    async def _store(self, epoch: str, drafts: Sequence[Draft]) -> list[int] | None:
        self._check()
        for draft in drafts:
            self._records.append(Record(len(self._records) + 1, draft.topic, draft.event, draft.data))
        self._change()
        return list(range(len(self._records) - len(drafts) + 1, len(self._records) + 1))

    async def _page(self, epoch: str, after: int, limit: int) -> list[Record]:
        self._check()
        return self._records[after : after + limit]

    async def _follow(self, epoch: str, after: int) -> AsyncGenerator[list[Record], None]:
        self.followed += 1
        while True:
            self._check()
            if self.deaf:
                raise BrokerError("expected a connection, got none")
            if after < len(self._records):
                records = self._records[after:]
                after = len(self._records)
                yield records
            else:
                await self._changed.wait()

    async def _release(self) -> None:
        self.lose()

    def _where(self) -> str:
        return "a server that is made up"


async def following(broker: MadeUp, got: list[str]) -> None:
    async for records in broker.tail(Cursor((await broker.state()).epoch, 0)):
        got += [record.data for record in records]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - turns of the loop
            await asyncio.sleep(0)


async def test_tail_goes_on_as_soon_as_the_server_answers_anyone() -> None:
    broker = MadeUp()
    await broker.open()
    got: list[str] = []
    tail = asyncio.create_task(following(broker, got))
    await broker.append([Draft("t", "1")])
    await until(lambda: got == ["1"])
    broker.lose()
    with pytest.raises(BrokerError, match="expected a server"):
        await broker.append([Draft("t", "x")])
    await until(lambda: broker._away)
    broker.away = False
    await broker.append([Draft("t", "2")])
    await until(lambda: got == ["1", "2"])
    await broker.close()
    await tail


async def test_tail_that_alone_cannot_reach_the_server_keeps_its_pauses() -> None:
    broker = MadeUp()
    await broker.open()
    broker.deaf = True
    got: list[str] = []
    tail = asyncio.create_task(following(broker, got))
    for number in range(20):
        await broker.append([Draft("t", str(number))])
        await asyncio.sleep(0)
    assert broker.followed == 1
    await broker.close()
    await tail
