"""What people build with event streams, to be opened in a browser: ``tickertape demo``."""

from .clock import ClockStream, clock_demo
from .site import Demo, Site
from .ticker import DEFAULT_INTERVAL, Ticker

__all__ = ["DEFAULT_INTERVAL", "ClockStream", "Demo", "Site", "Ticker", "clock_demo", "create_app"]


def create_app(*, interval: float = DEFAULT_INTERVAL) -> Site:
    """Return all demos as one ASGI application; it needs a server that runs its lifespan.

    Arguments:
        interval: seconds between two updates of the clock.
    """
    return Site([clock_demo(Ticker(interval=interval))])
