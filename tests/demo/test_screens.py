"""All pages on a narrow screen, by touch and in forced colours."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from support.browser import open_tab
from support.local import serve_here
from tickertape.demo import create_app

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE = 30_000
PAGES = ["", "clock/", "notifications/", "dashboard/", "chat/", "assistant/"]

LAYOUT = """() => ({
    width: document.documentElement.scrollWidth,
    links: [...document.querySelectorAll("header nav a")].every((link) => {
        const { left, right } = link.getBoundingClientRect();
        return left >= 0 && right <= innerWidth;
    }),
    current: [...document.querySelectorAll("nav a[aria-current]")].every((link) => {
        return parseFloat(getComputedStyle(link).outlineWidth) >= 2;
    }),
    hints: document.body.innerText.includes("Enter sends"),
})"""


async def test_narrow_screen_in_forced_colours(browser: Browser, tmp_path: Path) -> None:
    """The navigation is visible as a whole, nothing is wider than the screen, and touch screens get no hint on keys."""
    screen = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True}
    async with serve_here(create_app(tmp_path)) as url, open_tab(browser, forced_colors="active", **screen) as tab:
        page = tab.page
        page.set_default_timeout(PATIENCE)
        await page.goto(f"{url}/chat/")
        await page.get_by_label("Your name").fill("Ada")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.locator("#chat")).to_be_visible(timeout=PATIENCE)
        for path in PAGES:
            await page.goto(f"{url}/{path}")
            found = await page.evaluate(LAYOUT)
            assert found == {"width": 320, "links": True, "current": True, "hints": False}, path
        await page.goto(f"{url}/dashboard/")
        await expect(page.locator(".swatch").first).to_be_visible(timeout=PATIENCE)
        colours = (
            await page.locator(".card")
            .filter(has_text="Network")
            .locator(".swatch")
            .evaluate_all("(all) => all.map((each) => getComputedStyle(each).backgroundColor)")
        )
        assert len(set(colours)) == 2, "the legend has the colours of the lines"
        assert tab.own_errors == []
