"""The asynchronous source alone: tasks, cancellation, coroutine functions."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import anyio
import httpx2
import pytest

from support.raw_server import Connection, RawServer, Script, answer, stream
from support.sources import SourceClock
from tickertape import ServerSentEvent
from tickertape.client import Closed, EventSource, Gap, Opened, Reconnecting, State
from tickertape.testing import FakeClock

EVENT = b"id: 1\ndata: a\n\n"


class Left:
    """A script around another one. It reports when the client has left."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.left = threading.Event()

    def __call__(self, connection: Connection) -> None:
        self.script(connection)
        connection.hold()
        self.left.set()

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.left.wait, 30.0)


@asynccontextmanager
async def reading(source: EventSource) -> AsyncIterator[asyncio.Task[list[str | None]]]:
    """Iterate a source in another task, which has taken one event."""
    events: list[str | None] = []
    first = asyncio.Event()

    async def read() -> list[str | None]:
        async for event in source:
            events.append(event.data)
            first.set()
        return events

    async with asyncio.timeout(30.0), asyncio.TaskGroup() as group:
        task = group.create_task(read())
        await first.wait()
        yield task


async def test_close_from_another_task() -> None:
    script = Left(stream(EVENT, then="hold"))
    with RawServer(script) as server:
        source = EventSource(server.url)
        async with reading(source) as task:
            source.close()
            source.close()
            assert source.state is State.CLOSED
        await script.wait()
        assert task.result() == ["a"]
        assert source.last_event_id == "1"
        assert repr(source) == f"<EventSource {server.url} closed last_event_id='1' events=1>"


async def test_close_from_another_thread() -> None:
    script = Left(stream(EVENT, then="hold"))
    with RawServer(script) as server:
        source = EventSource(server.url)
        async with reading(source) as task:
            await asyncio.to_thread(source.close)
        await script.wait()
        assert task.result() == ["a"]


async def test_aclose_from_another_task() -> None:
    script = Left(stream(EVENT, then="hold"))
    closed: list[Closed] = []
    with RawServer(script) as server:
        source = EventSource(server.url, on_closed=closed.append)
        async with reading(source) as task:
            await source.aclose()
            await source.aclose()
            assert closed == [Closed(None)]
        await script.wait()
        assert task.result() == ["a"]


async def test_close_without_response() -> None:
    asked = threading.Event()

    def script(connection: Connection) -> None:
        asked.set()
        connection.hold()

    with RawServer(script) as server:
        async with asyncio.timeout(30.0), EventSource(server.url) as source, asyncio.TaskGroup() as group:
            task = group.create_task(anext(source, None))
            await asyncio.to_thread(asked.wait, 30.0)
            source.close()
        assert task.result() is None


async def test_close_during_sleep() -> None:
    with RawServer(answer(503, "Retry-After: 1000")) as server:
        sleeping = asyncio.Event()
        async with (
            asyncio.timeout(30.0),
            EventSource(server.url, clock=FakeClock(), on_reconnecting=lambda notice: sleeping.set()) as source,
            asyncio.TaskGroup() as group,
        ):
            task = group.create_task(anext(source, None))
            await sleeping.wait()
            source.close()
        assert task.result() is None


async def test_exception_in_block() -> None:
    script = Left(stream(EVENT, then="hold"))
    with RawServer(script) as server:
        source = EventSource(server.url)

        async def read() -> None:
            async with source:
                async for _ in source:
                    raise RuntimeError("crash")

        with pytest.raises(RuntimeError, match="crash"):
            await read()
        await script.wait()
        assert source.state is State.CLOSED
        assert source.last_event_id is None
        assert [event async for event in source] == []


async def test_cancelled_task() -> None:
    script = Left(stream(EVENT, then="hold"))
    with RawServer(script) as server:
        first = asyncio.Event()

        async def read() -> None:
            async with EventSource(server.url) as source:
                async for _ in source:
                    first.set()

        task = asyncio.create_task(read())
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await script.wait()


async def test_cancelled_anext() -> None:
    given_up = threading.Event()

    def script(connection: Connection) -> None:
        connection.begin()
        connection.chunk(EVENT)
        connection.wait(given_up)
        connection.chunk(b"id: 2\ndata: b\n\n")
        connection.hold()

    with RawServer(script) as server:
        async with EventSource(server.url) as source:
            assert await anext(source) == ServerSentEvent("a", id="1")
            for _ in range(3):
                waiting = asyncio.ensure_future(anext(source))
                await asyncio.sleep(0)  # let it start
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            given_up.set()
            assert await anext(source) == ServerSentEvent("b", id="2")
            assert source.last_event_id == "1"
        assert len(server.requests) == 1


