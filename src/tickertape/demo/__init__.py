"""What people build with event streams, to be opened in a browser: ``tickertape demo``."""

from pathlib import Path

from .clock import DEFAULT_INTERVAL, Ticker, clock_demo
from .dashboard import DEFAULT_INTERVAL as DEFAULT_METRICS_INTERVAL
from .dashboard import dashboard_demo
from .identity import load_secret, signed_in
from .requests import read_json
from .site import Demo, Site

__all__ = [
    "DEFAULT_INTERVAL",
    "DEFAULT_METRICS_INTERVAL",
    "Demo",
    "Site",
    "Ticker",
    "clock_demo",
    "create_app",
    "dashboard_demo",
    "load_secret",
    "read_json",
    "signed_in",
]


def create_app(
    folder: Path, *, interval: float = DEFAULT_INTERVAL, metrics_interval: float = DEFAULT_METRICS_INTERVAL
) -> Site:
    """Return all demos as one ASGI application; it needs a server that runs its lifespan.

    Arguments:
        folder: where the demos keep what is to survive a restart; made if it is not there.
        interval: seconds between two updates of the clock.
        metrics_interval: seconds between two samples of the dashboard.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    demos = [
        clock_demo(Ticker(interval=interval)),
        dashboard_demo(folder=folder, interval=metrics_interval),
    ]
    return Site(demos, secret=load_secret(folder / "secret"))
