"""Fixtures for the tests of runs."""

from support.browser import browser

__all__ = ["browser"]
