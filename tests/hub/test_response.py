"""``HubResponse``: a subscription as an event stream, in any ASGI application."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.requests import Request

from support.asgi import settle
from tickertape import Hub, HubResponse
from tickertape.asgi.types import Receive, Scope, Send
from tickertape.broker import Retention
from tickertape.errors import InvalidTopicError
from tickertape.testing import EventStream, EventStreamClient, FakeClock, ScriptedBroker


class App:
    """A bare ASGI application that answers with a hub's topic, with its hub, log and clock."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.broker = ScriptedBroker()
        self.hub = Hub(self.broker, clock=self.clock, random=lambda: 0.5, retry=3.0, **options)
        self.client = EventStreamClient(self)
        self.options: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.hub.response(scope, "t", **self.options)(scope, receive, send)

    async def publish(self, *data: Any) -> list[str]:
        """Publish, and return the ids when the hub has read the events from the log."""
        cursors = await self.hub.publish_many([self.hub.draft("t", one) for one in data])
        await settle()
        return [str(cursor) for cursor in cursors]


@pytest.fixture
async def app() -> AsyncIterator[App]:
    app = App()
    async with app.hub:
        yield app


async def data_of(stream: EventStream, count: int) -> list[str | None]:
    return [(await stream.next_event()).data for _ in range(count)]


# The first bytes


@pytest.mark.parametrize("published", [0, 3])
async def test_first_block(app: App, published: int) -> None:
    await app.publish(*range(published))
    async with app.client.open("/") as stream:
        await app.publish("x")
        event = await stream.next_event()
        epoch = (await app.broker.open()).epoch
        assert stream.body == (
            f"id: {epoch}-{published}\nretry: 3000\n\nid: {epoch}-{published + 1}\ndata: x\n\n".encode()
        )
        assert event.id == f"{epoch}-{published + 1}"


async def test_resume_before_first_event(app: App) -> None:
    async with app.client.open("/") as stream:
        await look(stream)
        place = stream.last_event_id
    await app.publish("missed", "too")
    async with app.client.open("/", last_event_id=place) as stream:
        assert await data_of(stream, 2) == ["missed", "too"]


async def look(stream: EventStream) -> bytes:
    """Read the bytes sent so far, which may contain no event, and return the body."""
    waiting = asyncio.ensure_future(stream.next_event())
    await settle()
    assert not waiting.done()
    waiting.cancel()
    return stream.body


async def test_gap_in_first_block(app: App) -> None:
    [first, _] = await app.publish("kept", "kept too")
    epoch = first.partition("-")[0]
    async with app.client.open("/", last_event_id="elsewhere-5") as stream:
        events = [await stream.next_event() for _ in range(3)]
    assert json.loads(events[0].data or "") == {"reason": "reset", "after": "elsewhere-5", "resumed": f"{epoch}-0"}
    assert (events[0].event, events[0].id) == ("stream:gap", f"{epoch}-0")
    assert [event.data for event in events[1:]] == ["kept", "kept too"]
    head = stream.body.split(b"\n\n")[0]
    assert head.startswith(b"id: ")
    assert head.endswith(b"retry: 3000")
    assert b"\nevent: stream:gap\n" in head


# Where it starts


@pytest.mark.parametrize(
    ("header", "query", "last", "expected"),
    [
        (2, None, None, ["3", "4"]),
        (None, {"last_event_id": "{epoch}-1"}, None, ["2", "3", "4"]),
        (None, {"lastEventId": "{epoch}-3"}, None, ["4"]),
        (3, {"last_event_id": "{epoch}-1"}, None, ["4"]),  # a browser's header is younger than its URL
        (None, None, 2, ["3", "4"]),
        (3, None, 4, ["4"]),
        (0, None, None, ["1", "2", "3", "4"]),
    ],
)
async def test_start(
    app: App, header: int | None, query: Mapping[str, str] | None, last: int | None, expected: list[str]
) -> None:
    epoch = (await app.publish(1, 2, 3, 4))[0].partition("-")[0]
    app.options["last"] = last
    stream = app.client.open(
        "/",
        last_event_id=None if header is None else f"{epoch}-{header}",
        query={name: value.format(epoch=epoch) for name, value in (query or {}).items()},
    )
    async with stream:
        assert await data_of(stream, len(expected)) == expected
        assert stream.last_event_id == f"{epoch}-4"


