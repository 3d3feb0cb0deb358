"""Fixtures of the soak: private servers, and a browser."""

from faults.conftest import servers
from support.browser import browser

__all__ = ["browser", "servers"]
