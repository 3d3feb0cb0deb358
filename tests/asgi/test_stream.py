"""One open stream: its start, its heartbeats, its failures, and every way in which it is cut short."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from starlette.exceptions import HTTPException

from support.asgi import Wire, open_response, scope_of, settle
from tickertape import DisconnectReason, EventSourceResponse
from tickertape.asgi.shutdown import open_streams
from tickertape.asgi.stream import Stream
from tickertape.asgi.types import Message, Receive, Scope, Send
from tickertape.testing import FakeClock
from tickertape.wire import STREAM_ERROR

BEAT = b": heartbeat\n\n"
BLOCK = b"data: " + b"x" * 1024 + b"\n\n"


class Source:
    """Items that the test gives one by one.

    Attributes:
        finalised: how often the generator was closed.
    """

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.finalised = 0

    async def items(self) -> AsyncIterator[Any]:
        try:
            while (item := await self.queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.finalised += 1

    def give(self, *items: Any) -> None:
        for item in items:
            self.queue.put_nowait(item)


class Request:
    """A request whose server is the test: it advances the clock and closes the connection."""

    def __init__(
        self,
        items: AsyncIterator[Any],
        on_send: Callable[[Message], Any] | None = None,
        receive: Callable[[], Awaitable[Message]] | None = None,
        **options: Any,
    ) -> None:
        self.wire = Wire(on_send)
        self.clock = FakeClock()
        self.reasons: list[DisconnectReason] = []
        response = EventSourceResponse(items, clock=self.clock, on_disconnect=self.reasons.append, **options)
        self.task = asyncio.create_task(response(scope_of(), receive or self.wire.receive, self.wire.send))

    async def pass_by(self, seconds: float) -> None:
        """Turn the clock, with everything settled before and after."""
        await settle()
        self.clock.advance(seconds)
        await settle()

    async def leave(self) -> None:
        self.wire.left.set()
        await asyncio.wait_for(self.task, 5)


# The start


async def test_starts_with_first_item() -> None:
    source = Source()
    request = Request(source.items())
    await request.pass_by(0.9)
    assert request.wire.messages == []
    source.give("a")
    await settle()
    assert [message["type"] for message in request.wire.messages] == ["http.response.start", "http.response.body"]
    await request.leave()


@pytest.mark.parametrize("heartbeat", [15, 2, None])
@pytest.mark.parametrize(("head", "pause"), [("first", 1), (0.5, 0.5), (4, 4)])
async def test_late_first_item(head: Any, pause: float, heartbeat: float | None) -> None:
    source = Source()
    request = Request(source.items(), head=head, heartbeat=heartbeat)
    await request.pass_by(pause - 0.1)
    assert request.wire.messages == []
    await request.pass_by(0.1)
    assert request.wire.messages[0]["status"] == 200
    assert request.wire.body == b""
    if heartbeat is not None:
        await request.pass_by(heartbeat)
    source.give("a", None)
    await request.task
    assert request.wire.body == (b"" if heartbeat is None else BEAT) + b"data: a\n\n"
    assert request.wire.complete


async def test_head_at_once() -> None:
    """No time passes, and the head is sent before an exception that is raised without a wait."""
    source = Source()
    source.give(HTTPException(403))
    request = Request(source.items(), head="now")
    with pytest.raises(HTTPException):
        await request.task
    assert request.wire.messages[0]["status"] == 200
    assert request.wire.body == STREAM_ERROR
    assert not request.wire.complete


async def test_exception_before_first_item() -> None:
    source = Source()
    source.give(HTTPException(403))
    request = Request(source.items())
    with pytest.raises(HTTPException):
        await request.task
    assert request.wire.messages == []
    assert request.reasons == [DisconnectReason.ERROR]


async def test_client_leaves_before_first_item() -> None:
    source = Source()
    request = Request(source.items())
    await settle()
    await request.leave()
    assert request.wire.messages == []
    assert source.finalised == 1
    assert request.reasons == [DisconnectReason.CLIENT_CLOSED]


# Failures


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (["a"], True),
        ([b"data: a\n\n"], True),
        ([b"data: a\r\n\r\n"], True),
        ([b"data: a\r\r"], True),
        ([b"data: a\n", b"\n"], True),
        ([b"data: a\r", b"\n\r", b"\n"], True),
        ([b"data: a"], False),
        ([b"data: a\n"], False),
        ([b"data: a\r\n"], False),
        ([b"data: a\r", b"\n"], False),
        (["a", b"data: b\n"], False),
    ],
)
async def test_failure_between_events(sent: list[Any], said: bool) -> None:
    source = Source()
    source.give(*sent, LookupError("broken"))
    request = Request(source.items())
    with pytest.raises(LookupError, match="broken"):
        await request.task
    assert (b"event: stream:error\n" in request.wire.body) is said
    assert b"broken" not in request.wire.body
    assert not request.wire.complete
    assert source.finalised == 1
    assert request.reasons == [DisconnectReason.ERROR]


async def test_failure_after_disconnect() -> None:
    def on_send(message: Message) -> None:
        if b"stream:error" in message.get("body", b""):
            raise ConnectionResetError

    source = Source()
    source.give("a", LookupError("broken"))
    with pytest.raises(LookupError, match="broken"):
        await Request(source.items(), on_send).task


async def test_failure_with_stalled_client() -> None:
    def on_send(message: Message) -> Awaitable[Any] | None:
        return asyncio.Event().wait() if b"stream:error" in message.get("body", b"") else None

    source = Source()
    source.give("a", LookupError("broken"))
    with pytest.raises(LookupError, match="broken"):
        await asyncio.wait_for(Request(source.items(), on_send).task, 5)


async def raise_timeout() -> None:
    raise TimeoutError("of its own")


async def raise_cancelled() -> None:
    raise asyncio.CancelledError("of its own")


async def wait_for_a_cancelled_task() -> None:
    task = asyncio.ensure_future(asyncio.sleep(0))
    task.cancel()
    await task


async def run_into_a_timeout() -> None:
    async with asyncio.timeout(0):
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        (raise_timeout, TimeoutError),
        (run_into_a_timeout, TimeoutError),
        (raise_cancelled, RuntimeError),
        (wait_for_a_cancelled_task, RuntimeError),
    ],
)
async def test_own_cancellation_is_failure(fail: Callable[[], Awaitable[None]], error: type[Exception]) -> None:
    async def items() -> AsyncIterator[str]:
        yield "a"
        await fail()

    request = Request(items())
    with pytest.raises(error):
        await request.task
    assert b"event: stream:error\n" in request.wire.body
    assert request.reasons == [DisconnectReason.ERROR]


# The client leaves


@pytest.mark.parametrize("spec_version", ["2.0", "2.1", "2.2", "2.3", "2.4", "2.5"])
async def test_idle_disconnect(spec_version: str) -> None:
    source = Source()
    source.give("a")
    async with open_response(source.items(), spec_version=spec_version) as stream:
        await stream.next_event()
        await settle()
        assert source.finalised == 0
        await stream.disconnect()
        assert source.finalised == 1
    assert stream.error is None
    assert not stream.complete


async def test_endless_request_body() -> None:
    received = 0

    async def receive() -> Message:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": b"x", "more_body": True}

    source = Source()
    request = Request(source.items(), receive=receive)
    await settle()
    source.give("a", None)
    await request.task
    assert request.wire.complete
    assert received > 1


async def test_one_task() -> None:
    seen: list[Any] = []
    variable = contextvars.ContextVar("variable", default="unset")

    async def items() -> AsyncIterator[str]:
        seen.append(asyncio.current_task())
        variable.set("set")
        try:
            yield "a"
            seen.append(asyncio.current_task())
            await asyncio.Event().wait()
        finally:
            seen.extend([asyncio.current_task(), variable.get()])

    request = Request(items())
    await settle()
    await request.leave()
    assert seen == [request.task, request.task, request.task, "set"]


async def test_cancel_scopes_around_yield() -> None:
    steps: list[str] = []

    async def items() -> AsyncIterator[str]:
        with anyio.move_on_after(0):
            yield "a"
            await asyncio.Event().wait()
        steps.append("anyio moved on")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                yield "b"
                await asyncio.Event().wait()
        steps.append("asyncio timed out")
        async with anyio.create_task_group() as group, asyncio.timeout(3600):
            group.start_soon(asyncio.Event().wait)
            with anyio.CancelScope():
                yield "c"
                await asyncio.Event().wait()
                steps.append("never")

    async with open_response(items()) as stream:
        assert [(await stream.next_event()).data for _ in range(3)] == ["a", "b", "c"]
    assert steps == ["anyio moved on", "asyncio timed out"]
    assert stream.error is None


async def test_cancel_scope_during_pause() -> None:
    """A stream that was busy for long pauses after an item. A scope around the ``yield`` may end in that pause."""

    async def items() -> AsyncIterator[str]:
        with anyio.move_on_after(0) as scope:
            time.sleep(0.01)  # noqa: ASYNC251
            yield "a"
            await asyncio.Event().wait()
        yield f"cancelled: {scope.cancelled_caught}"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                time.sleep(0.01)  # noqa: ASYNC251
                yield "b"
                await asyncio.Event().wait()
        yield "end"

    async with open_response(items()) as stream:
        assert await stream.read() == b"data: a\n\ndata: cancelled: True\n\ndata: b\n\ndata: end\n\n"
    assert stream.error is None
    assert stream.complete


async def test_cancelled_during_pause() -> None:
    """The server cancels the request while the stream pauses."""
    seen: list[BaseException] = []

    async def items() -> AsyncIterator[str]:
        try:
            asyncio.get_running_loop().call_soon(request.task.cancel)
            time.sleep(0.01)  # noqa: ASYNC251
            yield "a"
        except BaseException as error:
            seen.append(error)
            raise

    request = Request(items())
    with pytest.raises(asyncio.CancelledError):
        await request.task
    assert [type(error) for error in seen] == [asyncio.CancelledError]
    assert request.reasons == [DisconnectReason.DRAINING]


async def fail_with_timeout() -> AsyncIterator[str]:
    async with asyncio.timeout(0.01):
        yield "a"


async def end_after_timeout() -> AsyncIterator[str]:
    with anyio.move_on_after(0.01):
        yield "a"


async def continue_after_timeout() -> AsyncIterator[str]:
    with anyio.move_on_after(0.01):
        yield "a"
    yield "b"


@pytest.mark.parametrize(
    ("make", "error", "complete"),
    [
        pytest.param(fail_with_timeout, TimeoutError, False, id="fail"),
        pytest.param(end_after_timeout, None, True, id="end"),
        pytest.param(continue_after_timeout, RuntimeError, False, id="continue"),
    ],
)
async def test_cancel_scope_while_sending(
    make: Callable[[], AsyncIterator[str]], error: type[Exception] | None, complete: bool
) -> None:
    """The server may or may not have sent the item, so the stream must not continue as if it had."""

    async def on_send(message: Message) -> None:
        if message.get("body") == b"data: a\n\n":
            await asyncio.Event().wait()

    request = Request(make(), on_send)
    if error is None:
        await request.task
    else:
        with pytest.raises(error):
            await request.task
    assert request.wire.complete is complete
    assert b"data: b" not in request.wire.body


async def test_continues_after_head() -> None:
    """The caller has sent the head and a first part."""

    async def items() -> AsyncIterator[bytes]:
        yield b"data: a\n\n"

    wire = Wire()
    await Stream(items(), None, heartbeat=None, send_timeout=None).run(scope_of(), wire.receive, wire.send)
    assert [message["type"] for message in wire.messages] == ["http.response.body"] * 2
    assert wire.body == b"data: a\n\n"
    assert wire.complete


async def test_continued_stream_fails() -> None:
    """Its head is sent, so that the failure is reported in the stream."""

    source, wire = Source(), Wire()
    source.give(LookupError("broken"))
    stream = Stream(source.items(), None, heartbeat=None, send_timeout=None)
    with pytest.raises(LookupError):
        await stream.run(scope_of(), wire.receive, wire.send)
    assert b"event: stream:error\n" in wire.body
    assert not wire.complete


class Hypercorn:
    """The owner of hypercorn's ``send``."""

    def __init__(self, wire: Wire, **config: Any) -> None:
        self.config = SimpleNamespace(**config)
        self._wire = wire

    async def app_send(self, message: Message) -> None:
        await self._wire.send(message)


