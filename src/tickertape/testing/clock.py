"""A clock that is turned by hand."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

__all__ = ["FakeClock"]


class FakeClock:
    """A clock that stands still until :meth:`advance` turns it; give it as ``clock=``.

    Arguments:
        now: the moment at which it starts, in seconds.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._count = itertools.count()
        self._timers: list[_FakeTimer] = []

    def __repr__(self) -> str:
        return f"<FakeClock now={self._now} timers={sum(not timer.cancelled for timer in self._timers)}>"

    def time(self) -> float:
        """Return the present moment, in seconds."""
        return self._now

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> _FakeTimer:
        """Call ``callback`` when the clock is turned past ``when``."""
        timer = _FakeTimer(when, next(self._count), callback, args)
        heapq.heappush(self._timers, timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Turn the clock, and call what falls due on the way at its own moment, in order."""
        if not seconds >= 0:
            raise ValueError(f"expected seconds of at least 0, got {seconds!r}")
        end = self._now + seconds
        while self._timers and self._timers[0].when <= end:
            timer = heapq.heappop(self._timers)
            self._now = max(self._now, timer.when)
            timer.run()
        self._now = end


class _FakeTimer:
    def __init__(self, when: float, order: int, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.when = when
        self._order = order
        self._callback: Callable[..., Any] | None = callback
        self._args = args

    def __lt__(self, other: _FakeTimer) -> bool:
        return (self.when, self._order) < (other.when, other._order)

    @property
    def cancelled(self) -> bool:
        return self._callback is None

    def cancel(self) -> None:
        self._callback = None

    def run(self) -> None:
        if self._callback is not None:
            self._callback(*self._args)
