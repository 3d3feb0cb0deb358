"""``stream_until_drain`` and ``on_drain``: a generator learns that its server stops, and sends a last event."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from support.asgi import Wire, open_response, scope_of, settle
from tickertape import DisconnectReason, EventSourceResponse, close_streams, stream_until_drain
from tickertape.asgi import open_streams
from tickertape.errors import StreamEndedError
from tickertape.testing import FakeClock


class Feed:
    """Items that never end. ``log`` has what happens to their generator."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def items(self) -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise
        finally:
            self.log.append("closed")


async def farewell(items: Any, **options: Any) -> AsyncIterator[Any]:
    async for item in stream_until_drain(items, **options):
        yield item
    yield "bye"


async def test_last_event() -> None:
    feed, reasons = Feed(), list[DisconnectReason]()
    async with open_response(farewell(feed.items()), on_disconnect=reasons.append) as stream:
        await stream.next_event()
        close_streams()
        assert await stream.read() == b"data: a\n\ndata: bye\n\n"
        assert stream.complete
    assert feed.log == ["cancelled", "closed"]
    assert reasons == []  # the items have ended by themselves


async def test_blocking_items() -> None:
    waiting = threading.Event()

    def items() -> Iterator[str]:
        yield "a"
        waiting.wait()

    async with open_response(farewell(items())) as stream:
        await stream.next_event()
        close_streams()
        assert await stream.read() == b"data: a\n\ndata: bye\n\n"
    waiting.set()


async def test_items_that_end() -> None:
    """Once the loop is over, the generator is closed as usual when the server stops."""
    closed = []

    async def items() -> AsyncIterator[str]:
        try:
            async for item in farewell(["a", "b"]):
                yield item
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async with open_response(items(), clock=FakeClock()) as stream:  # no time passes
        for _ in range(3):
            await stream.next_event()
        close_streams()
        assert await stream.read() == b"data: a\n\ndata: b\n\ndata: bye\n\n"
    assert closed == [True]


class Source(AsyncIterator[str]):
    """An iterator that is no generator: only ``aclose`` finalises it."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def __anext__(self) -> str:
        if not self.log:
            self.log.append("a")
            return "a"
        await asyncio.Event().wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.log.append("closed")


async def test_closed_before_last_event() -> None:
    source = Source()

    async def items() -> AsyncIterator[Any]:
        async for item in stream_until_drain(source):
            yield item
        yield list(source.log)

    async with open_response(items()) as stream:
        await stream.next_event()
        close_streams()
        assert (await stream.next_event()).json() == ["a", "closed"]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server


@pytest.mark.parametrize("kind", ["request", "scope"])
async def test_response_of_another_library(listener: socket.socket, kind: str) -> None:
    """Starlette's own response, whose generator knows the request."""
    scope = scope_of(server=listener.getsockname())
    request = Request(scope) if kind == "request" else scope
    feed, wire = Feed(), Wire()
    response = StreamingResponse(farewell(feed.items(), request=request))
    task = asyncio.create_task(response(scope, wire.receive, wire.send))
    await settle(lambda: len(wire.messages) == 2)
    listener.close()
    await task
    assert wire.body == b"abye"
    assert feed.log == ["cancelled", "closed"]
    assert len(open_streams) == 0


