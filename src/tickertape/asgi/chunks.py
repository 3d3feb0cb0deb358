"""Event streams as plain bytes, for frameworks that bring their own streaming response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, Final

from ..timing import check_limit
from ..wire import HEARTBEAT
from .items import encode_item
from .iteration import check_iterable, close_iterator, iterate
from .shutdown import open_streams
from .sockets import CONNECTION, Ends, Unknown, set_timeout
from .stream import DEFAULT_HEARTBEAT
from .tcp_timeout import tcp_timeout_for
from .types import HasScope, Scope

_END: Final = object()


def encode_stream(
    items: AsyncIterable[Any] | Iterable[Any],
    *,
    request: HasScope | Scope | None = None,
    heartbeat: float | None = DEFAULT_HEARTBEAT,
) -> AsyncGenerator[bytes]:
    """Yield the bytes of an event stream, one event for each item.

    It has comments while nothing happens, and it ends when the server stops. Close it with ``aclose()`` when the client
    leaves; most frameworks do. The items are then closed at once.

    Arguments:
        items: as of :class:`EventSourceResponse`.
        request: the request, or an ASGI scope: when its server stops, the stream ends. For a server without scopes,
            ``{"server": (host, port)}`` of its listening socket.
        heartbeat: seconds without an event after which a comment is sent, > 0; ``None`` for none.

    Raises:
        TypeError: ``items`` is not an iterable of events.
        ValueError: ``heartbeat`` is not > 0.
        Exception: raised by the items.
    """
    check_iterable(items)
    heartbeat = check_limit("heartbeat", heartbeat)
    scope = {} if request is None else request if isinstance(request, Mapping) else request.scope
    return _encode(iterate(items), dict(scope), heartbeat)


async def _encode(items: AsyncIterator[Any], scope: Scope, heartbeat: float | None) -> AsyncGenerator[bytes]:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    turn = asyncio.Semaphore(2)  # one item waits while another is being sent
    # The items run in one task of their own, so that scopes of cancellation and context variables work there.
    reading = asyncio.get_running_loop().create_task(_read(items, queue, turn))
    guard = _Guard(reading)
    open_streams.add_foreign(guard, scope)
    try:
        while True:
            try:
                async with asyncio.timeout(heartbeat):
                    item = await queue.get()
            except TimeoutError:
                yield HEARTBEAT
                continue
            if item is _END:
                break
            yield encode_item(item)
            turn.release()
        if not guard.draining:
            await reading  # raises what the items have raised
    finally:
        open_streams.discard(guard)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([reading])


async def _read(items: AsyncIterator[Any], queue: asyncio.Queue[Any], turn: asyncio.Semaphore) -> None:
    try:
        await turn.acquire()
        async for item in items:
            queue.put_nowait(item)
            await turn.acquire()
    finally:
        try:
            await close_iterator(items)
        finally:
            queue.put_nowait(_END)


async def pass_on(
    chunks: AsyncGenerator[bytes],
    scope: Scope,
    *,
    send_timeout: float | None,
    leaving: Coroutine[Any, Any, Any] | None = None,
) -> AsyncGenerator[bytes]:
    """Yield the bytes of a stream to a framework's response, for as long as its client reads them.

    Arguments:
        chunks: of :func:`encode_stream` or ``hub.stream``; closed at the end.
        scope: of the request, from :func:`with_connection`.
        send_timeout: seconds that the framework may take to send a chunk. Then the connection is dropped if its client
            does not read. ``None`` for no limit.
        leaving: returns when the client has left, for frameworks that do not notice it.
    """
    loop = asyncio.get_running_loop()
    connection = scope[CONNECTION]
    if send_timeout is not None and not isinstance(connection, (Ends, Unknown)):
        set_timeout(connection, tcp_timeout_for(send_timeout))
    task = None if leaving is None else loop.create_task(leaving)
    async with aclosing(chunks):
        try:
            while task is None or not task.done():
                limit = asyncio.timeout(None)
                try:
                    async with limit:
                        # The chunks run in this task, as their scopes of cancellation require.
                        expire = partial(_expire, limit)
                        if task is not None:
                            task.add_done_callback(expire)
                        chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if limit.expired():
                        return
                    raise
                finally:
                    if task is not None:
                        task.remove_done_callback(expire)
                timer = None if send_timeout is None else loop.call_later(send_timeout, open_streams.drop, connection)
                try:
                    yield chunk
                finally:
                    if timer is not None:
                        timer.cancel()
        finally:
            if task is not None:
                task.cancel()


async def begin_stream(chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes] | None:
    """Wait for the first chunk of a stream, so that an error before it becomes an HTTP error.

    Arguments:
        chunks: of :func:`pass_on`.

    Returns:
        All chunks, with the first one; ``None`` if there are none.
    """
    try:
        return _all(await anext(chunks), chunks)
    except StopAsyncIteration:
        return None


async def _all(first: bytes, chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(chunks):
        yield first
        async for chunk in chunks:
            yield chunk


def _expire(limit: asyncio.Timeout, task: asyncio.Task[Any]) -> None:
    with suppress(RuntimeError):  # it is over already
        limit.reschedule(asyncio.get_running_loop().time())


class _Guard:
    """Ends a stream when its server stops."""

    def __init__(self, reading: asyncio.Task[None]) -> None:
        self._reading = reading
        self.draining = False

    def drain(self) -> float:
        """End the items where they wait."""
        self.draining = True
        self._reading.cancel()
        return 0.0
