"""Time without an event loop: ``ThreadClock``, whose callbacks run on a thread, and ``Sleeper``.

A blocked ``recv`` can only be ended from another thread. ``httpx2`` fixes the timeout of HTTP/1.1 reads when a
response begins, but the deadline for silence is learned during the stream.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ..timing import Clock


class ThreadClock:
    """A clock of monotonic seconds whose callbacks run on a daemon thread.

    A source sets and cancels a timer for every read, and hardly any of them expires. So setting a timer wakes the
    thread only if the timer is the earliest, and cancelling never does. The thread ends when it wakes up and finds
    no timers. The next timer starts another one.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.RLock())  # a callback may set a timer
        self._timers: set[_ThreadTimer] = set()
        self._wakes_at: float | None = None  # of the thread, None if there is no thread
        self._closed = False

    def __repr__(self) -> str:
        return f"<ThreadClock timers={len(self._timers)} wakes_at={self._wakes_at!r}>"

    def time(self) -> float:
        """Return the seconds of the system's monotonic clock."""
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> _ThreadTimer:
        """Call ``callback(*args)`` on the thread of this clock, at the time ``when``."""
        timer = _ThreadTimer(self, when, callback, args)
        with self._condition:
            self._closed = False
            self._timers.add(timer)
            if self._wakes_at is None:
                self._wakes_at = when
                threading.Thread(target=self._run, name="tickertape-clock", daemon=True).start()
            elif when < self._wakes_at:
                self._condition.notify()
        return timer

    def cancel(self, timer: _ThreadTimer) -> None:
        """Cancel a callback. When this returns, it is not running and will not run."""
        with self._condition:
            self._timers.discard(timer)
            if self._closed:
                self._condition.notify()

    def close(self) -> None:
        """End the thread as soon as there are no timers. The next timer opens the clock again."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def _run(self) -> None:
        with self._condition:
            while self._timers:
                first = min(self._timers, key=lambda timer: timer.when)
                self._wakes_at = first.when
                if (seconds := first.when - time.monotonic()) > 0:
                    self._condition.wait(min(seconds, threading.TIMEOUT_MAX))
                else:
                    self._timers.discard(first)
                    first.callback(*first.args)
            self._wakes_at = None


class _ThreadTimer:
    def __init__(self, clock: ThreadClock, when: float, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.clock = clock
        self.when = when
        self.callback = callback
        self.args = args

    def cancel(self) -> None:
        self.clock.cancel(self)


class Sleeper:
    """Block threads by a clock until another thread wakes them.

    Arguments:
        clock: the clock to wait by.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._awake = False

    def sleep_until(self, when: float) -> None:
        """Return at the time ``when``, or as soon as :meth:`wake` was called."""
        timer = self._clock.call_at(when, self._check)
        try:
            with self._condition:
                self._condition.wait_for(lambda: self._awake or self._clock.time() >= when)
        finally:
            timer.cancel()

    def wake(self) -> None:
        """End all current sleeps, and later ones until :meth:`reset`."""
        self._awake = True
        self._check()

    def reset(self) -> None:
        """Undo :meth:`wake`: later sleeps wait again."""
        self._awake = False

    def _check(self) -> None:
        with self._condition:
            self._condition.notify_all()
