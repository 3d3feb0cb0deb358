"""Fixtures for all tests of the demo."""

from support.browser import browser

__all__ = ["browser"]