@pytest.mark.parametrize(
    ("config", "granted"), [({"graceful_timeout": 3.0}, 1.5), ({"graceful_timeout": None}, None), ({}, None)]
)
async def test_drain_within_grace_period(config: dict[str, Any], granted: float | None) -> None:
    """hypercorn cancels its requests after a while, so the stream has to end before."""
    wire, calls = Wire(), []

    def on_drain(within: float | None) -> float:
        calls.append(within)
        return 0.25

    stream = Stream(Source().items(), None, heartbeat=None, send_timeout=None, on_drain=on_drain)
    task = asyncio.create_task(stream.run(scope_of(), wire.receive, Hypercorn(wire, **config).app_send))
    await settle()
    assert stream.drain() == 0.25
    assert calls == [granted]
    wire.left.set()
    await task


@pytest.mark.parametrize(
    ("config", "holds", "granted"),
    [
        ({"graceful_timeout": 3.0}, [1], 1),
        ({"graceful_timeout": 3.0}, [1, 5, 2], 1.5),
        ({"graceful_timeout": None}, [1, 5, 2], 5),
        ({}, [], 0),
    ],
)
async def test_hold_within_grace_period(config: dict[str, Any], holds: list[float], granted: float) -> None:
    """The longest hold counts, but no more than the server grants."""
    wire, calls, clock = Wire(), list[float](), FakeClock()
    stream = Stream(Source().items(), None, heartbeat=None, send_timeout=None, clock=clock)
    for grace in holds:
        stream.hold(partial(calls.append, grace), grace)
    task = asyncio.create_task(stream.run(scope_of(), wire.receive, Hypercorn(wire, **config).app_send))
    await settle()
    assert stream.drain() == granted
    assert calls == holds
    clock.advance(granted / 2)
    assert stream.drain() == granted / 2
    clock.advance(granted / 2)
    await task
    assert calls == holds
    assert stream.reason is DisconnectReason.DRAINING


