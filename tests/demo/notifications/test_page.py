"""The page of the notifications in a real browser."""

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
from support.servers import until
from tickertape.demo.notifications import notifications_demo
from tickertape.demo.site import Site, open_hub

from .databases import execute, new_database, remove
from .programs import running

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE: Final = 30_000
"""Milliseconds to wait for a page. Its stream is opened again after 2 to 4 s, and a server takes seconds to start."""

INSERT: Final = "INSERT INTO notifications (user_id, title, body, link) VALUES (?, ?, ?, ?)"


class Served:
    """The application in this process, and rows of other programs."""

    def __init__(self, url: str, database: str) -> None:
        self.url = f"{url}/notifications/"
        self._database = database

    def insert(self, user: str, *titles: str, body: str = "", link: str = "") -> None:
        for title in titles:
            execute(self._database, INSERT, user, title, body, link)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Served]:
    with new_database("sqlite", folder) as database:
        hub = open_hub(folder)
        async with serve_here(Site(hub, [notifications_demo(hub, folder=folder)])) as url:
            # The application creates its table after it listens.
            table = "SELECT 1 FROM sqlite_master WHERE name = 'notifications'"
            await until(lambda: execute(database, table) != [], lambda: "the table")
            yield Served(url, database)


async def sign_in(page: Page, url: str, name: str) -> None:
    await page.goto(url)
    await page.get_by_label("Your name").fill(name)
    await page.keyboard.press("Enter")
    await is_open(page)


async def is_open(page: Page) -> None:
    await expect(page.locator("#connection")).to_have_attribute("data-state", "open", timeout=PATIENCE)


async def has_titles(page: Page, *titles: str) -> None:
    """Wait until the inbox has these titles, newest first."""
    await expect(page.locator(".note-title")).to_have_text(list(titles), timeout=PATIENCE)


async def has_unread(page: Page, count: int) -> None:
    """Wait until the heading, the title and the icon show this number."""
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
        second = Tab(await ann.page.context.new_page())  # in the same browser, so signed in already
        await second.page.goto(served.url)
        await is_open(second.page)
        await expect(second.page.locator("#sign-in")).to_contain_text("Signed in as Ann")

        for title, link in (("One", ""), ("Two", "/clock/")):
            await bob.page.get_by_label("To").fill("ANN")
            await bob.page.get_by_label("Title").fill(title)
            await bob.page.get_by_label("Text (optional)").fill("first\nsecond")
            await bob.page.get_by_label("Link (optional)").fill(link)
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
        await second.page.reload()  # loads the newest 20, and the count of all
        await has_unread(second.page, 30)
        await expect(second.page.locator(".note")).to_have_count(20)
        await ann.page.get_by_role("button", name="Mark read: 3", exact=True).click()
        for tab in (ann, second):
            await has_unread(tab.page, 29)
        await second.page.get_by_role("button", name="Show older").click()
        await expect(second.page.locator(".note-title").last).to_have_text("One")
        assert "Mark read" in await focused(second.page)  # the first row of the new page
        await has_unread(second.page, 29)

        served.insert("bob", "Bob's")  # comes after Ann's rows
        await has_titles(bob.page, "Bob's")
        await ann.page.get_by_role("button", name="Sign out").click()
        await second.page.evaluate("dispatchEvent(new Event('visibilitychange'))")  # the user returns to the tab
        for tab in (ann, second):
            await expect(tab.page.get_by_label("Your name")).to_be_visible()
            await expect(tab.page.locator("#signed-in")).to_be_hidden()
        # The second tab may take the stream over first: the browser logs the 401 by which it learns of the sign-out.
        second.errors = [error for error in second.errors if "401 (Unauthorized)" not in error]
        for tab in (ann, second, bob):
            assert_is_clean(tab, served.url)


async def test_eight_tabs(browser: Browser, tmp_path: Path) -> None:
    """Over HTTP/1.1 a browser has six connections to a host: all tabs of a user have one stream."""
    async with serving(tmp_path) as served, open_tab(browser) as ann:
        await sign_in(ann.page, served.url, "Ann")
        pages = [ann.page]
        for _ in range(7):
            page = await ann.page.context.new_page()
            await page.goto(served.url)
            await is_open(page)
            pages.append(page)
        served.insert("ann", "One")
        for page in pages:
            await expect(page.locator(".note-title")).to_have_text(["One"], timeout=PATIENCE)
        await pages.pop(0).close()  # it has the stream
        served.insert("ann", "Two")
        for page in pages:
            await expect(page.locator(".note-title")).to_have_text(["Two", "One"], timeout=PATIENCE)


async def test_markup_and_script_links_are_text(browser: Browser, tmp_path: Path) -> None:
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


async def test_keyboard_and_desktop_alerts(browser: Browser, tmp_path: Path) -> None:
    """The page requests the permission for alerts after a click, never before."""
    scripted = """
        window.requests = 0;
        window.shown = [];
        window.Notification = class {
            static permission = "default";
            static async requestPermission() {
                requests += 1;
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
            raise AssertionError(f"expected the focus on {name!r}, got {await focused(page)!r}")

        await tab_to("Desktop alerts")
        assert await page.evaluate("requests") == 0
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Desktop alerts")).to_have_attribute("aria-pressed", "true")
        assert await page.evaluate("requests") == 1

        await tab_to("Mark read: Newest")
        await page.keyboard.press("Enter")
        await has_unread(page, 2)
        assert await focused(page) == "Mark read: Middle"  # the next button gets the focus
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
        assert await page.evaluate("shown") == []  # no alert while the page has the focus
        await page.evaluate("document.hasFocus = () => false")
        served.insert("ann", "Elsewhere", body="Look")
        await has_titles(page, "Elsewhere", "By keyboard", "Newest", "Middle", "Oldest")
        assert await page.evaluate("shown") == [["Elsewhere", "Look", "notification-5"]]
        await tab_to("Dismiss: By keyboard")
        await page.keyboard.press("Enter")
        await expect(page.locator(".toast-title")).to_have_text(["Elsewhere"])
        await page.get_by_role("link", name="/clock/").focus()
        await page.get_by_label("Link (optional)").fill("javascript:alert(1)")
        await page.get_by_label("Title").fill("x")
        await page.keyboard.press("Enter")
        await expect(page.locator("#sent")).to_contain_text("expected a link that starts with https://, http:// or /")
        assert [error for error in tab.own_errors if "422" not in error] == []


async def focused(page: Page) -> str:
    """Return the accessible name of the element with the focus."""
    name: str = await page.evaluate(
        "(({ ariaLabel, labels, textContent }) => (ariaLabel ?? labels?.[0]?.textContent ?? textContent).trim())"
        "(document.activeElement)"
    )
    return name


async def test_restart_and_lost_log(browser: Browser, tmp_path: Path) -> None:
    """Rows appear even if the event log was lost, because the table has them. The printed curl command works too."""
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
            remove(tmp_path / "stream.db")
            execute(database, INSERT, "zoë ann", "After the log", "", "")
            execute(database, "UPDATE notifications SET read_at = created_at WHERE title = 'Hello'")
            demo.start()
            await has_titles(page, "After the log", "While it was down", "Hello")
            await has_unread(page, 2)
            assert_is_clean(tab, url)
