"""``EventSourceResponse``: its arguments, its headers, what an item becomes, what is called afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from support.asgi import Wire, open_response, scope_of
from tickertape import DisconnectReason, EventSourceResponse, InvalidEventError, ServerSentEvent
from tickertape.wire import STREAM_ERROR

OURS = [
    ("content-type", "text/event-stream"),
    ("cache-control", "no-store, no-transform"),
    ("x-accel-buffering", "no"),
    ("incremental", "?1"),
]


class Model(BaseModel):
    name: str
    size: int = 1


# Headers


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, OURS),
        ({}, OURS),
        ({"X-One": "1"}, [("x-one", "1"), *OURS]),
        ({"Cache-Control": "no-cache"}, [("cache-control", "no-cache"), OURS[0], *OURS[2:]]),
        (
            [("set-cookie", "a=1"), ("Set-Cookie", "b=2")],
            [("set-cookie", "a=1"), ("set-cookie", "b=2"), *OURS],
        ),
        (
            {"content-type": "text/event-stream; charset=utf-8"},
            [("content-type", "text/event-stream; charset=utf-8"), *OURS[1:]],
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_headers(
    method: str, given: Mapping[str, str] | Iterable[tuple[str, str]] | None, expected: list[tuple[str, str]]
) -> None:
    async with open_response([], headers=given, method=method) as stream:
        sent = [(name.decode(), value.decode()) for name, value in stream.headers.raw]
    assert sorted(sent) == sorted(expected)
    assert "connection" not in stream.headers


@pytest.mark.parametrize("value", ["1\r\nx-two: 2", "1\n", "\r"])
def test_header_with_line_break(value: str) -> None:
    with pytest.raises(ValueError, match="expected a header without line breaks"):
        EventSourceResponse([], headers={"x-one": value})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_status_code(method: str) -> None:
    async with open_response([], status_code=202, method=method) as stream:
        assert stream.status == 202


# HEAD


async def test_head_without_items() -> None:
    states = []

    async def items() -> AsyncIterator[str]:
        states.append("started")
        yield "never"

    generator = items()
    async with open_response(generator, method="HEAD", retry=5) as stream:
        assert await stream.read() == b""
        assert stream.complete
    assert states == []
    with pytest.raises(StopAsyncIteration):  # it was closed, not left to the garbage collector
        await anext(generator)


# Items


@pytest.mark.parametrize(
    ("item", "encoded"),
    [
        (ServerSentEvent("a", event="e", id="1"), b"id: 1\nevent: e\ndata: a\n\n"),
        (ServerSentEvent(comment="c"), b": c\n\n"),
        ("text", b"data: text\n\n"),
        ("", b"data: \n\n"),
        ("two\nlines\rthree\r\nfour", b"data: two\ndata: lines\ndata: three\ndata: four\n\n"),
        ("ü\u2028", "data: ü\u2028\n\n".encode()),
        (b"id: 5\ndata: raw\n\n", b"id: 5\ndata: raw\n\n"),
        (b"half", b"half"),
        (bytearray(b"data: raw\n\n"), b"data: raw\n\n"),
        (memoryview(b"data: raw\n\n"), b"data: raw\n\n"),
        (Model(name="ü"), 'data: {"name":"ü","size":1}\n\n'.encode()),
        ({"a": [1, None]}, b'data: {"a":[1,null]}\n\n'),
        ([], b"data: []\n\n"),
        (1.5, b"data: 1.5\n\n"),
        (0, b"data: 0\n\n"),
        (None, b"data: null\n\n"),
        (True, b"data: true\n\n"),
    ],
)
async def test_encodes_items(item: Any, encoded: bytes) -> None:
    async with open_response([item]) as stream:
        assert await stream.read() == encoded
        assert stream.complete


@pytest.mark.parametrize("item", [object(), float("nan"), {"a": object()}])
async def test_bad_first_item(item: Any) -> None:
    """The response has not started, so the error becomes an HTTP error."""
    with pytest.raises(InvalidEventError, match=f"{type(item).__name__} cannot be written as JSON"):
        async with open_response([item]):
            pass


async def test_bad_later_item() -> None:
    async with open_response(["good", object(), "never"]) as stream:
        events = [event async for event in stream]
    assert [(event.event, event.data) for event in events] == [(None, "good"), ("stream:error", events[1].data)]
    assert isinstance(stream.error, InvalidEventError)
    assert not stream.complete


async def test_empty_chunks() -> None:
    wire = Wire()
    await EventSourceResponse([b"", b"", "a", b""])(scope_of(), wire.receive, wire.send)
    assert [message.get("body") for message in wire.messages] == [None, b"", b"data: a\n\n", b""]


# retry=


async def forever() -> AsyncIterator[str]:
    await asyncio.Event().wait()
    yield "never"


@pytest.mark.parametrize(
    ("items", "body"),
    [
        (["a", "b"], b"retry: 2500\ndata: a\n\ndata: b\n\n"),
        ([b"data: a\n\n", "b"], b"retry: 2500\ndata: a\n\ndata: b\n\n"),
        ([b"da", b"ta: a\n\n"], b"retry: 2500\ndata: a\n\n"),
        ([b"", "\ufeff".encode(), b"data: a\n\n"], b"\xef\xbb\xbfretry: 2500\ndata: a\n\n"),
        (["\ufeffdata: a\n\n".encode()], b"\xef\xbb\xbfretry: 2500\ndata: a\n\n"),
        ([ServerSentEvent(comment="hi"), "a"], b": hi\n\nretry: 2500\ndata: a\n\n"),
        ([ServerSentEvent(id="1"), "a"], b"id: 1\n\nretry: 2500\ndata: a\n\n"),
        ([ServerSentEvent("a", retry=7), "b"], b"retry: 7\ndata: a\n\ndata: b\n\n"),
        ([], b""),
        ([b""], b""),
    ],
)
async def test_retry(items: list[Any], body: bytes) -> None:
    """It is never a block without data, which some clients take for an event."""
    async with open_response(items, retry=2500) as stream:
        assert await stream.read() == body


@pytest.mark.parametrize("retry", [-1, True, 1.5, "1", 2**63])
def test_bad_retry(retry: Any) -> None:
    with pytest.raises(InvalidEventError, match="expected retry to be an int of milliseconds"):
        EventSourceResponse([], retry=retry)


# Other arguments


@pytest.mark.parametrize("name", ["heartbeat", "ping", "send_timeout"])
@pytest.mark.parametrize("value", [0, -1, True, False, "15", float("nan"), object()])
def test_bad_seconds(name: str, value: Any) -> None:
    argument = "heartbeat" if name == "ping" else name
    with pytest.raises(ValueError, match=f"expected {argument} to be a number of seconds > 0, or None, got"):
        EventSourceResponse([], **{name: value})


@pytest.mark.parametrize("name", ["heartbeat", "ping", "send_timeout"])
@pytest.mark.parametrize("value", [1, 0.5, None, float("inf")])
async def test_seconds(name: str, value: Any) -> None:
    async with open_response(["a"], **{name: value}) as stream:
        assert await stream.read() == b"data: a\n\n"


@pytest.mark.parametrize("status_code", [0, 100, 199, 600, True, "200", 200.0, None])
def test_bad_status_code(status_code: Any) -> None:
    with pytest.raises(ValueError, match="expected status_code to be an int from 200 to 599, got"):
        EventSourceResponse([], status_code=status_code)


def test_bad_on_disconnect() -> None:
    with pytest.raises(TypeError, match="expected on_disconnect to be callable, or None, got 'log'"):
        EventSourceResponse([], on_disconnect="log")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_second_request(method: str) -> None:
    response = EventSourceResponse(["a"])
    await response(scope_of(method), Wire().receive, Wire().send)
    with pytest.raises(RuntimeError, match="EventSourceResponse serves one request"):
        await response(scope_of(), Wire().receive, Wire().send)


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
async def test_other_scopes(kind: str) -> None:
    with pytest.raises(RuntimeError, match=f"answers HTTP requests only, expected scope type 'http', got '{kind}'"):
        await EventSourceResponse([])({"type": kind}, Wire().receive, Wire().send)


async def test_repr() -> None:
    response = EventSourceResponse(forever(), 201)
    assert repr(response) == "<EventSourceResponse 201 new>"
    wire = Wire()
    serving = asyncio.create_task(response(scope_of(), wire.receive, wire.send))
    await asyncio.sleep(0)
    assert repr(response) == "<EventSourceResponse 201 open>"
    wire.left.set()
    await serving
    assert repr(response) == "<EventSourceResponse 201 client_closed>"


# Afterwards


async def broken() -> AsyncIterator[str]:
    yield "a"
    raise LookupError("broken")


@pytest.mark.parametrize(
    ("items", "leave", "expected"),
    [
        (lambda: ["a"], False, []),
        (list, False, []),
        (forever, True, [DisconnectReason.CLIENT_CLOSED]),
        (broken, False, [DisconnectReason.ERROR]),
    ],
)
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_on_disconnect(
    items: Callable[[], Any], leave: bool, expected: list[DisconnectReason], asynchronous: bool
) -> None:
    reasons: list[DisconnectReason] = []

    async def note(reason: DisconnectReason) -> None:
        await asyncio.sleep(0)
        reasons.append(reason)

    on_disconnect = note if asynchronous else reasons.append
    async with open_response(items(), on_disconnect=on_disconnect, wait=not leave) as stream:
        await asyncio.sleep(0)
        if not leave:
            await stream.read()
    assert reasons == expected


async def test_failing_on_disconnect(caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    async def background() -> None:
        calls.append("background")

    def on_disconnect(reason: DisconnectReason) -> None:
        raise LookupError(reason)

    async with open_response(forever(), on_disconnect=on_disconnect, background=background, wait=False) as stream:
        await asyncio.sleep(0)
    assert stream.error is None
    assert calls == ["background"]
    assert [(record.levelno, record.message) for record in caplog.records] == [(logging.ERROR, "on_disconnect failed")]


async def test_head_of_claimed_route() -> None:
    """A route that counts its streams is notified, also if there will be none."""
    calls: list[object] = []

    async def background() -> None:
        calls.append("background")

    def close() -> Iterator[str]:
        calls.append("started")
        yield "never"

    items = close()
    response = EventSourceResponse(items, on_disconnect=calls.append, background=background)
    wire = Wire()
    await response(scope_of("HEAD"), wire.receive, wire.send)
    assert calls == [DisconnectReason.CLIENT_CLOSED, "background"]
    with pytest.raises(StopIteration):
        next(items)


async def test_head_with_failing_send() -> None:
    calls: list[object] = []
    wire = Wire(lambda message: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await EventSourceResponse(["a"], on_disconnect=calls.append)(scope_of("HEAD"), wire.receive, wire.send)
    assert calls == [DisconnectReason.CLIENT_CLOSED]


@pytest.mark.parametrize("head", ["last", "", 0, -1, True, None, float("nan")])
def test_bad_head(head: Any) -> None:
    with pytest.raises(ValueError, match="expected head to be 'first', 'now' or a number of seconds > 0, got"):
        EventSourceResponse([], head=head)


@pytest.mark.parametrize("grace", [-1, True, None, "1", float("inf"), float("nan")])
def test_bad_drain_grace(grace: Any) -> None:
    with pytest.raises(ValueError, match="expected drain_grace to be a number of seconds >= 0, got"):
        EventSourceResponse([], drain_grace=grace)


@pytest.mark.parametrize("name", ["on_error", "on_disconnect", "on_drain"])
def test_bad_callbacks(name: str) -> None:
    with pytest.raises(TypeError, match=f"expected {name} to be callable, or None, got 1"):
        EventSourceResponse([], **{name: 1})  # type: ignore[arg-type]


# on_error=


async def last_words(error: Exception) -> ServerSentEvent:
    return ServerSentEvent({"error": str(error)})


@pytest.mark.parametrize(
    ("on_error", "body", "clean"),
    [
        (lambda error: {"error": str(error)}, b'data: {"error":"broken"}\n\n', True),
        (last_words, b'data: {"error":"broken"}\n\n', True),
        (lambda error: [ServerSentEvent("1", id="7"), "[DONE]"], b"id: 7\ndata: 1\n\ndata: [DONE]\n\n", True),
        (lambda error: iter(["1", b"data: 2\n\n"]), b"data: 1\n\ndata: 2\n\n", True),
        (lambda error: None, b"", False),
        (lambda error: [], b"", False),
        (lambda error: 1 / 0, STREAM_ERROR, False),
        (lambda error: object(), STREAM_ERROR, False),
        (None, STREAM_ERROR, False),
    ],
)
async def test_on_error(on_error: Any, body: bytes, clean: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The last events of the protocol at hand end the response normally; without any, the connection is cut."""
    wire = Wire()
    reasons: list[DisconnectReason] = []
    response = EventSourceResponse(broken(), on_error=on_error, on_disconnect=reasons.append)
    with contextlib.nullcontext() if clean else pytest.raises(LookupError, match="broken"):
        await response(scope_of(), wire.receive, wire.send)
    assert wire.body == b"data: a\n\n" + body
    assert wire.complete == clean
    assert reasons == [DisconnectReason.ERROR]
    expected = ["the items failed; on_error ended the stream"] if clean else []
    if body == STREAM_ERROR and on_error is not None:
        expected = ["on_error failed"]
    assert [record.message for record in caplog.records] == expected


