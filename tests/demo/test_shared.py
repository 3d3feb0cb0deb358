"""One stream for all pages of a browser: connections, and a ledger of what each tab shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from support.local import serve_here
from support.servers import until
from tickertape.demo.clock import clock_demo
from tickertape.demo.dashboard import dashboard_demo
from tickertape.demo.site import Site, open_hub

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE = 30_000
"""Milliseconds to wait for twelve tabs on a busy machine."""

PAGES = ["/clock/", "/", "/dashboard/"] * 4

SHOWN = {
    "/": "#now",
    "/clock/": "#received",
    "/dashboard/": "#moment",
}
"""The element of each page that changes with each event."""


async def is_live(page: Page, path: str) -> None:
    """Wait until the page shows another event."""
    await expect(page.locator("#connection")).to_have_attribute("data-state", "open", timeout=PATIENCE)
    await page.wait_for_function(
        """async (selector) => {
            const shown = () => document.querySelector(selector).textContent;
            const before = shown();
            while (shown() === before) await new Promise((resolve) => setTimeout(resolve, 20));
            return true;
        }""",
        arg=SHOWN[path],
        timeout=PATIENCE,
    )


async def shown_ids(page: Page) -> list[int]:
    """Return the ids of the updates that a page of the clock shows, oldest first."""
    texts = await page.locator(".row-id, .row-gap").all_text_contents()
    return [int(text.removeprefix("#")) for text in reversed(texts)]


async def test_twelve_tabs(browser: Browser, tmp_path: Path) -> None:
    """Over HTTP/1.1 a browser has six connections to a host. Twelve tabs are live, and two of them are closed."""
    hub = open_hub(tmp_path)
    site = Site([clock_demo(interval=0.25), dashboard_demo(interval=1)], hub=hub)
    async with serve_here(site) as url:
        context = await browser.new_context()
        try:
            tabs = []
            for path in PAGES:
                page = await context.new_page()
                await page.goto(url + path, timeout=PATIENCE)
                await is_live(page, path)
                tabs.append((page, path))
            for page, path in tabs:
                await is_live(page, path)
            await until(lambda: len(hub.presence) == 1, lambda: f"one connection, got {len(hub.presence)}")

            for _ in range(2):  # the first tab has the stream, and then the next one that has waited longest
                leader, _ = tabs.pop(0)
                await leader.close()
                for page, path in tabs:
                    await is_live(page, path)
            await until(lambda: len(hub.presence) == 1, lambda: f"one connection, got {len(hub.presence)}")

            for page, path in tabs:
                if path == "/clock/":
                    ids = await shown_ids(page)
                    assert ids == list(range(ids[0], ids[0] + len(ids)))
        finally:
            await context.close()
