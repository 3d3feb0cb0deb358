"""The dashboard demo: a collector that publishes samples to one topic, and one page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from importlib.resources import files
from types import TracebackType
from typing import Final, Self

from ...hub import Hub
from ...timing import Clock, sleep
from ..site import Demo
from .samples import Reading, Snapshot, SystemReader, is_continuous, make_sample

logger = logging.getLogger("tickertape.demo")

TOPIC: Final = "dashboard/metrics"

DEFAULT_INTERVAL: Final = 1.0
"""Seconds between two samples while there is a viewer."""

DEFAULT_IDLE: Final = 10.0
"""Seconds between two samples while there is no viewer: enough for a history, at very little cost."""

_MAX_MISSED: Final = 3
"""Consecutive samples that may be missing without a gap."""


class Collector:
    """Publish samples of this machine and of a hub to a topic of that hub. ``async with`` starts and stops it.

    Samples are collected once for all viewers: often while there is a viewer, rarely while there is none.

    Arguments:
        hub: an open hub. The subscribers of the topic are the viewers.
        interval: seconds between two samples while there is a viewer.
        idle: seconds between two samples while there is no viewer.
        read: takes a reading. The default reads this machine.
        clock: the clock of the timers. The default is the running event loop.
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
        self._read = read or SystemReader()
        self._clock = clock
        self._wake = asyncio.Event()  # a sample may be due, or the number of viewers changed
        self._previous: Snapshot | None = None
        self._longest_interval = self._idle  # since the last sample
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "stopped" if self._task is None else "watched" if self._watched else "idle"
        return f"<Collector interval={self._interval} {state}>"

    async def __aenter__(self) -> Self:
        self._hub.presence.on_join(lambda info: self._wake.set())
        self._hub.presence.on_change(lambda info: self._wake.set())
        self._hub.presence.on_leave(lambda info, reason: self._wake.set())
        self._task = asyncio.create_task(self._run(self._clock or asyncio.get_running_loop()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    @property
    def _watched(self) -> bool:
        return self._hub.subscribers(TOPIC) > 0

    async def _run(self, clock: Clock) -> None:
        due = clock.time()
        while True:
            # After an error, for example a full disk, the next sample must be published again.
            try:
                await self._publish()
            except Exception:
                logger.exception("cannot publish a sample")
            due = await self._wait(clock, due)

    async def _publish(self) -> None:
        now = await self._read(), self._hub.statistics()
        before = self._previous
        if before is not None and not is_continuous(before[0], now[0], _MAX_MISSED * self._longest_interval):
            before = None
        await self._hub.publish(TOPIC, make_sample(before, now), event="metrics")
        self._previous = now

    async def _wait(self, clock: Clock, last: float) -> float:
        """Wait until the next sample is due and return its time.

        The interval depends on whether there is a viewer now, so the first viewer usually makes a sample due at once.
        """
        self._longest_interval = self._interval
        while True:
            self._wake.clear()
            interval = self._interval if self._watched else self._idle
            self._longest_interval = max(self._longest_interval, interval)
            due = last + interval
            late = clock.time() - due
            if late >= 0:
                # Exact intervals, without drift. After a pause, restart from now instead of catching up.
                return due if late < interval else clock.time()
            await sleep(clock, due - clock.time(), until=self._wake)


def dashboard_demo(
    hub: Hub,
    *,
    interval: float = DEFAULT_INTERVAL,
    idle: float = DEFAULT_IDLE,
    read: Callable[[], Awaitable[Reading]] | None = None,
    clock: Clock | None = None,
) -> Demo:
    """Return the dashboard demo.

    Arguments:
        hub: the hub of the site.
        interval: seconds between two samples while there is a viewer.
        idle: seconds between two samples while there is no viewer.
        read: takes a reading. The default reads this machine.
        clock: the clock of the timers. The default is the running event loop.
    """
    return Demo(
        name="Dashboard",
        title="Live dashboard",
        summary="The last 15 minutes of this machine. Samples are collected once, for all viewers.",
        path="/dashboard/",
        web=files(__package__) / "web",
        script="dashboard.js",
        style="dashboard.css",
        topics=[TOPIC],
        running=lambda: Collector(hub, interval=interval, idle=idle, read=read, clock=clock),
    )
