"""The page, in a real browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, expect

from support.browser import Tab, open_tab
from support.local import serve_here
from tickertape.demo import Site, notifications_demo

from .databases import execute, new_database, remove
from .programs import running

pytestmark = pytest.mark.asyncio(loop_scope="session")

INSERT: Final = "INSERT INTO notifications (user_id, title, body, link) VALUES (?, ?, ?, ?)"


class Served:
    """The application in this process, and other programs that write to its table."""

    def __init__(self, url: str, database: str) -> None:
        self.url = f"{url}/notifications/"
        self._database = database

    def insert(self, user: str, *titles: str, body: str = "", link: str = "") -> None:
        for title in titles:
            execute(self._database, INSERT, user, title, body, link)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Served]:
    with new_database("sqlite", folder) as database:
        async with serve_here(Site([notifications_demo(folder=folder)])) as url:
            yield Served(url, database)


async def sign_in(page: Page, url: str, name: str) -> None:
    await page.goto(url)
    await page.get_by_label("Your name").fill(name)
    await page.keyboard.press("Enter")
    await is_open(page)


async def is_open(page: Page) -> None:
    await expect(page.locator("#connection")).to_have_attribute("data-state", "open")


async def has_titles(page: Page, *titles: str) -> None:
    """Return when these are in the inbox, newest first."""
    await expect(page.locator(".note-title")).to_have_text(list(titles))


async def has_unread(page: Page, count: int) -> None:
    """Return when the count, the rows, the title and the icon say so."""
    await expect(page.locator("#unread")).to_have_text(f"{count} unread" if count else "0 unread")
    await expect(page.locator("#unread")).to_be_visible(visible=count > 0)
    await expect(page).to_have_title(f"({count}) Notifications · tickertape" if count else "Notifications · tickertape")
    kind = "data:image/png;base64," if count else "data:image/svg+xml,"
    assert (await page.locator("link[rel=icon]").get_attribute("href") or "").startswith(kind)


def assert_is_clean(tab: Tab, url: str) -> None:
    assert tab.own_errors == []
    hosts = {urlsplit(request).netloc for request in tab.requests if not request.startswith("data:")}
    assert hosts == {urlsplit(url).netloc}


async def test_two_users_and_two_tabs(browser: Browser, tmp_path: Path) -> None:
    async with serving(tmp_path) as served, open_tab(browser) as ann, open_tab(browser) as bob:
        await sign_in(ann.page, served.url, "Ann")
        await sign_in(bob.page, served.url, "Bob")
        second = Tab(await ann.page.context.new_page())  # of the same browser: signed in already
        await second.page.goto(served.url)
        await is_open(second.page)
        await expect(second.page.locator("#sign-in")).to_contain_text("Signed in as Ann")

        for title, link in (("One", ""), ("Two", "/clock/")):
            await bob.page.get_by_label("To").fill("ANN")
            await bob.page.get_by_label("Title").fill(title)
            await bob.page.get_by_label("Text, if any").fill("first\nsecond")
            await bob.page.get_by_label("Link, if any").fill(link)
            await bob.page.get_by_role("button", name="Send").click()
            await expect(bob.page.locator("#sent")).to_have_text("Sent to ANN.")
            await expect(bob.page.get_by_label("Title")).to_have_value("")
        for tab in (ann, second):
            await has_titles(tab.page, "Two", "One")
            await has_unread(tab.page, 2)
            await expect(tab.page.get_by_role("log", name="New notifications")).to_contain_text("Two")
            await expect(tab.page.locator(".toast-title")).to_have_text(["One", "Two"])

        await ann.page.get_by_role("button", name="Mark read: One").click()
        for tab in (ann, second):
            await has_unread(tab.page, 1)
            await expect(tab.page.locator(".note.unread .note-title")).to_have_text(["Two"])
        await second.page.get_by_role("button", name="Mark all read").click()
        for tab in (ann, second):
            await has_unread(tab.page, 0)
            await expect(tab.page.get_by_role("button", name="Mark all read")).to_be_disabled()

        served.insert("ann", *(f"{number}" for number in range(30)))
        await has_unread(ann.page, 30)
        await second.page.reload()  # has the newest 20 now, and a count of all
        await has_unread(second.page, 30)
        await expect(second.page.locator(".note")).to_have_count(20)
        await ann.page.get_by_role("button", name="Mark read: 3", exact=True).click()
        for tab in (ann, second):
            await has_unread(tab.page, 29)
        await second.page.get_by_role("button", name="Show older ones").click()
        await expect(second.page.locator(".note-title").last).to_have_text("One")
        assert "Mark read" in await focused(second.page)  # the row behind those that were there
        await has_unread(second.page, 29)

        served.insert("bob", "Bob's")  # in one order with Ann's: they would be there by now
        await has_titles(bob.page, "Bob's")
        await ann.page.get_by_role("button", name="Sign out").click()
        await second.page.evaluate("dispatchEvent(new Event('visibilitychange'))")  # it is looked at again
        for tab in (ann, second):
            await expect(tab.page.get_by_label("Your name")).to_be_visible()
            await expect(tab.page.locator("#signed-in")).to_be_hidden()
        for tab in (ann, second, bob):
            assert_is_clean(tab, served.url)


async def test_what_looks_like_markup_or_a_script_is_text(browser: Browser, tmp_path: Path) -> None:
    markup = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script><b>bold</b>"
    links = {
        "javascript:document.title='hacked'": None,
        "JavaScript:alert(1)": None,
        "\tjavascript:alert(1)": None,
        "data:text/html,<script>alert(1)</script>": None,
        "vbscript:x": None,
        "//evil.example/": None,
        "/\\evil.example/": None,
        "/\t/evil.example/": None,
        "https://": None,
        "page": None,
        "https://good.example/a?b=c#d": "https://good.example/a?b=c#d",
        "http://good.example": "http://good.example/",
        "/clock/?x=<b>": "{origin}/clock/?x=%3Cb%3E",
    }
    narrow = {"width": 320, "height": 700}
    async with serving(tmp_path) as served, open_tab(browser, viewport=narrow) as tab:
        page = tab.page
        for link in links:
            served.insert("ann", markup, body=markup, link=link)
        await sign_in(page, served.url, "Ann")
        await expect(page.locator(".note")).to_have_count(len(links))
        served.insert("ann", "W" * 120, body="w" * 1000, link="https://good.example/" + "w" * 1500)
        await expect(page.locator(".toast-title")).to_have_text("W" * 120)
        served.insert("ann", markup, body=markup)
        await expect(page.locator(".toast-title").last).to_have_text(markup)

        assert await page.locator(".note-body").first.text_content() == markup
        assert await page.locator("main :is(img, script, b)").count() == 0
        origin = served.url.removesuffix("/notifications/")
        expected = [href.format(origin=origin) for href in links.values() if href]
        shown = await page.locator("a.note-link").evaluate_all("links => links.map((link) => link.href)")
        assert shown[1:] == expected[::-1]
        refused = [link for link, href in links.items() if href is None]
        texts = await page.locator("p.note-link").all_text_contents()
        assert texts == refused[::-1]
        rels = await page.locator("a.note-link[target=_blank]").evaluate_all("links => links.map((link) => link.rel)")
        assert rels == ["noopener noreferrer"] * 3
        assert "hacked" not in await page.title()
        assert await page.evaluate("document.documentElement.scrollWidth") == 320
        assert_is_clean(tab, served.url)


async def test_by_keyboard_alone(browser: Browser, tmp_path: Path) -> None:
    """Also: the browser's permission is asked for by a click, never before."""
    scripted = """
        window.questions = 0;
        window.shown = [];
        window.Notification = class {
            static permission = "default";
            static async requestPermission() {
                questions += 1;
                return (Notification.permission = "granted");
            }
            constructor(title, { body, tag }) { shown.push([title, body, tag]); }
        };
    """
    async with serving(tmp_path) as served, open_tab(browser) as tab:
        page = tab.page
        await page.add_init_script(scripted)
        served.insert("ann", "Oldest")
        served.insert("ann", "Middle", link="/clock/")
        served.insert("ann", "Newest")
        await sign_in(page, served.url, "Ann")
        await has_unread(page, 3)

        async def tab_to(name: str) -> None:
            for _ in range(30):
                await page.keyboard.press("Tab")
                if await focused(page) == name:
                    return
            raise AssertionError(f"expected the focus on {name!r}, got it on {await focused(page)!r}")

        await tab_to("Desktop alerts")
        assert await page.evaluate("questions") == 0
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Desktop alerts")).to_have_attribute("aria-pressed", "true")
        assert await page.evaluate("questions") == 1

        await tab_to("Mark read: Newest")
        await page.keyboard.press("Enter")
        await has_unread(page, 2)
        assert await focused(page) == "Mark read: Middle"  # not lost with its button
        await tab_to("Mark read: Oldest")
        await page.keyboard.press("Space")
        await has_unread(page, 1)
        assert await focused(page) == "Mark read: Middle"
        await page.keyboard.press("Enter")
        await has_unread(page, 0)
        assert (await focused(page)).startswith("Inbox")

        await tab_to("Title")
        await page.keyboard.type("By keyboard")
        await page.keyboard.press("Enter")
        await expect(page.locator("#sent")).to_have_text("Sent to Ann.")
        await has_titles(page, "By keyboard", "Newest", "Middle", "Oldest")
        assert await focused(page) == "Title"
        assert await page.evaluate("shown") == []  # the page is being looked at
        await page.evaluate("document.hasFocus = () => false")
        served.insert("ann", "Elsewhere", body="Look")
        await has_titles(page, "Elsewhere", "By keyboard", "Newest", "Middle", "Oldest")
        assert await page.evaluate("shown") == [["Elsewhere", "Look", "notification-5"]]
        await tab_to("Dismiss: By keyboard")
        await page.keyboard.press("Enter")
        await expect(page.locator(".toast-title")).to_have_text(["Elsewhere"])
        await page.get_by_role("link", name="/clock/").focus()
        await page.get_by_label("Link, if any").fill("javascript:alert(1)")
        await page.get_by_label("Title").fill("x")
        await page.keyboard.press("Enter")
        await expect(page.locator("#sent")).to_contain_text("expected a link that begins with https://, http:// or /")
        assert [error for error in tab.own_errors if "422" not in error] == []


