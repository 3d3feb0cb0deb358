"""The page of the chat in real browsers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Locator, Page, Request, Route, expect

from support.browser import Tab, open_tab
from support.local import serve_here
from support.network import network_to
from tickertape import Hub
from tickertape.demo.chat import chat_demo
from tickertape.demo.chat.rooms import messages_of
from tickertape.demo.site import Site, open_hub
from tickertape.testing import FakeClock, ScriptedBroker

pytestmark = pytest.mark.asyncio(loop_scope="session")

MARKUP = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script><b>bold</b> &amp;"


AT_END = """() => {
    const { scrollHeight, scrollTop, clientHeight } = document.getElementById("scroller");
    return scrollHeight - scrollTop - clientHeight < 2;
}"""


@asynccontextmanager
async def chat(
    folder: Path, *, broker: ScriptedBroker | None = None, clock: FakeClock | None = None
) -> AsyncIterator[str]:
    """Serve the chat and yield its URL."""
    hub = open_hub(folder) if broker is None and clock is None else Hub(broker or "memory://", clock=clock)
    async with serve_here(Site(hub, [chat_demo(hub, clock=clock)])) as url:
        yield url


@asynccontextmanager
async def signed_in(browser: Browser, url: str, name: str, room: str = "", **options: Any) -> AsyncIterator[Tab]:
    """Open the chat in a separate profile and sign in. The page must not log unexpected errors."""
    async with open_tab(browser, **options) as tab:
        await tab.page.goto(f"{url}/chat/{room}")
        await tab.page.get_by_label("Your name").fill(name)
        await tab.page.keyboard.press("Enter")
        await expect(tab.page.locator("#chat")).to_be_visible()
        if not room:
            await expect(tab.page.locator("#connection")).to_contain_text("Open")
        yield tab
        assert tab.own_errors == []
        hosts = {urlsplit(request).netloc for request in tab.requests if not request.startswith("data:")}
        assert hosts == {urlsplit(url).netloc}


def composer(page: Page) -> Locator:
    return page.get_by_label("Message", exact=True)


async def post(page: Page, *texts: str) -> None:
    for text in texts:
        await composer(page).fill(text)
        await composer(page).press("Enter")


def key_of(request: Request) -> str:
    return str(json.loads(request.post_data or "")["key"])


async def shows(page: Page, *texts: str) -> None:
    """Wait until the page shows these messages, in this order."""
    await expect(page.locator("#messages .message-text")).to_have_text(list(texts))


async def test_two_users(browser: Browser, tmp_path: Path) -> None:
    clock = FakeClock()
    async with chat(tmp_path, clock=clock) as url, signed_in(browser, url, "Ada") as ada:
        async with open_tab(browser) as taken:
            await taken.page.goto(f"{url}/chat/")
            await taken.page.get_by_label("Your name").fill("ADA")
            await taken.page.keyboard.press("Enter")
            await expect(taken.page.get_by_role("alert")).to_contain_text("choose another one")
        async with signed_in(browser, url, "Bo") as bo:
            await expect(ada.page.locator(".note")).to_have_text("Bo joined")
            await expect(ada.page.locator("#names li")).to_have_text(["AAda (you)", "BBo"])
            await expect(ada.page.locator("#empty")).to_be_hidden()
            await composer(bo.page).press_sequentially("first")
            await expect(ada.page.locator("#typing")).to_have_text("Bo is typing")
            await composer(bo.page).press("Shift+Enter")
            await composer(bo.page).press_sequentially("line two")
            await composer(bo.page).press("Enter")
            await expect(composer(bo.page)).to_have_value("")
            await shows(ada.page, "first\nline two")
            await expect(ada.page.locator("#typing")).to_have_text("")
            await post(ada.page, MARKUP, "and one more")
            for tab in (ada, bo):
                await shows(tab.page, "first\nline two", MARKUP, "and one more")
                assert await tab.page.locator(".chat :is(img, script, b)").count() == 0
                assert await tab.page.title() == "#lobby · tickertape"
                await expect(tab.page.locator(".day")).to_have_text("Today")
                await expect(tab.page.locator("#pending li")).to_have_count(0)
            await expect(bo.page.locator(".message.first .message-name")).to_have_text(["You", "Ada"])
            await expect(ada.page.locator(".own .message-state")).to_have_text(["Delivered", "Delivered"])

            # Another room, without a reload.
            await bo.page.evaluate("globalThis.sameDocument = true")
            await bo.page.get_by_role("link", name="#help").click()
            await expect(bo.page.get_by_role("heading", name="#help")).to_be_visible()
            assert bo.page.url == f"{url}/chat/?room=help"
            await shows(bo.page)
            await post(bo.page, "is anybody here?")
            await shows(bo.page, "is anybody here?")
            await expect(ada.page.locator("#room-help")).to_have_class("unread")
            await expect(ada.page.locator("#room-help .room-count")).to_have_text("1")
            await bo.page.go_back()
            await shows(bo.page, "first\nline two", MARKUP, "and one more")
            assert await bo.page.evaluate("globalThis.sameDocument")
        async with asyncio.timeout(10):
            while await ada.page.locator(".note").count() == 1:
                clock.advance(1)
        await expect(ada.page.locator(".note").last).to_have_text("Bo left")
        await expect(ada.page.locator("#count")).to_have_text("1")


async def test_lost_connection(browser: Browser, tmp_path: Path) -> None:
    async with (
        chat(tmp_path) as url,
        network_to(url) as network,
        signed_in(browser, url, "Ada") as ada,
        signed_in(browser, network.url, "Bo") as bo,
    ):
        await post(ada.page, "one")
        await shows(bo.page, "one")
        keys: list[str] = []

        async def lose_answer(route: Route) -> None:
            keys.append(key_of(route.request))
            network.cut()
            await bo.page.context.request.post(f"{url}/chat/messages", data=route.request.post_data_json)
            await route.abort()

        await bo.page.route("**/messages", lose_answer, times=1)
        await post(bo.page, "stored, but Bo cannot know")
        await expect(bo.page.locator("#connection")).to_have_attribute("data-state", "lost")
        await post(bo.page, "written in the tunnel", "and another")
        await expect(bo.page.locator("#pending .message-state > span")).to_have_text(["Not sent yet"] * 3)
        await shows(ada.page, "one", "stored, but Bo cannot know")
        await post(ada.page, "two", "three")
        await shows(ada.page, "one", "stored, but Bo cannot know", "two", "three")
        async with bo.page.expect_request("**/messages") as again:
            network.restore()
        assert key_of(await again.value) not in keys  # that message is among those of the room
        everything = ["one", "stored, but Bo cannot know", "two", "three", "written in the tunnel", "and another"]
        for tab in (bo, ada):
            await shows(tab.page, *everything)
        await expect(bo.page.locator("#pending li")).to_have_count(0)


async def test_errors_on_the_page(browser: Browser, tmp_path: Path) -> None:
    broker = ScriptedBroker()
    async with chat(tmp_path, broker=broker) as url, signed_in(browser, url, "Ada", "?room=attic") as ada:
        await expect(ada.page.get_by_role("alert")).to_contain_text("There is no room “attic”")
        await expect(ada.page.locator("#connection")).to_be_hidden()
        await ada.page.get_by_role("link", name="#lobby").click()
        await expect(ada.page.get_by_text("There is no room")).to_be_hidden()
        await composer(ada.page).press("Enter")
        await expect(ada.page.locator("#said")).to_have_text("Write a message first.")
        await composer(ada.page).fill("😀" * 2012)
        await expect(ada.page.locator("#said")).to_have_text("12 characters too long")
        await composer(ada.page).press("Enter")
        await expect(composer(ada.page)).to_have_value("😀" * 2012)

        # The server refuses a message. The user sends it again.
        refused = {"detail": "too many messages: try again in 1 s"}
        keys: list[str] = []

        async def refuse(route: Route) -> None:
            keys.append(key_of(route.request))
            await route.fulfill(status=429, json=refused)

        await ada.page.route("**/messages", refuse, times=1)
        await post(ada.page, "too fast")
        failed = ada.page.locator("#pending .message")
        await expect(failed).to_contain_text(f"Not sent: {refused['detail']}")
        async with ada.page.expect_request("**/messages") as again:
            await failed.get_by_role("button", name="Resend").click()
        assert key_of(await again.value) == keys[0]  # so it is stored once
        await shows(ada.page, "too fast")
        ada.errors.clear()  # the browser logs status 429

        # The log fails. The message waits, even over a reload.
        broker.fail("append")
        await post(ada.page, "while the log was away")
        await expect(failed).to_contain_text("Not sent yet")
        broker.recover()
        await ada.page.reload()
        await shows(ada.page, "too fast", "while the log was away")
        await expect(failed).to_have_count(0)
        ada.errors.clear()  # and status 503

        # The log is reset. The page shows a notice and starts again.
        broker.reset()
        await post(ada.page, "in the new log")
        await expect(ada.page.get_by_role("alert").filter(has_text="no longer available")).to_be_visible()
        await shows(ada.page, "in the new log")
        await ada.page.get_by_role("button", name="Close").click()
        await expect(composer(ada.page)).to_be_focused()

        # The user signs out elsewhere. The stream ends, and the page asks for a name.
        await ada.page.context.request.delete(f"{url}/session")
        await expect(ada.page.get_by_label("Your name")).to_be_visible()
        ada.errors.clear()  # and status 401


LINKS = """see https://a.example/x?y=1, (http://b.example/c) and HTTPS://c.example.
javascript:alert(1) ftp://d.example https:// <b>"""


