"""A farewell: let a generator end by itself when its server is stopping."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Final, TypeVar
from weakref import ref

from ..timing import check_seconds
from .iteration import check_iterable, close_iterator, iterate
from .shutdown import open_streams
from .stream import Stream
from .types import HasScope, Scope

T = TypeVar("T")

DEFAULT_GRACE: Final = 1.0
"""Seconds for a last event: a deployment that waits 2 s for its server still sees it exit by itself."""

current_stream: Final[ContextVar[ref[Stream]]] = ContextVar("current_stream")
"""The stream whose items run in this context. Timers that were cancelled keep their context for a while."""


def stream_until_drain(
    items: AsyncIterable[T] | Iterable[T],
    *,
    request: HasScope | Scope | None = None,
    grace: float = DEFAULT_GRACE,
) -> AsyncGenerator[T]:
    """Yield items until they end, or until the server is stopping.

    Use it in a generator that you pass to :class:`EventSourceResponse`. The loop over it ends when the server is
    stopping, and the generator can yield a last event. Without it the generator is closed where it waits.

    Arguments:
        items: an async or sync iterable. An item that it waits for when the server stops is cancelled, and it is
            closed.
        request: the request, or an ASGI scope, if the generator is for the streaming response of another library. Its
            server is then known. Otherwise only :func:`close_streams` ends the loop there.
        grace: seconds after the server's stop in which your generator must end, > 0, after which it is closed as
            usual. If the server's own limit is known, at most half of that. Another response does not limit it.

    Raises:
        TypeError: ``items`` is not an iterable of events.
        ValueError: ``grace`` is not > 0.
    """
    check_iterable(items)
    grace = check_seconds("grace", grace, above=0)
    scope = {} if request is None else request if isinstance(request, Mapping) else request.scope
    return _until_drain(items, dict(scope), grace)


async def _until_drain(items: AsyncIterable[T] | Iterable[T], scope: Scope, grace: float) -> AsyncGenerator[T]:
    loop = asyncio.get_running_loop()
    iterator = iterate(items)
    reference = current_stream.get(None)
    stream = None if reference is None else reference()
    draining = asyncio.Event()
    waiting: asyncio.Timeout | None = None

    def on_drain() -> None:
        if draining.is_set():
            return
        draining.set()
        if waiting is not None:
            waiting.reschedule(loop.time())

    guard = _Guard(on_drain, grace)
    if stream is None:
        open_streams.add(guard, scope)
    else:
        stream.hold(on_drain, grace)
    try:
        while not draining.is_set():
            try:
                limit = waiting = asyncio.timeout(None)
                async with limit:
                    item = await anext(iterator)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if draining.is_set() and limit.expired():
                    return
                raise
            finally:
                waiting = None
            yield item
    finally:
        try:
            await close_iterator(iterator)
        finally:
            if stream is None:
                open_streams.discard(guard)
            else:
                stream.release(on_drain)


class _Guard:
    """The stream of another library, which ends by itself."""

    __slots__ = ("_grace", "_on_drain")

    def __init__(self, on_drain: Callable[[], None], grace: float) -> None:
        self._on_drain = on_drain
        self._grace = grace

    def drain(self) -> float:
        self._on_drain()
        return self._grace
