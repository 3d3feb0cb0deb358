"""Clocks that tests can replace, and the delays between attempts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

__all__ = ["Clock", "Timer", "backoff", "check_limit", "check_seconds", "sleep"]

_MAX_DOUBLINGS: Final = 32
"""More than any cap needs, and far below the exponent at which a float overflows."""


class Timer(Protocol):
    """A callback that is scheduled on a clock."""

    def cancel(self) -> None:
        """Cancel the callback. Does nothing if it has already run."""


class Clock(Protocol):
    """Monotonic seconds and scheduled callbacks. Every asyncio event loop is such a clock."""

    def time(self) -> float:
        """Return the current time, in seconds."""

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call ``callback(*args)`` once, at the time ``when``."""


def check_seconds(name: str, value: object, *, above: float | None = None, most: float = sys.float_info.max) -> float:
    """Return the value of an option that is a number of seconds.

    Arguments:
        name: the option, for the error.
        value: its value.
        above: the number that it must be above; ``None`` if 0 is allowed.
        most: the greatest number.

    Raises:
        ValueError: it is something else.
    """
    low = -1.0 if above is None else above
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most and value > low:
        return float(value)
    least = ">= 0" if above is None else f"> {above:g}"
    limit = "" if most == sys.float_info.max else f" and <= {most:g}"
    raise ValueError(f"expected {name} to be a number of seconds {least}{limit}, got {value!r}")


def check_limit(name: str, value: object) -> float | None:
    """Return the value of an option that is a number of seconds > 0, or ``None`` for no limit, as infinity is.

    Raises:
        ValueError: it is something else.
    """
    if value is None or value == float("inf"):
        return None
    try:
        return check_seconds(name, value, above=0)
    except ValueError:
        raise ValueError(f"expected {name} to be a number of seconds > 0, or None, got {value!r}") from None


async def sleep(clock: Clock, seconds: float, until: asyncio.Event | None = None) -> None:
    """Wait for ``seconds`` of ``clock``, or less if ``until`` is set before."""
    done = until or asyncio.Event()
    timer = clock.call_at(clock.time() + seconds, done.set)
    try:
        await done.wait()
    finally:
        timer.cancel()


def backoff(failures: int, random: Callable[[], float], *, first: float, cap: float, jitter: float = 0.5) -> float:
    """Return the seconds to wait after a number of failures in a row.

    The delay doubles with each failure. A part of it is random, so that clients that failed together
    do not retry together (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

    Arguments:
        failures: failures in a row, at least 1.
        random: returns a number from 0 to 1.
        first: seconds after the first failure.
        cap: the longest delay, in seconds.
        jitter: the random part of the delay, from 0 (none) to 1 ("full jitter").
    """
    delay = min(cap, first * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))
    return delay * (1.0 - jitter * random())
