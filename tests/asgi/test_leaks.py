"""Streams that have ended leave no task, no timer, no thread and no memory."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from support.asgi import open_response, settle
from tickertape.asgi.shutdown import OpenStreams, open_streams
from tickertape.asgi.stream import Stream
from tickertape.testing import FakeClock

KINDS = (Stream, asyncio.Task, asyncio.Future, asyncio.TimerHandle)


async def idle() -> AsyncIterator[str]:
    yield "a"
    await asyncio.Event().wait()


async def broken() -> AsyncIterator[str]:
    yield "a"
    raise LookupError("broken")


def blocking() -> Iterator[str]:
    yield "a"
    yield "b"


async def stalled() -> AsyncIterator[bytes]:
    while True:
        yield b"data: " + b"x" * 70_000 + b"\n\n"


async def leave(make: Callable[[], Any]) -> None:
    async with open_response(make()) as stream:
        await stream.next_event()


async def leave_at_once(make: Callable[[], Any]) -> None:
    async with open_response(make(), wait=False):
        pass


async def read_all(make: Callable[[], Any]) -> None:
    async with open_response(make()) as stream:
        await stream.read()


async def stall(make: Callable[[], Any]) -> None:
    clock = FakeClock()
    async with open_response(make(), clock=clock) as stream:
        await settle(turns=5)
        clock.advance(30)
        await settle(turns=5)
        await stream.disconnect()


async def beat(make: Callable[[], Any]) -> None:
    clock = FakeClock()
    async with open_response(make(), clock=clock) as stream:
        await settle(turns=5)
        clock.advance(15)
        await stream.next_comment()


def count() -> dict[str, int]:
    gc.collect()
    # Loops keep cancelled timers for a while; they are few, and hold nothing.
    # By their types: isinstance() also asks for `__class__`, which sets up the lazy objects of Django.
    types = [
        type(each)
        for each in gc.get_objects()
        if not (issubclass(type(each), asyncio.TimerHandle) and each.cancelled())
    ]
    return {kind.__name__: sum(issubclass(each, kind) for each in types) for kind in KINDS}


@pytest.mark.parametrize(
    ("use", "make", "times"),
    [
        pytest.param(leave, idle, 1000, id="leave"),
        pytest.param(leave_at_once, idle, 100, id="leave-at-once"),
        pytest.param(read_all, lambda: ["a", "b"], 100, id="read-all"),
        pytest.param(read_all, broken, 100, id="broken"),
        pytest.param(stall, stalled, 100, id="stalled"),
        pytest.param(beat, idle, 100, id="heartbeat"),
        pytest.param(leave, blocking, 100, id="leave-blocking"),
        pytest.param(read_all, blocking, 100, id="read-all-blocking"),
    ],
)
async def test_no_leaks(use: Callable[[Callable[[], Any]], Any], make: Callable[[], Any], times: int) -> None:
    for _ in range(20):  # what is made once and kept
        await use(make)
    await no_threads()
    tasks, objects = asyncio.all_tasks(), count()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(times):
            await use(make)
        await no_threads()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert asyncio.all_tasks() == tasks
    assert len(open_streams) == 0
    after = count()
    assert {name: after[name] - objects[name] for name in objects} == dict.fromkeys(objects, 0)
    assert grown < 300 * times  # bytes: a stream alone is several thousand


async def no_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == "tickertape-iterator":
            # Not in a thread of a pool: it may hold its last future a little longer than the loop.
            thread.join(10)
    await settle()
    assert "tickertape-iterator" not in [thread.name for thread in threading.enumerate()]


async def test_loop_not_kept() -> None:
    await leave(idle)
    assert isinstance(open_streams, OpenStreams)
    assert asyncio.get_running_loop() not in gc.get_referents(*gc.get_referents(open_streams))
