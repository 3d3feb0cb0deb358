"""The dashboard demo: a topic with history, one route, and a page."""

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

__all__ = ["SPAN", "dashboard_demo"]

SPAN: Final = 900.0
"""Seconds of history that the page begins with: a quarter of an hour, as the longest load average."""

_KEPT: Final = Retention(events=2_000)
"""The history at two samples a second, and half as much again in the time that someone may be away; 2 MiB."""


def dashboard_demo(
    *,
    folder: Path,
    interval: float = DEFAULT_INTERVAL,
    idle: float = DEFAULT_IDLE,
    read: Callable[[], Awaitable[Reading]] | None = None,
    clock: Clock | None = None,
) -> Demo:
    """Describe the dashboard demo.

    Arguments:
        folder: where its history is kept.
        interval: seconds between two samples while somebody watches.
        idle: seconds between two samples while nobody does.
        read: takes a reading; by default of this machine.
        clock: where the timer of samples is set; by default the running event loop.
    """
    # A power cut may cost the last samples, which nobody would look at: no need to wait for the disk each second.
    hub = Hub(f"{log_url(folder / 'metrics.db')}?synchronous=normal", retention=_KEPT, retry=RETRY / 1000)
    collector = Collector(hub, interval=interval, idle=idle, read=read, clock=clock)
    last = math.ceil(SPAN / interval)

    async def events(request: Request) -> HubResponse:
        # A viewer that falls behind is given the present, with a gap before it, not what has long passed.
        return hub.response(request, TOPIC, last=last, on_overflow="latest")

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with hub, collector:
            yield

    return Demo(
        name="Dashboard",
        title="Live dashboard",
        summary="The last 15 minutes of this machine, collected once for all who watch.",
        path="/dashboard/",
        web=files(__package__) / "web",
        script="dashboard.js",
        style="dashboard.css",
        routes=[Route("/dashboard/events", events)],
        running=running,
    )
