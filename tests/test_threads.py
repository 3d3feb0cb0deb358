"""Blocking calls on separate threads."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from tickertape.threads import call_in_thread

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="")


async def test_call() -> None:
    VARIABLE.set("mine")
    threads: list[threading.Thread] = []

    def work(first: int, second: int) -> str:
        threads.append(threading.current_thread())
        return f"{VARIABLE.get()} {first + second}"

    assert await call_in_thread(work, 1, 2) == "mine 3"
    assert threads[0] is not threading.current_thread()
    assert threads[0].daemon


@pytest.mark.parametrize(("error", "kind"), [(KeyError("x"), KeyError), (StopIteration(), RuntimeError)])
async def test_errors(error: Exception, kind: type[Exception]) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(kind):
        await call_in_thread(fail)


async def test_cancelled_call() -> None:
    """The caller is released at once, and the result of the call is dropped."""
    entered, released, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> int:
        entered.set()
        released.wait(10)
        done.set()
        return 1

    waiting = asyncio.create_task(call_in_thread(work))
    await asyncio.to_thread(entered.wait, 10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    released.set()
    assert await asyncio.to_thread(done.wait, 10)
