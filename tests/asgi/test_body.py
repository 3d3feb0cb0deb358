"""A response as an iterator of bytes: its head, its pace, its errors and its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tickertape import EventSourceResponse
from tickertape.asgi import ResponseBody

SCOPE = {"type": "http", "method": "GET", "headers": [], "server": ("testserver", 80), "path": "/"}


class Items:
    """A generator whose progress tests can see."""

    def __init__(self, *items: str, error: Exception | None = None, endless: bool = False) -> None:
        self._items = items
        self._error = error
        self._endless = endless
        self.taken = 0
        self.closed = asyncio.Event()

    async def generate(self) -> AsyncIterator[str]:
        try:
            for item in self._items:
                self.taken += 1
                yield item
            if self._error is not None:
                raise self._error
            if self._endless:
                await asyncio.Event().wait()
        finally:
            self.closed.set()


def body_of(items: Items) -> ResponseBody:
    return ResponseBody(EventSourceResponse(items.generate()), SCOPE)


async def test_head_and_chunks() -> None:
    body = body_of(Items("one", "two"))
    start = await body.start()
    assert start["status"] == 200
    assert (b"content-type", b"text/event-stream") in start["headers"]
    assert [chunk async for chunk in body] == [b"data: one\n\n", b"data: two\n\n"]


async def test_pace() -> None:
    """The next item is taken only when the framework asks for it: it has sent the one before."""
    items = Items("one", "two", "three")
    body = body_of(items)
    await body.start()
    assert await anext(body) == b"data: one\n\n"
    for _ in range(20):
        await asyncio.sleep(0)
    assert items.taken == 1
    assert await anext(body) == b"data: two\n\n"
    assert items.taken == 2
    body.close()
    await items.closed.wait()


async def test_error_before_the_head() -> None:
    with pytest.raises(LookupError, match="no such order"):
        await body_of(Items(error=LookupError("no such order"))).start()


async def test_late_error() -> None:
    """The error event goes out, and then the error is raised, so that the framework cuts the response."""
    body = body_of(Items("one", error=LookupError("no such order")))
    await body.start()
    assert await anext(body) == b"data: one\n\n"
    assert b"stream:error" in await anext(body)
    with pytest.raises(LookupError, match="no such order"):
        await anext(body)


@pytest.mark.parametrize("started", [False, True], ids=["before", "after"])
async def test_close(started: bool) -> None:
    """Frameworks close responses in another thread, perhaps twice, and perhaps without having read them."""
    items = Items("one", endless=True)
    body = body_of(items)
    await body.start()
    if started:
        assert await anext(body) == b"data: one\n\n"
    await asyncio.to_thread(body.close)
    await asyncio.wait_for(items.closed.wait(), 5)
    await asyncio.to_thread(body.close)


async def test_cancelled_wait() -> None:
    """The generator is closed before the cancellation continues."""
    items = Items("one", endless=True)
    body = body_of(items)
    await body.start()
    await anext(body)
    waiting = asyncio.ensure_future(anext(body))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert items.closed.is_set()


def test_close_after_the_loop() -> None:
    async def start() -> ResponseBody:
        body = body_of(Items("one"))
        await body.start()
        async for _ in body:
            pass
        return body

    asyncio.run(start()).close()
