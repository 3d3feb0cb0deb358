"""Clocks: all that the shells know of time, so that a test can put its own in.

The synchronous one needs a thread. A blocked ``recv`` is ended from outside or not at all, because
``httpx2`` fixes the timeout of HTTP/1.1 reads when a response begins, while the deadline for silence
is learned as the stream goes on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any, Protocol

__all__ = ["AsyncClock", "Clock", "SyncClock", "SystemAsyncClock", "SystemSyncClock", "Watchdog"]


class Clock(Protocol):
    """What both kinds of clock can do."""

    def now(self) -> float:
        """Return the seconds of a monotonic clock."""

    def wall(self) -> float:
        """Return the seconds since the epoch."""


class AsyncClock(Clock, Protocol):
    """The clock of :class:`~tickertape.client.EventSource`."""

    async def sleep(self, seconds: float) -> None:
        """Let this time pass."""

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[Any]:
        """Cancel what runs inside after this time and raise :exc:`TimeoutError`, as :func:`asyncio.timeout`."""


class SyncClock(Clock, Protocol):
    """The clock of :class:`~tickertape.client.SyncEventSource`."""

    def sleep(self, seconds: float, wake: threading.Event) -> None:
        """Let this time pass, or less if ``wake`` is set."""

    def watch(self, seconds: float | None, expired: Callable[[], None]) -> AbstractContextManager[None]:
        """Call ``expired``, from any thread, if what runs inside takes longer than this time.

        When the block is left, ``expired`` is not running and will not be called.
        """

    def rest(self) -> None:
        """Let go of what watching needs, until the next watch."""


class _System:
    """The clocks of the operating system."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


class SystemAsyncClock(_System):
    """The clocks of the operating system and the timers of the event loop."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        return asyncio.timeout(seconds)


class SystemSyncClock(_System):
    """The clocks of the operating system and a thread that watches deadlines."""

    def __init__(self) -> None:
        self._watchdog = Watchdog()

    def sleep(self, seconds: float, wake: threading.Event) -> None:
        wake.wait(seconds)

    @contextmanager
    def watch(self, seconds: float | None, expired: Callable[[], None]) -> Iterator[None]:
        if seconds is None:
            yield
            return
        self._watchdog.set(seconds, expired)
        try:
            yield
        finally:
            self._watchdog.clear()

    def rest(self) -> None:
        self._watchdog.rest()


class Watchdog:
    """Call a function when its deadline passes; one deadline at a time.

    Deadlines are set and cleared for every read and hardly ever pass. So the thread is not woken by
    either: it sleeps until the deadline that it knows, looks whether there is a later one, and ends
    when there is none, or when it is told to rest. The next deadline starts another.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._deadline: float | None = None
        self._expired: Callable[[], None] | None = None
        self._wakes_at: float | None = None  # of the thread, None if there is no thread

    def __repr__(self) -> str:
        return f"<Watchdog deadline={self._deadline!r} wakes_at={self._wakes_at!r}>"

    def set(self, seconds: float, expired: Callable[[], None]) -> None:
        """Call ``expired`` in so many seconds, unless :meth:`clear` comes first."""
        with self._condition:
            self._deadline = time.monotonic() + seconds
            self._expired = expired
            if self._wakes_at is None:
                self._wakes_at = self._deadline
                threading.Thread(target=self._run, name="tickertape-watchdog", daemon=True).start()
            elif self._deadline < self._wakes_at:
                self._condition.notify()

    def clear(self) -> None:
        """Forget the deadline. The function is not running when this returns."""
        with self._condition:
            self._deadline = self._expired = None

    def rest(self) -> None:
        """Forget the deadline and end the thread."""
        with self._condition:
            self._deadline = self._expired = None
            self._condition.notify()

    def _run(self) -> None:
        with self._condition:
            while self._deadline is not None:
                self._wakes_at = self._deadline
                if (seconds := self._deadline - time.monotonic()) > 0:
                    self._condition.wait(min(seconds, threading.TIMEOUT_MAX))
                elif self._expired is not None:
                    self._expired()
                    self._deadline = self._expired = None
            self._wakes_at = None