async def test_links_in_messages(browser: Browser, tmp_path: Path) -> None:
    """URLs of web pages are links. Everything else is text."""
    async with chat(tmp_path) as url, open_tab(browser) as tab:
        await tab.page.goto(f"{url}/chat/")
        await expect(tab.page.locator("#connection")).to_contain_text("Sign in to connect")
    async with chat(tmp_path) as url, signed_in(browser, url, "Ada") as ada:
        await post(ada.page, LINKS)
        await shows(ada.page, LINKS)
        links = await ada.page.locator("#messages a").evaluate_all("all => all.map((a) => [a.textContent, a.rel])")
        texts = ["https://a.example/x?y=1", "http://b.example/c", "HTTPS://c.example"]
        assert links == [[text, "noopener noreferrer"] for text in texts]


async def test_scroll_position(browser: Browser, tmp_path: Path) -> None:
    async with open_hub(tmp_path) as hub:
        for number in range(60):
            message = {"name": "Bo", "text": f"{number}", "key": f"{number}", "at": number * 6e4}
            await hub.publish(messages_of("lobby"), message)
    async with chat(tmp_path) as url, signed_in(browser, url, "Ada") as ada, signed_in(browser, url, "Cleo") as cleo:
        scroller = ada.page.get_by_role("region", name="Conversation")
        await expect(ada.page.locator(".message")).to_have_count(60)
        await ada.page.wait_for_function(AT_END)
        await post(cleo.page, "seen at once")
        await expect(ada.page.get_by_text("seen at once")).to_be_in_viewport()
        await scroller.focus()
        await ada.page.keyboard.press("Home")
        await ada.page.wait_for_function("() => document.getElementById('scroller').scrollTop === 0")
        await post(cleo.page, "further down", "and further")
        newer = ada.page.get_by_role("button", name="2 new messages")
        await expect(newer).to_be_visible()
        assert await scroller.evaluate("element => element.scrollTop") == 0
        await newer.press("Enter")
        await ada.page.wait_for_function(AT_END)
        await expect(newer).to_be_hidden()