async def test_no_task_left_after_cancelled_anext() -> None:
    with RawServer(stream(EVENT, then="hold")) as server:
        async with EventSource(server.url) as source:
            await anext(source)
            waiting = asyncio.ensure_future(anext(source))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_second_loop() -> None:
    with RawServer(stream(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", then="hold")) as server:
        async with EventSource(server.url) as source:
            async for event in source:
                assert event.data == "a"
                break
            async for event in source:
                assert (event.data, source.last_event_id) == ("b", "1")
                await source.commit()
                await source.commit()
                break
        assert source.last_event_id == "2"
        assert len(server.requests) == 1


async def test_two_tasks() -> None:
    with RawServer(stream(EVENT, then="hold")) as server:
        async with EventSource(server.url) as source:
            await anext(source)
            waiting = asyncio.ensure_future(anext(source, None))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another task is already iterating"):
                await anext(source)
            source.close()
            assert await waiting is None


async def test_coroutine_functions() -> None:
    seen: list[object] = []

    clock = SourceClock()

    async def hook(notice: object) -> None:
        await asyncio.sleep(0)
        seen.append(type(notice))
        if isinstance(notice, Reconnecting):
            clock.skip(notice)

    async def auth() -> dict[str, str]:
        await asyncio.sleep(0)
        return {"X-Key": "k"}

    class Store:
        def __init__(self) -> None:
            self.saved: list[str] = []

        async def load(self) -> str | None:
            await asyncio.sleep(0)
            return "0"

        async def save(self, id: str, /) -> None:
            await asyncio.sleep(0)
            self.saved.append(id)

    store = Store()
    gap = b'event: stream:gap\ndata: {"reason":"reset"}\n\n'
    with RawServer(stream(gap + EVENT)) as server:
        async with EventSource(
            server.url,
            auth=auth,
            last_event_id=store,
            on_open=hook,
            on_gap=hook,
            on_reconnecting=hook,
            on_closed=hook,
            clock=clock,
        ) as source:
            assert [event.data async for event in source] == ["a"]
    assert seen == [Opened, Gap, Reconnecting, Closed]
    assert store.saved == ["1"]
    assert [request.headers["x-key"] for request in server.requests] == [b"k", b"k"]
    assert [request.headers.get("last-event-id") for request in server.requests] == [b"0", b"1"]


async def test_store_with_plain_methods() -> None:
    threads: list[threading.Thread] = []

    class Store:
        def load(self) -> str | None:
            threads.append(threading.current_thread())
            return None

        def save(self, id: str, /) -> None:
            threads.append(threading.current_thread())

    with RawServer(stream(EVENT)) as server:
        clock = SourceClock()
        async with EventSource(server.url, last_event_id=Store(), clock=clock, on_reconnecting=clock.skip) as source:
            assert [event.data async for event in source] == ["a"]
    assert len(threads) == 2
    assert threading.current_thread() not in threads


async def test_aclose_in_hook() -> None:
    with RawServer(stream(EVENT, then="hold")) as server:

        async def hook(notice: Opened) -> None:
            await source.aclose()

        source = EventSource(server.url, on_open=hook)
        async with asyncio.timeout(30.0), source:
            assert [event async for event in source] == []


async def test_error_after_cancelled_anext() -> None:
    """The step that continues after the cancellation fails. The next call raises the error."""
    asked = asyncio.Event()
    answer_now = asyncio.Event()

    async def auth() -> str:
        asked.set()
        await answer_now.wait()
        raise LookupError("no token")

    async with EventSource("http://127.0.0.1:1", auth=auth) as source:
        waiting = asyncio.ensure_future(anext(source))
        await asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        answer_now.set()
        with pytest.raises(LookupError, match="no token"):
            await anext(source)


async def test_error_of_unawaited_step(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "tickertape")
    asked = asyncio.Event()
    answer_now = asyncio.Event()
    answered = asyncio.Event()

    async def auth() -> str:
        asked.set()
        await answer_now.wait()
        answered.set()
        raise LookupError("no token")

    async with EventSource("http://127.0.0.1:1", auth=auth) as source:
        waiting = asyncio.ensure_future(anext(source))
        await asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        answer_now.set()
        await answered.wait()
    assert source.state is State.CLOSED
    del source, waiting
    gc.collect()
    assert caplog.records == []


async def test_silence_on_system_clock() -> None:
    """On a slow machine the deadline may pass before the event. Then the source reconnects."""
    reasons: list[str] = []

    def hook(notice: Reconnecting) -> None:
        if source.statistics().events:
            reasons.append(notice.reason)
            source.close()

    with RawServer(*[stream(EVENT, then="hold")] * 100) as server:
        source = EventSource(server.url, silence=0.1, retry=0.01, on_reconnecting=hook)
        async with asyncio.timeout(30.0), source:
            assert [event.data async for event in source] == ["a"]
    assert reasons == ["no bytes for 0.1 s"]


async def test_client_of_user() -> None:
    """Its transport, which may be for TLS, a proxy, HTTP/2 or a test, its headers and its own credentials are used."""
    requests: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        if len(requests) > 1:
            return httpx2.Response(204)
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=EVENT)

    options = {"auth": ("me", "secret"), "headers": {"X-Who": "me"}, "base_url": "https://example.org/base"}
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(handle), **options) as client:  # type: ignore[arg-type]
        clock = SourceClock()
        async with EventSource("events", client=client, clock=clock, on_reconnecting=clock.skip) as source:
            assert [event.data async for event in source] == ["a"]
        assert not client.is_closed
    assert {str(request.url) for request in requests} == {"https://example.org/base/events"}
    assert requests[1].headers["authorization"].startswith("Basic ")
    assert requests[1].headers["x-who"] == "me"
    assert requests[1].headers["accept"] == "text/event-stream"
    assert requests[1].headers["last-event-id"] == "1"