async def test_history_then_live(app: App) -> None:
    """Events from the history and events published during its read arrive once, in order."""
    await app.publish(*range(300))
    app.options["last"] = 300
    async with app.client.open("/") as stream:
        await app.publish(*range(300, 400))
        assert await data_of(stream, 400) == [str(number) for number in range(400)]


# Headers and methods


async def test_headers(app: App) -> None:
    app.options["headers"] = {"X-One": "1", "Cache-Control": "no-cache"}
    async with app.client.open("/") as stream:
        assert stream.status == 200
        assert sorted(stream.headers.raw) == [
            (b"cache-control", b"no-cache"),
            (b"content-type", b"text/event-stream"),
            (b"incremental", b"?1"),
            (b"x-accel-buffering", b"no"),
            (b"x-one", b"1"),
        ]


async def test_head(app: App) -> None:
    joined: list[Any] = []
    app.hub.presence.on_join(joined.append)
    async with app.client.open("/", method="HEAD") as stream:
        assert await stream.read() == b""
        assert (stream.status, stream.headers["content-type"], stream.complete) == (200, "text/event-stream", True)
    assert joined == []


# Refused with a status


async def problem(stream: EventStream) -> dict[str, Any]:
    async with stream:
        body = await stream.read()
        assert stream.complete
        assert stream.headers["content-type"] == "application/problem+json"
        assert stream.headers["content-length"] == str(len(body))
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["retry-after"] == "5"
        found: dict[str, Any] = json.loads(body)
        assert found["status"] == stream.status
        assert found["title"] == "Service Unavailable"
        return found


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_draining_hub(app: App, method: str) -> None:
    app.hub.drain()
    found = await problem(app.client.open("/", method=method))
    assert (found["status"], found["detail"]) == (503, "The hub is draining: try again in a moment.")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_closed_hub(method: str) -> None:
    app = App()
    async with app.hub:
        pass
    found = await problem(app.client.open("/", method=method))
    assert found["status"] == 503
    assert "hub is closed" in found["detail"]


@pytest.mark.parametrize("last_event_id", ["nonsense", "elsewhere-5"])
async def test_failing_log(app: App, last_event_id: str) -> None:
    app.broker.fail("state")
    found = await problem(app.client.open("/", last_event_id=last_event_id))
    assert (found["status"], found["detail"]) == (503, "scripted failure")
    assert app.hub.subscribers() == 0


async def test_drain_during_start(app: App) -> None:
    app.broker.hold("state")
    stream = app.client.open("/", last_event_id="elsewhere-5", wait=False)
    async with stream:
        await settle()
        app.hub.drain()
        app.broker.release()
        await stream.read()
        assert stream.status == 503
        assert stream.headers["retry-after"] == "5"


async def test_invalid_pattern(app: App) -> None:
    scope: Scope = {"type": "http", "method": "GET", "headers": []}
    with pytest.raises(InvalidTopicError):
        app.hub.response(scope, ["a*"])
    with pytest.raises(InvalidTopicError):
        app.hub.response(scope, [])
    with pytest.raises(ValueError, match="expected on_overflow to be one of 'disconnect', 'skip', 'latest'"):
        app.hub.response(scope, "t", on_overflow="explode")  # type: ignore[arg-type]


# Heartbeats


async def silence(app: App, seconds: float) -> None:
    await settle()
    app.clock.advance(seconds)
    await settle()


async def test_heartbeat_after_silence() -> None:
    app = App(heartbeat=15.0)
    async with app.hub, app.client.open("/") as stream:
        for _ in range(4):  # the stream is never silent for fifteen seconds
            await silence(app, 10.0)
            await app.publish("x")
            await stream.next_event()
        assert b"heartbeat" not in stream.body
        await silence(app, 14.0)
        assert b"heartbeat" not in await look(stream)
        await silence(app, 2.0)
        assert await stream.next_comment() == "heartbeat"
        await silence(app, 14.0)
        assert (await look(stream)).count(b"heartbeat") == 1
        await silence(app, 2.0)
        assert await stream.next_comment() == "heartbeat"


async def test_no_heartbeat() -> None:
    app = App(heartbeat=None, send_timeout=None)
    async with app.hub, app.client.open("/") as stream:
        await silence(app, 1000.0)
        await app.publish("x")
        await stream.next_event()
        assert b"heartbeat" not in stream.body


