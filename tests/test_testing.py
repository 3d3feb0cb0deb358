"""The public test helpers: the client in the same process, and the clock."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from support.asgi import settle
from support.pages import write_files
from tickertape import EventSourceResponse, ServerSentEvent, StreamEndedError
from tickertape.asgi.types import Receive, Scope, Send
from tickertape.testing import EventStream, EventStreamClient, FakeClock, Response, SyncEventStreamClient

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


# Requests, cookies and bodies


async def echo_body(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    kept = {name: request.headers.get(name) for name in ("accept", "content-type", "cookie")}
    await JSONResponse({"method": request.method, "body": (await request.body()).decode(), **kept})(
        scope, receive, send
    )


REQUESTS = [
    ("get", {}, {"method": "GET", "body": "", "accept": "*/*", "content-type": None, "cookie": None}),
    ("post", {"json": {"a": "é"}}, {"method": "POST", "content-type": "application/json"}),
    ("put", {"body": b"x"}, {"method": "PUT", "body": "x", "content-type": None}),
    ("patch", {"json": [], "headers": {"content-type": "text/x"}}, {"body": "[]", "content-type": "text/x"}),
    ("delete", {"cookies": {"b": "2"}}, {"method": "DELETE", "cookie": "b=2"}),
    (
        "options",
        {"headers": {"accept": "text/plain", "cookie": "c=3"}, "cookies": {"b": "2"}},
        {"method": "OPTIONS", "accept": "text/plain", "cookie": "c=3; b=2"},
    ),
]


@pytest.mark.parametrize(("method", "options", "expected"), REQUESTS)
async def test_ordinary_requests(method: str, options: dict[str, Any], expected: dict[str, Any]) -> None:
    response = await getattr(EventStreamClient(echo_body), method)("/", **options)
    received = response.json()
    assert response.status == 200
    assert {name: received[name] for name in expected} == expected
    if options.get("json"):
        assert json.loads(received["body"]) == options["json"]


@pytest.mark.parametrize(("method", "options", "expected"), REQUESTS)
def test_ordinary_requests_without_asyncio(method: str, options: dict[str, Any], expected: dict[str, Any]) -> None:
    with SyncEventStreamClient(echo_body) as client:
        received = getattr(client, method)("/", **options).json()
    assert {name: received[name] for name in expected} == expected


async def test_json_or_body() -> None:
    with pytest.raises(ValueError, match="pass body or json, not both"):
        EventStreamClient(echo_body).open("/", body=b"x", json={})


async def test_head_of_a_response() -> None:
    response = await EventStreamClient(JSONResponse({})).head("/")
    assert (response.status, response.headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("session=1; Path=/; HttpOnly", {"old": "0", "session": "1"}),
        ("old=2; Max-Age=100", {"old": "2"}),
        ("old=; Max-Age=0", {}),
        ("old=; Max-Age=-1", {}),
        ("old=; Expires=Thu, 01 Jan 1970 00:00:00 GMT", {}),
        ("old=3; Expires=Thu, 01 Jan 2970 00:00:00 GMT", {"old": "3"}),
        ("old=4; Max-Age=5; Expires=Thu, 01 Jan 1970 00:00:00 GMT", {"old": "4"}),
    ],
)
async def test_cookies_are_kept(sent: str, kept: dict[str, str]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        cookie = Request(scope).headers.get("cookie")
        await JSONResponse(cookie, headers={"set-cookie": sent})(scope, receive, send)

    client = EventStreamClient(app, cookies={"old": "0"})
    assert (await client.get("/")).json() == "old=0"
    assert client.cookies == kept
    async with client.open("/") as stream:
        sent_back = json.loads(await stream.read())
    assert sent_back == ("; ".join(f"{name}={value}" for name, value in kept.items()) or None)


async def test_request_that_fails() -> None:
    async def early(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("no table")

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await sending(START, body(b"a", more=False))(scope, receive, send)
        raise LookupError("no table")

    async def between(scope: Scope, receive: Receive, send: Send) -> None:
        await sending(START, body(b"a"))(scope, receive, send)
        raise LookupError("no table")

    for app in (early, between):
        with pytest.raises(LookupError, match="no table"):
            await EventStreamClient(app).get("/")
    response = await EventStreamClient(late).get("/")
    assert (response.text, type(response.error)) == ("a", LookupError)
    assert "no table" in repr(response)
    with pytest.raises(StreamEndedError, match="before the end of the response"):
        await EventStreamClient(sending(START, body(b"a"))).get("/")


@pytest.mark.parametrize(("messages", "step"), [([START], "end"), ([], "start")])
async def test_request_for_a_stream_without_end(messages: list[dict[str, Any]], step: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sending(*messages)(scope, receive, send)
        await receive()
        await receive()

    message = rf"the response did not {step} within 0.01 s; open\(\) reads a stream while it is sent"
    with pytest.raises(TimeoutError, match=message):
        await EventStreamClient(app).get("/", timeout=0.01)


async def test_response_waits_for_background_tasks() -> None:
    done = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({})(scope, receive, send)
        await settle()
        done.append(1)

    assert isinstance(await EventStreamClient(app).get("/"), Response)
    assert done == [1]


# Without asyncio


def test_streams_in_another_thread() -> None:
    threads = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        threads.append(threading.current_thread())
        items = [ServerSentEvent("a", id="1"), ServerSentEvent(comment="c"), ServerSentEvent("b", event="x")]
        await EventSourceResponse(items)(scope, receive, send)

    with SyncEventStreamClient(app) as client:
        with client.open("/") as stream:
            assert (stream.started(), stream.status, stream.error) == (200, 200, None)
            first = stream.next_event()
            assert (first.data, first.type, stream.last_event_id) == ("a", "message", "1")
            assert stream.next_comment() == "c"
            assert [event.type for event in stream] == ["x"]
            assert stream.body == stream.read()
            stream.finished()
            assert stream.complete
            assert repr(stream) == "<SyncEventStream / status=200 complete last_event_id='1'>"
        assert threading.current_thread() not in threads
    assert [thread.is_alive() for thread in threads] == [False] * len(threads)


def test_lifespan_without_asyncio() -> None:
    before = threading.active_count()
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        steps.append("startup")
        yield
        steps.append("shutdown")

    client = SyncEventStreamClient(Starlette(lifespan=lifespan))
    for _ in range(2):  # a client may be entered again
        with client:
            assert client.get("/").status == 404
    assert steps == ["startup", "shutdown"] * 2
    assert threading.active_count() == before


def test_lifespan_fails_without_asyncio() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no database"), SyncEventStreamClient(app):
        pass
    assert threading.active_count() == before


def test_client_that_is_not_entered() -> None:
    client = SyncEventStreamClient(sending())
    with pytest.raises(RuntimeError, match="the client is not entered: use it in a with block"):
        client.get("/")
    with client, pytest.raises(RuntimeError, match="the client is already entered"):
        client.__enter__()


def test_page(tmp_path: Path) -> None:
    """The files of the how-to, as a user's own test suite."""
    write_files("how-to/testing", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "-o", "asyncio_mode=auto"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function", "--rootdir", str(tmp_path), str(tmp_path)]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (outcome.returncode, outcome.stdout.splitlines()[-1][:8]) == (0, "6 passed"), outcome.stdout