# Waiting for the client without a task


class Cycle:
    """The part of uvicorn's cycle that waits for the client."""

    def __init__(self) -> None:
        self.message_event = asyncio.Event()
        self.messages: list[Message | Exception] = []
        self.waiting = 0

    def tell(self, *messages: Message | Exception) -> None:
        self.messages.extend(messages)
        self.message_event.set()

    async def receive(self) -> Message:
        self.waiting += 1
        try:
            while not self.messages:
                self.message_event.clear()
                await self.message_event.wait()
        finally:
            self.waiting -= 1
        message = self.messages.pop(0)
        if isinstance(message, Exception):
            raise message
        return message


BODY: Message = {"type": "http.request", "body": b"x", "more_body": True}
LEFT: Message = {"type": "http.disconnect"}


async def test_disconnect_without_task() -> None:
    cycle, source, tasks = Cycle(), Source(), asyncio.all_tasks()
    cycle.tell(BODY, BODY)
    request = Request(source.items(), receive=cycle.receive)
    await settle()
    assert asyncio.all_tasks() - tasks == {request.task}
    assert cycle.waiting == 1
    cycle.tell(BODY)
    await settle()
    assert not request.task.done()
    cycle.tell(LEFT)
    await asyncio.wait_for(request.task, 5)
    assert (source.finalised, cycle.waiting) == (1, 0)
    assert request.reasons == [DisconnectReason.CLIENT_CLOSED]