# Its end


async def test_drained_stream_ends_with_retry(app: App) -> None:
    left: list[Any] = []
    app.hub.presence.on_leave(lambda info, reason: left.append(reason))
    async with app.client.open("/") as stream:
        await app.publish("x")
        await stream.next_event()
        app.hub.drain()
        await silence(app, app.hub.drain_window)
        body = await stream.read()
        assert stream.complete
    assert body.endswith(b"data: x\n\nretry: 3000\n\n")
    assert left == ["draining"]
    assert app.hub.subscribers() == 0


async def test_close_ends_streams() -> None:
    app = App()
    await app.hub.open()
    async with app.client.open("/") as stream:
        await app.publish("x")
        await stream.next_event()
        await app.hub.close()
        assert (await stream.read()).endswith(b"retry: 3000\n\n")
        assert stream.complete


async def test_client_leaves(app: App) -> None:
    left: list[Any] = []
    app.hub.presence.on_leave(lambda info, reason: left.append((info.user, reason)))
    app.options["user"] = "ada"
    async with app.client.open("/"):
        assert app.hub.subscribers("t") == 1
    assert app.hub.subscribers() == 0
    assert left == [("ada", "client_closed")]
    assert app.hub.statistics().disconnects == {"client_closed": 1}


async def test_slow_consumer() -> None:
    # The stream ends cleanly: browsers reconnect by themselves, with their cursor.
    app = App(retention=Retention(events=5))
    async with app.hub:
        async with app.client.open("/") as stream:
            await look(stream)
            place = stream.last_event_id
            for number in range(40):  # more than a connection holds
                await app.publish(f"{number}:" + "x" * 10_000)
                if number % 5 == 4:
                    app.broker.trim(keep=5)
            await stream.read()
            assert stream.complete
        assert app.hub.statistics().disconnects == {"slow_consumer": 1}
        assert stream.last_event_id != place
        async with app.client.open("/", last_event_id=stream.last_event_id) as again:
            gap = await again.next_event()
            assert gap.event == "stream:gap"
            assert gap.json()["reason"] == "expired"
            assert gap.json()["after"] == stream.last_event_id
            assert ((await again.next_event()).data or "").startswith("35:")


async def test_log_fails_under_stream() -> None:
    app = App(retention=Retention(events=1))
    async with app.hub:
        [first, *_] = await app.publish(1, 2, 3)
        app.broker.fail("read")
        async with app.client.open("/", last_event_id=first) as stream:
            events = [event async for event in stream]
            assert [event.event for event in events] == ["stream:error"]
            assert not stream.complete
        assert app.hub.statistics().disconnects == {"error": 1}


# In a framework


async def test_return_annotation() -> None:
    hub = Hub(clock=FakeClock())
    app = FastAPI(lifespan=hub.lifespan)

    @app.get("/events")
    async def events(request: Request, topic: str) -> HubResponse:
        return hub.response(request, [topic], last=10)

    async with EventStreamClient(app) as client:
        await hub.publish("chat/1", {"text": "hello"}, event="message")
        await hub.publish("chat/2", "not here")
        async with client.open("/events", query={"topic": "chat/1"}) as stream:
            event = await stream.next_event()
            assert (event.event, event.json()) == ("message", {"text": "hello"})
        assert hub.subscribers() == 0
    assert "/events" in app.openapi()["paths"]


async def test_repr(app: App) -> None:
    response = app.hub.response({"type": "http", "headers": []}, ["b", "a"])
    assert repr(response) == "<HubResponse ('a', 'b')>"


async def test_drain(app: App) -> None:
    async with app.client.open("/") as one, app.client.open("/") as two:
        await settle()
        app.hub.drain()
        await silence(app, 0.5)
        assert app.hub.subscribers() == 0
        await asyncio.gather(one.read(), two.read())
        assert one.complete
        assert two.complete


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
async def test_other_scopes(kind: str) -> None:
    async with Hub() as hub:
        response = hub.response({"type": kind, "headers": []}, "t")
        with pytest.raises(RuntimeError, match=f"answers HTTP requests, not a scope of type '{kind}'"):
            await response({"type": kind}, None, None)  # type: ignore[arg-type]
        assert hub.subscribers() == 0
