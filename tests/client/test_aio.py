"""What only the asynchronous source can do: tasks, cancellation, coroutines as callables."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from support.raw_server import Connection, RawServer, Script, answer, stream
from support.sources import FakeAsyncClock
from tickertape import ServerSentEvent
from tickertape.client import Closed, EventSource, Gap, Opened, Reconnecting, State

EVENT = b"id: 1\ndata: a\n\n"


class Left:
    """A script around another that says when the client has left."""

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


async def test_close_from_another_task_ends_the_loop() -> None:
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


async def test_close_from_another_thread_ends_the_loop() -> None:
    script = Left(stream(EVENT, then="hold"))
    with RawServer(script) as server:
        source = EventSource(server.url)
        async with reading(source) as task:
            await asyncio.to_thread(source.close)
        await script.wait()
        assert task.result() == ["a"]


async def test_aclose_from_another_task_waits_until_all_is_let_go_of() -> None:
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


async def test_close_while_a_server_does_not_answer() -> None:
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


async def test_close_while_it_sleeps() -> None:
    with RawServer(answer(503, "Retry-After: 1000")) as server:
        sleeping = asyncio.Event()

        class Clock(FakeAsyncClock):
            async def sleep(self, seconds: float) -> None:
                sleeping.set()
                await asyncio.Event().wait()

        async with (
            asyncio.timeout(30.0),
            EventSource(server.url, clock=Clock()) as source,
            asyncio.TaskGroup() as group,
        ):
            task = group.create_task(anext(source, None))
            await sleeping.wait()
            source.close()
        assert task.result() is None


async def test_leaving_the_block_closes_the_connection_whatever_happens() -> None:
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


async def test_a_cancelled_task_closes_the_connection() -> None:
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


async def test_a_cancelled_anext_loses_neither_the_connection_nor_an_event() -> None:
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


async def test_leaving_after_a_cancelled_anext_leaves_no_task_behind() -> None:
    with RawServer(stream(EVENT, then="hold")) as server:
        async with EventSource(server.url) as source:
            await anext(source)
            waiting = asyncio.ensure_future(anext(source))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_loop_goes_on_where_another_was_left() -> None:
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


async def test_one_task_at_a_time_iterates() -> None:
    with RawServer(stream(EVENT, then="hold")) as server:
        async with EventSource(server.url) as source:
            await anext(source)
            waiting = asyncio.ensure_future(anext(source, None))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="expected one task at a time"):
                await anext(source)
            source.close()
            assert await waiting is None


async def test_callables_may_be_coroutine_functions() -> None:
    told: list[object] = []

    async def hook(notice: object) -> None:
        await asyncio.sleep(0)
        told.append(type(notice))

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
            clock=FakeAsyncClock(),
        ) as source:
            assert [event.data async for event in source] == ["a"]
    assert told == [Opened, Gap, Reconnecting, Closed]
    assert store.saved == ["1"]
    assert [request.headers["x-key"] for request in server.requests] == [b"k", b"k"]
    assert [request.headers.get("last-event-id") for request in server.requests] == [b"0", b"1"]


async def test_a_store_with_plain_methods_is_called_in_a_thread() -> None:
    threads: list[threading.Thread] = []

    class Store:
        def load(self) -> str | None:
            threads.append(threading.current_thread())
            return None

        def save(self, id: str, /) -> None:
            threads.append(threading.current_thread())

    with RawServer(stream(EVENT)) as server:
        async with EventSource(server.url, last_event_id=Store(), clock=FakeAsyncClock()) as source:
            assert [event.data async for event in source] == ["a"]
    assert len(threads) == 2
    assert threading.current_thread() not in threads


async def test_aclose_in_a_hook_ends_the_loop() -> None:
    with RawServer(stream(EVENT, then="hold")) as server:

        async def hook(notice: Opened) -> None:
            await source.aclose()

        source = EventSource(server.url, on_open=hook)
        async with asyncio.timeout(30.0), source:
            assert [event async for event in source] == []


async def test_a_failed_end_of_a_cancelled_anext_is_not_forgotten() -> None:
    """The task that goes on after the cancellation fails; the next call says so."""
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


async def test_a_failure_that_nobody_asks_for_any_more_is_let_go(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "tickertape")  # a program's own set-up may have asked for more, in this process
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


async def test_silence_by_the_clocks_of_the_system() -> None:
    """A slow machine may find the server silent before the event, and tries again."""
    reasons: list[str] = []

    def hook(notice: Reconnecting) -> None:
        if source.statistics().events:
            reasons.append(notice.reason)
            source.close()

    with RawServer(*[stream(EVENT, then="hold")] * 100) as server:
        source = EventSource(server.url, silence=0.1, retry=0.01, on_reconnecting=hook)
        async with asyncio.timeout(30.0), source:
            assert [event.data async for event in source] == ["a"]
    assert reasons == ["silence for 0.1 s"]


async def test_a_client_of_the_user_gives_what_it_has() -> None:
    """Its transport, which may be for TLS, a proxy, HTTP/2 or a test, its headers and its own credentials."""
    requests: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        if len(requests) > 1:
            return httpx2.Response(204)
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=EVENT)

    options = {"auth": ("me", "secret"), "headers": {"X-Who": "me"}, "base_url": "https://example.org/base"}
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(handle), **options) as client:  # type: ignore[arg-type]
        async with EventSource("events", client=client, clock=FakeAsyncClock()) as source:
            assert [event.data async for event in source] == ["a"]
        assert not client.is_closed
    assert {str(request.url) for request in requests} == {"https://example.org/base/events"}
    assert requests[1].headers["authorization"].startswith("Basic ")
    assert requests[1].headers["x-who"] == "me"
    assert requests[1].headers["accept"] == "text/event-stream"
    assert requests[1].headers["last-event-id"] == "1"