async def test_failing_receive_without_task() -> None:
    cycle, source = Cycle(), Source()
    request = Request(source.items(), receive=cycle.receive)
    await settle()
    cycle.tell(LookupError("broken server"))
    with pytest.raises(LookupError, match="broken server"):
        await asyncio.wait_for(request.task, 5)
    assert request.reasons == [DisconnectReason.ERROR]


async def test_disconnect_before_start_without_task() -> None:
    cycle, source = Cycle(), Source()
    cycle.tell(LEFT)
    request = Request(source.items(), receive=cycle.receive)
    await asyncio.wait_for(request.task, 5)
    assert request.wire.messages == []
    assert request.reasons == [DisconnectReason.CLIENT_CLOSED]


async def test_end_without_task() -> None:
    cycle, source = Cycle(), Source()
    source.give("a", None)
    request = Request(source.items(), receive=cycle.receive)
    await asyncio.wait_for(request.task, 5)
    assert request.wire.complete
    assert cycle.waiting == 0


async def test_disconnect_by_queue() -> None:
    """hypercorn's ``receive`` is the method of a queue."""
    queue: asyncio.Queue[Message] = asyncio.Queue()
    source, tasks = Source(), asyncio.all_tasks()
    request = Request(source.items(), receive=queue.get)
    await settle()
    assert asyncio.all_tasks() - tasks == {request.task}
    queue.put_nowait(LEFT)
    await asyncio.wait_for(request.task, 5)
    assert request.reasons == [DisconnectReason.CLIENT_CLOSED]


