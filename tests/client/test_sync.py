"""The synchronous source alone: threads, and waking a blocked one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from support.raw_server import Connection, RawServer, answer, stream
from support.sources import SourceClock
from tickertape import ServerSentEvent
from tickertape.client import Closed, Reconnecting, State, SyncEventSource
from tickertape.testing import FakeClock
from tickertape.timing import Timer

EVENT = b"id: 1\ndata: a\n\n"


class Reader(threading.Thread):
    """Iterate a source in another thread."""

    def __init__(self, source: SyncEventSource) -> None:
        super().__init__(daemon=True)
        self.source = source
        self.events: list[str | None] = []
        self.first = threading.Event()
        self.start()

    def run(self) -> None:
        for event in self.source:
            self.events.append(event.data)
            self.first.set()

    def ended(self) -> list[str | None]:
        self.join(30.0)
        assert not self.is_alive()
        return self.events


@contextmanager
def asked() -> Iterator[tuple[RawServer, threading.Event]]:
    """A server that reads the request and does not respond."""
    event = threading.Event()

    def script(connection: Connection) -> None:
        event.set()
        connection.hold()

    with RawServer(script) as server:
        yield server, event


def test_close_from_another_thread() -> None:
    closed: list[Closed] = []
    with RawServer(stream(EVENT, then="hold")) as server:
        source = SyncEventSource(server.url, on_closed=closed.append)
        reader = Reader(source)
        assert reader.first.wait(30.0)
        source.close()
        source.close()
        assert source.state is State.CLOSED
        assert reader.ended() == ["a"]
        assert source.last_event_id == "1"
        assert repr(source) == f"<SyncEventSource {server.url} closed last_event_id='1' events=1>"
    assert closed == [Closed(None)]


def test_close_stream_of_unknown_length() -> None:
    """Without a length, the end that ``close`` makes looks like a clean end by the server. It must not count as one."""
    reconnecting: list[Reconnecting] = []
    with RawServer(stream(EVENT, chunked=False, then="hold")) as server:
        source = SyncEventSource(server.url, on_reconnecting=reconnecting.append)
        reader = Reader(source)
        assert reader.first.wait(30.0)
        source.close()
        assert reader.ended() == ["a"]
    assert reconnecting == []


def test_close_without_response() -> None:
    with asked() as (server, event):
        source = SyncEventSource(server.url)
        reader = Reader(source)
        assert event.wait(30.0)
        source.close()
        assert reader.ended() == []


def test_close_during_sleep() -> None:
    waiting = threading.Event()
    with RawServer(answer(503, "Retry-After: 1000")) as server:
        source = SyncEventSource(server.url, on_reconnecting=lambda notice: waiting.set())
        reader = Reader(source)
        assert waiting.wait(30.0)
        source.close()
        assert reader.ended() == []


def test_exception_in_block() -> None:
    left = threading.Event()

    def script(connection: Connection) -> None:
        stream(EVENT, then="hold")(connection)
        left.set()

    with RawServer(script) as server:
        source = SyncEventSource(server.url)

        def read() -> None:
            with source:
                for _ in source:
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            read()
        assert left.wait(30.0)
        assert source.last_event_id is None
        for thread in threading.enumerate():
            if thread.name == "tickertape-clock":
                thread.join(30.0)
                assert not thread.is_alive()
        assert list(source) == []


def test_second_loop() -> None:
    with RawServer(stream(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", then="hold")) as server:
        with SyncEventSource(server.url) as source:
            assert next(source) == ServerSentEvent("a", id="1")
            assert next(source) == ServerSentEvent("b", id="2")
            source.commit()
            source.commit()
        assert source.last_event_id == "2"
        assert len(server.requests) == 1


def test_two_threads() -> None:
    with asked() as (server, event), SyncEventSource(server.url) as source:
        reader = Reader(source)
        assert event.wait(30.0)
        with pytest.raises(RuntimeError, match="another thread is already iterating"):
            next(source)
        source.close()
        assert reader.ended() == []


async def coroutine_function(notice: object = None) -> None:
    """The synchronous source cannot call this."""


@pytest.mark.parametrize("name", ["auth", "on_open", "on_gap", "on_reconnecting", "on_closed"])
def test_coroutine_functions(name: str) -> None:
    with pytest.raises(TypeError, match="a SyncEventSource cannot call the coroutine function"):
        SyncEventSource("http://127.0.0.1:1", **{name: coroutine_function})  # type: ignore[arg-type]


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "identity"])
def test_silence_on_system_clock(chunked: bool) -> None:
    """On a slow machine the deadline may pass before the event. Then the source reconnects."""
    reasons: list[str] = []

    def hook(notice: Reconnecting) -> None:
        if source.statistics().events:
            reasons.append(notice.reason)
            source.close()

    with RawServer(*[stream(EVENT, chunked=chunked, then="hold")] * 100) as server:
        source = SyncEventSource(server.url, silence=0.1, retry=0.01, on_reconnecting=hook)
        with source:
            assert [event.data for event in source] == ["a"]
    assert reasons == ["no bytes for 0.1 s"]


def test_interrupted_read() -> None:
    """As by Ctrl-C in an interactive session, where the program continues."""
    interrupts = [KeyboardInterrupt()]

    class Clock(SourceClock):
        def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Timer:
            if interrupts and source.state is State.OPEN:
                raise interrupts.pop()
            return super().call_at(when, callback, *args)

    with RawServer(stream(EVENT, then="hold"), stream(EVENT)) as server:
        clock = Clock()
        source = SyncEventSource(server.url, clock=clock, on_reconnecting=clock.skip)
        with source:
            with pytest.raises(KeyboardInterrupt):
                next(source)
            assert [event.data for event in source] == ["a"]
        assert source.statistics().reconnects == 1


def test_client_of_user() -> None:
    """Its transport, which may be for TLS, a proxy, HTTP/2 or a test, its headers and its own credentials are used."""
    requests: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        if len(requests) > 1:
            return httpx2.Response(204)
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=EVENT)

    options = {"auth": ("me", "secret"), "headers": {"X-Who": "me"}, "base_url": "https://example.org/base"}
    with httpx2.Client(transport=httpx2.MockTransport(handle), **options) as client:  # type: ignore[arg-type]
        clock = SourceClock()
        with SyncEventSource("events", client=client, clock=clock, on_reconnecting=clock.skip) as source:
            assert [event.data for event in source] == ["a"]
        assert not client.is_closed
    assert {str(request.url) for request in requests} == {"https://example.org/base/events"}
    assert requests[1].headers["authorization"].startswith("Basic ")
    assert requests[1].headers["x-who"] == "me"
    assert requests[1].headers["last-event-id"] == "1"


def test_public_clock() -> None:
    """Hours of failing attempts pass at once."""
    clock = FakeClock()
    failures = [answer(503, "Retry-After: 3600")] * 3
    with RawServer(*failures, stream(EVENT)) as server:
        source = SyncEventSource(server.url, clock=clock, on_reconnecting=lambda notice: clock.advance(notice.delay))
        with source:
            assert next(source) == ServerSentEvent("a", id="1")
    assert clock.time() == 1000.0 + 3 * 3600.0


@pytest.mark.parametrize("attempt", range(20))
def test_clock_advanced_by_another_thread(attempt: int) -> None:
    """The time may pass before the source begins to sleep, or after."""
    clock = FakeClock()
    waiting = threading.Event()
    with RawServer(answer(503, "Retry-After: 3600"), stream(EVENT, then="hold")) as server:
        source = SyncEventSource(server.url, clock=clock, on_reconnecting=lambda notice: waiting.set())
        reader = Reader(source)
        assert waiting.wait(30.0)
        clock.advance(3600.0)
        assert reader.first.wait(30.0)
        source.close()
        assert reader.ended() == ["a"]


def test_silence_on_public_clock() -> None:
    clock = FakeClock()
    reasons: list[str] = []

    def hook(notice: Reconnecting) -> None:
        reasons.append(notice.reason)
        clock.advance(notice.delay)

    with RawServer(stream(EVENT, then="hold")) as server:
        source = SyncEventSource(server.url, clock=clock, on_reconnecting=hook)
        reader = Reader(source)
        assert reader.first.wait(30.0)
        while not reasons:  # the wait for bytes may begin after an advance
            clock.advance(300.0)
        assert reader.ended() == ["a"]
    assert set(reasons) == {"no bytes for 300 s"}
