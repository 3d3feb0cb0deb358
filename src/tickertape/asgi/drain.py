"""A farewell: let a generator end by itself when its server is stopping."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextvars import ContextVar
from typing import Any, Final, TypeVar
from weakref import ref

from .iteration import check_iterable, close_iterator, iterate
from .stream import Stream

T = TypeVar("T")

DEFAULT_GRACE: Final = 1.0
"""Seconds for a last event: a deployment that waits 2 s for its server still sees it exit by itself."""

current_stream: Final[ContextVar[ref[Stream]]] = ContextVar("current_stream")
"""The stream whose items run in this context. Timers that were cancelled keep their context for a while."""


def stream_until_drain(items: AsyncIterable[T] | Iterable[T], *, grace: float = DEFAULT_GRACE) -> AsyncGenerator[T]:
    """Yield items until they end, or until the server is stopping.

    Use it in a generator that you pass to :class:`EventSourceResponse`. The loop over it ends when the server is
    stopping, and the generator can yield a last event. Without it the generator is closed where it waits.

    Arguments:
        items: an async or sync iterable. An item that it waits for when the server stops is cancelled, and it is
            closed.
        grace: seconds after the server's stop in which your generator must end, > 0, after which it is closed as
            usual. If the server's own limit is known, at most half of that.

    In a generator that another response runs, it yields all items.

    Raises:
        TypeError: ``items`` is not an iterable of events.
        ValueError: ``grace`` is not > 0.
    """
    check_iterable(items)
    if not checked_grace("grace", grace):
        raise ValueError(f"expected grace to be a number of seconds > 0, got {grace!r}")
    return _until_drain(items, grace)


async def _until_drain(items: AsyncIterable[T] | Iterable[T], grace: float) -> AsyncGenerator[T]:
    loop = asyncio.get_running_loop()
    iterator = iterate(items)
    reference = current_stream.get(None)
    stream = None if reference is None else reference()
    draining = asyncio.Event()
    waiting: asyncio.Timeout | None = None

    def on_drain() -> None:
        draining.set()
        if waiting is not None:
            waiting.reschedule(loop.time())

    if stream is not None:
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
            waiting = None
            yield item
    finally:
        if stream is not None:
            stream.release(on_drain)
        await close_iterator(iterator)


def checked_grace(name: str, value: Any) -> float:
    """Return a number of seconds >= 0; raise ValueError if it is something else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ValueError(f"expected {name} to be a number of seconds >= 0, got {value!r}")
    return float(value)