async def test_wait_in_finally() -> None:
    steps: list[str] = []

    async def items() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            await asyncio.to_thread(steps.append, "cleaned up")

    async with open_response(items()) as stream:
        await stream.next_event()
    assert steps == ["cleaned up"]


async def swallow_and_return() -> AsyncIterator[str]:
    yield "a"
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


async def swallow_and_yield() -> AsyncIterator[str]:
    yield "a"
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        yield "too late"


async def swallow_and_wait_a_little() -> AsyncIterator[str]:
    yield "a"
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(0)
        yield "too late"


@pytest.mark.parametrize("make", [swallow_and_return, swallow_and_yield, swallow_and_wait_a_little])
async def test_swallowed_cancellation(make: Callable[[], Any]) -> None:
    items = make()
    request = Request(items)
    await settle()
    await request.leave()
    assert request.wire.body == b"data: a\n\n"
    assert not request.wire.complete
    assert request.reasons == [DisconnectReason.CLIENT_CLOSED]
    assert items.ag_frame is None  # finished


async def test_failure_in_finally() -> None:
    async def items() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            raise LookupError("broken end")

    request = Request(items())
    await settle()
    with pytest.raises(LookupError, match="broken end"):
        await request.leave()
    assert request.reasons == [DisconnectReason.CLIENT_CLOSED]


async def unending() -> AsyncIterator[int]:
    number = 0
    while True:
        yield number
        number += 1


@pytest.mark.parametrize("make", [unending, lambda: [0] * 10_000_000])
async def test_busy_items(make: Callable[[], Any]) -> None:
    # `send` of this wire never waits either.
    wire = Wire()
    serving = asyncio.create_task(EventSourceResponse(make())(scope_of(), wire.receive, wire.send))
    await settle(turns=10)  # would not return
    wire.left.set()
    await asyncio.wait_for(serving, 5)
    assert not wire.complete


# The server's ways


async def test_cancelled_request() -> None:
    source = Source()
    request = Request(source.items())
    source.give("a")
    await settle()
    request.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request.task
    assert source.finalised == 1
    assert not request.wire.complete
    assert request.reasons == [DisconnectReason.DRAINING]


async def test_repeated_cancellation() -> None:
    """The scopes of anyio cancel at every wait until they are left."""

    async def on_send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    source, wire = Source(), Wire(on_send)
    source.give("a")
    items = source.items()  # kept, so that the garbage collector does not close it
    async with anyio.create_task_group() as group:
        group.start_soon(EventSourceResponse(items), scope_of(), wire.receive, wire.send)
        await settle()
        group.cancel_scope.cancel()
    assert source.finalised == 1


async def test_failing_receive() -> None:
    source = Source()

    async def receive() -> Message:
        raise LookupError("broken server")

    request = Request(source.items(), receive=receive)
    with pytest.raises(LookupError, match="broken server"):
        await request.task
    assert source.finalised == 1
    assert request.reasons == [DisconnectReason.ERROR]


async def test_receive_fails_after_end() -> None:
    async def receive() -> Message:
        await ended.wait()
        raise LookupError("no more messages")

    async def on_send(message: Message) -> None:
        if message.get("more_body") is False:
            ended.set()
            await settle()

    ended = asyncio.Event()
    source = Source()
    source.give("a", None)
    request = Request(source.items(), on_send, receive)
    await request.task
    assert request.wire.complete
    assert request.reasons == []


async def test_disconnect_with_last_byte() -> None:
    async def on_send(message: Message) -> None:
        if message.get("more_body") is False:
            request.wire.left.set()
            await settle()

    source = Source()
    source.give("a", None)
    request = Request(source.items(), on_send)
    await request.task
    assert request.wire.complete
    assert request.reasons == []


