"""A policy for Python's collector of cyclic garbage, in a process that serves many connections and nothing else.

Nearly all of our memory is freed by reference counts; the collector looks for what is left, cycles,
and finds next to none. But by default it goes through *every* object of the process again and again:
with 15,000 connections (eleven objects each) that took 150 to 270 ms at a time, in which nobody got
an event. So here an object is looked at until it is old, and then no more:

- what exists when the server has started (modules, classes, routes: 42,000 objects) is frozen;
- whatever survives a collection of the oldest generation is frozen too, so that the next one goes
  through what has come since, and that is bounded by the thresholds: 16 ms at most;
- frozen objects are freed by their counts as ever, but a cycle of them is not. So now and then, while
  there are few objects, all are looked at together.

This changes the whole process, so it is for programs: a library must not do so to its users.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

__all__ = ["look_at_everything", "steady"]

_THRESHOLDS: Final = (700, 10, 2)
"""The usual ones, but for the last: three collections of the middle generation leave some 23,000 objects at most."""

_LOOK: Final = 600.0
"""Seconds between two looks at everything: long-lived cycles are rare, and some of them may wait."""

_FEW: Final = 60_000
"""Objects that are gone through in some 20 ms."""


@asynccontextmanager
async def steady() -> AsyncIterator[None]:
    """Keep collections short while the context lasts."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    gc.callbacks.append(_keep)
    looking = asyncio.create_task(_look_now_and_then())
    try:
        yield
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
        gc.callbacks.remove(_keep)
        gc.set_threshold(*before)
        gc.unfreeze()


def _keep(phase: str, info: dict[str, Any]) -> None:
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()


async def _look_now_and_then() -> None:
    while True:
        await asyncio.sleep(_LOOK)
        look_at_everything()


def look_at_everything(few: int = _FEW) -> bool:
    """Collect among all objects, the frozen ones too, if there are ``few``; return whether that was done."""
    if gc.get_freeze_count() > few:
        return False
    gc.unfreeze()
    gc.collect()
    return True
