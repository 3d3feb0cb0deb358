"""What people build with event streams, to be opened in a browser: ``tickertape demo``."""

from pathlib import Path

from .clock import DEFAULT_INTERVAL, Ticker, clock_demo
from .identity import load_secret, signed_in
from .requests import read_json
from .site import Demo, Site

__all__ = [
    "DEFAULT_INTERVAL",
    "Demo",
    "Site",
    "Ticker",
    "clock_demo",
    "create_app",
    "load_secret",
    "read_json",
    "signed_in",
]


def create_app(folder: Path, *, interval: float = DEFAULT_INTERVAL) -> Site:
    """Return all demos as one ASGI application; it needs a server that runs its lifespan.

    Arguments:
        folder: where the demos keep what is to survive a restart; made if it is not there.
        interval: seconds between two updates of the clock.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return Site([clock_demo(Ticker(interval=interval))], secret=load_secret(folder / "secret"))
