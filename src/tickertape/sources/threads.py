"""Calls of functions that are not async, or may be."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["call"]


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, on a thread unless it is an async one, and await what it returns if that can be.

    The thread is one of its own, and a daemon: nothing can interrupt a call that blocks, and it shall
    neither take the place of others in a pool nor keep the process from exiting.
    """
    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    run = contextvars.copy_context().run
    threading.Thread(target=run, args=(_run, done, function, arguments), name="tickertape-call", daemon=True).start()
    result = await done
    return await result if inspect.isawaitable(result) else result


def _run(done: asyncio.Future[Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    result: Any = None
    error: BaseException | None = None
    try:
        result = function(*arguments)
    except StopIteration as stop:  # no future takes it
        error = RuntimeError(f"expected a result, got {stop!r}")
    except BaseException as raised:
        error = raised
    with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
        done.get_loop().call_soon_threadsafe(_tell, done, result, error)


def _tell(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.cancelled():
        if inspect.iscoroutine(result):
            result.close()
    elif error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
