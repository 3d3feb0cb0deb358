"""A real browser: one Chromium for all tests, a fresh profile for each, and a record of what pages do."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

__all__ = ["Tab", "browser", "open_tab"]

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")

ARGUMENTS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

PATIENCE: Final = 10_000
"""Milliseconds to wait for something that should happen at once."""


class Tab:
    """A page with its requests and errors.

    Attributes:
        page: the page.
        requests: every URL that it requested.
        errors: every error on its console, and every uncaught exception.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._note)

    @property
    def own_errors(self) -> list[str]:
        """Return the errors except the browser's own ``net::ERR_…`` when a server is down."""
        return [error for error in self.errors if "net::ERR_" not in error]

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, for tests whose loop is the session's: ``pytest.mark.asyncio(loop_scope="session")``."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        reason = f"none of {', '.join(NAMES)} is on the path"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        await chromium.close()


@asynccontextmanager
async def open_tab(browser: Browser, **options: Any) -> AsyncIterator[Tab]:
    """Open an empty page in a new profile; ``options`` are those of Playwright's ``new_context``."""
    context = await browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    try:
        yield Tab(await context.new_page())
    finally:
        await context.close()
