"""``EventSourceResponse``: its arguments, its headers, what an item becomes, what is called afterwards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from support.asgi import Wire, open_response, scope_of
from tickertape import DisconnectReason, EventSourceResponse, InvalidEventError, ServerSentEvent
from tickertape.testing import FakeClock

OURS = [
    ("content-type", "text/event-stream"),
    ("cache-control", "no-store, no-transform"),
    ("x-accel-buffering", "no"),
]


class Model(BaseModel):
    name: str
    size: int = 1


@dataclass
class Point:
    x: int


# Headers


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, OURS),
        ({}, OURS),
        ({"X-One": "1"}, [("x-one", "1"), *OURS]),
        ({"Cache-Control": "no-cache"}, [("cache-control", "no-cache"), OURS[0], OURS[2]]),
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
async def test_the_headers_of_a_stream_with_the_users_own_first(
    method: str, given: Mapping[str, str] | Iterable[tuple[str, str]] | None, expected: list[tuple[str, str]]
) -> None:
    async with open_response([], headers=given, method=method) as stream:
        sent = [(name.decode(), value.decode()) for name, value in stream.headers.raw]
    assert sorted(sent) == sorted(expected)
    assert "connection" not in stream.headers


@pytest.mark.parametrize("value", ["1\r\nx-two: 2", "1\n", "\r"])
def test_a_header_that_would_end_its_line_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="expected a header without line breaks"):
        EventSourceResponse([], headers={"x-one": value})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_status_code(method: str) -> None:
    async with open_response([], status_code=202, method=method) as stream:
        assert stream.status == 202


# HEAD


async def test_head_answers_the_headers_and_leaves_the_items_alone() -> None:
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
async def test_what_an_item_becomes(item: Any, encoded: bytes) -> None:
    async with open_response([item]) as stream:
        assert await stream.read() == encoded
        assert stream.complete


@pytest.mark.parametrize("item", [Point(1), object(), {1, 2}, float("nan"), {"a": Point(1)}])
async def test_what_json_cannot_say_is_refused_before_the_response_starts(item: Any) -> None:
    with pytest.raises(InvalidEventError, match=f"expected data that JSON can say, got a {type(item).__name__}"):
        async with open_response([item]):
            pass


async def test_what_json_cannot_say_later_fails_the_stream() -> None:
    async with open_response(["good", Point(1), "never"]) as stream:
        events = [event async for event in stream]
    assert [(event.event, event.data) for event in events] == [(None, "good"), ("stream:error", events[1].data)]
    assert isinstance(stream.error, InvalidEventError)
    assert not stream.complete


async def test_an_empty_chunk_starts_the_response_and_is_not_sent_again() -> None:
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
        (["a", "b"], b"retry: 2500\n\ndata: a\n\ndata: b\n\n"),
        ([], b"retry: 2500\n\n"),
        ([b""], b"retry: 2500\n\n"),
    ],
)
async def test_retry_comes_first(items: list[Any], body: bytes) -> None:
    async with open_response(items, retry=2500) as stream:
        assert await stream.read() == body


@pytest.mark.parametrize("heartbeat", [10, None])
async def test_retry_comes_before_a_first_item_that_is_late(heartbeat: float | None) -> None:
    clock = FakeClock()
    async with open_response(forever(), retry=2500, heartbeat=heartbeat, clock=clock, wait=False) as stream:
        while not stream.status:
            await asyncio.sleep(0)
            clock.advance(5)
        if heartbeat:
            await stream.next_comment()
        await stream.disconnect()
        await stream.read()
    assert stream.body == b"retry: 2500\n\n" + (b": heartbeat\n\n" if heartbeat else b"")


@pytest.mark.parametrize("retry", [-1, True, 1.5, "1", 2**63])
def test_retry_is_checked_at_once(retry: Any) -> None:
    with pytest.raises(InvalidEventError, match="expected retry to be an int of milliseconds"):
        EventSourceResponse([], retry=retry)


# Other arguments


@pytest.mark.parametrize("name", ["heartbeat", "ping", "send_timeout"])
@pytest.mark.parametrize("value", [0, -1, True, False, "15", float("nan"), object()])
def test_seconds_are_numbers_over_zero(name: str, value: Any) -> None:
    argument = "heartbeat" if name == "ping" else name
    with pytest.raises(ValueError, match=f"expected {argument} to be a number of seconds over 0, or None, got"):
        EventSourceResponse([], **{name: value})


@pytest.mark.parametrize("name", ["heartbeat", "ping", "send_timeout"])
@pytest.mark.parametrize("value", [1, 0.5, None, float("inf")])
async def test_seconds_may_be_any_number_over_zero_or_none(name: str, value: Any) -> None:
    async with open_response(["a"], **{name: value}) as stream:
        assert await stream.read() == b"data: a\n\n"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_response_serves_one_request(method: str) -> None:
    response = EventSourceResponse(["a"])
    await response(scope_of(method), Wire().receive, Wire().send)
    with pytest.raises(RuntimeError, match="expected one request for an EventSourceResponse, got a second one"):
        await response(scope_of(), Wire().receive, Wire().send)


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
async def test_only_http_is_served(kind: str) -> None:
    with pytest.raises(RuntimeError, match=f"expected an ASGI scope of type 'http', got '{kind}'"):
        await EventSourceResponse([])({"type": kind}, Wire().receive, Wire().send)


async def test_its_repr_shows_its_state() -> None:
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
async def test_on_disconnect_is_told_why_a_stream_ended_before_its_items(
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


async def test_on_disconnect_that_fails_is_in_the_log_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
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


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_background_task_runs_after_the_stream(method: str) -> None:
    wire = Wire()
    seen = []

    async def background() -> None:
        seen.append(wire.complete)

    await EventSourceResponse(["a"], background=background)(scope_of(method), wire.receive, wire.send)
    assert seen == [True]


async def test_the_background_task_runs_after_the_client_has_left() -> None:
    calls = []

    async def background() -> None:
        calls.append("background")

    async with open_response(forever(), background=background, wait=False) as stream:
        await asyncio.sleep(0)
        await stream.disconnect()
    assert calls == ["background"]
