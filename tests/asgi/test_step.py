"""The steps of an awaitable: whether other tasks could run before its result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from tickertape.asgi.stream import _step


async def items(waits: int) -> AsyncGenerator[str]:
    try:
        for _ in range(waits):
            await asyncio.sleep(0)
        yield "item"
    except asyncio.CancelledError:
        await asyncio.sleep(0)
        yield "caught"


@pytest.mark.parametrize("waits", [0, 1, 3])
async def test_waits_are_counted(waits: int) -> None:
    waited: list[None] = []
    assert await _step(anext(items(waits)), lambda: waited.append(None)) == "item"
    assert len(waited) == waits


async def test_end() -> None:
    source = items(0)
    await anext(source)
    with pytest.raises(StopAsyncIteration):
        await _step(anext(source), lambda: None)


async def test_cancellation_reaches_the_items() -> None:
    waited: list[None] = []
    step = asyncio.ensure_future(_step_in_task(waited))
    await asyncio.sleep(0)
    step.cancel()
    assert await step == "caught"
    assert len(waited) == 2


async def _step_in_task(waited: list[None]) -> object:
    return await _step(anext(items(1_000)), lambda: waited.append(None))