@pytest.mark.parametrize("error", [OSError, ConnectionResetError, BrokenPipeError, TimeoutError])
@pytest.mark.parametrize("at", [0, 1, 2])
async def test_send_raises_os_error(error: type[OSError], at: int) -> None:
    def on_send(message: Message) -> None:
        if len(request.wire.messages) == at:
            raise error

    source = Source()
    source.give("a", "b")
    request = Request(source.items(), on_send)
    await asyncio.wait_for(request.task, 5)
    assert source.finalised == 1
    assert request.reasons == [DisconnectReason.CLIENT_CLOSED]


async def test_heartbeat_raises_os_error() -> None:
    def on_send(message: Message) -> None:
        if message.get("body") == BEAT:
            raise ConnectionResetError

    source = Source()
    source.give("a")
    request = Request(source.items(), on_send)
    await request.pass_by(15)
    await asyncio.wait_for(request.task, 5)
    assert source.finalised == 1
    assert request.reasons == [DisconnectReason.CLIENT_CLOSED]


@pytest.mark.parametrize("body", [b"data: a\n\n", BEAT])
async def test_failing_send(body: bytes) -> None:
    def on_send(message: Message) -> None:
        if message.get("body") == body:
            raise LookupError("broken server")

    source = Source()
    source.give("b", *(["a"] if body != BEAT else []))
    request = Request(source.items(), on_send)
    await request.pass_by(15)
    with pytest.raises(LookupError, match="broken server"):
        await asyncio.wait_for(request.task, 5)
    assert source.finalised == 1


