"""A clock for tests, advanced by hand."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Any

from ..timing import Timer


class FakeClock:
    """A clock that changes only when the test advances it. Pass it as ``clock=``.

    It works for a :class:`~tickertape.Hub`, and for the sources and publishers of :mod:`tickertape.client`, with
    and without asyncio. Any thread may advance it. The callbacks run in the call of :meth:`advance`.

    Arguments:
        now: the time at the start, in seconds.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._count = itertools.count()
        self._timers: list[_FakeTimer] = []
        self._lock = threading.RLock()  # a callback may set timers, cancel them and read the time

    def __repr__(self) -> str:
        return f"<FakeClock now={self._now} timers={sum(not timer.cancelled for timer in self._timers)}>"

    def time(self) -> float:
        """Return the current time, in seconds."""
        return self._now  # without the lock: a thread that waits for it may hold what a callback needs

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call ``callback(*args)`` when the clock is advanced to ``when``."""
        timer = _FakeTimer(self._lock, when, next(self._count), callback, args)
        with self._lock:
            heapq.heappush(self._timers, timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Advance the clock, and run the callbacks that are due, each at its own time and in order."""
        if not seconds >= 0:
            raise ValueError(f"expected seconds of at least 0, got {seconds!r}")
        with self._lock:
            end = self._now + seconds
            while self._timers and self._timers[0].when <= end:
                timer = heapq.heappop(self._timers)
                self._now = max(self._now, timer.when)
                timer.run()
            self._now = max(self._now, end)


class _FakeTimer:
    def __init__(
        self,
        lock: threading.RLock,
        when: float,
        order: int,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        self.when = when
        self._lock = lock
        self._order = order
        self._callback: Callable[..., Any] | None = callback
        self._args = args

    def __lt__(self, other: _FakeTimer) -> bool:
        return (self.when, self._order) < (other.when, other._order)

    @property
    def cancelled(self) -> bool:
        return self._callback is None

    def cancel(self) -> None:
        with self._lock:
            self._callback = None

    def run(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(*self._args)
