"""All demos as one ASGI application."""

from pathlib import Path

from .assistant import assistant_demo
from .chat import chat_demo
from .clock import DEFAULT_INTERVAL, clock_demo
from .dashboard import DEFAULT_INTERVAL as DEFAULT_METRICS_INTERVAL
from .dashboard import dashboard_demo
from .identity import load_secret
from .notifications import notifications_demo
from .site import Site, open_hub


def create_app(
    folder: Path,
    *,
    interval: float = DEFAULT_INTERVAL,
    metrics_interval: float = DEFAULT_METRICS_INTERVAL,
    database: str | None = None,
    queue: str | None = None,
) -> Site:
    """Return all demos as one ASGI application. The server must run its lifespan.

    Arguments:
        folder: the folder for the data of the demos. It is created if it does not exist.
        interval: seconds between two updates of the clock.
        metrics_interval: seconds between two samples of the dashboard.
        database: the database with the table of notifications: ``postgresql://…`` or ``sqlite:///…``. The default is a
            file in ``folder``.
        queue: a queue of messages that become notifications: ``nats://host/subject``.

    Raises:
        OSError: the folder cannot be created or written to.
        ValueError: a URL is not valid.
        BrokerError: an option of a URL is wrong, or a package that the URL needs is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hub = open_hub(folder)
    demos = [
        clock_demo(hub, interval=interval),
        notifications_demo(hub, folder=folder, database=database, queue=queue),
        dashboard_demo(hub, interval=metrics_interval),
        chat_demo(hub),
        assistant_demo(hub),
    ]
    return Site(hub, demos, secret=load_secret(folder / "secret"))
