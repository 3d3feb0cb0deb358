"""The clock: the "connected" event, then the time every few seconds, and nothing missed on the way."""

from .stream import ClockStream, clock_demo
from .ticker import DEFAULT_INTERVAL, Ticker

__all__ = ["DEFAULT_INTERVAL", "ClockStream", "Ticker", "clock_demo"]
