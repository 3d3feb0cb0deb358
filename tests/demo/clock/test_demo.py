"""The stream of the clock demo, read by a client in the same process."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from tickertape import Hub, ServerSentEvent
from tickertape.demo.clock import Ticker, clock_demo
from tickertape.demo.site import Site
from tickertape.testing import EventStream, EventStreamClient, FakeClock

OPENING = b"event: connected\ndata: Connection established\n\n"


class Server:
    """The demo in this process. ``tick`` appends updates."""

    def __init__(self, limit: int = 10) -> None:
        self.clock = FakeClock()
        ticker = Ticker(clock=self.clock, limit=limit, now=lambda: datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC))
        hub = Hub()
        self.client = EventStreamClient(Site(hub, [clock_demo(hub, ticker)]))

    def tick(self, updates: int = 1) -> None:
        self.clock.advance(2.0 * updates)


@asynccontextmanager
async def running(updates: int = 0, **options: int) -> AsyncIterator[Server]:
    server = Server(**options)
    async with server.client:
        server.tick(updates)
        yield server


async def connected(stream: EventStream) -> EventStream:
    assert await stream.next_event() == ServerSentEvent("Connection established", event="connected")
    return stream


async def next_ids(stream: EventStream, count: int) -> list[str | None]:
    return [(await stream.next_event()).id for _ in range(count)]


async def test_stream_of_the_guide() -> None:
    async with running() as server, server.client.open("/events") as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["access-control-allow-origin"] == "*"
        assert "no-store" in stream.headers["cache-control"]
        await connected(stream)
        assert stream.body.startswith(OPENING)
        server.tick()
        event = await stream.next_event()
        assert (event.id, event.event) == ("1", "update")
        assert event.json() == {"id": 1, "event": "update", "data": "Current time: 2025-01-02T03:04:05Z"}
        server.tick(2)
        assert await next_ids(stream, 2) == ["2", "3"]


async def test_bytes_of_the_stream() -> None:
    async with running(4) as server, server.client.open("/events") as stream:
        await connected(stream)
        server.tick()
        await stream.next_event()
        data = b'data: {"id":5,"event":"update","data":"Current time: 2025-01-02T03:04:05Z"}'
        assert stream.body == OPENING + b"id: 4\nretry: 2000\n\nid: 5\nevent: update\n" + data + b"\n\n"


async def test_clients_share_ids() -> None:
    async with running(3) as server, server.client.open("/events") as one, server.client.open("/events") as two:
        await connected(one)
        await connected(two)
        server.tick(2)
        assert await next_ids(one, 2) == await next_ids(two, 2) == ["4", "5"]


@pytest.mark.parametrize("source", ["header", "last_event_id", "lastEventId"])
async def test_resume(source: str) -> None:
    async with running(5) as server:
        options = {"last_event_id": "2"} if source == "header" else {"query": {source: "2"}}
        async with server.client.open("/events", **options) as stream:
            await connected(stream)
            server.tick()
            assert await next_ids(stream, 4) == ["3", "4", "5", "6"]


async def test_resume_before_first_update() -> None:
    async with running(5) as server:
        async with server.client.open("/events") as stream:
            await connected(stream)
        server.tick(2)
        async with server.client.open("/events", last_event_id=stream.last_event_id) as stream:
            await connected(stream)
            assert await next_ids(stream, 2) == ["6", "7"]


async def test_id_from_before_restart() -> None:
    async with running() as server:
        server.tick(2)
        async with server.client.open("/events", last_event_id="40") as stream:
            await connected(stream)
            server.tick(2)
            assert await next_ids(stream, 2) == ["41", "42"]


async def test_ids_rise_for_all_clients() -> None:
    async with running(1) as server, server.client.open("/events") as early:
        await connected(early)
        async with server.client.open("/events", last_event_id="40") as late:
            await connected(late)
            server.tick()
            assert await next_ids(early, 1) == await next_ids(late, 1) == ["41"]


@pytest.mark.parametrize("garbage", ["abc", "-3", "1e9", "9" * 300, "18446744073709551617", "２", "3 OR 1=1", "\x7f"])
async def test_foreign_id_is_ignored(garbage: str) -> None:
    async with running(3) as server, server.client.open("/events", last_event_id=garbage) as stream:
        await connected(stream)
        server.tick()
        assert await next_ids(stream, 1) == ["4"]


async def test_gap() -> None:
    async with running(9, limit=3) as server, server.client.open("/events", last_event_id="2") as stream:
        await connected(stream)
        gap = await stream.next_event()
        assert gap.event == "stream:gap"
        assert gap.json() == {"reason": "expired", "after": 2, "resumed": 7}
        assert await next_ids(stream, 3) == ["7", "8", "9"]


async def test_connections_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tickertape.demo")
    async with running(3) as server:
        async with server.client.open("/events", last_event_id="1\x1b[31m") as stream:
            await connected(stream)
        async with server.client.open("/events", method="HEAD") as stream:
            await stream.read()
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", r"Client connected: peer=testclient:50000 last_event_id='1\x1b[31m' after=3"),
        ("INFO", "Client disconnected: peer=testclient:50000 reason=client_closed"),
    ]


async def test_head() -> None:
    async with running() as server, server.client.open("/events", method="HEAD") as stream:
        assert await stream.read() == b""
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
        assert stream.complete


async def test_real_clock() -> None:
    hub = Hub()
    async with (
        EventStreamClient(Site(hub, [clock_demo(hub, Ticker(interval=0.001))])) as client,
        client.open("/events") as stream,
    ):
        await connected(stream)
        first, second = [int(text or 0) for text in await next_ids(stream, 2)]
        assert second == first + 1
