"""What people build with event streams, to be opened in a browser: ``tickertape demo``."""

from pathlib import Path

from .chat import chat_demo
from .clock import DEFAULT_INTERVAL, Ticker, clock_demo
from .dashboard import DEFAULT_INTERVAL as DEFAULT_METRICS_INTERVAL
from .dashboard import dashboard_demo
from .identity import load_secret, signed_in
from .notifications import TableError, notifications_demo, reach_database
from .requests import read_json
from .site import Demo, Site

__all__ = [
    "DEFAULT_INTERVAL",
    "DEFAULT_METRICS_INTERVAL",
    "Demo",
    "Site",
    "TableError",
    "Ticker",
    "chat_demo",
    "clock_demo",
    "create_app",
    "dashboard_demo",
    "load_secret",
    "notifications_demo",
    "reach_database",
    "read_json",
    "signed_in",
]


def create_app(
    folder: Path,
    *,
    interval: float = DEFAULT_INTERVAL,
    metrics_interval: float = DEFAULT_METRICS_INTERVAL,
    database: str | None = None,
    queue: str | None = None,
) -> Site:
    """Return all demos as one ASGI application; it needs a server that runs its lifespan.

    Arguments:
        folder: where the demos keep what is to survive a restart; made if it is not there.
        interval: seconds between two updates of the clock.
        metrics_interval: seconds between two samples of the dashboard.
        database: where the table of notifications is: ``postgresql://…``, or ``sqlite:///…``; by default in ``folder``.
        queue: whose messages become notifications: ``nats://host/subject``.

    Raises:
        OSError: the folder cannot be made or written to.
        ValueError: a URL is none that is known.
        BrokerError: what a URL asks for is not installed, or an option of it is wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    demos = [
        clock_demo(Ticker(interval=interval)),
        notifications_demo(folder=folder, database=database, queue=queue),
        dashboard_demo(folder=folder, interval=metrics_interval),
        chat_demo(folder=folder),
    ]
    return Site(demos, secret=load_secret(folder / "secret"))
