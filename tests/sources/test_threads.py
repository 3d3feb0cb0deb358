"""Calls in threads: results, errors, context, and calls that hang."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tickertape
from support.hub import settle
from tickertape.sources.polling import call

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME")


async def coroutine(value: Any) -> tuple[Any, bool]:
    return value, threading.current_thread() is threading.main_thread()


def plain(value: Any) -> tuple[Any, bool]:
    return value, threading.current_thread() is threading.main_thread()


class AwaitedHere:
    """Not recognised as async: called in a thread; its coroutine is awaited here."""

    async def __call__(self, value: Any) -> tuple[Any, bool]:
        return await coroutine(value)


@pytest.mark.parametrize(
    ("function", "here"),
    [
        (coroutine, True),
        (functools.partial(coroutine), True),
        (AwaitedHere(), True),
        (plain, False),
        (functools.partial(plain), False),
    ],
)
async def test_call(function: Callable[..., Any], here: bool) -> None:
    assert await call(function, 5) == (5, here)


@pytest.mark.parametrize(
    ("error", "sentence"), [(ValueError("as raised"), "as raised"), (StopIteration(5), "the call raised Stop")]
)
async def test_errors(error: Exception, sentence: str) -> None:
    def fail() -> None:
        raise error

    with pytest.raises((ValueError, RuntimeError), match=sentence):
        await call(fail)


async def test_context() -> None:
    NAME.set("here")
    assert await call(NAME.get) == "here"


@pytest.mark.parametrize("ends", [lambda: 5, lambda: coroutine(5), lambda: 1 / 0])
async def test_cancelled_call(ends: Callable[[], Any]) -> None:
    begun, resume, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> Any:
        begun.set()
        resume.wait(30)
        try:
            return ends()
        finally:
            ended.set()

    waiting = asyncio.create_task(call(slow))
    assert await asyncio.to_thread(begun.wait, 30)
    waiting.cancel()
    await asyncio.wait([waiting])
    resume.set()
    assert await asyncio.to_thread(ended.wait, 30)
    await asyncio.to_thread(lambda: None)
    await settle()


def test_hanging_query_at_exit() -> None:
    program = """
import asyncio, threading
from tickertape.hub import Hub
from tickertape.sources import Poll

asked = threading.Event()

def query(position):
    asked.set()
    threading.Event().wait()

async def main():
    async with Hub() as hub:
        hub.feed("t", Poll(query), key="id")
        await asyncio.to_thread(asked.wait)

asyncio.run(main())
"""
    source = str(Path(tickertape.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": source}, timeout=60, check=False)
    assert done.returncode == 0