@pytest.mark.parametrize("inside", [True, False])
async def test_stop_while_closing(inside: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The server stops after the last item, while the iterator is closed."""

    class Closing(Source):
        async def __anext__(self) -> str:
            if self.log:
                raise StopAsyncIteration
            return await super().__anext__()

        async def aclose(self) -> None:
            open_streams.close()
            await settle()
            self.log.append("closed")

    source, items = Closing(), [b""]
    if inside:
        async with open_response(farewell(source)) as stream:
            items = [await stream.read()]
    else:
        items = [item async for item in farewell(source)]
    assert items == ([b"data: a\n\ndata: bye\n\n"] if inside else ["a", "bye"])
    assert source.log == ["a", "closed"]
    assert caplog.records == []


async def test_without_response() -> None:
    """In a test of a generator, for example."""
    items = farewell(Feed().items())
    assert await anext(items) == "a"
    assert len(open_streams) == 1
    close_streams()
    close_streams()
    assert [item async for item in items] == ["bye"]
    assert len(open_streams) == 0


async def test_response_within_items() -> None:
    """A response that runs within the items of another one does not take its place."""

    async def items() -> AsyncIterator[str]:
        wire = Wire()
        await EventSourceResponse(["inner"])(scope_of(), wire.receive, wire.send)
        yield wire.body.decode().strip()
        async for item in farewell(Feed().items()):
            yield item

    async with open_response(items()) as stream:
        await stream.next_event()
        await stream.next_event()
        close_streams()
        assert await stream.read() == b"data: data: inner\n\ndata: a\n\ndata: bye\n\n"


async def test_client_leaves() -> None:
    feed, reasons = Feed(), list[DisconnectReason]()
    async with open_response(farewell(feed.items()), on_disconnect=reasons.append) as stream:
        await stream.next_event()
        await stream.disconnect()
    assert stream.body == b"data: a\n\n"
    assert feed.log == ["cancelled", "closed"]
    assert reasons == [DisconnectReason.CLIENT_CLOSED]


async def linger(items: Any, **options: Any) -> AsyncIterator[Any]:
    async for item in farewell(items, **options):
        yield item
    await asyncio.Event().wait()


@pytest.mark.parametrize(("options", "grace"), [({}, 1), ({"grace": 3}, 3)])
async def test_grace_passes(options: dict[str, Any], grace: float) -> None:
    clock, reasons = FakeClock(), list[DisconnectReason]()
    items = linger(Feed().items(), **options)
    async with open_response(items, clock=clock, heartbeat=None, on_disconnect=reasons.append) as stream:
        await stream.next_event()
        close_streams()
        assert (await stream.next_event()).data == "bye"
        close_streams()  # a second time changes nothing
        clock.advance(grace - 0.1)
        await settle()
        assert reasons == []
        clock.advance(0.1)
        await stream.read()
        assert stream.complete
    assert reasons == [DisconnectReason.DRAINING]


# The items know that the server stops, and a clean end would look complete. See also the "cut" of `test_servers.py`.


async def stop_early() -> AsyncIterator[str]:
    yield "a"
    raise StreamEndedError("the source has closed")


async def test_source_that_closes_first(caplog: pytest.LogCaptureFixture) -> None:
    """A source of events that closes while the server stops is no failure: the client reconnects."""
    reasons: list[DisconnectReason] = []
    async with open_response(stop_early(), on_disconnect=reasons.append) as stream:
        assert await stream.read() == b"data: a\n\n"
        assert stream.complete
    assert reasons == [DisconnectReason.DRAINING]
    assert caplog.messages == []


async def test_source_that_is_closed() -> None:
    """Before the first item it is an error, from which the framework makes a status."""

    async def closed(count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number
        raise StreamEndedError("the source has closed")

    async with open_response(closed(0), wait=False) as stream:
        with pytest.raises(StreamEndedError, match="the source has closed"):
            await stream.started()


@pytest.mark.parametrize("items", [stop_early, lambda: Feed().items()], ids=["source closes", "server stops"])
async def test_cut_on_drain(items: Callable[[], Any]) -> None:
    """If the connection is not known, as here, the server must cut it: for that it needs an exception."""
    reasons: list[DisconnectReason] = []
    async with open_response(items(), cut_on_drain=True, on_disconnect=reasons.append) as stream:
        assert (await stream.next_event()).data == "a"
        close_streams()
        await stream.read()
        assert not stream.complete
    assert str(stream.error) == "the server is stopping, and the stream has not ended"
    assert reasons == [DisconnectReason.DRAINING]


async def test_stop_during_send() -> None:
    """A generator that is sending continues when the item is sent."""
    feed, sent = Feed(), asyncio.Event()

    def on_send(message: Any) -> Any:
        return sent.wait() if message.get("body") == b"data: a\n\n" else None

    wire = Wire(on_send)
    response = EventSourceResponse(farewell(feed.items()))
    task = asyncio.create_task(response(scope_of(), wire.receive, wire.send))
    await settle()
    close_streams()
    await settle()
    sent.set()
    await task
    assert wire.body == b"data: a\n\ndata: bye\n\n"
    assert wire.complete
    assert feed.log == ["closed"]


async def test_item_despite_cancellation() -> None:
    async def items() -> AsyncIterator[str]:
        yield "a"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield "b"
        yield "never"

    async with open_response(farewell(items())) as stream:
        await stream.next_event()
        close_streams()
        assert await stream.read() == b"data: a\n\ndata: b\n\ndata: bye\n\n"


async def test_timeout_of_items() -> None:
    """A TimeoutError of the items is no end."""

    async def items() -> AsyncIterator[str]:
        yield "a"
        raise TimeoutError("of the items")

    outside = stream_until_drain(items())  # of any response
    assert await anext(outside) == "a"
    with pytest.raises(TimeoutError, match="of the items"):
        await anext(outside)


async def test_start_after_stop() -> None:
    """A second loop ends at once if the server is stopping already."""

    async def items() -> AsyncIterator[Any]:
        async for item in farewell(Feed().items()):
            yield item
        async for item in stream_until_drain(Feed().items()):
            yield item
        yield "again"

    async with open_response(items()) as stream:
        await stream.next_event()
        close_streams()
        assert await stream.read() == b"data: a\n\ndata: bye\n\ndata: again\n\n"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: stream_until_drain("text"), TypeError),
        (lambda: stream_until_drain([], grace=0), ValueError),
        (lambda: stream_until_drain([], grace=-1), ValueError),
        (lambda: stream_until_drain([], grace=True), ValueError),
    ],
)
def test_bad_arguments(call: Callable[[], Any], error: type[Exception]) -> None:
    """They are reported where the mistake is, not at the first item."""
    with pytest.raises(error):
        call()


async def test_on_drain() -> None:
    """With an event and a grace period, the items end as they like."""
    stopping, reasons = asyncio.Event(), list[DisconnectReason]()

    async def items() -> AsyncIterator[str]:
        yield "a"
        await stopping.wait()
        yield "bye"

    options: dict[str, Any] = {"on_drain": stopping.set, "drain_grace": 5, "on_disconnect": reasons.append}
    async with open_response(items(), **options) as stream:
        await stream.next_event()
        close_streams()
        assert await stream.read() == b"data: a\n\ndata: bye\n\n"
        assert stream.complete
    assert reasons == []


@pytest.mark.parametrize("grace", [0, 2.5])
async def test_drain_grace_passes(grace: float, caplog: pytest.LogCaptureFixture) -> None:
    """``on_drain`` is called once; if it fails, this is logged, and the stream ends all the same."""
    clock, calls = FakeClock(), list[str]()

    def fail() -> None:
        calls.append("stopping")
        raise LookupError("broken")

    feed = Feed()
    async with open_response(feed.items(), clock=clock, on_drain=fail, drain_grace=grace, heartbeat=None) as stream:
        await stream.next_event()
        close_streams()
        close_streams()
        await settle()
        assert feed.log == ([] if grace else ["cancelled", "closed"])
        clock.advance(grace)
        assert await stream.read() == b"data: a\n\n"
        assert stream.complete
    assert calls == ["stopping"]
    assert [record.message for record in caplog.records] == ["on_drain failed"]
