"""The page at ``/``, in a real browser: events of every type, choosing topics, publishing, mistakes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from support.browser import Tab, open_tab
from support.http import site
from support.local import serve_here
from tickertape.hub import Hub
from tickertape.server.app import create_app
from tickertape.server.static import WEB

MARKUP = "<img src=x onerror=\"document.title='hacked'\"><b>bold</b>\nsecond line"
WEB_FOLDER = Path(str(WEB))


@asynccontextmanager
async def page_of(browser: Browser, **options: object) -> AsyncIterator[tuple[Hub, Tab, str]]:
    hub = Hub(drain_window=0)
    async with serve_here(create_app(hub)) as url, open_tab(browser, **options) as tab:
        await tab.page.goto(url)
        await expect(tab.page.locator("#connection")).to_have_attribute("data-state", "open")
        yield hub, tab, url


async def rows_are(page: Page, *texts: str) -> None:
    """Return when the rows hold these data, newest first."""
    await expect(page.locator(".row-data")).to_have_text(list(texts))


@pytest.mark.asyncio(loop_scope="session")
async def test_all_types_of_events(browser: Browser) -> None:
    async with page_of(browser) as (hub, tab, url):
        for event in (None, "order", "a" * 40):
            await hub.publish("orders/42", MARKUP, event=event)
        await rows_are(tab.page, MARKUP, MARKUP, MARKUP)
        assert await tab.page.locator(".row-event").all_text_contents() == ["a" * 40, "order", "message"]
        assert await tab.page.locator(".row-id").all_text_contents() == ["#3", "#2", "#1"]
        assert await tab.page.locator(".row-topic").all_text_contents() == ["orders/42"] * 3
        assert await tab.page.locator(".rows :is(img, b)").count() == 0
        await expect(tab.page.locator("#received")).to_have_text("3")
        assert await tab.page.title() == "Live stream · tickertape"
        assert tab.errors == []
        assert {request.startswith((url, "data:")) for request in tab.requests} == {True}


@pytest.mark.asyncio(loop_scope="session")
async def test_forms(browser: Browser) -> None:
    async with page_of(browser) as (hub, tab, url):
        await hub.publish("a/1", "before")
        await rows_are(tab.page, "before")
        await tab.page.get_by_role("combobox", name="Topics").fill("a/* b")
        await tab.page.get_by_label("Past events").fill("0")
        await tab.page.get_by_role("button", name="Watch").click()
        await expect(tab.page.locator("#command")).to_have_text(f"curl -N '{url}/events?topic=a/*&topic=b'")
        await expect(tab.page.locator("#connection")).to_have_attribute("data-state", "open")
        await rows_are(tab.page)
        for topic in ("a/1", "c"):
            await tab.page.get_by_role("combobox", name="Topic", exact=True).fill(topic)
            await tab.page.get_by_label("Data").fill(f"to {topic}")
            await tab.page.get_by_role("button", name="Publish").click()
            offset = 2 if topic == "a/1" else 3
            await expect(tab.page.locator("#published")).to_have_text(f"Published as {hub.epoch}-{offset}")
        await rows_are(tab.page, "to a/1")
        assert tab.errors == []


@pytest.mark.asyncio(loop_scope="session")
async def test_mistakes(browser: Browser) -> None:
    async with page_of(browser) as (_, tab, _):
        await tab.page.get_by_role("combobox", name="Topics").fill("a/*b")
        await tab.page.get_by_role("button", name="Watch").click()
        await expect(tab.page.locator("#trouble")).to_contain_text("as a whole segment, got '*b' in 'a/*b'")
        await expect(tab.page.locator("#connection")).to_contain_text("Disconnected")
        await tab.page.get_by_role("combobox", name="Topic", exact=True).fill("a//b")
        await tab.page.get_by_role("button", name="Publish").click()
        await expect(tab.page.locator("#published")).to_contain_text("without empty segments, got 'a//b'")


@pytest.mark.asyncio(loop_scope="session")
async def test_page_resumes(browser: Browser) -> None:
    async with page_of(browser) as (hub, tab, _):
        await hub.publish("a", "1")
        await rows_are(tab.page, "1")
        await tab.page.get_by_role("button", name="Disconnect").click()
        await expect(tab.page.locator("#connection")).to_contain_text("Disconnected")
        await hub.publish("a", "2")
        await tab.page.get_by_role("button", name="Connect", exact=True).click()
        await rows_are(tab.page, "2", "1")


@pytest.mark.asyncio(loop_scope="session")
async def test_width(browser: Browser) -> None:
    async with page_of(browser) as (hub, tab, _):
        await hub.publish("a", "x" * 500, event="y" * 200)
        await rows_are(tab.page, "x" * 500)
        for width in (320, 390, 768, 1440):
            await tab.page.set_viewport_size({"width": width, "height": 700})
            assert await tab.page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("path", ["/", "/console", "/static/hub.js", "/static/style.css"])
async def test_content_security_policy(path: str) -> None:
    async with site() as hub:
        answer = await hub.ask("GET", path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
        assert "$" not in answer.body.decode() or path.startswith("/static")


async def test_linked_files_exist() -> None:
    async with site() as hub:
        page = "".join([(await hub.ask("GET", path)).body.decode() for path in ("/", "/console")])
        scripts = [file for folder in ("shared", "hub", "console") for file in (WEB_FOLDER / folder).iterdir()]
        scripts.append(Path(str(files("tickertape.browser"))) / "tickertape.js")
        bodies = await asyncio.gather(*(hub.ask("GET", f"/static/{script.name}") for script in scripts))
        expected = [script.read_bytes() for script in scripts[:-1]]
        assert [body.body for body in bodies] == [*expected, scripts[-1].with_suffix(".min.js").read_bytes()]
        text = "".join(body.body.decode() for body in bodies)
        named = {*re.findall(r'(?:href|src)="\./static/([^"]+)"', page), *re.findall(r'from "\./([^"]+)"', text)}
        assert named == {script.name for script in scripts}