async def test_slow_on_error(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The client does not wait for it without end."""
    monkeypatch.setattr("tickertape.asgi.response._ON_ERROR", 0)
    wire = Wire()
    with pytest.raises(LookupError, match="broken"):
        await EventSourceResponse(broken(), on_error=lambda error: asyncio.Event().wait())(
            scope_of(), wire.receive, wire.send
        )
    assert wire.body == b"data: a\n\n" + STREAM_ERROR
    assert [record.message for record in caplog.records] == ["on_error failed"]


async def test_on_error_of_cut_send() -> None:
    """A scope of cancellation ends while an item is sent, and the items fail: one end, not two."""
    wire = Wire(lambda message: asyncio.Event().wait() if message.get("body") == b"data: b\n\n" else None)

    async def items() -> AsyncIterator[str]:
        yield "a"
        async with asyncio.timeout(0):
            yield "b"

    await EventSourceResponse(items(), on_error=lambda error: "late")(scope_of(), wire.receive, wire.send)
    assert wire.body == b"data: a\n\ndata: late\n\n"
    assert [message.get("more_body") for message in wire.messages] == [None, True, True, False]


async def test_on_error_before_head() -> None:
    """An exception before the first item stays an HTTP error."""
    wire = Wire()
    calls: list[Exception] = []
    response = EventSourceResponse((1 / 0 for _ in "a"), on_error=calls.append)
    with pytest.raises(ZeroDivisionError):
        await response(scope_of(), wire.receive, wire.send)
    assert (wire.messages, calls) == ([], [])


async def test_on_error_within_block() -> None:
    """Nothing can be reported within an event that was sent in part."""
    wire = Wire()
    calls: list[Exception] = []

    async def items() -> AsyncIterator[bytes]:
        yield b"data: a"
        raise ValueError("broken")

    response = EventSourceResponse(items(), on_error=calls.append)
    with pytest.raises(ValueError, match="broken"):
        await response(scope_of(), wire.receive, wire.send)
    assert (wire.body, calls) == (b"data: a", [])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_background(method: str) -> None:
    wire = Wire()
    seen = []

    async def background() -> None:
        seen.append(wire.complete)

    await EventSourceResponse(["a"], background=background)(scope_of(method), wire.receive, wire.send)
    assert seen == [True]


async def test_background_after_disconnect() -> None:
    calls = []

    async def background() -> None:
        calls.append("background")

    async with open_response(forever(), background=background, wait=False) as stream:
        await asyncio.sleep(0)
        await stream.disconnect()
    assert calls == ["background"]
