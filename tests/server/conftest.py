"""What all tests of the server are given."""

from support.browser import browser

__all__ = ["browser"]
