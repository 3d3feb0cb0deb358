"""Fixtures for the tests of the client for pages."""

from support.browser import browser
from support.firefox import firefox
from support.tabs import open_profile

__all__ = ["browser", "firefox", "open_profile"]
