"""Chromium and Firefox behind one interface: profiles, and tabs that share them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeAlias

import pytest
from playwright.async_api import Browser

from support.firefox import Firefox

__all__ = ["BROWSERS", "OpenProfile", "OpenTab", "PageTab", "chromium_profile", "open_profile", "wait_in"]

BROWSERS = ("chromium", "firefox")


class PageTab(Protocol):
    """A tab with a page: Playwright's ``Page``, or one of Firefox."""

    async def evaluate(self, function: str, argument: Any = None, /) -> Any:
        """Call a function of JavaScript with a value of JSON, and return its result or that of its promise."""

    async def close(self) -> None:
        """Close the tab."""


OpenTab: TypeAlias = Callable[[str], Any]
"""Loads a page in a new tab of a profile and returns it as a :class:`PageTab`."""

OpenProfile: TypeAlias = Callable[[], AbstractAsyncContextManager[OpenTab]]


@asynccontextmanager
async def chromium_profile(browser: Browser) -> AsyncIterator[OpenTab]:
    """Open an empty profile of Chromium."""
    context = await browser.new_context()
    context.set_default_timeout(20_000)

    async def open_tab(url: str) -> Any:
        page = await context.new_page()
        await page.goto(url)
        return page

    try:
        yield open_tab
    finally:
        await context.close()


@asynccontextmanager
async def _firefox_profile(firefox: Firefox) -> AsyncIterator[OpenTab]:
    async with firefox.open_profile() as profile:

        async def open_tab(url: str) -> Any:
            return await firefox.open_tab(profile, url)

        yield open_tab


@pytest.fixture(params=BROWSERS)
def open_profile(request: pytest.FixtureRequest) -> OpenProfile:
    """Return a function that opens an empty profile of each browser in turn."""
    if request.param == "firefox":
        firefox: Firefox = request.getfixturevalue("firefox")
        return lambda: _firefox_profile(firefox)
    browser: Browser = request.getfixturevalue("browser")
    return lambda: chromium_profile(browser)


async def wait_in(page: Any, condition: str, argument: Any = None) -> None:
    """Return when an expression of JavaScript is true in a page; ``argument`` is a name in it."""
    loop = f"while (!({condition})) await new Promise((resolve) => setTimeout(resolve, 10));"
    async with asyncio.timeout(20):
        await page.evaluate(f"async (argument) => {{ {loop} return 1; }}", argument)
