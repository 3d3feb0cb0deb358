"""The stream of the clock demo, read by a client in the same process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from support.asgi import settle
from support.servers import until
from tickertape import Hub, ServerSentEvent
from tickertape.broker import Retention
from tickertape.demo.clock import DEFAULT_INTERVAL, clock_demo
from tickertape.demo.clock.demo import newest_number, updates
from tickertape.demo.site import Site, open_hub
from tickertape.testing import EventStream, EventStreamClient, FakeClock

OPENING = b"event: connected\ndata: Connection established\n\n"


class Server:
    """The demo in this process. ``tick`` publishes updates."""

    def __init__(self, hub: Hub | None = None) -> None:
        self.hub = hub or Hub()
        self._clock = FakeClock()
        demo = clock_demo(self.hub, clock=self._clock, now=lambda: datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC))
        self.client = EventStreamClient(Site(self.hub, [demo]))

    async def tick(self, updates: int = 1) -> None:
        for _ in range(updates):
            newest = await newest_number(self.hub)
            await until(lambda: "timers=1" in repr(self._clock), lambda: "a timer")
            self._clock.advance(DEFAULT_INTERVAL)
            while await newest_number(self.hub) == newest:
                await settle()


@asynccontextmanager
async def running(updates: int = 0, hub: Hub | None = None) -> AsyncIterator[Server]:
    server = Server(hub)
    async with server.client:
        await server.tick(updates)
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
        await server.tick()
        event = await stream.next_event()
        assert (event.id, event.event) == ("1", "update")
        assert event.json() == {"id": 1, "event": "update", "data": "Current time: 2025-01-02T03:04:05Z"}
        await server.tick(2)
        assert await next_ids(stream, 2) == ["2", "3"]


async def test_bytes_of_the_stream() -> None:
    async with running(4) as server, server.client.open("/events") as stream:
        await connected(stream)
        await server.tick()
        await stream.next_event()
        data = b'data: {"id":5,"event":"update","data":"Current time: 2025-01-02T03:04:05Z"}'
        assert stream.body == OPENING + b"id: 4\nretry: 2000\n\nid: 5\nevent: update\n" + data + b"\n\n"


async def test_clients_share_ids() -> None:
    async with running(3) as server, server.client.open("/events") as one, server.client.open("/events") as two:
        await connected(one)
        await connected(two)
        await server.tick(2)
        assert await next_ids(one, 2) == await next_ids(two, 2) == ["4", "5"]


@pytest.mark.parametrize("source", ["header", "last_event_id", "lastEventId"])
async def test_resume(source: str) -> None:
    async with running(5) as server:
        options = {"last_event_id": "2"} if source == "header" else {"query": {source: "2"}}
        async with server.client.open("/events", **options) as stream:
            await connected(stream)
            await server.tick()
            assert await next_ids(stream, 4) == ["3", "4", "5", "6"]


async def test_resume_before_first_update() -> None:
    async with running(5) as server:
        async with server.client.open("/events") as stream:
            await connected(stream)
        await server.tick(2)
        async with server.client.open("/events", last_event_id=stream.last_event_id) as stream:
            await connected(stream)
            assert await next_ids(stream, 2) == ["6", "7"]


async def test_numbers_continue_after_a_restart(tmp_path: Path) -> None:
    for first in (1, 3):
        async with running(2, open_hub(tmp_path)) as server, server.client.open("/events", last_event_id="0") as stream:
            await connected(stream)
            assert (await next_ids(stream, first + 1))[-2:] == [str(first), str(first + 1)]


async def test_number_of_a_lost_log() -> None:
    """The client learns that updates are missing, and continues with the numbers of the new log."""
    async with running(2) as server, server.client.open("/events", last_event_id="40") as stream:
        await connected(stream)
        gap = await stream.next_event()
        assert (gap.event, gap.json()) == ("stream:gap", {"reason": "reset", "after": 40, "resumed": 2})
        await server.tick(2)
        assert await next_ids(stream, 2) == ["3", "4"]


@pytest.mark.parametrize("garbage", ["abc", "-3", "1e9", "9" * 300, "18446744073709551617", "２", "3 OR 1=1", "\x7f"])
async def test_foreign_id_is_ignored(garbage: str) -> None:
    async with running(3) as server, server.client.open("/events", last_event_id=garbage) as stream:
        await connected(stream)
        await server.tick()
        assert await next_ids(stream, 1) == ["4"]


async def test_gap() -> None:
    hub = Hub(retention=Retention(events=3))
    async with running(9, hub) as server, server.client.open("/events", last_event_id="2") as stream:
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
        ("INFO", r"Client connected: peer=testclient:50000 last_event_id='1\x1b[31m'"),
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
        EventStreamClient(Site(hub, [clock_demo(hub, interval=0.001)])) as client,
        client.open("/events") as stream,
    ):
        await connected(stream)
        first, second = [int(text or 0) for text in await next_ids(stream, 2)]
        assert second == first + 1


async def test_exact_intervals() -> None:
    """An update that was read late does not delay the next one. After a pause, the interval begins again."""
    clock = FakeClock()
    async with Hub() as hub:
        source = updates(hub, 2.0, clock, lambda: datetime(2025, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1))))
        for pause, wait in [(0.0, 2.0), (0.5, 1.5), (7.0, 2.0), (0.0, 2.0)]:
            clock.advance(pause)
            update = asyncio.ensure_future(anext(source))
            await settle()
            clock.advance(wait - 0.1)
            await settle()
            assert not update.done()
            clock.advance(0.1)
            assert (await update)["data"] == "Current time: 2025-01-02T03:04:05+01:00"
        await source.aclose()


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
def test_refused_interval(interval: float) -> None:
    with pytest.raises(ValueError, match="expected an interval of more than 0 seconds"):
        clock_demo(Hub(), interval=interval)
