"""Fixtures of all tests of the server."""

from support.browser import browser

__all__ = ["browser"]
