"""What all tests of the demo are given."""

from support.browser import browser

__all__ = ["browser"]
