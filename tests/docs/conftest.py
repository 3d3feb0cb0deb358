"""Fixtures for the tests of the documentation."""

from support.browser import browser

__all__ = ["browser"]
