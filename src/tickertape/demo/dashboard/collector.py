"""One collector for however many watch: quick while somebody does, slow while nobody does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from ...hub import Hub
from ...timing import Clock
from .readings import Reader, Reading
from .samples import Look, follows, make_sample

__all__ = ["DEFAULT_IDLE", "DEFAULT_INTERVAL", "TOPIC", "Collector"]

logger = logging.getLogger("tickertape.demo")

TOPIC: Final = "metrics"

DEFAULT_INTERVAL: Final = 1.0
"""Seconds between two samples while somebody watches."""

DEFAULT_IDLE: Final = 10.0
"""Seconds between two samples while nobody does: enough for a history to look back on, and next to no work."""

_MISSED: Final = 3
"""Samples that may fail to come before the next one starts anew, with a gap before it."""


class Collector:
    """Publish samples of this machine and of ``hub`` to one topic of it, as long as it is entered.

    Arguments:
        hub: open already; those who subscribe to the topic are those who watch.
        interval: seconds between two samples while somebody watches.
        idle: seconds between two samples while nobody does.
        read: takes a reading.
        clock: where timers are set; by default the running event loop.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        interval: float = DEFAULT_INTERVAL,
        idle: float = DEFAULT_IDLE,
        read: Callable[[], Awaitable[Reading]] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not 0 < interval < float("inf"):
            raise ValueError(f"expected an interval of more than 0 seconds, got {interval!r}")
        self._hub = hub
        self._interval = interval
        self._idle = max(idle, interval)
        self._read = read or Reader()
        self._clock = clock
        self._changed = asyncio.Event()  # it is time, or somebody came or went
        self._before: Look | None = None
        self._expected = self._idle  # seconds between the last sample and the next
        self._running: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "stopped" if self._running is None else "watched" if self._watched else "idle"
        return f"<Collector interval={self._interval} {state}>"

    async def __aenter__(self) -> Self:
        self._hub.presence.on_join(lambda info: self._changed.set())
        self._hub.presence.on_leave(lambda info, reason: self._changed.set())
        self._running = asyncio.create_task(self._run(self._clock or asyncio.get_running_loop()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
            self._running = None

    @property
    def _watched(self) -> bool:
        return self._hub.subscribers(TOPIC) > 0

    async def _run(self, clock: Clock) -> None:
        due = clock.time()
        while True:
            # One failure, of a full disk say, must not leave a dashboard that stands still for ever.
            try:
                await self._publish()
            except Exception:
                logger.exception("a sample was not published")
            due = await self._next(clock, due)

    async def _publish(self) -> None:
        now = await self._read(), self._hub.statistics()
        before = self._before
        if before is not None and not follows(before[0], now[0], _MISSED * self._expected):
            before = None
        await self._hub.publish(TOPIC, make_sample(before, now), event="metrics")
        self._before = now

    async def _next(self, clock: Clock, last: float) -> float:
        """Wait for the moment of the next sample and return it.

        It is the interval after the last one, and which interval that is changes as viewers come and
        go: the first one finds a sample due at once, unless there was one just now.
        """
        self._expected = self._interval
        while True:
            self._changed.clear()
            interval = self._interval if self._watched else self._idle
            self._expected = max(self._expected, interval)
            due = last + interval
            late = clock.time() - due
            if late >= 0:
                # From moment to moment without drift; after a pause, from now on without a burst.
                return due if late < interval else clock.time()
            timer = clock.call_at(due, self._changed.set)
            try:
                await self._changed.wait()
            finally:
                timer.cancel()