# One task reads one response.

VARIABLE: ContextVar[str] = ContextVar("variable")


class TaskBound(httpx2.AsyncByteStream):
    """A body as instrumented transports make it: a cancel scope and a context variable stay open between chunks."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks
        self.tasks: set[asyncio.Task[object] | None] = set()
        self.closed_in: asyncio.Task[object] | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with anyio.CancelScope():
            token = VARIABLE.set("reading")
            try:
                for chunk in self.chunks:
                    self.tasks.add(asyncio.current_task())
                    await asyncio.sleep(0)
                    assert VARIABLE.get() == "reading"
                    yield chunk
            finally:
                VARIABLE.reset(token)

    async def aclose(self) -> None:
        self.closed_in = asyncio.current_task()


def transport(*bodies: httpx2.AsyncByteStream, **headers: str) -> httpx2.MockTransport:
    """Respond with these streams, one after the other, then with status 204."""
    remaining = list(bodies)

    def handle(request: httpx2.Request) -> httpx2.Response:
        if not remaining:
            return httpx2.Response(204)
        return httpx2.Response(200, headers={"content-type": "text/event-stream", **headers}, stream=remaining.pop(0))

    return httpx2.MockTransport(handle)


async def test_body_bound_to_its_task() -> None:
    bodies = [TaskBound(b"data: a\n\n", b"data: b\n\n", b"data: c\n\n"), TaskBound(b"data: d\n\n")]
    clock = SourceClock()
    async with (
        httpx2.AsyncClient(transport=transport(*bodies)) as client,
        EventSource("http://h/", client=client, clock=clock, on_reconnecting=clock.skip) as source,
    ):
        assert [event.data async for event in source] == ["a", "b", "c", "d"]
    for body in bodies:
        assert body.tasks == {body.closed_in}
    assert bodies[0].tasks != bodies[1].tasks


@pytest.mark.parametrize("leave", ["break", "timeout"])
async def test_unfinished_body_is_closed_in_its_task(leave: str) -> None:
    body = TaskBound(*[b"data: a\n\n"] * 1000)
    async with (
        httpx2.AsyncClient(transport=transport(body)) as client,
        EventSource("http://h/", client=client) as source,
    ):
        assert await anext(source) == ServerSentEvent("a")
        if leave == "timeout":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(source), 0)
    assert body.tasks == {body.closed_in}


async def test_forgotten_source_closes_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    """A source that is dropped without a close leaves no pending task behind."""
    script = Left(stream(EVENT, then="hold"))
    with RawServer(script) as server:
        source = EventSource(server.url)
        assert await anext(source) == ServerSentEvent("a", id="1")
        assert len(asyncio.all_tasks()) == 2
        client = source._own_client
        del source
        gc.collect()
        await script.wait()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert client is not None
        await client.aclose()
    assert caplog.records == []


class Compressed(httpx2.AsyncByteStream):
    """A gzip body in one chunk."""

    def __init__(self, data: bytes) -> None:
        self.data = gzip.compress(data)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data


async def test_compressed_body_takes_turns() -> None:
    """A mebibyte of line breaks is a kilobyte on the wire. Other tasks run while it is decoded."""
    size = 1024 * 1024
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    bodies = transport(Compressed(b"\n" * size + b"data: a\n\n"), **{"content-encoding": "gzip"})
    async with httpx2.AsyncClient(transport=bodies) as client, EventSource("http://h/", client=client) as source:
        other = asyncio.create_task(count_turns())
        assert await anext(source) == ServerSentEvent("a")
        other.cancel()
    assert turns >= size // (16 * 1024)


async def test_public_clock() -> None:
    """Hours of failing attempts pass at once."""
    clock = FakeClock()
    delays: list[float] = []

    def hook(notice: Reconnecting) -> None:
        delays.append(notice.delay)
        clock.advance(notice.delay)

    failures = [answer(503, "Retry-After: 3600")] * 3
    with RawServer(*failures, stream(EVENT)) as server:
        async with EventSource(server.url, clock=clock, on_reconnecting=hook) as source:
            assert await anext(source) == ServerSentEvent("a", id="1")
    assert delays == [3600.0] * 3


async def test_clock_advanced_by_another_task() -> None:
    clock = FakeClock()
    waiting = asyncio.Event()
    with RawServer(answer(503, "Retry-After: 3600"), stream(EVENT, then="hold")) as server:
        async with EventSource(server.url, clock=clock, on_reconnecting=lambda notice: waiting.set()) as source:
            reading = asyncio.ensure_future(anext(source))
            await waiting.wait()
            clock.advance(3600.0)
            assert await reading == ServerSentEvent("a", id="1")
