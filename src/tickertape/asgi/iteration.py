"""One way to pull items, whatever the iterable: asynchronous, or blocking on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from queue import SimpleQueue
from typing import Any, Final, TypeVar

__all__ = ["BlockingIterator", "check_iterable", "close_iterator", "iterate"]

logger = logging.getLogger("tickertape.asgi")

T = TypeVar("T")

_EXHAUSTED: Final = object()


def check_iterable(items: object) -> None:
    """Raise a TypeError for what is not a stream of items, or is one by accident, as a str is."""
    one_item = isinstance(items, (str, bytes, bytearray, memoryview, Mapping)) or hasattr(items, "model_dump_json")
    if isinstance(items, (AsyncIterable, Iterable)) and not one_item:
        return
    if inspect.iscoroutine(items):
        items.close()  # so that nobody is told that it was never awaited
        hint = "await it"
    elif callable(items):
        hint = "call it"
    else:
        hint = "for a stream of one event, put it into a list"
    raise TypeError(f"expected an async or sync iterable of events, got {type(items).__name__}: {hint}")


def iterate(items: AsyncIterable[T] | Iterable[T]) -> AsyncIterator[T]:
    """Return an asynchronous iterator over ``items``."""
    if isinstance(items, AsyncIterable):
        return aiter(items)
    if isinstance(items, (list, tuple)):
        return _at_hand(items)
    return BlockingIterator(items)


async def close_iterator(iterator: AsyncIterator[Any]) -> None:
    """Finalise a generator at once, instead of when the garbage collector finds it."""
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()


async def _at_hand(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item


class BlockingIterator(AsyncIterator[T]):
    """Pull a blocking iterable on a daemon thread of its own, one item at each request.

    A pool would do for iterables that compute; those of streams wait, and a few that wait would
    hold every thread of a pool. The thread is a daemon since nothing can interrupt a blocking
    ``next()``: it must not keep the process from exiting.

    ``aclose()`` asks the thread to close the iterable when ``next()`` returns, and does not wait.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items
        self._requests: SimpleQueue[asyncio.Future[Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def __anext__(self) -> T:
        if self._thread is None:
            run = contextvars.copy_context().run
            self._thread = threading.Thread(target=run, args=(self._serve,), name="tickertape-iterator", daemon=True)
            self._thread.start()
        future = asyncio.get_running_loop().create_future()
        self._requests.put(future)
        item = await future
        if item is _EXHAUSTED:
            raise StopAsyncIteration
        return item  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """End the thread, after the ``next()`` that it may be in."""
        self._requests.put(None)

    def _serve(self) -> None:
        iterator = None
        while (future := self._requests.get()) is not None:
            item: object = None
            failure: BaseException | None = None
            try:
                iterator = iter(self._items) if iterator is None else iterator
                item = next(iterator, _EXHAUSTED)
            except BaseException as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                future.get_loop().call_soon_threadsafe(_settle, future, item, failure)
        close = getattr(iterator, "close", None)
        if close is not None:
            try:
                close()
            except Exception:
                logger.exception("expected an iterable to close, got an exception")


def _settle(future: asyncio.Future[Any], item: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(item)
    else:
        future.set_exception(error)
