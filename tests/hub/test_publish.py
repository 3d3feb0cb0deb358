"""Publishing: accepted and refused events; a batch is stored as a whole or not at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pydantic
import pytest

from support.hub import settle
from tickertape.errors import BrokerError, EventTooLargeError, HubClosedError, InvalidEventError, InvalidTopicError
from tickertape.hub import Hub
from tickertape.testing import FakeClock, ScriptedBroker
from tickertape.wire import Cursor, Draft


class Price(pydantic.BaseModel):
    symbol: str
    cents: int


@asynccontextmanager
async def hub_of(**options: Any) -> AsyncIterator[tuple[Hub, ScriptedBroker]]:
    broker = ScriptedBroker()
    async with Hub(broker, clock=FakeClock(), **options) as hub:
        yield hub, broker


async def stored(hub: Hub) -> list[tuple[str, str | None, str]]:
    records, _ = await hub.history("**", limit=1000)
    return [(record.topic, record.event, record.data) for _, record in records]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("text", "text"),
        ("", ""),
        ("two\nlines", "two\nlines"),
        (b"bytes \xe2\x82\xac", "bytes €"),
        (b"\xff", "\ufffd"),
        (None, "null"),
        (7, "7"),
        ([1, {"a": None}], '[1,{"a":null}]'),
        (Price(symbol="X", cents=5), '{"symbol":"X","cents":5}'),
    ],
)
async def test_data_becomes_text(data: Any, text: str) -> None:
    async with hub_of() as (hub, _), hub.subscribe("t") as subscription:
        cursor = await hub.publish("t", data, event="kind")
        assert await stored(hub) == [("t", "kind", text)]
        event = await anext(subscription)
        assert (event.data, event.event, event.id) == (text, "kind", str(cursor))


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"topic": ""}, InvalidTopicError, "expected a topic of 1 to 255 characters, got 0"),
    ({"topic": "a/*"}, InvalidTopicError, "expected a topic without"),
    ({"topic": "a//b"}, InvalidTopicError, "empty segments"),
    ({"event": "stream:gap"}, InvalidEventError, "event types that start with 'stream:' are reserved"),
    ({"event": "stream:"}, InvalidEventError, "event types that start with 'stream:' are reserved"),
    ({"event": "a\nb"}, InvalidEventError, "expected event without"),
    ({"data": object()}, InvalidEventError, "JSON"),
    ({"data": float("nan")}, InvalidEventError, "JSON"),
    ({"data": "x" * 101}, EventTooLargeError, "at most 100 bytes, got 101"),
    ({"data": "€" * 34}, EventTooLargeError, "at most 100 bytes, got 102"),
    ({"key": ""}, InvalidEventError, "expected a key of 1 to 255 characters"),
    ({"key": "k" * 256}, InvalidEventError, "expected a key of 1 to 255 characters"),
]


@pytest.mark.parametrize(("fields", "error", "sentence"), REFUSED)
async def test_invalid_events(fields: dict[str, Any], error: type[Exception], sentence: str) -> None:
    async with hub_of(max_event_size=100) as (hub, _):
        arguments = {"topic": "t", "data": "d", **fields}
        calls: list[Callable[[], Any]] = [
            lambda: hub.draft(**arguments),
            lambda: hub.publish_soon(**arguments),
            lambda: hub.publish(**arguments),
            lambda: asyncio.to_thread(hub.publish_sync, **arguments),
        ]
        for call in calls:
            with pytest.raises(error, match=sentence):
                await call()
        with pytest.raises(error, match=sentence):
            await hub.publish_many([hub.draft("t", "good"), Draft(**arguments)])
        assert await stored(hub) == []
        assert hub.statistics().published == 0


async def test_greatest_event() -> None:
    async with hub_of(max_event_size=100) as (hub, _):
        await hub.publish("t", "x" * 100)
        await hub.publish("t", "€" * 33)


async def test_batch_is_atomic() -> None:
    async with hub_of() as (hub, broker), hub.subscribe("**") as subscription:
        batch = [hub.draft(f"t/{number}", number) for number in range(50)]
        cursors, others = await asyncio.gather(hub.publish_many(batch), hub.publish_many(batch))
        for each in (cursors, others):
            offsets = [cursor.offset for cursor in each]
            assert offsets == list(range(offsets[0], offsets[0] + 50))
        assert [int((await anext(subscription)).data or "") for _ in range(100)] == [*range(50)] * 2
        broker.fail("append")
        with pytest.raises(BrokerError):
            await hub.publish_many(batch)
        broker.recover()
        assert len(await stored(hub)) == 100
        assert await hub.publish_many([]) == []
        assert hub.statistics().published == 100


async def test_same_key() -> None:
    async with hub_of() as (hub, _):
        first = await hub.publish("t", "one", key="k")
        assert await hub.publish("t", "again", key="k") == first
        assert await hub.publish("t", "other", key="l") == Cursor(first.epoch, 2)
        again = await hub.publish_many([hub.draft("t", "x", key="k"), hub.draft("t", "y", key="m")])
        assert [cursor.offset for cursor in again] == [1, 3]
        assert [data for _, _, data in await stored(hub)] == ["one", "other", "y"]


async def test_publish_sync() -> None:
    async with hub_of() as (hub, broker):
        with pytest.raises(HubClosedError, match="publish_sync"):
            hub.publish_sync("t")
        cursors = await asyncio.gather(*(asyncio.to_thread(hub.publish_sync, "t", number) for number in range(40)))
        assert sorted(cursor.offset for cursor in cursors) == list(range(1, 41))
        broker.hold("append")
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(hub.publish_sync, "t", "late", timeout=0.05)
        broker.release()
        await settle()
        assert len(await stored(hub)) == 40, "an event was stored after its timeout"
        broker.fail("append")
        with pytest.raises(BrokerError):
            await asyncio.to_thread(hub.publish_sync, "t")


async def test_publish_soon(caplog: pytest.LogCaptureFixture) -> None:
    async with hub_of() as (hub, broker):
        tasks = [hub.publish_soon("t", number) for number in range(10)]
        cursors = [await task for task in tasks]
        assert [cursor.offset for cursor in cursors] == list(range(1, 11))
        assert [data for _, _, data in await stored(hub)] == [str(number) for number in range(10)]
        broker.fail("append")
        hub.publish_soon("t")
        await settle()
        assert "an event was not published: scripted failure" in caplog.text
        assert not hub._publishing


async def test_stored_before_delivered() -> None:
    async with hub_of() as (hub, broker), hub.subscribe("t") as subscription:
        broker.hold("append")
        waiting = asyncio.create_task(hub.publish("t", "x"))
        received = asyncio.ensure_future(anext(subscription))
        await settle()
        assert not waiting.done()
        assert not received.done()
        broker.release()
        assert str(await waiting) == (await received).id


async def test_closed_hub() -> None:
    hub = Hub()
    async with hub:
        pass
    for call in (lambda: hub.publish_sync("t"), lambda: hub.publish_soon("t"), hub.statistics):
        with pytest.raises(HubClosedError):
            call()
    with pytest.raises(HubClosedError):
        await hub.publish("t")
    await hub.close()


async def test_history_pages() -> None:
    async with hub_of() as (hub, broker):
        for number in range(30):
            await hub.publish(f"t/{number % 2}", str(number))
        seen: list[str] = []
        after: str | None = None
        while True:
            records, gap = await hub.history("t/1", after=after, limit=4)
            assert gap is None
            if not records:
                break
            seen += [record.data for _, record in records]
            after = str(records[-1][0])
        assert seen == [str(number) for number in range(1, 30, 2)]
        broker.trim(keep=5)
        for after, reason in ((None, None), (f"{hub.epoch}-3", "expired"), (f"{hub.epoch}-25", None), ("x", "reset")):
            records, gap = await hub.history("**", after=after)
            assert gap == reason
            assert [json.loads(record.data) for _, record in records] == [25, 26, 27, 28, 29]
        records, gap = await hub.history("**", after=f"{hub.epoch}-31")
        assert gap == "reset"


async def test_history_is_of_one_moment() -> None:
    """Records and gap belong to the moment of the read, whatever is trimmed after it."""
    async with hub_of() as (hub, broker):
        for number in range(30):
            await hub.publish("t", str(number))
        broker.hold("read")
        asked = asyncio.create_task(hub.history("t", after=f"{hub.epoch}-3"))
        await settle()
        broker.trim(keep=5)
        broker.release()
        records, gap = await asked
        assert ([record.data for _, record in records], gap) == ([str(number) for number in range(3, 30)], None)
        assert (await hub.history("t", after=f"{hub.epoch}-3"))[1] == "expired"


async def test_publish_now() -> None:
    """The log in memory takes an event at once, until it is too far ahead of its follower."""
    async with Hub("memory://") as hub, hub.subscribe("t") as events:
        taken = 0
        while hub.publish_now(hub.draft("t", str(taken))):
            taken += 1
        assert taken == 250
        assert [(await anext(events)).data for _ in range(taken)] == [str(number) for number in range(taken)]
        assert hub.publish_now(hub.draft("t", "again"))
        assert (await anext(events)).data == "again"
        assert hub.statistics().published == taken + 1


async def test_publish_now_to_other_logs() -> None:
    async with hub_of() as (hub, _):
        assert not hub.publish_now(hub.draft("t", "x"))
        assert await stored(hub) == []


async def test_publish_now_checks_the_size() -> None:
    async with Hub("memory://", max_event_size=3) as hub:
        with pytest.raises(EventTooLargeError):
            hub.publish_now(Draft("t", "four"))
        assert hub.publish_now(Draft("t", "abc"))
        assert await stored(hub) == [("t", None, "abc")]
