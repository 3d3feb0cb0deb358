"""The clock that timers are set on, so that tests can turn it by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Clock", "Timer", "wait"]


class Timer(Protocol):
    """A callback that is to come."""

    def cancel(self) -> None:
        """Let it not come; does nothing if it came already."""


class Clock(Protocol):
    """Seconds that only rise, and callbacks at a moment of them: what every asyncio event loop is."""

    def time(self) -> float:
        """Return the present moment, in seconds."""

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call ``callback`` once, at the moment ``when``."""


async def wait(clock: Clock, seconds: float, sooner: asyncio.Event | None = None) -> None:
    """Wait for some seconds of ``clock``, or until ``sooner`` is set."""
    over = sooner or asyncio.Event()
    timer = clock.call_at(clock.time() + seconds, over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()
