"""A producer for runs that a test controls, and a reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from tickertape.runs import RunEvent

__all__ = ["Source", "read"]

PATIENCE: Final = 30.0


async def read(run: Any, after: str | None = None) -> list[str]:
    """Return the data of a run's events, and how it ended."""
    async with asyncio.timeout(PATIENCE), aclosing(run.events(after=after)) as events:
        seen = [event async for event in events]
    return [event.data if isinstance(event, RunEvent) else str(getattr(event, "state", "gap")) for event in seen]


class Source:
    """Items that the test gives one by one.

    Attributes:
        starts: how often it was started.
        finished: set when its generator has ended, however.
    """

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self.starts = 0
        self.finished = asyncio.Event()

    def give(self, *items: Any) -> None:
        """Produce items; an exception is raised, ``None`` is the end."""
        for item in items:
            self._queue.put_nowait(item)

    async def __call__(self) -> AsyncIterator[Any]:
        self.starts += 1
        try:
            while (item := await self._queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.finished.set()
