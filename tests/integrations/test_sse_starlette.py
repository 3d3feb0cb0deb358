"""The same programs on sse-starlette and on our package: the same bytes, apart from documented differences."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
import sse_starlette
import sse_starlette.event
import sse_starlette.sse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.routing import Route
from starlette.testclient import TestClient

from support.asgi import Wire, scope_of
from support.pages import write_files
from support.servers import Connection, Program, free_port
from tickertape import ServerSentEvent, close_streams
from tickertape.integrations import sse_starlette as ours

PACKAGES = [pytest.param(sse_starlette, id="theirs"), pytest.param(ours, id="ours")]
PATIENCE = 10.0

Make = Callable[[Any], Any]


async def run(response: Any, wire: Wire, method: str = "GET") -> None:
    async with asyncio.timeout(PATIENCE):
        await response(scope_of(method), wire.receive, wire.send)


async def serve_items(package: Any, items: list[Any], **options: Any) -> bytes:
    async def content() -> AsyncIterator[Any]:
        for item in items:
            yield item

    wire = Wire()
    await run(package.EventSourceResponse(content(), **options), wire)
    assert wire.complete
    return wire.body


# Bytes

ITEMS: dict[str, Make] = {
    "text": lambda p: "hello",
    "empty text": lambda p: "",
    "lines": lambda p: "a\nb\r\nc\rd\n",
    "number": lambda p: 7,
    "nothing": lambda p: None,
    "list": lambda p: [1, "two"],
    "bytes": lambda p: b"data: as it is\n\n",
    "memoryview": lambda p: memoryview(b"data: view\n\n"),
    "dict": lambda p: {"data": "x", "event": "e", "id": "1", "retry": 9, "comment": "c"},
    "dict with its own sep": lambda p: {"data": "x", "sep": "!"},
    "empty dict": lambda p: {},
    "event": lambda p: p.ServerSentEvent("x", event="e", id="1", retry=9, comment="c\nd"),
    "event with a sep": lambda p: p.ServerSentEvent("x\ny", sep="\n"),
    "line breaks in names": lambda p: p.ServerSentEvent("x", event="a\nb", id="1\r\n2"),
    "data that is not text": lambda p: p.ServerSentEvent({"a": 1}),
    "empty event": lambda p: p.ServerSentEvent(),
    "json": lambda p: p.JSONServerSentEvent({"a": [1, None, "ü"]}, event="e"),
    "json none": lambda p: p.JSONServerSentEvent(None),
}


@pytest.mark.parametrize("sep", [None, "\r\n", "\r", "\n"], ids=repr)
@pytest.mark.parametrize("name", ITEMS)
async def test_same_bytes(name: str, sep: str | None) -> None:
    make = ITEMS[name]
    expected = await serve_items(sse_starlette, [make(sse_starlette), "last"], sep=sep)
    assert await serve_items(ours, [make(ours), "last"], sep=sep) == expected


def test_ensure_bytes() -> None:
    theirs: Any = sse_starlette.event
    for name, make in ITEMS.items():
        found = ours.event.ensure_bytes(make(ours), "\r")
        assert (name, found) == (name, theirs.ensure_bytes(make(sse_starlette), "\r"))


async def test_event_of_tickertape() -> None:
    assert await serve_items(ours, [ServerSentEvent({"a": 1}, event="e")]) == b'event: e\ndata: {"a":1}\n\n'


class Failure(NamedTuple):
    error: type[Exception]
    act: Make


FAILURES = {
    "sep": Failure(ValueError, lambda p: p.EventSourceResponse([], sep="x")),
    "ping": Failure(ValueError, lambda p: p.EventSourceResponse([], ping=-1)),
    "ping as text": Failure(TypeError, lambda p: p.EventSourceResponse([], ping="1")),
    "grace": Failure(ValueError, lambda p: p.EventSourceResponse([], shutdown_grace_period=-1)),
    "cleanup": Failure(ValueError, lambda p: p.EventSourceResponse([], cleanup_timeout=-1)),
    "retry": Failure(TypeError, lambda p: p.ServerSentEvent(retry="1").encode()),
    "field": Failure(TypeError, lambda p: p.sse.ensure_bytes({"unknown": 1}, "\n")),
    "nan": Failure(ValueError, lambda p: p.JSONServerSentEvent(float("nan"))),
}


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("name", FAILURES)
def test_same_errors(package: Any, name: str) -> None:
    with pytest.raises(FAILURES[name].error):
        FAILURES[name].act(package)


# Heads, under Starlette


def respond(package: Any, **options: Any) -> TestClient:
    async def endpoint(request: Any) -> Any:
        return package.EventSourceResponse(iter(["one", {"data": 2}]), **options)

    return TestClient(Starlette(routes=[Route("/", endpoint)]))


HEADS: dict[str, dict[str, Any]] = {
    "default": {},
    "status": {"status_code": 201},
    "headers": {"headers": {"X-Own": "1", "Cache-Control": "no-cache", "Connection": "close"}},
    "media type": {"media_type": "text/x-events"},
    "content type": {"headers": {"Content-Type": "text/event-stream"}},
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", HEADS)
def test_same_heads(name: str, method: str) -> None:
    theirs, found = (respond(package, **HEADS[name]).request(method, "/") for package in (sse_starlette, ours))
    assert (found.status_code, found.content) == (theirs.status_code, theirs.content)
    expected = dict(theirs.headers)
    # The differences that the page describes.
    del expected["connection"]
    expected["incremental"] = "?1"
    if expected["cache-control"] == "no-store":
        expected["cache-control"] = "no-store, no-transform"
    assert dict(found.headers) == expected


def test_signature() -> None:
    """Every argument of the installed package exists, in its order, with its default."""
    theirs, found = (inspect.signature(p.EventSourceResponse).parameters for p in (sse_starlette, ours))
    assert [(name, p.default) for name, p in found.items()] == [(name, p.default) for name, p in theirs.items()]


# What happens beside the content


@pytest.mark.parametrize("package", PACKAGES)
async def test_ping(package: Any) -> None:
    """The default ping is a comment with the time; a factory replaces it."""
    for factory, expected in [
        (None, rb": ping - \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.?\d*\+00:00\r\r"),
        (lambda: package.ServerSentEvent(comment="own", sep="\n"), rb": own\n\n"),
    ]:
        pinged = asyncio.Event()

        async def content(pinged: asyncio.Event = pinged) -> AsyncIterator[str]:
            yield "a"
            await pinged.wait()
            yield "b"

        def look(message: Any, pinged: asyncio.Event = pinged) -> None:
            if message.get("body", b"").startswith(b":"):
                pinged.set()

        wire = Wire(look)
        await run(package.EventSourceResponse(content(), ping=0.05, sep="\r", ping_message_factory=factory), wire)
        assert re.fullmatch(rb"data: a\r\r" + expected + rb"data: b\r\r", wire.body)


@pytest.mark.parametrize("package", PACKAGES)
async def test_data_sender(package: Any) -> None:
    writer, reader = anyio.create_memory_object_stream[Any](0)

    async def send_data() -> None:
        async with writer:
            await writer.send({"data": "1"})
            await writer.send({"data": "2"})

    wire = Wire()
    async with reader:
        await run(package.EventSourceResponse(reader, data_sender_callable=send_data), wire)
    assert wire.body == b"data: 1\r\n\r\ndata: 2\r\n\r\n"
    assert wire.complete


async def forever(closed: list[str]) -> AsyncIterator[str]:
    try:
        yield "first"
        await asyncio.Event().wait()
    finally:
        closed.append("closed")


@pytest.mark.parametrize("package", PACKAGES)
async def test_data_sender_fails(package: Any) -> None:
    async def send_data() -> None:
        raise LookupError

    closed: list[str] = []
    with pytest.raises(LookupError):
        await run(package.EventSourceResponse(forever(closed), data_sender_callable=send_data), Wire())


@pytest.mark.parametrize("package", PACKAGES)
async def test_content_fails(package: Any) -> None:
    """Nothing is added to the events; the exception reaches the server, which cuts the connection."""

    async def content() -> AsyncIterator[str]:
        yield "first"
        raise LookupError

    wire = Wire()
    with pytest.raises(LookupError):
        await run(package.EventSourceResponse(content()), wire)
    assert wire.body == b"data: first\r\n\r\n"
    assert not wire.complete


@pytest.mark.parametrize("package", PACKAGES)
async def test_head_is_sent_at_once(package: Any) -> None:
    """The client learns that the stream is open before there is an event, for the client of mcp waits for that."""

    async def content() -> AsyncIterator[str]:
        assert [message["type"] for message in wire.messages][:1] == ["http.response.start"]
        yield "first"

    wire = Wire()
    await run(package.EventSourceResponse(content()), wire)
    assert wire.body == b"data: first\r\n\r\n"


@pytest.mark.parametrize("package", PACKAGES)
async def test_client_leaves(package: Any) -> None:
    """The sender is cancelled, the content closed, the handler called, and then the background task."""
    calls: list[Any] = []

    async def send_data() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            calls.append("sender")

    async def on_close(message: Any) -> None:
        calls.append(message["type"])

    def leave(message: Any) -> None:
        if message.get("body"):
            wire.left.set()

    wire = Wire(leave)
    response = package.EventSourceResponse(
        forever(calls),
        data_sender_callable=send_data,
        client_close_handler_callable=on_close,
        background=BackgroundTask(calls.append, "background"),
    )
    await run(response, wire)
    assert sorted(calls[:-1]) == ["closed", "http.disconnect", "sender"]
    assert calls[-1] == "background"


@pytest.mark.parametrize("package", PACKAGES)
async def test_send_timeout(package: Any) -> None:
    closed: list[str] = []

    async def block(message: Any) -> None:
        if message.get("body"):
            await asyncio.Event().wait()

    with pytest.raises(package.sse.SendTimeoutError):
        await run(package.EventSourceResponse(forever(closed), send_timeout=0.1), Wire(block))
    assert closed == ["closed"]


@pytest.fixture
def should_exit() -> Iterator[None]:
    yield
    for package in (sse_starlette, ours):
        status: Any = package.sse.AppStatus
        status.should_exit = False
        status.enable_automatic_graceful_drain_mode()


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.usefixtures("should_exit")
async def test_farewell(package: Any) -> None:
    """The content sees the shutdown event, and sends a last event within the grace period."""
    stopping = anyio.Event()

    async def content() -> AsyncIterator[str]:
        yield "first"
        package.sse.AppStatus.should_exit = True
        await stopping.wait()
        yield "bye"

    wire = Wire()
    response = package.EventSourceResponse(content(), shutdown_event=stopping, shutdown_grace_period=PATIENCE)
    await run(response, wire)
    assert wire.body == b"data: first\r\n\r\ndata: bye\r\n\r\n"
    assert wire.complete


@pytest.mark.parametrize("grace", [0, 0.2])
@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.usefixtures("should_exit")
async def test_grace_period_ends(package: Any, grace: float) -> None:
    """Content that does not end is closed after the grace period."""
    stopping, calls = anyio.Event(), list[str]()
    response = package.EventSourceResponse(forever(calls), shutdown_event=stopping, shutdown_grace_period=grace)
    loop = asyncio.get_running_loop()

    def stop(message: Any) -> None:
        if message.get("body"):
            package.sse.AppStatus.should_exit = True
            calls.append(f"{loop.time()}")

    await run(response, Wire(stop))
    assert stopping.is_set()
    assert calls[-1] == "closed"
    assert loop.time() - float(calls[0]) >= grace


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.usefixtures("should_exit")
async def test_new_streams_end_at_once(package: Any) -> None:
    package.sse.AppStatus.should_exit = True
    wire = Wire()
    await run(package.EventSourceResponse(forever([])), wire)
    assert wire.messages[0]["status"] == 200


@pytest.mark.usefixtures("should_exit")
async def test_drain_by_hand() -> None:
    """Without the automatic drain, a stopping server does not end streams; ``should_exit`` does."""
    ours.sse.AppStatus.disable_automatic_graceful_drain()
    resumed = asyncio.Event()

    async def content() -> AsyncIterator[str]:
        yield "first"
        close_streams()
        asyncio.get_running_loop().call_soon(resumed.set)
        await resumed.wait()
        yield "still open"
        ours.sse.AppStatus.should_exit = True
        await asyncio.Event().wait()

    wire = Wire()
    await run(ours.EventSourceResponse(content()), wire)
    assert wire.body == b"data: first\r\n\r\ndata: still open\r\n\r\n"


async def test_cleanup_timeout(caplog: pytest.LogCaptureFixture) -> None:
    async def content() -> AsyncIterator[Any]:
        try:
            yield {"unknown": 1}
        finally:
            await asyncio.Event().wait()

    with pytest.raises(TypeError):
        await run(ours.EventSourceResponse(content(), cleanup_timeout=0.05), Wire())
    assert "not closed within 0.05 s" in caplog.text


@pytest.mark.parametrize("name", ["before", "after"])
async def test_page(name: str, tmp_path: Path) -> None:
    """Both programs of the page under a server that stops: the farewell arrives, and the process ends."""
    write_files("migration/sse-starlette", tmp_path)
    port = free_port()
    program = Program([sys.executable, "-m", "uvicorn", f"{name}:app", f"--port={port}"], folder=str(tmp_path))
    try:
        program.wait_for(port)
        async with await Connection.open(port) as connection:
            assert await connection.get("/") == 200
            assert (await connection.event()).event == "news"
            ended = asyncio.create_task(program.end())
            news = b'event: news\ndata: {"text": "hello"}\n\n'
            assert await connection.rest() == news + b"event: bye\ndata: \n\n"
            assert await ended < 2
    finally:
        program.close()


# install()

CHECKS = {
    "names": """
        from tickertape.integrations import sse_starlette as ours
        ours.install()
        ours.install()
        import sse_starlette, sse_starlette.sse as sse, sse_starlette.event as event
        assert sse_starlette.install == ours.install and ours.EventSourceResponse is sse.EventSourceResponse
        from sse_starlette import EventSourceResponse, JSONServerSentEvent, ServerSentEvent
        from sse_starlette.sse import AppStatus, SendTimeoutError, ensure_bytes
        from sse_starlette.event import ensure_bytes as same
        assert ensure_bytes is same and issubclass(SendTimeoutError, TimeoutError)
        print("fine")""",
    "too late": """
        import sse_starlette
        from tickertape.integrations import sse_starlette as ours
        try:
            ours.install()
        except RuntimeError as error:
            assert "before you import" in str(error) and sse_starlette.__file__ != ours.__file__
            print("fine")""",
}


@pytest.mark.parametrize("name", CHECKS)
def test_install(name: str) -> None:
    code = "if True:" + CHECKS[name]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr
