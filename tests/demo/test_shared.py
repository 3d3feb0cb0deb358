"""The stream that the tabs of a browser share: its connection, and a ledger of what each tab of each demo shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Request, expect

from support.browser import open_tab
from support.local import serve_here
from support.runs import Source
from support.servers import until
from tickertape.demo.assistant import assistant_demo
from tickertape.demo.chat import chat_demo
from tickertape.demo.clock import clock_demo
from tickertape.demo.dashboard import dashboard_demo
from tickertape.demo.notifications import notifications_demo
from tickertape.demo.site import Site, open_hub

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE = 30_000
"""Milliseconds to wait for twelve tabs on a busy machine."""

CHANGING = {"/": "#now", "/clock/": "#received", "/dashboard/": "#moment"}
"""The element of a page that changes with each event."""

ROWS = {
    "/notifications/": "#inbox .note-title",
    "/chat/": "#messages .message-text",
    "/assistant/": ".answer-text",
}
"""The elements of a page with the texts that a user gets."""

PAGES = [*CHANGING, *ROWS]

CHANGES = """async (selector) => {
    const shown = () => document.querySelector(selector).textContent;
    const before = shown();
    while (shown() === before) await new Promise((resolve) => setTimeout(resolve, 20));
    return true;
}"""


class Profile:
    """The tabs of one browser, and the requests for streams that are open.

    Attributes:
        tabs: each with its path, the oldest first.
        open: the requests, by tab.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self._context = context
        self._url = url
        self.tabs: list[tuple[str, Page]] = []
        self.open: dict[Page, list[Request]] = {}

    async def tab(self, path: str) -> None:
        """Open a tab, and wait until it is connected."""
        page = await self._context.new_page()
        requests = self.open[page] = []
        page.on("request", lambda request: requests.append(request) if is_stream(request) else None)
        for end in ("requestfinished", "requestfailed"):
            page.on(end, lambda request: requests.remove(request) if request in requests else None)
        self.tabs.append((path, page))
        await page.goto(self._url + path, timeout=PATIENCE)
        await expect(page.locator("#connection")).to_have_attribute("data-state", "open", timeout=PATIENCE)

    async def close_first(self) -> None:
        """Close the tab that was opened first. It has the stream."""
        _, page = self.tabs.pop(0)
        await page.close()
        del self.open[page]

    async def has_one_stream(self) -> None:
        def found() -> list[str]:
            return [request.url for requests in self.open.values() for request in requests]

        await until(lambda: len(found()) == 1, lambda: f"one stream, got {found()}")

    async def are_live(self, texts: list[str]) -> None:
        """Wait until each tab shows another event, and exactly these texts: rows, or one text in pieces."""
        await asyncio.gather(*(self._is_live(path, page, texts) for path, page in self.tabs))

    async def _is_live(self, path: str, page: Page, texts: list[str]) -> None:
        if path in CHANGING:
            await page.wait_for_function(CHANGES, arg=CHANGING[path], timeout=PATIENCE)
            return
        shown = {"/assistant/": ["".join(texts)], "/notifications/": texts[::-1]}.get(path, texts)
        await expect(page.locator(ROWS[path])).to_have_text(shown, timeout=PATIENCE)


def is_stream(request: Request) -> bool:
    return request.headers.get("accept") == "text/event-stream"


