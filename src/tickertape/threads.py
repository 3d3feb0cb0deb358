"""Blocking calls on separate threads, awaited from an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final, TypeVar

__all__ = ["BlockingIterator", "call_in_thread"]

logger = logging.getLogger("tickertape")

T = TypeVar("T")

_EXHAUSTED: Final = object()


async def call_in_thread(function: Callable[..., T], *args: Any) -> T:
    """Call a blocking function on a new daemon thread, and return its result.

    A pool is not used on purpose: a call that blocks can not be interrupted, and it must neither take a
    place in a pool that others need nor keep the process from exiting. The call sees the caller's context
    variables. If the caller is cancelled, the call continues and its result is dropped.

    Raises:
        Exception: whatever the function raises.
    """
    done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    run = contextvars.copy_context().run
    threading.Thread(target=run, args=(_call, done, function, args), name="tickertape-call", daemon=True).start()
    return await done


class BlockingIterator(AsyncIterator[T]):
    """Iterate over a blocking iterable on a separate daemon thread, one item per request.

    A pool would do for iterables that compute. Those of streams wait, and a few that wait would occupy
    every thread of a pool. ``aclose()`` asks the thread to close the iterable when its ``next()`` returns,
    and does not wait for that.
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
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._requests.put(done)
        item = await done
        if item is _EXHAUSTED:
            raise StopAsyncIteration
        return item  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """End the thread after the current ``next()``."""
        self._requests.put(None)
        if self._thread is None and inspect.isgenerator(self._items):
            self._items.close()

    def _serve(self) -> None:
        iterator: Any = None

        def pull() -> Any:
            nonlocal iterator
            iterator = iter(self._items) if iterator is None else iterator
            return next(iterator, _EXHAUSTED)

        while (done := self._requests.get()) is not None:
            _call(done, pull, ())
        close = getattr(iterator, "close", None)
        if close is not None:
            try:
                close()
            except Exception:
                logger.exception("closing an iterable failed")


def _call(done: asyncio.Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Run a call on this thread and settle ``done`` in its own loop."""
    result: Any = None
    error: BaseException | None = None
    try:
        result = function(*args)
    except StopIteration as stop:  # a future refuses it
        error = RuntimeError(f"the call raised {stop!r}")
    except BaseException as raised:
        error = raised
    with suppress(RuntimeError):  # the loop is closed, so no caller waits
        done.get_loop().call_soon_threadsafe(_settle, done, result, error)


def _settle(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():
        if inspect.iscoroutine(result):
            result.close()
    elif error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
