"""The clock: a ``connected`` event, then the time every two seconds. A client that reconnects misses no update."""

from .demo import clock_demo
from .ticker import DEFAULT_INTERVAL, Ticker

__all__ = ["DEFAULT_INTERVAL", "Ticker", "clock_demo"]
