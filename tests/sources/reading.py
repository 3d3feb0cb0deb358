"""Read a source in the background of a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

from tickertape.sources import Batch

__all__ = ["PATIENCE", "reading"]

PATIENCE: Final = 30.0
"""Seconds to wait for anything."""


@asynccontextmanager
async def reading(source: Any, *, batches: bool = False) -> AsyncIterator[asyncio.Queue[Any]]:
    """Read a source, item by item, into a queue. An error that ends it is the last item.

    Arguments:
        source: the source.
        batches: True if the source yields batches only, False if it yields single items only.
    """
    found: asyncio.Queue[Any] = asyncio.Queue()

    async def read() -> None:
        try:
            async with aclosing(aiter(source)) as items:
                async for item in items:
                    assert isinstance(item, Batch) is batches
                    for each in item if batches else [item]:
                        found.put_nowait(each)
        except Exception as error:
            found.put_nowait(error)

    task = asyncio.create_task(read())
    try:
        async with asyncio.timeout(PATIENCE):
            yield found
    finally:
        task.cancel()
        await asyncio.wait([task])
