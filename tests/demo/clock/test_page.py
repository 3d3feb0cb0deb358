"""The page of the clock in a real browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, expect
from starlette.types import Receive, Scope, Send

from support.browser import Tab, open_tab
from support.command import SCRIPT
from support.local import serve_here
from support.servers import Service
from tickertape import EventSourceResponse, Hub, ServerSentEvent, get_last_event_id
from tickertape.demo.clock import clock_demo
from tickertape.demo.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Demo(Service):
    """The real program, with the address of the clock."""

    def __init__(self, folder: Path) -> None:
        super().__init__(SCRIPT, "demo", "--port", "{port}", "--interval", "0.2", "--data", str(folder))
        self.url += "/clock/"


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path)
    demo.start()
    try:
        yield demo
    finally:
        demo.kill()


class ScriptedStream:
    """Answer each request with the next script: a list of events and then silence, or an HTTP status."""

    def __init__(self, *scripts: list[ServerSentEvent] | int) -> None:
        self._scripts = list(scripts)
        self.last_event_ids: list[str | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.last_event_ids.append(get_last_event_id(scope))
        script = self._scripts.pop(0)
        if isinstance(script, int):
            await send({"type": "http.response.start", "status": script, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await EventSourceResponse(self._items(script))(scope, receive, send)

    async def _items(self, script: list[ServerSentEvent]) -> AsyncIterator[ServerSentEvent]:
        for event in script:
            yield event
        await asyncio.Event().wait()

    def site(self) -> Site:
        hub = Hub()
        return Site(hub, [clock_demo(hub)], stream=self)


def enveloped(data: str, id: str) -> ServerSentEvent:
    return ServerSentEvent({"topic": "clock/updates", "data": data}, event="update", id=id)


def update(id: int, text: str = "Current time: 2025-01-02T03:04:05Z") -> ServerSentEvent:
    return enveloped(json.dumps({"id": id, "event": "update", "data": text}), str(id))


async def shown_ids(page: Page) -> list[int]:
    """Return the ids of the rows, oldest first."""
    texts = await page.locator(".row-id").all_text_contents()
    return [int(text.removeprefix("#")) for text in reversed(texts)]


async def has_rows(page: Page, count: int) -> None:
    """Wait until there are at least ``count`` rows."""
    await page.wait_for_function("count => document.querySelectorAll('.rows li').length >= count", arg=count)


def assert_is_clean(tab: Tab, url: str) -> None:
    assert tab.own_errors == []
    hosts = {urlsplit(request).netloc for request in tab.requests if not request.startswith("data:")}
    assert hosts == {urlsplit(url).netloc}


async def test_updates(browser: Browser, demo: Demo) -> None:
    async with open_tab(browser) as tab:
        await tab.page.goto(demo.url)
        await expect(tab.page.locator("#connection")).to_have_text("Connection: Open", use_inner_text=False)
        await has_rows(tab.page, 3)
        ids = await shown_ids(tab.page)
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        row = tab.page.locator(".rows li").last
        assert await row.locator(".row-event").text_content() == "update"
        assert (await row.locator(".row-data").text_content() or "").startswith("Current time: 20")
        await expect(tab.page.locator("#empty")).to_be_hidden()
        assert tab.errors == []
        assert_is_clean(tab, demo.url)


async def test_killed_server(browser: Browser, demo: Demo) -> None:
    async with open_tab(browser) as tab:
        await tab.page.goto(demo.url)
        await has_rows(tab.page, 3)
        for restarts in (1, 2):
            demo.kill()
            badge = tab.page.locator("#connection")
            await expect(badge).to_have_attribute("data-state", "lost")
            await expect(badge).to_contain_text("retrying")
            before = len(await shown_ids(tab.page))
            demo.start()
            await has_rows(tab.page, before + 3)
            await expect(badge).to_have_attribute("data-state", "open")
            await expect(tab.page.locator("#reconnects")).to_have_text(str(restarts))
        ids = await shown_ids(tab.page)
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert_is_clean(tab, demo.url)


async def test_disconnect_and_connect(browser: Browser, demo: Demo) -> None:
    async with open_tab(browser) as tab, open_tab(browser) as other:
        await tab.page.goto(demo.url)
        await has_rows(tab.page, 2)
        await tab.page.get_by_role("button", name="Disconnect").click()
        await expect(tab.page.locator("#connection")).to_contain_text("Disconnected")
        before = await shown_ids(tab.page)
        await other.page.goto(demo.url)  # the server sends further updates
        await has_rows(other.page, 5)
        assert await shown_ids(tab.page) == before
        await tab.page.get_by_role("button", name="Connect", exact=True).click()
        await has_rows(tab.page, len(before) + 5)
        ids = await shown_ids(tab.page)
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert_is_clean(tab, demo.url)


async def test_markup_is_text(browser: Browser) -> None:
    markup = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script><b>bold</b>"
    events = ScriptedStream([update(1, markup), enveloped(markup, "<i>2</i>")])
    async with serve_here(events.site()) as url, open_tab(browser) as tab:
        await tab.page.goto(f"{url}/clock/")
        await has_rows(tab.page, 2)
        assert await tab.page.locator(".row-data").all_text_contents() == [markup, markup]
        assert await tab.page.locator(".row-id").all_text_contents() == ["#<i>2</i>", "#1"]
        assert await tab.page.locator("main :is(img, script, b, i)").count() == 0
        assert await tab.page.title() == "Live clock · tickertape"
        assert_is_clean(tab, url)


async def test_row_limit(browser: Browser) -> None:
    events = ScriptedStream([update(number) for number in range(1, 251)])
    async with serve_here(events.site()) as url, open_tab(browser) as tab:
        await tab.page.goto(f"{url}/clock/")
        await expect(tab.page.locator("#last-event-id")).to_have_text("250")
        assert await shown_ids(tab.page) == list(range(51, 251))
        await expect(tab.page.locator("#received")).to_have_text("250")


async def test_reopen_after_error_status(browser: Browser) -> None:
    events = ScriptedStream([update(1), update(2)], 502, 502, [update(3)])
    async with serve_here(events.site()) as url, open_tab(browser) as tab:
        await tab.page.goto(f"{url}/clock/")
        await has_rows(tab.page, 2)
        await tab.page.get_by_role("button", name="Disconnect").click()
        await tab.page.get_by_role("button", name="Connect", exact=True).click()
        await has_rows(tab.page, 3)
        assert events.last_event_ids == [None, "2", "2", "2"]
        assert await shown_ids(tab.page) == [1, 2, 3]
        await expect(tab.page.locator("#connection")).to_contain_text("Open")


async def test_gap(browser: Browser) -> None:
    gap = ServerSentEvent({"reason": "expired", "after": 7, "resumed": 90}, event="stream:gap")
    events = ScriptedStream([gap, update(90)])
    async with serve_here(events.site()) as url, open_tab(browser) as tab:
        await tab.page.goto(f"{url}/clock/")
        await has_rows(tab.page, 2)
        await expect(tab.page.locator(".row-gap")).to_contain_text("missed are no longer available")


async def test_keyboard_order(browser: Browser) -> None:
    events = ScriptedStream([update(1)])
    async with serve_here(events.site()) as url, open_tab(browser) as tab:
        await tab.page.goto(f"{url}/clock/")
        await has_rows(tab.page, 1)
        order = []
        for _ in range(6):
            await tab.page.keyboard.press("Tab")
            order.append((await tab.page.evaluate("document.activeElement.textContent")).strip())
        assert order == ["Skip to the content", "tickertape", "Clock", "Copy", "Disconnect", "Clear"]
        await tab.page.keyboard.press("Enter")
        await expect(tab.page.locator("#empty")).to_be_visible()
        assert await tab.page.locator(".rows li").count() == 0


async def test_copy_command(browser: Browser) -> None:
    events = ScriptedStream([])
    async with serve_here(events.site()) as url, open_tab(browser, permissions=["clipboard-write"]) as tab:
        await tab.page.goto(f"{url}/clock/")
        await tab.page.evaluate(
            "navigator.clipboard.writeText = async (text) => { globalThis.copied = text; }"
        )  # tests share the clipboard of the machine
        button = tab.page.get_by_role("button", name="Copy")
        await button.click()
        await expect(tab.page.locator(".copy")).to_have_text("Copied")
        assert await tab.page.evaluate("copied") == f"curl -N {url}/events"
        await expect(button).to_be_visible()  # again, after a moment


async def test_announcements(browser: Browser) -> None:
    events = ScriptedStream([update(1)])
    async with serve_here(events.site()) as url, open_tab(browser) as tab:
        await tab.page.goto(f"{url}/clock/")
        await expect(tab.page.get_by_role("log", name="Updates")).to_have_attribute("aria-live", "polite")
        await expect(tab.page.get_by_role("status")).to_have_text("Connection: Open")


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
async def test_page_width(browser: Browser, width: int) -> None:
    events = ScriptedStream([update(1, "x" * 500), update(10**15)])
    async with serve_here(events.site()) as url, open_tab(browser, viewport={"width": width, "height": 700}) as tab:
        await tab.page.goto(f"{url}/clock/")
        await has_rows(tab.page, 2)
        assert await tab.page.evaluate("document.documentElement.scrollWidth") == width
