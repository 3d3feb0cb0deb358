"""Resuming with a cursor, in the header or the query, and the gap if events are no longer kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.hub import HubClient, gap_of, settle
from tickertape.broker import Retention
from tickertape.hub import Hub
from tickertape.testing import FakeClock, ScriptedBroker
from tickertape.wire import compile_patterns

WAYS = pytest.mark.parametrize("direct", [False, True], ids=["portable", "direct"])


@asynccontextmanager
async def hub_with(
    count: int, *, window: int = 1000, keep: int | None = None
) -> AsyncIterator[tuple[Hub, ScriptedBroker]]:
    """Open a hub with the numbers from 1 in its log, on the topics ``t/0``, ``t/1``, ``t/0`` and so on."""
    broker = ScriptedBroker(keep=keep)
    async with Hub(broker, clock=FakeClock(), retention=Retention(events=window), random=lambda: 0.5) as hub:
        for number in range(1, count + 1):
            await hub.publish(f"t/{(number + 1) % 2}", str(number))
            while hub.delivery.position < number:  # noqa: ASYNC110
                await asyncio.sleep(0)  # the hub reads it before the log drops it
        yield hub, broker


async def read(client: HubClient) -> list[str]:
    """Return the data of all events; for a gap, its reason and the resumed offset."""
    events = await client.read_all()
    return [
        f"{gap_of(event)['reason']} {gap_of(event)['resumed'].split('-')[1]}" if event.event else event.data or ""
        for event in events
    ]


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


@WAYS
async def test_first_block(direct: bool) -> None:
    async with hub_with(3) as (hub, _):
        client = HubClient(hub, "t/**", direct=direct)
        assert await read(client) == []
        assert client.body == f"id: {hub.epoch}-3\nretry: 3000\n\n".encode()
        assert client.headers == {
            "content-type": "text/event-stream",
            "cache-control": "no-store, no-transform",
            "x-accel-buffering": "no",
            "incremental": "?1",
        }
        await client.close()
        await hub.publish("t/0", "4")
        again = HubClient(hub, "t/**", direct=direct, last_event_id=client.last_event_id)
        assert await read(again) == ["4"]
        await again.close()


@WAYS
@pytest.mark.parametrize("name", ["header", "last_event_id", "lastEventId"])
@pytest.mark.parametrize(
    ("cursor", "expected"),
    [
        ("{epoch}-0", numbers(1, 9)),
        ("{epoch}-7", ["8", "9"]),
        ("{epoch}-9", []),
        ("{epoch}-10", ["reset 0", *numbers(1, 9)]),
        ("{epoch}-9999999999999999999", ["reset 0", *numbers(1, 9)]),
        ("{epoch}-99999999999999999999", ["reset 0", *numbers(1, 9)]),
        ("{epoch}--1", ["reset 0", *numbers(1, 9)]),
        ("{epoch}-07", ["reset 0", *numbers(1, 9)]),
        ("another-7", ["reset 0", *numbers(1, 9)]),
        ("7", ["reset 0", *numbers(1, 9)]),
        ("-", ["reset 0", *numbers(1, 9)]),
        ("käse €", ["reset 0", *numbers(1, 9)]),
        ("x" * 5000, ["reset 0", *numbers(1, 9)]),
    ],
)
async def test_resume(direct: bool, name: str, cursor: str, expected: list[str]) -> None:
    async with hub_with(9) as (hub, _):
        cursor = cursor.format(epoch=hub.epoch)
        given: dict[str, Any] = {"last_event_id": cursor} if name == "header" else {"query": {name: cursor}}
        client = HubClient(hub, "t/**", direct=direct, **given)
        assert await read(client) == expected
        if expected and expected[0].startswith("reset"):
            # One block with the cursor and the gap: no client has the one without the other.
            assert client.body.startswith(f"id: {hub.epoch}-0\nevent: stream:gap\ndata: ".encode())
            assert gap_of(client.events[0])["after"] == cursor[:200]
            assert hub.statistics().gaps == {"expired": 0, "reset": 1}
        await client.close()


async def test_header_before_query() -> None:
    async with hub_with(9) as (hub, _):
        client = HubClient(hub, "t/**", last_event_id=f"{hub.epoch}-8", query={"last_event_id": f"{hub.epoch}-2"})
        assert await read(client) == ["9"]
        await client.close()


@WAYS
@pytest.mark.parametrize(
    ("window", "keep", "after", "expected"),
    [
        (5, None, 3, numbers(4, 30)),  # older than memory: read from the log
        (5, 12, 3, ["expired 18", *numbers(19, 30)]),
        (5, 12, 18, numbers(19, 30)),
        (5, 12, 17, ["expired 18", *numbers(19, 30)]),
        (30, 12, 3, numbers(4, 30)),  # memory has more than the log
    ],
)
async def test_expired_events(direct: bool, window: int, keep: int | None, after: int, expected: list[str]) -> None:
    async with hub_with(30, window=window, keep=keep) as (hub, _):
        client = HubClient(hub, "t/**", direct=direct, last_event_id=f"{hub.epoch}-{after}")
        assert await read(client) == expected
        await client.close()


@WAYS
@pytest.mark.parametrize(
    ("topics", "last", "expected"),
    [
        (("t/**",), None, []),
        (("t/**",), 0, []),
        (("t/**",), 1, ["30"]),
        (("t/**",), 5, numbers(26, 30)),
        (("t/**",), 12, numbers(19, 30)),
        (("t/*",), 1000, numbers(1, 30)),
        (("t/0",), 4, ["23", "25", "27", "29"]),
        (("t/0", "t/1"), 7, numbers(24, 30)),
        (("**",), 1_000_000, numbers(1, 30)),
        (("other",), 10, []),
    ],
)
async def test_last_events(direct: bool, topics: tuple[str, ...], last: int | None, expected: list[str]) -> None:
    async with hub_with(30, window=5) as (hub, _):
        client = HubClient(hub, *topics, direct=direct, last=last)
        assert await read(client) == expected
        await hub.publish("t/0", "31")
        await hub.publish("t/1", "32")
        await hub.publish("other", "33")
        live = [("t/0", "31"), ("t/1", "32"), ("other", "33")]
        assert await read(client) == [data for topic, data in live if compile_patterns(topics)(topic)]
        await client.close()


@WAYS
async def test_cursor_ahead_of_hub(direct: bool) -> None:
    """A cursor that another hub has seen first is waited for."""
    async with hub_with(2) as (hub, broker):
        broker.hold("tail")
        for number in range(3, 6):
            await hub.publish("t/0", str(number))
        client = HubClient(hub, "t/**", direct=direct, last_event_id=f"{hub.epoch}-4")
        assert await read(client) == []
        broker.release("tail")
        assert await read(client) == ["5"]
        assert hub.statistics().gaps == {"expired": 0, "reset": 0}
        await client.close()


async def test_leave_during_start() -> None:
    async with hub_with(2) as (hub, broker):
        broker.hold("tail")
        await hub.publish("t/0", "3")
        client = HubClient(hub, "t/**", direct=True, last_event_id=f"{hub.epoch}-3")
        await settle()
        assert len(hub.delivery._joining) == 1
        await client.close()
        assert len(hub.delivery._joining) == 0


async def test_last_events_during_trimming() -> None:
    async with hub_with(30, window=5) as (hub, broker):
        broker.hold("read")
        client = HubClient(hub, "**", last=10)
        await settle()
        for number in range(31, 35):
            await hub.publish("t/0", str(number))
            await settle()
        broker.release()
        assert await read(client) == numbers(21, 34)
        await client.close()


async def test_log_replaced_during_start() -> None:
    async with hub_with(30, window=5) as (hub, broker):
        broker.hold("read")
        client = HubClient(hub, "**", last=20)
        await settle()
        broker.reset()
        await hub.publish("t/0", "new")
        await settle()
        broker.release()
        assert (await read(client))[-1] == "new"
        await client.close()


async def test_failing_log() -> None:
    async with hub_with(30, window=5) as (hub, broker):
        broker.fail("state", "read")
        for options in ({"last_event_id": "garbage"}, {"last": 20}):
            client = HubClient(hub, "**", **options)
            await asyncio.wait([client.task])
            client.read()
            assert client.status == 503
            assert client.headers["retry-after"]
            assert client.headers["content-type"] == "application/problem+json"
            await client.close()
        assert hub.subscribers() == 0
