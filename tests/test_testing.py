"""The public test helpers: the client in the same process, and the clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from support.asgi import settle
from tickertape import EventSourceResponse, ServerSentEvent, StreamEndedError
from tickertape.asgi.types import Receive, Scope, Send
from tickertape.testing import EventStream, EventStreamClient, FakeClock

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


def body(data: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def sending(*messages: dict[str, Any]) -> Callable[[Scope, Receive, Send], Any]:
    """Return an application that sends some messages and returns."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def open_stream(*items: Any, **options: Any) -> EventStream:
    return EventStreamClient(EventSourceResponse(items)).open("/", **options)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the request as JSON."""
    request = Request(scope, receive)
    received = {
        "method": request.method,
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode(),
        "query": request.query_params.multi_items(),
        "headers": sorted(request.headers.items()),
        "body": (await request.body()).decode(),
        "spec_version": scope["asgi"]["spec_version"],
    }
    await JSONResponse(received)(scope, receive, send)


async def ask(client: EventStreamClient, url: str, **options: Any) -> dict[str, Any]:
    async with client.open(url, **options) as stream:
        await stream.read()
    received: dict[str, Any] = ServerSentEvent(stream.body).json()
    return received


# Requests

ALWAYS = [["accept", "text/event-stream"], ["host", "testserver"]]


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        ("/a", {}, {"method": "GET", "path": "/a", "raw_path": "/a", "query": [], "headers": ALWAYS, "body": ""}),
        ("/a?b=1", {"query": {"c": "2 ü"}}, {"query": [["b", "1"], ["c", "2 ü"]]}),
        ("/a", {"query": {"topic": ["x", "y/*"]}}, {"query": [["topic", "x"], ["topic", "y/*"]]}),
        ("/a%20ü/b", {}, {"path": "/a ü/b", "raw_path": "/a%20%C3%BC/b"}),
        ("/", {"headers": {"Accept": "*/*"}}, {"headers": [["accept", "*/*"], ["host", "testserver"]]}),
        ("/", {"last_event_id": "ü"}, {"headers": [ALWAYS[0], ALWAYS[1], ["last-event-id", "Ã¼"]]}),
        ("/", {"method": "POST", "body": b"data"}, {"method": "POST", "body": "data"}),
    ],
)
async def test_request(url: str, options: dict[str, Any], expected: dict[str, Any]) -> None:
    received = await ask(EventStreamClient(echo), url, **options)
    assert {name: received[name] for name in expected} == expected


async def test_headers() -> None:
    client = EventStreamClient(echo, headers={"Authorization": "one"})
    assert ["authorization", "one"] in (await ask(client, "/"))["headers"]
    assert ["authorization", "two"] in (await ask(client, "/", headers={"authorization": "two"}))["headers"]


@pytest.mark.parametrize("spec_version", ["2.0", "2.3", "2.5"])
async def test_version(spec_version: str) -> None:
    assert (await ask(EventStreamClient(echo, spec_version=spec_version), "/"))["spec_version"] == spec_version


# Reading


async def test_events_of_an_open_response() -> None:
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def items() -> AsyncIterator[str]:
        while True:
            yield await queue.get()

    async with EventStreamClient(EventSourceResponse(items())).open("/", wait=False) as stream:
        for text in ("a", "b"):
            queue.put_nowait(text)
            assert (await stream.next_event()).data == text
        assert stream.status == 200
        assert stream.headers["Content-Type"] == "text/event-stream"
        assert not stream.complete


async def test_event_in_pieces() -> None:
    app = sending(START, body(b"id: 1\nda"), body(b"ta: a\n"), body(b"\n", more=False))
    async with EventStreamClient(app).open("/") as stream:
        assert await stream.next_event() == ServerSentEvent("a", id="1")
        assert stream.last_event_id == "1"


async def test_loop_ends_with_the_stream() -> None:
    async with open_stream("a", "b") as stream:
        assert [event.data async for event in stream] == ["a", "b"]
        with pytest.raises(StreamEndedError, match="the stream has ended"):
            await stream.next_event()


async def test_events_and_comments() -> None:
    async with open_stream("a", ServerSentEvent(comment="one"), "b", ServerSentEvent(comment="two")) as stream:
        assert await stream.next_comment() == "one"
        assert await stream.next_comment() == "two"
        assert (await stream.next_event()).data == "a"
        assert (await stream.next_event()).data == "b"
        with pytest.raises(StreamEndedError):
            await stream.next_comment()


async def test_read_the_body() -> None:
    async with open_stream("a", "b") as stream:
        assert (await stream.next_event()).data == "a"
        assert await stream.read() == stream.body == b"data: a\n\ndata: b\n\n"
        assert stream.complete
    big = b"{" + b"x" * 2_000_000
    plain = {"type": "http.response.start", "status": 404, "headers": []}
    async with EventStreamClient(sending(plain, body(big, more=False))).open("/") as stream:
        assert stream.status == 404
        assert await stream.read() == big  # not an event stream: events are not limited


async def test_resume() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        after = dict(scope["headers"]).get(b"last-event-id", b"0")
        events = (ServerSentEvent("x", id=str(number)) for number in range(int(after) + 1, 1000))
        await EventSourceResponse(list(events))(scope, receive, send)

    client = EventStreamClient(app)
    async with client.open("/") as stream:
        assert (await stream.next_event()).id == "1"
        assert (await stream.next_event()).id == "2"
    async with client.open("/", last_event_id="2") as stream:
        assert (await stream.next_event()).id == "3"


async def test_backpressure() -> None:
    sent = 0

    async def items() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"data: " + b"x" * 10_000 + b"\n\n"

    async with EventStreamClient(EventSourceResponse(items())).open("/") as stream:
        await settle(turns=200)
        held = sent
        assert held < 10
        await settle(turns=200)
        assert sent == held
        for _ in range(held):
            await stream.next_event()
        await settle(turns=200)
        assert sent > held


# Waiting


async def test_timeouts_are_explained() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(START)
        await receive()

    async with EventStreamClient(app).open("/") as stream:
        with pytest.raises(TimeoutError, match=r"no event within 0.01 s"):
            await stream.next_event(timeout=0.01)
        with pytest.raises(TimeoutError, match=r"no event within 0.01 s"):
            await stream.next_comment(timeout=0.01)
        with pytest.raises(TimeoutError, match=r"the response did not end within 0.01 s"):
            await stream.read(timeout=0.01)


async def test_application_without_response() -> None:
    left = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal left
        await receive()
        await receive()
        left = True

    async with EventStreamClient(app).open("/", wait=False) as stream:
        with pytest.raises(TimeoutError, match=r"the response did not start within 0.01 s; open it with wait=False"):
            await stream.started(timeout=0.01)
        with pytest.raises(TimeoutError, match="the response did not start"):
            await stream.next_event(timeout=0.01)
        assert stream.status == 0
    assert left


async def test_cancelled_open() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()

    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), EventStreamClient(app).open("/"):
            pass
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("wait", [True, False])
async def test_application_raises_at_once(wait: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        async with EventStreamClient(app).open("/", wait=wait) as stream:
            await stream.next_event()


async def test_application_returns_at_once() -> None:
    with pytest.raises(StreamEndedError, match="the application returned without a response"):
        async with EventStreamClient(sending()).open("/"):
            pass


async def test_application_raises_later() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sending(START, body(b"data: a\n\n"))(scope, receive, send)
        raise LookupError("broken")

    async with EventStreamClient(app).open("/") as stream:
        assert (await stream.next_event()).data == "a"
        with pytest.raises(StreamEndedError) as raised:
            await stream.next_event()
    assert not stream.complete
    assert stream.error is raised.value.__cause__
    assert isinstance(stream.error, LookupError)


# Closing


async def test_close_disconnects() -> None:
    steps = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        steps.append((await receive())["type"])
        await send(START)
        steps.append((await receive())["type"])
        await settle()
        await send(body(b"after the end"))
        steps.append("done")

    async with EventStreamClient(app).open("/") as stream:
        assert steps == ["http.request"]
        await stream.disconnect()
        assert steps == ["http.request", "http.disconnect", "done"]
        await stream.disconnect()
        assert await stream.read() == b""


async def test_application_ignores_disconnect() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    async with EventStreamClient(app).open("/") as stream:
        with pytest.raises(TimeoutError, match=r"the application did not end within 0.01 s after the client left"):
            await stream.disconnect(timeout=0.01)
    await settle()
    assert asyncio.all_tasks() == before


async def test_disconnect_after_the_response() -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await sending(START, body(b"", more=False))(scope, receive, send)
        seen.append((await receive())["type"])

    async with EventStreamClient(app).open("/") as stream:
        await stream.read()
        assert seen == ["http.disconnect"]


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([body(b"")], "expected http.response.start, got http.response.body"),
        ([START, START], "expected http.response.body, got http.response.start"),
        ([START, body(b"", more=False), body(b"")], "the response is complete, got http.response.body"),
    ],
)
async def test_messages_out_of_order(messages: list[dict[str, Any]], complaint: str) -> None:
    stream = EventStreamClient(sending(*messages)).open("/", wait=False)
    async with stream:
        await settle()
    assert isinstance(stream.error, RuntimeError)
    assert str(stream.error) == complaint


async def test_repr() -> None:
    stream = open_stream(ServerSentEvent("a", id="1"))
    assert repr(stream) == "<EventStream / status=0 open last_event_id=None>"
    async with stream:
        await stream.read()
        assert repr(stream) == "<EventStream / status=200 complete last_event_id='1'>"
    async with EventStreamClient(sending(START)).open("/x") as stream:
        await settle()
        assert repr(stream) == "<EventStream /x status=200 ended last_event_id=None>"


# The lifespan


async def test_lifespan() -> None:
    steps = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        steps.append("startup")
        yield {"items": ["a", "b"]}
        steps.append("shutdown")

    app = Starlette(routes=[Route("/", lambda request: EventSourceResponse(request.state.items))], lifespan=lifespan)
    async with EventStreamClient(app) as client:
        async with client.open("/") as stream:
            assert (await stream.next_event()).data == "a"
        assert steps == ["startup"]
    assert steps == ["startup", "shutdown"]


@pytest.mark.parametrize("app", [sending(), EventSourceResponse([])])
async def test_application_without_lifespan(app: Any) -> None:
    before = asyncio.all_tasks()
    async with EventStreamClient(app):
        pass
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("fails_at", ["startup", "shutdown"])
async def test_lifespan_fails(fails_at: str) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if fails_at == "startup":
            raise LookupError("no database")
        yield
        raise LookupError("no database")

    before = asyncio.all_tasks()
    with pytest.raises(RuntimeError, match=f"the application's {fails_at} failed: [^$]*no database"):
        async with EventStreamClient(Starlette(lifespan=lifespan)):
            assert fails_at == "shutdown"
    await settle()
    assert asyncio.all_tasks() == before


async def test_failed_lifespan_is_ended() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    with pytest.raises(RuntimeError, match="no database"):
        async with EventStreamClient(app):
            pass
    await settle()
    assert asyncio.all_tasks() == before


async def test_streams_without_lifespan() -> None:
    async with open_stream("a") as stream:
        assert (await stream.next_event()).data == "a"


# The clock


def test_order_of_timers() -> None:
    clock = FakeClock(100)
    calls: list[tuple[str, float]] = []
    for name, when in [("late", 103), ("first", 101), ("second", 101), ("never", 110), ("past", 50)]:
        clock.call_at(when, lambda name: calls.append((name, clock.time())), name)
    clock.advance(0)
    assert calls == [("past", 100)]
    clock.advance(5)
    assert calls == [("past", 100), ("first", 101), ("second", 101), ("late", 103)]
    assert clock.time() == 105
    assert repr(clock) == "<FakeClock now=105 timers=1>"


def test_cancelled_timer() -> None:
    clock = FakeClock()
    calls: list[str] = []
    timer = clock.call_at(1001, calls.append, "a")
    clock.call_at(1001, calls.append, "b")
    timer.cancel()
    timer.cancel()
    assert repr(clock) == "<FakeClock now=1000.0 timers=1>"
    clock.advance(1)
    assert calls == ["b"]


def test_timer_sets_timer() -> None:
    clock = FakeClock(0)
    moments: list[float] = []

    def tick() -> None:
        moments.append(clock.time())
        clock.call_at(clock.time() + 2, tick)

    tick()
    clock.advance(7)
    assert moments == [0, 2, 4, 6]
    clock.advance(1)
    assert moments == [0, 2, 4, 6, 8]


def test_timer_that_raises() -> None:
    clock = FakeClock(0)
    clock.call_at(1, {}.__getitem__, "missing")
    with pytest.raises(KeyError):
        clock.advance(5)
    assert clock.time() == 1


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan")])
def test_advance_by_negative_seconds(seconds: float) -> None:
    clock = FakeClock()
    with pytest.raises(ValueError, match="expected seconds of at least 0"):
        clock.advance(seconds)
    assert clock.time() == 1000
