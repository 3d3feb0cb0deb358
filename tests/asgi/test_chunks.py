"""Streams as plain bytes: items, comments, and the end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.asgi import settle
from tickertape import ServerSentEvent
from tickertape.asgi import encode_stream, pass_on, with_connection
from tickertape.wire import HEARTBEAT


class Items:
    """Items that a test gives.

    Attributes:
        closed: true when the generator has ended.
        taken: items that were taken from it.
    """

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = False
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async with asyncio.timeout(60):  # works in one task only
                while (item := await self.queue.get()) is not None:
                    if isinstance(item, Exception):
                        raise item
                    self.taken += 1
                    yield item
        finally:
            self.closed = True


async def test_items() -> None:
    stream = encode_stream([ServerSentEvent("a", id="1"), {"n": 1}, "text", b"data: mine\n\n"])
    assert [chunk async for chunk in stream] == [
        b"id: 1\ndata: a\n\n",
        b'data: {"n":1}\n\n',
        b"data: text\n\n",
        b"data: mine\n\n",
    ]


async def test_comments_while_nothing_happens() -> None:
    items = Items()
    stream = encode_stream(items, heartbeat=0.01)
    assert await anext(stream) == HEARTBEAT
    items.queue.put_nowait("x")
    while (chunk := await anext(stream)) == HEARTBEAT:
        pass
    assert chunk == b"data: x\n\n"
    await stream.aclose()


async def test_items_are_closed_when_the_client_leaves() -> None:
    items = Items()
    stream = encode_stream(items)
    items.queue.put_nowait("x")
    await anext(stream)
    await stream.aclose()
    assert items.closed


async def test_items_wait_for_their_reader() -> None:
    items = Items()
    for number in range(10):
        items.queue.put_nowait(number)
    stream = encode_stream(items)
    await anext(stream)
    await settle()
    assert items.taken == 2
    await stream.aclose()


async def test_failure() -> None:
    items = Items()
    items.queue.put_nowait("x")
    items.queue.put_nowait(ValueError("no more"))
    stream = encode_stream(items)
    assert await anext(stream) == b"data: x\n\n"
    with pytest.raises(ValueError, match="no more"):
        await anext(stream)


async def test_stop_when_the_client_has_left() -> None:
    items, left = Items(), asyncio.Event()
    stream = pass_on(encode_stream(items), with_connection({}), send_timeout=None, leaving=left.wait())
    items.queue.put_nowait("x")
    assert await anext(stream) == b"data: x\n\n"
    left.set()
    assert [chunk async for chunk in stream] == []
    assert items.closed


async def test_stop_when_the_items_end() -> None:
    left = asyncio.Event()
    stream = pass_on(encode_stream(["x"]), with_connection({}), send_timeout=None, leaving=left.wait())
    assert [chunk async for chunk in stream] == [b"data: x\n\n"]


async def test_pass_on_a_timeout_of_the_items() -> None:
    """It is their failure, and not the client's end."""
    items, left = Items(), asyncio.Event()
    items.queue.put_nowait(TimeoutError("too late"))
    stream = pass_on(encode_stream(items), with_connection({}), send_timeout=None, leaving=left.wait())
    with pytest.raises(TimeoutError, match="too late"):
        await anext(stream)


async def test_end_when_the_server_stops() -> None:
    items = Items()
    items.queue.put_nowait("x")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = encode_stream(items, request={"server": listener.getsockname()})
        assert await anext(stream) == b"data: x\n\n"
    async with asyncio.timeout(5):
        assert [chunk async for chunk in stream] == []
    assert items.closed


@pytest.mark.parametrize(
    ("items", "options", "kind"),
    [("text", {}, TypeError), ([], {"heartbeat": 0}, ValueError), (None, {}, TypeError)],
)
def test_mistakes(items: Any, options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        encode_stream(items, **options)