async def focused(page: Page) -> str:
    """The name of what has the focus, as a screen reader says it."""
    name: str = await page.evaluate(
        "(({ ariaLabel, labels, textContent }) => (ariaLabel ?? labels?.[0]?.textContent ?? textContent).trim())"
        "(document.activeElement)"
    )
    return name


async def test_what_came_while_the_server_was_down_is_there_when_it_is_back(browser: Browser, tmp_path: Path) -> None:
    """And so is what a log that was lost cannot tell: the table has it. The line for the terminal works as printed."""
    database = f"sqlite:///{tmp_path}/notifications.sqlite"
    with running(tmp_path) as demo:
        url = f"http://127.0.0.1:{demo.port}/notifications/"
        async with open_tab(browser) as tab:
            page = tab.page
            await sign_in(page, url, "Zoë Ann")
            command = await page.locator("#command").text_content() or ""
            assert command.startswith(f"curl {url} ")
            shell = await asyncio.create_subprocess_shell(f"{command} -s -f", stdout=asyncio.subprocess.DEVNULL)
            assert await shell.wait() == 0
            await has_titles(page, "Hello")

            demo.kill()
            await expect(page.locator("#connection")).to_have_attribute("data-state", "lost")
            execute(database, INSERT, "zoë ann", "While it was down", "", "")
            demo.start()
            await has_titles(page, "While it was down", "Hello")
            await expect(page.locator(".toast-title").last).to_have_text("While it was down")

            demo.kill()
            await expect(page.locator("#connection")).to_have_attribute("data-state", "lost")
            remove(tmp_path / "notifications-log.db")
            execute(database, INSERT, "zoë ann", "After the log", "", "")
            execute(database, "UPDATE notifications SET read_at = created_at WHERE title = 'Hello'")
            demo.start()
            await has_titles(page, "After the log", "While it was down", "Hello")
            await has_unread(page, 2)
            assert_is_clean(tab, url)
