"""``ScriptedBroker``: an ordinary log until the test causes an accident."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tickertape.broker import Broker, LogState, Record
from tickertape.errors import BrokerError, LogResetError, LogTrimmedError
from tickertape.testing import ScriptedBroker
from tickertape.wire import Cursor, Draft


def drafts(count: int) -> list[Draft]:
    return [Draft("t", str(number)) for number in range(1, count + 1)]


async def test_is_a_broker() -> None:
    broker = ScriptedBroker(keep=3)
    assert isinstance(broker, Broker)
    state = await broker.open()
    cursors = await broker.append(
        [*drafts(4), Draft("u", "5", event="kind", key="key"), Draft("u", "again", key="key")]
    )
    assert [cursor.offset for cursor in cursors] == [1, 2, 3, 4, 5, 5]
    assert {cursor.epoch for cursor in cursors} == {state.epoch}
    assert await broker.state() == LogState(state.epoch, 3, 5)
    assert (await broker.read(0, 2)).records == [Record(3, "t", None, "3"), Record(4, "t", None, "4")]
    assert (await broker.read(3, 9, lambda topic: topic == "u")).records == [Record(5, "u", "kind", "5")]
    tail = broker.tail(Cursor((await broker.state()).epoch, 4))
    assert await anext(tail) == [Record(5, "u", "kind", "5")]
    assert broker.calls == {"open": 1, "state": 2, "append": 1, "read": 2, "tail": 1}
    await broker.close()
    with pytest.raises(BrokerError, match="closed"):
        await anext(tail)


@pytest.mark.parametrize("operation", ["open", "state", "append", "read", "tail"])
async def test_hold_and_fail(operation: str) -> None:
    broker = ScriptedBroker()
    epoch = (await broker.open()).epoch
    await broker.append(drafts(1))

    async def call() -> object:
        if operation == "open":
            return await broker.open()
        if operation == "state":
            return await broker.state()
        if operation == "append":
            return await broker.append(drafts(1))
        return await (broker.read(0, 9) if operation == "read" else anext(broker.tail(Cursor(epoch, 0))))

    broker.hold(operation)
    waiting = [asyncio.create_task(call()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    broker.release()
    assert await waiting[0]
    broker.hold(operation)
    waiting.append(asyncio.create_task(call()))
    await asyncio.sleep(0)
    broker.fail(operation, error=BrokerError("scripted"))
    with pytest.raises(BrokerError, match="scripted"):
        await waiting[-1]
    with pytest.raises(BrokerError, match="scripted"):
        await call()
    broker.recover()
    broker.release()
    assert await call()
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize(
    ("accident", "error"),
    [
        (lambda broker: broker.reset(), LogResetError),
        (lambda broker: broker.lose(1), LogResetError),
        (lambda broker: broker.fail("tail"), BrokerError),
    ],
    ids=["reset", "lost", "failed"],
)
async def test_accidents_reach_tails(accident: Callable[[ScriptedBroker], None], error: type[Exception]) -> None:
    broker = ScriptedBroker()
    await broker.open()
    await broker.append(drafts(3))
    tail = broker.tail(Cursor((await broker.state()).epoch, 0))
    assert len(await anext(tail)) == 3
    waiting = asyncio.ensure_future(anext(tail))
    await asyncio.sleep(0)
    accident(broker)
    with pytest.raises(error):
        await waiting


async def test_trimmed_tail() -> None:
    broker = ScriptedBroker()
    await broker.append(drafts(5))
    broker.trim(keep=2)
    with pytest.raises(LogTrimmedError, match="records after offset 1 are no longer kept: the oldest is 4"):
        await anext(broker.tail(Cursor((await broker.state()).epoch, 1)))


@pytest.mark.parametrize(("lost", "left"), [(0, 3), (2, 1), (3, 0), (99, 0)])
async def test_lose(lost: int, left: int) -> None:
    """It loses at most everything, and continues with the next offset."""
    broker = ScriptedBroker()
    await broker.append(drafts(3))
    broker.lose(lost)
    assert ((await broker.state()).oldest, (await broker.state()).newest) == (1, left)
    assert [cursor.offset for cursor in await broker.append(drafts(1))] == [left + 1]