async def test_twelve_tabs(browser: Browser, tmp_path: Path) -> None:
    """Over HTTP/1.1 a browser has six connections to a host. Twelve tabs of all demos are live over one.

    Then the tabs that have the stream are closed, one after the other, while events arrive. The others lose and repeat
    nothing.
    """
    hub, source = open_hub(tmp_path), Source()

    async def generate(question: str) -> AsyncGenerator[str]:
        async for word in source():
            yield word

    site = Site(
        hub,
        [
            clock_demo(hub, interval=0.1),
            dashboard_demo(hub, interval=0.2),
            notifications_demo(hub, folder=tmp_path),
            chat_demo(hub),
            assistant_demo(hub, generate=generate),
        ],
    )
    texts: list[str] = []
    async with serve_here(site) as url:
        context, stranger = await browser.new_context(), await browser.new_context()
        profile = Profile(context, url)
        post = context.request.post

        async def publish() -> None:
            texts.append(f"{len(texts)}.")
            source.give(texts[-1])
            await post(f"{url}/notifications/", data={"user": "Ada", "title": texts[-1]})
            await post(f"{url}/chat/messages", data={"room": "lobby", "text": texts[-1], "key": texts[-1][:-1]})

        try:
            await post(f"{url}/session", data={"name": "Ada"})
            await post(f"{url}/assistant/answers", data={"question": "What?", "key": "k"})
            await publish()
            for path in PAGES:
                await profile.tab(path)
            await profile.are_live(texts)
            await publish()
            await asyncio.gather(*map(profile.tab, PAGES))
            await publish()
            await profile.are_live(texts)
            await profile.has_one_stream()
            streams = [info for info in hub.presence if info.user == "Ada"]
            assert [len(info.topics) for info in streams] == [7]  # the chat has three

            await stranger.request.post(f"{url}/session", data={"name": "Bo"})
            await stranger.request.post(f"{url}/chat/typing", data={"room": "lobby"})
            for page in (page for path, page in profile.tabs if path == "/chat/"):
                await expect(page.locator("#typing")).to_have_text("Bo is typing", timeout=PATIENCE)
                await expect(page.locator("#names li")).to_have_text("AAda (you)")

            for _ in PAGES:
                closing = asyncio.create_task(profile.close_first())
                await publish()
                await closing
                await profile.are_live(texts)
            await profile.has_one_stream()

            (clock,) = (page for path, page in profile.tabs if path == "/clock/")
            ids = await ids_on(clock)
            assert ids == list(range(ids[0], ids[0] + len(ids)))
        finally:
            await context.close()
            await stranger.close()


async def test_sign_in_and_out(browser: Browser, tmp_path: Path) -> None:
    """A sign-in in one tab applies to all. A page that needs no user continues without a gap."""
    hub = open_hub(tmp_path)
    demos = [clock_demo(hub, interval=0.1), notifications_demo(hub, folder=tmp_path), chat_demo(hub)]
    async with serve_here(Site(hub, demos)) as url, open_tab(browser) as clock:
        context = clock.page.context
        await clock.page.goto(f"{url}/clock/")
        await clock.page.wait_for_function(CHANGES, arg="#received")
        chat, inbox = await context.new_page(), await context.new_page()
        for page, path in ((chat, "/chat/"), (inbox, "/notifications/")):
            await page.goto(f"{url}{path}")
            await expect(page.get_by_label("Your name")).to_be_visible()

        def users() -> list[str | None]:
            return [info.user for info in hub.presence]

        for _ in range(2):
            assert users() == [None]
            await chat.get_by_label("Your name").fill("Ada")
            await chat.keyboard.press("Enter")
            for page in (chat, inbox):
                await expect(page.locator("#connection")).to_have_attribute("data-state", "open", timeout=PATIENCE)
            await until(lambda: users() == ["Ada"], lambda: f"one stream of Ada, got those of {users()}")
            await inbox.get_by_role("button", name="Sign out").click()
            for page in (chat, inbox):
                await expect(page.get_by_label("Your name")).to_be_visible(timeout=PATIENCE)
            await until(lambda: users() == [None], lambda: f"one stream without a user, got those of {users()}")
        await clock.page.wait_for_function(CHANGES, arg="#received")
        ids = await ids_on(clock.page)
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert clock.errors == []


async def test_sign_out_elsewhere(browser: Browser, tmp_path: Path) -> None:
    """The server refuses the stream of all tabs. A page that needs no user opens it again without one."""
    hub = open_hub(tmp_path)
    demos = [clock_demo(hub, interval=0.1), chat_demo(hub)]
    async with serve_here(Site(hub, demos)) as url, open_tab(browser) as clock:
        context = clock.page.context
        await context.request.post(f"{url}/session", data={"name": "Ada"})
        await clock.page.goto(f"{url}/clock/")
        chat = await context.new_page()
        await chat.goto(f"{url}/chat/")
        await expect(chat.locator("#connection")).to_have_attribute("data-state", "open", timeout=PATIENCE)
        await context.request.delete(f"{url}/session")
        await expect(chat.get_by_label("Your name")).to_be_visible(timeout=PATIENCE)
        await expect(clock.page.locator("#connection")).to_have_attribute("data-state", "open", timeout=PATIENCE)
        await clock.page.wait_for_function(CHANGES, arg="#received")
        assert [info.user for info in hub.presence] == [None]
        ids = await ids_on(clock.page)
        assert ids == list(range(ids[0], ids[0] + len(ids)))


async def ids_on(page: Page) -> list[int]:
    """Return the ids on the page of the clock, oldest first."""
    shown = await page.locator(".row-id, .row-gap").all_text_contents()
    return [int(text.removeprefix("#")) for text in reversed(shown)]