async def test_refused_start() -> None:
    def on_send(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            raise RuntimeError("a header that cannot be sent")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await EventSourceResponse(["a"])(scope, receive, send)
        except RuntimeError:
            await send({"type": "http.response.start", "status": 500})

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        wire = Wire(on_send)
        await app(scope_of(client=server.getpeername(), server=server.getsockname()), wire.receive, wire.send)
        server.send(b"HTTP/1.1 500 Internal Server Error")
        assert client.recv(12) == b"HTTP/1.1 500"
    assert [message["status"] for message in wire.messages] == [500]


# A client that does not read


async def test_send_timeout() -> None:
    clock, pulled, finalised = FakeClock(), 0, 0
    reasons: list[DisconnectReason] = []

    async def items() -> AsyncIterator[bytes]:
        nonlocal pulled, finalised
        try:
            while True:
                pulled += 1
                yield BLOCK
        finally:
            finalised += 1

    async with open_response(items(), clock=clock, on_disconnect=reasons.append, send_timeout=30) as stream:
        await settle(turns=200)
        stalled = pulled
        clock.advance(29.9)
        await settle()
        assert (pulled, finalised) == (stalled, 0)
        clock.advance(0.1)
        await settle()
        assert (pulled, finalised) == (stalled, 1)
        await stream.disconnect()
    assert stalled < 70  # what the client takes unread, and one that waits
    assert reasons == [DisconnectReason.SEND_TIMEOUT]
    assert stream.error is None
    assert not stream.complete


async def test_send_timeout_per_write() -> None:
    source = Source()
    gates = [asyncio.Event() for _ in range(4)]

    async def on_send(message: Message) -> None:
        await gates[len(request.wire.messages)].wait()

    gates[0].set()
    request = Request(source.items(), on_send, heartbeat=None, send_timeout=30)
    source.give("a", "b")
    for gate in gates[1:3]:
        await request.pass_by(29)
        gate.set()
        await settle()
    await request.pass_by(29.9)  # idle now: there is no write to be late
    source.give("c")
    await request.pass_by(29.9)
    assert request.reasons == []
    await request.pass_by(0.1)
    await request.pass_by(0)
    await request.leave()
    assert request.reasons == [DisconnectReason.SEND_TIMEOUT]


async def test_no_send_timeout() -> None:
    clock = FakeClock()
    async with open_response(unending(), clock=clock, send_timeout=None) as stream:
        await settle()
        clock.advance(1_000_000)
        await settle()
        while (await stream.next_event()).data != "8000":
            pass


async def test_send_timeout_of_last_write() -> None:
    async def on_send(message: Message) -> None:
        if message.get("more_body") is False:
            await request.wire.left.wait()

    source = Source()
    source.give("a", None)
    request = Request(source.items(), on_send)
    await request.pass_by(30)
    await request.leave()
    assert request.reasons == [DisconnectReason.SEND_TIMEOUT]


# Heartbeats


async def test_heartbeats() -> None:
    source = Source()
    request = Request(source.items(), heartbeat=10)
    source.give("a")
    await request.pass_by(9)
    source.give("b")
    await request.pass_by(9.9)
    assert request.wire.body == b"data: a\n\ndata: b\n\n"
    await request.pass_by(0.1)
    assert request.wire.body == b"data: a\n\ndata: b\n\n" + BEAT
    await request.pass_by(10)
    assert request.wire.body == b"data: a\n\ndata: b\n\n" + BEAT + BEAT
    await request.leave()


async def test_no_heartbeats() -> None:
    source = Source()
    request = Request(source.items(), heartbeat=None)
    source.give("a")
    for _ in range(10):
        await request.pass_by(10)
    assert request.wire.body == b"data: a\n\n"
    await request.leave()


async def test_ping() -> None:
    source = Source()
    request = Request(source.items(), ping=7)
    source.give("a")
    await request.pass_by(6.9)
    assert request.wire.body == b"data: a\n\n"
    await request.pass_by(0.1)
    assert request.wire.body == b"data: a\n\n" + BEAT
    await request.leave()


@pytest.mark.parametrize(
    ("parts", "rest"),
    [
        ([b"data: a"], b"\n\n"),
        ([b"data: a\n"], b"\n"),
        ([b"data: a\r"], b"\r"),
        ([b"data: a\r\n"], b"\r\n"),
        ([b"data: a\r\n", b"\r"], b"\n"),
        ([b"data: a\r", b"\n"], b"\r\n"),
        ([b"id: 1\n", b"event: x\n", b"data: a\n"], b"\n"),
        ([b"data: a\n\ndata: b\n"], b"\n"),
    ],
)
async def test_no_heartbeat_within_event(parts: list[bytes], rest: bytes) -> None:
    source = Source()
    request = Request(source.items(), heartbeat=10)
    source.give(*parts)
    in_the_middle = parts != [b"data: a\r\n", b"\r"]  # two line ends: the blank line is there already
    for _ in range(3):
        await request.pass_by(10)
    if in_the_middle:
        assert request.wire.body == b"".join(parts)
    source.give(rest)
    await request.pass_by(10)
    assert request.wire.body.endswith(BEAT)
    assert request.wire.body.replace(BEAT, b"") == b"".join(parts) + rest
    await request.leave()


async def test_heartbeat_after_slow_write() -> None:
    gate = asyncio.Event()

    async def on_send(message: Message) -> None:
        if message.get("body") == b"data: slow\n\n":
            await gate.wait()

    source = Source()
    request = Request(source.items(), on_send, heartbeat=10, send_timeout=1000)
    source.give("slow")
    await request.pass_by(25)
    gate.set()
    await request.pass_by(9.9)
    assert request.wire.body == b"data: slow\n\n"
    await request.pass_by(0.1)
    assert request.wire.body == b"data: slow\n\n" + BEAT
    await request.leave()


async def test_item_during_heartbeat() -> None:
    gate = asyncio.Event()

    async def on_send(message: Message) -> None:
        if message.get("body") == BEAT:
            await gate.wait()

    source = Source()
    request = Request(source.items(), on_send, heartbeat=10)
    source.give("a")
    await request.pass_by(10)
    source.give("b")
    await request.pass_by(20)  # the wire asserts that messages come one at a time
    assert request.wire.body == b"data: a\n\n"
    gate.set()
    await settle()
    assert request.wire.body == b"data: a\n\n" + BEAT + b"data: b\n\n"
    await request.leave()


async def test_clock_leap() -> None:
    source = Source()
    request = Request(source.items(), heartbeat=10)
    source.give("a")
    await request.pass_by(1000)
    assert request.wire.body == b"data: a\n\n" + BEAT
    await request.leave()


# Cleaning up


async def test_nothing_left() -> None:
    before = asyncio.all_tasks()
    for finish in (None, LookupError("broken")):
        source = Source()
        source.give("a", finish)
        request = Request(source.items())
        with contextlib.suppress(LookupError):
            await request.task
    source = Source()
    request = Request(source.items())
    await settle()
    assert len(open_streams) == 1
    await request.leave()
    assert asyncio.all_tasks() == before
    assert len(open_streams) == 0
    assert repr(request.clock) == "<FakeClock now=1000.0 timers=0>"