async def test_keyboard_and_phone(browser: Browser, tmp_path: Path) -> None:
    async with chat(tmp_path) as url, signed_in(browser, url, "Ada" * 10) as ada:
        await expect(composer(ada.page)).to_be_focused()
        order = []
        for _ in range(7):
            await ada.page.keyboard.press("Shift+Tab")
            order.append(await ada.page.evaluate("(e => e.ariaLabel ?? e.innerText)(document.activeElement)"))
        assert [text.partition("\n")[0] for text in order[:5]] == [
            "Conversation",
            "Sign out",
            "#random",
            "#help",
            "#lobby",
        ]
        await ada.page.keyboard.press("Tab")
        await ada.page.get_by_role("link", name="#help").press("Enter")
        await expect(composer(ada.page)).to_be_focused()
        await ada.page.keyboard.type("typed")
        await ada.page.keyboard.press("Tab")
        await ada.page.keyboard.press("Enter")  # the button
        await shows(ada.page, "typed")
        await post(ada.page, "x" * 500)
        await expect(ada.page.locator(".own")).to_have_count(2)
        log = ada.page.get_by_role("log", name="Messages")
        await expect(log).to_have_attribute("aria-live", "polite")
        await expect(log).to_have_attribute("aria-busy", "false")
        for width in (320, 390, 768, 1440):
            await ada.page.set_viewport_size({"width": width, "height": 700})
            size = "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
            assert await ada.page.evaluate(size) == [width, 700]
            await expect(composer(ada.page)).to_be_in_viewport(ratio=1)
        await ada.page.set_viewport_size({"width": 390, "height": 700})
        people = ada.page.get_by_role("button", name="1 here")
        await expect(ada.page.locator("#people")).to_be_hidden()
        await people.press("Enter")
        await expect(ada.page.locator("#people")).to_be_visible()
        await expect(people).to_have_attribute("aria-expanded", "true")
        await ada.page.get_by_role("button", name="Sign out").click()
        await expect(ada.page.get_by_label("Your name")).to_be_focused()
