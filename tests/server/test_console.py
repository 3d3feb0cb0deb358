"""The page at ``/console``, in a real browser: charts, lists, the inspector, and the credential."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from playwright.async_api import Browser, expect

from support.access import ADMIN, Words
from support.browser import Tab, open_tab
from support.local import serve_here
from support.servers import Connection
from tickertape.access import CredentialAccess, Revocations
from tickertape.hub import Grant, Hub
from tickertape.server.app import create_app

GRANTS = {
    "ann": Grant(user="ann", subscribe=("**",)),
    "bob": Grant(user="bob", subscribe=("**",)),
    "admin": ADMIN,
}


@asynccontextmanager
async def console(
    browser: Browser, *, protected: bool = False, page: str = "/console"
) -> AsyncIterator[tuple[Hub, Tab, str]]:
    hub = Hub(drain_window=0)
    if protected:
        hub.access = CredentialAccess(jwt=Words(GRANTS), revocations=Revocations(hub))
    async with serve_here(create_app(hub)) as url, open_tab(browser) as tab:
        await tab.page.goto(url + page)
        yield hub, tab, url


def chart(name: str) -> str:
    return f"figure:has(figcaption:text-is({name!r}))"


def row(table: str, text: str) -> str:
    return f"#{table} tr:has(td:text-is({text!r}))"


@pytest.mark.asyncio(loop_scope="session")
async def test_charts(browser: Browser) -> None:
    async with console(browser) as (hub, tab, _):
        delivered = tab.page.locator(chart("Delivered per second"))
        await expect(tab.page.locator("#workers")).to_have_text("1 worker")
        for number in range(100):
            await hub.publish("a", f"{number}")
        await expect(delivered.locator(".chart-most")).not_to_have_text("max 0")
        line = delivered.locator("path")
        before = await line.get_attribute("d")
        assert before is not None
        assert before.startswith("M")
        await expect(line).not_to_have_attribute("d", before)
        label = await delivered.locator("svg").get_attribute("aria-label")
        assert label is not None
        assert "Delivered per second in the last minutes: now " in label
        assert tab.errors == []


@pytest.mark.asyncio(loop_scope="session")
async def test_totals(browser: Browser) -> None:
    async with console(browser) as (hub, tab, _):
        async with hub.subscribe("a"):
            pass
        await expect(tab.page.locator("#totals")).to_contain_text("Streams closedclient closed 1")


@pytest.mark.asyncio(loop_scope="session")
async def test_lists(browser: Browser) -> None:
    async with console(browser) as (hub, tab, _):
        page = tab.page
        async with hub.subscribe("orders/*"), hub.subscribe("orders/*"), hub.subscribe("chat"):
            for topic in ("orders/1", "chat"):
                await hub.publish(topic, "x")
            await page.get_by_label("Search subscribers").fill("ord")
            await expect(page.locator("#audiences tr")).to_have_text(["orders/*2"])
            await expect(page.locator("#subscriber-count")).to_have_text("2 in 1 audiences")
            await page.get_by_label("Search topics").fill("chat")
            await expect(page.locator("#topics tr")).to_have_count(1)
            await page.locator(row("topics", "chat")).get_by_role("button", name="Watch").click()
            await expect(page.locator("#command")).to_contain_text("topic=chat")
            await expect(page.locator("#events .row-topic")).to_have_text(["chat"])
        assert tab.errors == []


@pytest.mark.asyncio(loop_scope="session")
async def test_inspector(browser: Browser) -> None:
    async with console(browser) as (hub, tab, _):
        page = tab.page
        await page.get_by_label("Data").fill("one")
        await page.get_by_role("button", name="Publish").click()
        await expect(page.locator("#events .row-data")).to_have_text(["one"])
        await page.get_by_role("button", name="Pause").click()
        for data in ("two", "three"):
            await hub.publish("a", data)
        await expect(page.locator("#waiting")).to_have_text(", 2 waiting")
        await expect(page.locator("#events .row-data")).to_have_text(["one"])
        await page.get_by_role("button", name="Continue").click()
        await expect(page.locator("#events .row-data")).to_have_text(["three", "two", "one"])
        await page.get_by_label("Show only events").fill("T")
        await expect(page.locator("#events li:visible .row-data")).to_have_text(["three", "two", "one"])  # greetings
        await page.get_by_label("Show only events").fill("TW")
        await expect(page.locator("#events li:visible .row-data")).to_have_text(["two"])
        await hub.publish("a", "twelve")
        await hub.publish("a", "ten")
        await expect(page.locator("#received")).to_have_text("5")
        await expect(page.locator("#events li:visible .row-data")).to_have_text(["twelve", "two"])
        assert tab.errors == []


@pytest.mark.asyncio(loop_scope="session")
async def test_credential(browser: Browser) -> None:
    """The page asks for one, keeps it for the tab alone, and sends it with every request."""
    async with console(browser, protected=True) as (_, tab, url):
        page = tab.page
        form = page.locator("#credential")
        for word, trouble in (("wrong", "the word is unknown"), ("ann", "does not allow it to read statistics")):
            await form.get_by_label("API key or token").fill(word)
            await form.get_by_role("button").click()
            await expect(page.locator("#statistics-trouble")).to_contain_text(trouble)
            await expect(form).to_be_visible()
        await form.get_by_label("API key or token").fill("admin")
        await form.get_by_role("button").click()
        await expect(page.locator("#workers")).to_have_text("1 worker")
        await expect(form).to_be_hidden()
        await page.reload()
        await expect(page.locator("#workers")).to_have_text("1 worker")
        assert not any("admin" in request for request in tab.requests)
        assert await page.evaluate("document.cookie + JSON.stringify(localStorage)") == "{}"
        async with open_tab(browser) as other:
            await other.page.goto(f"{url}/console")
            await expect(other.page.locator("#credential")).to_be_visible()


@pytest.mark.asyncio(loop_scope="session")
async def test_credential_of_the_first_page(browser: Browser) -> None:
    """If the stream of the page is refused, the page asks for a credential."""
    async with console(browser, protected=True, page="/") as (hub, tab, _):
        form = tab.page.locator("#credential")
        await expect(form).to_be_visible()
        await form.get_by_label("API key or token").fill("ann")
        await form.get_by_role("button").click()
        await expect(form).to_be_hidden()
        await hub.publish("a", "seen")
        await expect(tab.page.locator("#events .row-data")).to_have_text("seen")


@pytest.mark.asyncio(loop_scope="session")
async def test_disconnect(browser: Browser) -> None:
    async with console(browser, protected=True) as (_, tab, url), AsyncExitStack() as streams:
        page = tab.page
        for user in ("ann", "bob"):
            stream = await streams.enter_async_context(await Connection.open(int(url.rpartition(":")[2])))
            assert await stream.get("/events?topic=a", headers=f"Authorization: Bearer {user}\r\n") == 200
        await page.locator("#credential input").fill("admin")
        await page.locator("#credential button").click()
        button = page.locator(row("users", "ann")).get_by_role("button")
        await button.click()
        await expect(button).to_have_text("End all streams?")
        await button.click()
        await expect(page.locator("#subscribers-said")).to_contain_text("The streams of ann end")
        await expect(page.locator(row("users", "ann"))).to_have_count(0)
        await expect(page.locator(row("users", "bob"))).to_have_count(1)
        assert [error for error in tab.errors if "401 (Unauthorized)" not in error] == []


@pytest.mark.parametrize("name", ["42", "50% of a?b#c"])
@pytest.mark.asyncio(loop_scope="session")
async def test_runs(browser: Browser, name: str) -> None:
    async with console(browser) as (_, tab, _):
        page = tab.page
        await page.evaluate("name => fetch(`runs/export/${encodeURIComponent(name)}`, {method: 'POST'})", name)
        button = page.locator("#runs tr", has_text=f"export/{name}").get_by_role("button")
        await button.click()
        await button.click()
        await expect(page.locator("#runs-said")).to_have_text(f"export/{name} is cancelled.")
        await expect(page.locator("#runs tr")).to_have_text(["No active runs."])
        assert tab.errors == []


@pytest.mark.asyncio(loop_scope="session")
async def test_width(browser: Browser) -> None:
    async with console(browser) as (hub, tab, _), hub.subscribe("a" * 200):
        await hub.publish("a" * 200, "x" * 500)
        await tab.page.get_by_label("Search topics").fill("a")
        await expect(tab.page.locator("#topics tr", has_text="aaa")).to_be_visible()
        await expect(tab.page.locator("#workers")).to_have_text("1 worker")
        for width in (320, 390, 768, 1440):
            await tab.page.set_viewport_size({"width": width, "height": 700})
            assert await tab.page.evaluate("document.documentElement.scrollWidth") == width
