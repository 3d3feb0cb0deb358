"""The chat's page, in real browsers: two people talk, and what may come between them."""

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
from tickertape.demo import Site
from tickertape.demo.chat import chat_demo
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
    """Serve the chat alone; give its address."""
    messages = None if broker is None else Hub(broker)
    async with serve_here(Site([chat_demo(folder=folder, messages=messages, clock=clock)])) as url:
        yield url


@asynccontextmanager
async def guest(browser: Browser, url: str, name: str, room: str = "", **options: Any) -> AsyncIterator[Tab]:
    """Open the chat in a profile of its own, and sign in; nothing may go wrong there that is not told."""
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


async def say(page: Page, *texts: str) -> None:
    for text in texts:
        await composer(page).fill(text)
        await composer(page).press("Enter")


def key_of(request: Request) -> str:
    return str(json.loads(request.post_data or "")["key"])


async def shows(page: Page, *texts: str) -> None:
    """Return when these are the messages that have come, in this order."""
    await expect(page.locator("#messages .message-text")).to_have_text(list(texts))


async def test_two_people_talk(browser: Browser, tmp_path: Path) -> None:
    clock = FakeClock()
    async with chat(tmp_path, clock=clock) as url, guest(browser, url, "Ada") as ada:
        async with open_tab(browser) as taken:
            await taken.page.goto(f"{url}/chat/")
            await taken.page.get_by_label("Your name").fill("ADA")
            await taken.page.keyboard.press("Enter")
            await expect(taken.page.get_by_role("alert")).to_contain_text("it is taken, choose another")
        async with guest(browser, url, "Bo") as bo:
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
            await say(ada.page, MARKUP, "and one more")
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
            await say(bo.page, "is anybody here?")
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


async def test_who_was_away_misses_nothing_and_loses_nothing(browser: Browser, tmp_path: Path) -> None:
    async with (
        chat(tmp_path) as url,
        network_to(url) as network,
        guest(browser, url, "Ada") as ada,
        guest(browser, network.url, "Bo") as bo,
    ):
        await say(ada.page, "one")
        await shows(bo.page, "one")
        keys: list[str] = []

        async def lose_the_answer(route: Route) -> None:
            keys.append(key_of(route.request))
            network.cut()
            await bo.page.context.request.post(f"{url}/chat/messages", data=route.request.post_data_json)
            await route.abort()

        await bo.page.route("**/messages", lose_the_answer, times=1)
        await say(bo.page, "stored, but Bo cannot know")
        await expect(bo.page.locator("#connection")).to_have_attribute("data-state", "lost")
        await say(bo.page, "written in the tunnel", "and another")
        await expect(bo.page.locator("#pending .message-state > span")).to_have_text(["Not sent yet"] * 3)
        await shows(ada.page, "one", "stored, but Bo cannot know")
        await say(ada.page, "two", "three")
        await shows(ada.page, "one", "stored, but Bo cannot know", "two", "three")
        async with bo.page.expect_request("**/messages") as again:
            network.mend()
        assert [key_of(await again.value)] == keys
        everything = ["one", "stored, but Bo cannot know", "two", "three", "written in the tunnel", "and another"]
        for tab in (bo, ada):
            await shows(tab.page, *everything)
        await expect(bo.page.locator("#pending li")).to_have_count(0)


async def test_what_goes_wrong_is_told_on_the_page(browser: Browser, tmp_path: Path) -> None:
    broker = ScriptedBroker()
    async with chat(tmp_path, broker=broker) as url, guest(browser, url, "Ada", "?room=attic") as ada:
        await expect(ada.page.get_by_role("alert")).to_contain_text("There is no room “attic”")
        await ada.page.get_by_role("link", name="#lobby").click()
        await expect(ada.page.get_by_text("There is no room")).to_be_hidden()
        await composer(ada.page).press("Enter")
        await expect(ada.page.locator("#said")).to_have_text("There is nothing to send yet.")
        await composer(ada.page).fill("😀" * 2012)
        await expect(ada.page.locator("#said")).to_have_text("12 characters too long")
        await composer(ada.page).press("Enter")
        await expect(composer(ada.page)).to_have_value("😀" * 2012)

        # The server refuses a message; it is sent once more when one asks for that.
        refused = {"detail": "expected at most 10 messages in a row, got one more: try again in 1 s"}
        await ada.page.route("**/messages", lambda route: route.fulfill(status=429, json=refused), times=1)
        await say(ada.page, "too fast")
        failed = ada.page.locator("#pending .message")
        await expect(failed).to_contain_text(f"Not sent: {refused['detail']}")
        await failed.get_by_role("button", name="Resend").click()
        await shows(ada.page, "too fast")
        ada.errors.clear()  # the browser's own word for a 429

        # The log fails: the message waits, a reload included.
        broker.fail("append")
        await say(ada.page, "while the log was away")
        await expect(failed).to_contain_text("Not sent yet")
        broker.recover()
        await ada.page.reload()
        await shows(ada.page, "too fast", "while the log was away")
        await expect(failed).to_have_count(0)
        ada.errors.clear()  # and for a 503

        # The log begins anew: that is told, and the page too.
        broker.reset()
        await say(ada.page, "in the new log")
        await expect(ada.page.get_by_role("alert").filter(has_text="not all of it is kept")).to_be_visible()
        await shows(ada.page, "in the new log")
        await ada.page.get_by_role("button", name="Got it").click()
        await expect(composer(ada.page)).to_be_focused()

        # One's name is gone, by another tab say: the page asks for it anew.
        await ada.page.context.request.delete(f"{url}/session")
        await ada.page.get_by_role("link", name="#help").click()
        await expect(ada.page.get_by_label("Your name")).to_be_visible()
        ada.errors.clear()  # and for a 401


async def test_the_place_where_one_reads_stays(browser: Browser, tmp_path: Path) -> None:
    async with Hub(f"sqlite:///{tmp_path}/chat.db") as hub:
        for number in range(60):
            await hub.publish(
                "rooms/lobby/messages", {"name": "Bo", "text": f"{number}", "key": "", "at": number * 6e4}
            )
    async with chat(tmp_path) as url, guest(browser, url, "Ada") as ada, guest(browser, url, "Cleo") as cleo:
        scroller = ada.page.get_by_role("region", name="Conversation")
        await expect(ada.page.locator(".message")).to_have_count(60)
        await ada.page.wait_for_function(AT_END)
        await say(cleo.page, "seen at once")
        await expect(ada.page.get_by_text("seen at once")).to_be_in_viewport()
        await scroller.focus()
        await ada.page.keyboard.press("Home")
        await ada.page.wait_for_function("() => document.getElementById('scroller').scrollTop === 0")
        await say(cleo.page, "further down", "and further")
        newer = ada.page.get_by_role("button", name="2 new messages")
        await expect(newer).to_be_visible()
        assert await scroller.evaluate("element => element.scrollTop") == 0
        await newer.press("Enter")
        await ada.page.wait_for_function(AT_END)
        await expect(newer).to_be_hidden()


async def test_the_keyboard_and_a_phone_are_enough(browser: Browser, tmp_path: Path) -> None:
    async with chat(tmp_path) as url, guest(browser, url, "Ada" * 10) as ada:
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
        await say(ada.page, "x" * 500)
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
