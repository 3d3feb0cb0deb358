"""A policy for Python's cyclic garbage collector in a process that serves many connections.

Reference counts free nearly all memory of a server; the collector looks for unreachable cycles and finds few. A full
collection visits every object of the process: with 15,000 connections it took 150 to 270 ms, in which no event was
delivered. By default Python runs one whenever the number of objects has grown by a quarter. This policy changes three
things:

- What exists when the server has started (modules, classes, routes) lives as long as the process, and is frozen:
  collections do not visit it. Nothing else is ever frozen, so the collector finds every cycle in the end.
- Young objects are collected as usual, in some milliseconds. Full collections run when the memory of the process has
  grown by a quarter, which is the only harm that cycles do, and every ten minutes, but take 2 % of the time at most.
- Connections break their own cycles when they close (:class:`~tickertape.server.connections.HTTPProtocol`), so
  large request bodies do not wait for a full collection.

The policy changes the whole process. So it is for programs; a library must not impose it on its users.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

_NEVER: Final = 1_000_000_000
"""A threshold that disables Python's own full collections."""

_CHECK: Final = 1.0
"""Seconds between two looks at the memory of the process."""

GROWTH: Final = 1.25
"""Times that the memory may grow between two full collections, as Python lets the number of objects grow."""

MARGIN: Final = 32 * 1024 * 1024
"""Bytes of growth that never matter: a small process would collect again and again."""

LONGEST: Final = 600.0
"""Seconds after which a full collection runs in any case, as where the memory cannot be read."""

PAUSE_FACTOR: Final = 50
"""Times the duration of a full collection until the next one may run."""

_STATM: Final = Path("/proc/self/statm")  # Linux only


class Schedule:
    """Decide when a full collection is due.

    Arguments:
        now: the time of the last full collection.
        memory: bytes of the process after it; ``None`` if unknown.
    """

    def __init__(self, now: float, memory: int | None) -> None:
        self._earliest = now
        self._latest = now + LONGEST
        self._memory = memory

    def is_due(self, now: float, memory: int | None) -> bool:
        """Return True if a full collection should run now."""
        if now < self._earliest:
            return False
        if now >= self._latest:
            return True
        return memory is not None and self._memory is not None and memory > self._memory * GROWTH + MARGIN

    def collected(self, start: float, end: float, memory: int | None) -> None:
        """Record a full collection."""
        self._earliest = end + PAUSE_FACTOR * (end - start)
        self._latest = end + LONGEST
        self._memory = memory


@asynccontextmanager
async def gc_policy() -> AsyncIterator[None]:
    """Apply the policy inside the context."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*before[:2], _NEVER)
    collecting = asyncio.create_task(_collect_when_due(Schedule(time.monotonic(), memory_of_process())))
    try:
        yield
    finally:
        collecting.cancel()
        with suppress(asyncio.CancelledError):
            await collecting
        gc.set_threshold(*before)
        gc.unfreeze()


async def _collect_when_due(schedule: Schedule) -> None:
    while True:
        await asyncio.sleep(_CHECK)
        start = time.monotonic()
        if schedule.is_due(start, memory_of_process()):
            gc.collect()
            schedule.collected(start, time.monotonic(), memory_of_process())


def memory_of_process() -> int | None:
    """Return the resident bytes of this process; ``None`` if the system does not report them in ``/proc``."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
