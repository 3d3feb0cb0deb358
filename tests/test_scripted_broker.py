"""``ScriptedBroker``: a log as any other, until the test makes its troubles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tickertape.broker import Broker, Record
from tickertape.errors import BrokerError, LogResetError, LogTrimmedError
from tickertape.testing import ScriptedBroker
from tickertape.wire import Cursor, Draft


def drafts(count: int) -> list[Draft]:
    return [Draft("t", str(number)) for number in range(1, count + 1)]


async def test_it_is_a_log() -> None:
    broker = ScriptedBroker(keep=3)
    assert isinstance(broker, Broker)
    state = await broker.open()
    cursors = await broker.append(
        [*drafts(4), Draft("u", "5", event="kind", key="key"), Draft("u", "again", key="key")]
    )
    assert [cursor.offset for cursor in cursors] == [1, 2, 3, 4, 5, 5]
    assert {cursor.epoch for cursor in cursors} == {state.epoch}
    assert await broker.open() == (state.epoch, 3, 5)
    assert (await broker.read(0, 2)).records == [Record(3, "t", None, "3"), Record(4, "t", None, "4")]
    assert (await broker.read(3, 9, lambda topic: topic == "u")).records == [Record(5, "u", "kind", "5")]
    tail = broker.tail(Cursor((await broker.state()).epoch, 4))
    assert await anext(tail) == [Record(5, "u", "kind", "5")]
    assert broker.calls == {"open": 2, "append": 1, "read": 2, "tail": 1}
    await broker.close()
    with pytest.raises(BrokerError, match="closed"):
        await anext(tail)


@pytest.mark.parametrize("operation", ["open", "append", "read", "tail"])
async def test_operations_wait_and_fail_when_they_are_told_to(operation: str) -> None:
    broker = ScriptedBroker()
    await broker.append(drafts(1))

    async def call() -> object:
        if operation == "open":
            return await broker.open()
        if operation == "append":
            return await broker.append(drafts(1))
        return await (
            broker.read(0, 9) if operation == "read" else anext(broker.tail(Cursor((await broker.state()).epoch, 0)))
        )

    broker.hold(operation)
    waiting = [asyncio.create_task(call()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    broker.release()
    assert await waiting[0]
    broker.hold(operation)
    waiting.append(asyncio.create_task(call()))
    await asyncio.sleep(0)
    broker.fail(operation, error=BrokerError("as told"))
    with pytest.raises(BrokerError, match="as told"):
        await waiting[-1]
    with pytest.raises(BrokerError, match="as told"):
        await call()
    broker.recover()
    broker.release()
    assert await call()
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (lambda broker: broker.reset(), LogResetError),
        (lambda broker: broker.lose(1), LogResetError),
        (lambda broker: broker.fail("tail"), BrokerError),
    ],
    ids=["reset", "lost", "failed"],
)
async def test_a_tail_sees_what_happens_to_the_log(
    trouble: Callable[[ScriptedBroker], None], error: type[Exception]
) -> None:
    broker = ScriptedBroker()
    await broker.open()
    await broker.append(drafts(3))
    tail = broker.tail(Cursor((await broker.state()).epoch, 0))
    assert len(await anext(tail)) == 3
    waiting = asyncio.ensure_future(anext(tail))
    await asyncio.sleep(0)
    trouble(broker)
    with pytest.raises(error):
        await waiting


async def test_a_tail_that_is_behind_what_is_kept_says_so() -> None:
    broker = ScriptedBroker()
    await broker.append(drafts(5))
    broker.trim(keep=2)
    with pytest.raises(LogTrimmedError, match="behind offset 1, got a log whose oldest is 4"):
        await anext(broker.tail(Cursor((await broker.state()).epoch, 1)))
