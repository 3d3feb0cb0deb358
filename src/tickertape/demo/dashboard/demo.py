"""The dashboard demo: one topic with history, one route, one page."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.routing import Route

from ...broker import Retention
from ...hub import Hub, HubResponse
from ...timing import Clock
from ..site import RETRY, Demo, log_url
from .collector import DEFAULT_IDLE, DEFAULT_INTERVAL, TOPIC, Collector
from .readings import Reading

SPAN: Final = 900.0
"""Seconds of history that a new client receives: 15 minutes, like the longest load average."""

_RETENTION: Final = Retention(events=2_000)
"""The history at two samples per second, and a reserve for clients that were disconnected: about 2 MiB."""


def dashboard_demo(
    *,
    folder: Path,
    interval: float = DEFAULT_INTERVAL,
    idle: float = DEFAULT_IDLE,
    read: Callable[[], Awaitable[Reading]] | None = None,
    clock: Clock | None = None,
) -> Demo:
    """Return the dashboard demo.

    Arguments:
        folder: the folder for the log of samples.
        interval: seconds between two samples while there is a viewer.
        idle: seconds between two samples while there is no viewer.
        read: takes a reading. The default reads this machine.
        clock: the clock of the timers. The default is the running event loop.
    """
    # A power failure may lose the last samples. In return, a sample does not wait for the disk.
    hub = Hub(f"{log_url(folder / 'metrics.db')}?synchronous=normal", retention=_RETENTION, retry=RETRY / 1000)
    collector = Collector(hub, interval=interval, idle=idle, read=read, clock=clock)
    last = math.ceil(SPAN / interval)

    async def events(request: Request) -> HubResponse:
        # A slow client skips to the newest sample, with a gap before it.
        return hub.response(request, TOPIC, last=last, on_overflow="latest")

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with hub, collector:
            yield

    return Demo(
        name="Dashboard",
        title="Live dashboard",
        summary="The last 15 minutes of this machine. Samples are collected once, for all viewers.",
        path="/dashboard/",
        web=files(__package__) / "web",
        script="dashboard.js",
        style="dashboard.css",
        routes=[Route("/dashboard/events", events)],
        running=running,
    )
