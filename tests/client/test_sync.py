"""What only the synchronous source can do: threads, and waking one that is blocked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from support.raw_server import Connection, RawServer, answer, stream
from support.sources import FakeSyncClock
from tickertape import ServerSentEvent
from tickertape.client import Closed, Reconnecting, State, SyncEventSource

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
    """A server that takes the request and does not answer."""
    event = threading.Event()

    def script(connection: Connection) -> None:
        event.set()
        connection.hold()

    with RawServer(script) as server:
        yield server, event


def test_close_from_another_thread_ends_a_blocked_read() -> None:
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


def test_close_from_another_thread_ends_a_stream_of_unknown_length() -> None:
    """Without a length the end that ``close`` makes looks like the server's; it is not taken for it."""
    reconnecting: list[Reconnecting] = []
    with RawServer(stream(EVENT, chunked=False, then="hold")) as server:
        source = SyncEventSource(server.url, on_reconnecting=reconnecting.append)
        reader = Reader(source)
        assert reader.first.wait(30.0)
        source.close()
        assert reader.ended() == ["a"]
    assert reconnecting == []


def test_close_while_a_server_does_not_answer() -> None:
    with asked() as (server, event):
        source = SyncEventSource(server.url)
        reader = Reader(source)
        assert event.wait(30.0)
        source.close()
        assert reader.ended() == []


def test_close_while_it_sleeps() -> None:
    told = threading.Event()
    with RawServer(answer(503, "Retry-After: 1000")) as server:
        source = SyncEventSource(server.url, on_reconnecting=lambda notice: told.set())
        reader = Reader(source)
        assert told.wait(30.0)
        source.close()
        assert reader.ended() == []


def test_leaving_the_block_closes_the_connection_whatever_happens() -> None:
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
            if thread.name == "tickertape-watchdog":
                thread.join(30.0)
                assert not thread.is_alive()
        assert list(source) == []


def test_a_loop_goes_on_where_another_was_left() -> None:
    with RawServer(stream(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", then="hold")) as server:
        with SyncEventSource(server.url) as source:
            assert next(source) == ServerSentEvent("a", id="1")
            assert next(source) == ServerSentEvent("b", id="2")
            source.commit()
            source.commit()
        assert source.last_event_id == "2"
        assert len(server.requests) == 1


def test_one_thread_at_a_time_iterates() -> None:
    with asked() as (server, event), SyncEventSource(server.url) as source:
        reader = Reader(source)
        assert event.wait(30.0)
        with pytest.raises(RuntimeError, match="expected one thread at a time"):
            next(source)
        source.close()
        assert reader.ended() == []


async def coroutine_function(notice: object = None) -> None:
    """What the synchronous source cannot call."""


@pytest.mark.parametrize("name", ["auth", "on_open", "on_gap", "on_reconnecting", "on_closed"])
def test_coroutine_functions_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match="expected plain functions in a SyncEventSource"):
        SyncEventSource("http://127.0.0.1:1", **{name: coroutine_function})  # type: ignore[arg-type]


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "identity"])
def test_silence_by_the_clocks_of_the_system(chunked: bool) -> None:
    """A slow machine may find the server silent before the event, and tries again."""
    reasons: list[str] = []

    def hook(notice: Reconnecting) -> None:
        if source.statistics().events:
            reasons.append(notice.reason)
            source.close()

    with RawServer(*[stream(EVENT, chunked=chunked, then="hold")] * 100) as server:
        source = SyncEventSource(server.url, silence=0.1, retry=0.01, on_reconnecting=hook)
        with source:
            assert [event.data for event in source] == ["a"]
    assert reasons == ["silence for 0.1 s"]


def test_an_interrupted_read_is_made_again() -> None:
    """As by Ctrl-C in a shell, where the program goes on."""
    interrupts = [KeyboardInterrupt()]

    class Clock(FakeSyncClock):
        @contextmanager
        def watch(self, seconds: float | None, expired: object) -> Iterator[None]:
            if interrupts and source.state is State.OPEN:
                raise interrupts.pop()
            yield

    with RawServer(stream(EVENT, then="hold"), stream(EVENT)) as server:
        source = SyncEventSource(server.url, clock=Clock())
        with source:
            with pytest.raises(KeyboardInterrupt):
                next(source)
            assert [event.data for event in source] == ["a"]
        assert source.statistics().reconnects == 1


def test_a_client_of_the_user_gives_what_it_has() -> None:
    """Its transport, which may be for TLS, a proxy, HTTP/2 or a test, its headers and its own credentials."""
    requests: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        if len(requests) > 1:
            return httpx2.Response(204)
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=EVENT)

    options = {"auth": ("me", "secret"), "headers": {"X-Who": "me"}, "base_url": "https://example.org/base"}
    with httpx2.Client(transport=httpx2.MockTransport(handle), **options) as client:  # type: ignore[arg-type]
        with SyncEventSource("events", client=client, clock=FakeSyncClock()) as source:
            assert [event.data for event in source] == ["a"]
        assert not client.is_closed
    assert {str(request.url) for request in requests} == {"https://example.org/base/events"}
    assert requests[1].headers["authorization"].startswith("Basic ")
    assert requests[1].headers["x-who"] == "me"
    assert requests[1].headers["last-event-id"] == "1"
