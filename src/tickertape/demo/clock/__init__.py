"""The clock: a ``connected`` event, then the time every two seconds. A client that reconnects misses no update."""

from .demo import DEFAULT_INTERVAL, clock_demo

__all__ = ["DEFAULT_INTERVAL", "clock_demo"]
