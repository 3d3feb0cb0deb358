"""Items from asynchronous iterables, from sequences, and from blocking iterables on a thread."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from enum import IntEnum
from typing import Any

import pytest
from pydantic import BaseModel

from support.asgi import open_response, settle
from tickertape import EventSourceResponse, ServerSentEvent
from tickertape.threads import BlockingIterator


async def async_generator() -> AsyncIterator[int]:
    yield 1
    yield 2


def generator() -> Iterator[int]:
    yield 1
    yield 2


class BareAsyncIterator:
    """An iterator that is no generator: it has no ``aclose``."""

    def __init__(self) -> None:
        self._left = [2, 1]

    def __aiter__(self) -> BareAsyncIterator:
        return self

    async def __anext__(self) -> int:
        await asyncio.sleep(0)
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class BareIterator:
    def __init__(self) -> None:
        self._left = [2, 1]

    def __iter__(self) -> BareIterator:
        return self

    def __next__(self) -> int:
        if not self._left:
            raise StopIteration
        return self._left.pop()


class BareIterable:
    def __iter__(self) -> Iterator[int]:
        return iter((1, 2))


class CallableIterable(BareIterable):
    def __call__(self) -> None:
        """Be callable besides."""


class Numbers(IntEnum):
    ONE = 1
    TWO = 2


class Model(BaseModel):
    name: str


@pytest.mark.parametrize(
    "make",
    [
        async_generator,
        generator,
        BareAsyncIterator,
        BareIterator,
        BareIterable,
        CallableIterable,
        lambda: [1, 2],
        lambda: (1, 2),
        lambda: range(1, 3),
        {1: "", 2: ""}.keys,
        lambda: map(int, "12"),
        lambda: Numbers,
    ],
)
async def test_iterables(make: Callable[[], Any]) -> None:
    async with open_response(make()) as stream:
        assert await stream.read() == b"data: 1\n\ndata: 2\n\n"
        assert stream.complete


async def unawaited() -> AsyncIterator[int]:
    return async_generator()


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: "text", "got str: for a stream of one event, put it into a list"),
        (lambda: b"bytes", "got bytes: for a stream of one event, put it into a list"),
        (lambda: bytearray(b"bytes"), "got bytearray: for a stream of one event, put it into a list"),
        (lambda: {"a": 1}, "got dict: for a stream of one event, put it into a list"),
        (lambda: ServerSentEvent("a"), "got ServerSentEvent: for a stream of one event, put it into a list"),
        (lambda: Model(name="a"), "got Model: for a stream of one event, put it into a list"),
        (lambda: None, "got NoneType: for a stream of one event, put it into a list"),
        (lambda: 5, "got int: for a stream of one event, put it into a list"),
        (lambda: generator, "got function: call it"),
        (lambda: async_generator, "got function: call it"),
        (lambda: Model, "got ModelMetaclass: call it"),
        (unawaited, "got coroutine: await it"),
    ],
)
def test_refused_items(make: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(TypeError, match=f"expected an async or sync iterable of events, {complaint}"):
        EventSourceResponse(make())


async def test_blocking_iterable() -> None:
    resume = threading.Event()

    def items() -> Iterator[int]:
        assert resume.wait(10)
        yield 1

    async with open_response(items(), wait=False) as stream:
        await settle()
        assert stream.status == 0
        resume.set()
        assert await stream.read() == b"data: 1\n\n"


async def test_many_blocking_iterables() -> None:
    streams = 20
    together = threading.Barrier(streams)  # passed when all are in their next() at once

    def items() -> Iterator[int]:
        yield together.wait(10)

    async def read() -> None:
        async with open_response(items()) as stream:
            await stream.next_event()

    await asyncio.gather(*(read() for _ in range(streams)))


async def test_blocking_generator_closed_in_thread() -> None:
    threads: list[threading.Thread] = []
    resume, closed = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        threads.append(threading.current_thread())
        try:
            yield 1
            resume.wait(10)
            yield 2
        finally:
            threads.append(threading.current_thread())
            closed.set()

    async with open_response(items()) as stream:
        await stream.next_event()
        await settle()
    assert not closed.is_set()  # nothing can interrupt a blocking next()
    resume.set()
    assert await asyncio.to_thread(closed.wait, 10)
    assert threads[0] is threads[1]
    await asyncio.to_thread(threads[0].join, 10)
    assert not threads[0].is_alive()


async def test_blocking_generator_context() -> None:
    user = contextvars.ContextVar("user", default="unset")

    def items() -> Iterator[str]:
        yield user.get()
        user.set("changed")
        yield user.get()

    user.set("ada")
    async with open_response(items()) as stream:
        assert await stream.read() == b"data: ada\n\ndata: changed\n\n"


async def test_blocking_generator_raises() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("broken")

    async with open_response(items()) as stream:
        assert (await stream.next_event()).data == "1"
        assert (await stream.next_event()).event == "stream:error"
        await stream.read()
    assert isinstance(stream.error, LookupError)


async def test_blocking_generator_raises_in_close(
    caplog: pytest.LogCaptureFixture,
) -> None:
    threads: list[threading.Thread] = []
    resume = threading.Event()

    def items() -> Iterator[int]:
        threads.append(threading.current_thread())
        try:
            yield 1
            resume.wait(10)
            yield 2
        finally:
            raise LookupError("broken end")

    async with open_response(items()) as stream:
        await stream.next_event()
    resume.set()
    await asyncio.to_thread(threads[0].join, 10)
    assert [(record.name, record.levelno) for record in caplog.records] == [("tickertape", logging.ERROR)]


def test_exit_with_blocked_iterable() -> None:
    code = """
import asyncio, threading
from tickertape import EventSourceResponse
from tickertape.testing import EventStreamClient

def items():
    yield 1
    threading.Event().wait()

async def main():
    async with EventStreamClient(EventSourceResponse(items())).open("/") as stream:
        print((await stream.next_event()).data)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_loop_closed_under_blocking_iterable() -> None:
    threads: list[threading.Thread] = []
    entered, resume = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        threads.append(threading.current_thread())
        entered.set()
        resume.wait(10)
        yield 1

    async def main() -> None:
        iterator = BlockingIterator(items())
        waiting = asyncio.create_task(anext(iterator))
        await asyncio.to_thread(entered.wait, 10)
        waiting.cancel()
        await iterator.aclose()

    asyncio.run(main())
    resume.set()
    threads[0].join(10)
    assert not threads[0].is_alive()


async def test_sequences_need_no_thread() -> None:
    class Items(list[int]):
        def __iter__(self) -> Iterator[int]:
            threads.append(threading.current_thread())
            return super().__iter__()

    threads: list[threading.Thread] = []
    async with open_response(Items([1])) as stream:
        assert await stream.read() == b"data: 1\n\n"
    assert threads == [threading.current_thread()]


async def test_no_thread_before_first_item() -> None:
    before = threading.active_count()
    await BlockingIterator(generator()).aclose()
    assert threading.active_count() == before
