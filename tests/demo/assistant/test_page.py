"""The page of the assistant in a real browser."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Locator, Page, Request, expect

from support.browser import Tab, open_tab
from support.command import SCRIPT
from support.local import serve_here
from support.network import network_to
from support.runs import Source
from support.servers import Service
from tickertape import Hub
from tickertape.demo.assistant import assistant_demo
from tickertape.demo.assistant.generator import GeneratorError
from tickertape.demo.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")

MARKUP = "<img src=x onerror=\"document.title='hacked'\"><b>bold</b>"

ORPHAN_TIME = 30_000
"""Milliseconds until a producer that was killed counts as gone, and for the restart of the program."""


@asynccontextmanager
async def assistant(folder: Path, source: Source) -> AsyncIterator[str]:
    """Serve the assistant, whose words are from ``source``, and yield its URL."""

    async def generate(question: str) -> AsyncGenerator[str]:
        async for word in source():
            yield word

    hub = Hub(f"sqlite:///{folder / 'log.db'}", drain_window=0)
    async with serve_here(Site(hub, [assistant_demo(hub, generate=generate)])) as url:
        yield url


@asynccontextmanager
async def opened(browser: Browser, url: str, **options: Any) -> AsyncIterator[Tab]:
    """Open the page in a separate profile. It must not log unexpected errors."""
    async with open_tab(browser, **options) as tab:
        await tab.page.goto(f"{url}/assistant/")
        await expect(tab.page.locator("#answers > li").or_(tab.page.locator("#empty:visible")).first).to_be_attached()
        yield tab
        assert tab.own_errors == []
        hosts = {urlsplit(request).netloc for request in tab.requests if not request.startswith("data:")}
        assert hosts == {urlsplit(url).netloc}


def field(page: Page) -> Locator:
    return page.get_by_label("Question", exact=True)


def stop_button(page: Page) -> Locator:
    return page.get_by_role("button", name="Stop")


async def ask(page: Page, question: str) -> None:
    await field(page).fill(question)
    await field(page).press("Enter")


async def shows(page: Page, *answers: tuple[str, str, str]) -> None:
    """Wait until the page shows these questions, texts and states."""
    for number, selector in enumerate((".answer-question", ".answer-text", ".answer-state > span")):
        expected = [f"You asked: {answer[0]}" if number == 0 else answer[number] for answer in answers]
        await expect(page.locator(selector)).to_have_text(expected)


async def test_answer(browser: Browser, tmp_path: Path) -> None:
    source = Source()
    async with assistant(tmp_path, source) as url, opened(browser, url) as tab:
        page = tab.page
        await expect(page.locator("#connection")).to_be_hidden()
        await expect(page.get_by_text("No language model writes it")).to_be_visible()
        await ask(page, "What is a log?")
        await expect(field(page)).to_have_value("")
        await shows(page, ("What is a log?", "", "Writing"))
        await expect(page.locator("#connection")).to_contain_text("Open")
        source.give("A list", " of events.", f"\n\nIt has {MARKUP}", " and")
        await shows(page, ("What is a log?", f"A list of events.\n\nIt has {MARKUP} and", "Writing"))
        await expect(page.locator("#announced p")).to_have_text(["A list of events."])
        await ask(page, "And?")
        await expect(page.get_by_role("alert")).to_have_text("Wait for the end of this answer, or stop it.")
        source.give(" an end", None)
        whole = ("What is a log?", f"A list of events.\n\nIt has {MARKUP} and an end", "Complete · 12 words")
        await shows(page, whole)
        await expect(page.locator("#connection")).to_be_hidden()
        await expect(page.locator("#announced p").last).to_have_text("Complete")
        assert await page.locator(".answer :is(img, b)").count() == 0
        assert await page.title() == "Assistant · tickertape"

        # It is shown again, as it was, and another one follows it.
        await page.reload()
        await shows(page, whole)
        source.give("Nothing.", None)
        await ask(page, "And then?")
        await shows(page, whole, ("And then?", "Nothing.", "Complete · 1 word"))


async def test_reload_in_the_middle(browser: Browser, tmp_path: Path) -> None:
    source = Source()
    async with assistant(tmp_path, source) as url, opened(browser, url) as tab:
        await ask(tab.page, "What is a log?")
        source.give("A list")
        await shows(tab.page, ("What is a log?", "A list", "Writing"))
        await tab.page.reload()
        await shows(tab.page, ("What is a log?", "A list", "Writing"))
        source.give(" of events", None)
        await shows(tab.page, ("What is a log?", "A list of events", "Complete · 4 words"))
        assert source.starts == 1


async def test_second_tab(browser: Browser, tmp_path: Path) -> None:
    """A tab that is open follows an answer, so does one that is opened later, and each can stop it."""
    source = Source()
    async with assistant(tmp_path, source) as url, opened(browser, url) as first:
        second = await first.page.context.new_page()
        await second.goto(f"{url}/assistant/")
        await expect(second.locator("#empty")).to_be_visible()
        await ask(first.page, "What is a log?")
        source.give("A list")
        third = await first.page.context.new_page()
        await third.goto(f"{url}/assistant/")
        for page in (first.page, second, third):
            await shows(page, ("What is a log?", "A list", "Writing"))
        source.give(" of events")
        for page in (first.page, second, third):
            await shows(page, ("What is a log?", "A list of events", "Writing"))
        await stop_button(second).click()
        for page in (first.page, second, third):
            await shows(page, ("What is a log?", "A list of events", "Stopped · 4 words"))
            await expect(stop_button(page)).to_be_hidden()
        assert source.finished.is_set()
        source.give("Again.", None)
        await third.get_by_role("button", name="Ask again").click()
        for page in (first.page, second, third):
            await shows(
                page,
                ("What is a log?", "A list of events", "Stopped · 4 words"),
                ("What is a log?", "Again.", "Complete · 1 word"),
            )


async def test_another_tab_was_faster(browser: Browser, tmp_path: Path) -> None:
    """A tab that has not heard of an answer joins it when the server refuses a second one."""
    source = Source()
    async with assistant(tmp_path, source) as url, opened(browser, url) as tab:
        body = {"question": "From elsewhere", "key": "k"}
        assert (await tab.page.context.request.post(f"{url}/assistant/answers", data=body)).status == 201
        await ask(tab.page, "What is a log?")
        await shows(tab.page, ("From elsewhere", "", "Writing"))
        await expect(field(tab.page)).to_have_value("What is a log?")
        source.give("A list", None)
        await shows(tab.page, ("From elsewhere", "A list", "Complete · 2 words"))
        tab.errors.clear()  # the browser logs status 409


async def test_error(browser: Browser, tmp_path: Path) -> None:
    source = Source()
    async with assistant(tmp_path, source) as url, opened(browser, url) as tab:
        await ask(tab.page, "What is a log?")
        source.give("A list", GeneratorError(f"No words: {MARKUP}"))
        failed = ("What is a log?", "A list", f"Failed: No words: {MARKUP}")
        await shows(tab.page, failed)
        await expect(tab.page.locator("#announced p").last).to_have_text(failed[2])
        await tab.page.reload()
        await shows(tab.page, failed)
        await field(tab.page).press("Enter")
        await expect(tab.page.get_by_role("alert")).to_have_text("Write a question first.")
        await ask(tab.page, "😀" * 502)
        await expect(tab.page.get_by_role("alert")).to_have_text("2 characters too long")


async def test_lost_connection(browser: Browser, tmp_path: Path) -> None:
    """A question that may have arrived is sent again with its key, and the answer resumes where it was."""
    source = Source()
    async with (
        assistant(tmp_path, source) as url,
        network_to(url) as network,
        opened(browser, network.url) as tab,
    ):
        sent: list[Any] = []

        def record(request: Request) -> None:
            if request.method == "POST":
                sent.append(json.loads(request.post_data or ""))

        tab.page.on("request", record)
        network.cut()
        await ask(tab.page, "What is a log?")
        await expect(tab.page.get_by_role("alert")).to_contain_text("Your question is still here")
        await expect(field(tab.page)).to_have_value("What is a log?")
        network.restore()
        await field(tab.page).press("Enter")
        source.give("A list")
        await shows(tab.page, ("What is a log?", "A list", "Writing"))
        assert sent[0] == sent[1]
        network.cut()
        await expect(tab.page.locator("#connection")).to_have_attribute("data-state", "lost")
        source.give(" of events", None)
        network.restore()
        await shows(tab.page, ("What is a log?", "A list of events", "Complete · 4 words"))


async def test_log_is_lost(browser: Browser, tmp_path: Path) -> None:
    """A server that has lost its log, such as one in memory after a restart, ends the answer on the page."""
    source = Source()
    async with assistant(tmp_path, source) as url, network_to(url) as network, opened(browser, network.url) as tab:
        await ask(tab.page, "What is a log?")
        source.give("A list")
        await shows(tab.page, ("What is a log?", "A list", "Writing"))
        network.cut()
        (tmp_path / "other").mkdir()
        async with assistant(tmp_path / "other", source) as other:
            network.move(other)
            network.restore()
            await shows(tab.page, ("What is a log?", "A list", "Not complete: the server no longer has this answer"))
            await expect(field(tab.page)).to_be_editable()


async def test_killed_server(browser: Browser, tmp_path: Path) -> None:
    """The words that were stored are shown after a restart, and that they are not the whole answer."""
    program = Service(SCRIPT, "demo", "--port", "{port}", "--data", str(tmp_path))
    program.start()
    try:
        async with opened(browser, program.url) as tab:
            await tab.page.get_by_role("button", name="How does a reader resume?").click()
            text = tab.page.locator(".answer-text")
            await expect(text).to_contain_text(" ")
            program.kill()
            await expect(tab.page.locator("#connection")).to_have_attribute("data-state", "lost")
            stored = await text.text_content() or ""
            program.start()
            state = tab.page.locator(".answer-state > span")
            await expect(state).to_contain_text("Not complete: the server stopped", timeout=ORPHAN_TIME)
            shown = await text.text_content() or ""
            assert shown.startswith(stored)
            await tab.page.reload()
            await expect(state).to_contain_text("Not complete: the server stopped")
            assert await text.text_content() == shown
            await tab.page.get_by_role("button", name="Please fail in the middle").click()
            await expect(state.last).to_have_text(
                "Failed: The generator failed in the middle of this answer, as you asked."
            )
    finally:
        program.kill()


async def test_keyboard_and_phone(browser: Browser, tmp_path: Path) -> None:
    source = Source()
    async with assistant(tmp_path, source) as url, opened(browser, url) as tab:
        page = tab.page
        await expect(field(page)).to_be_focused()
        await page.keyboard.type("What is a log?")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("Really?")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")  # the button
        await expect(field(page)).to_be_focused()
        source.give("x" * 400, *[f" word{number}" for number in range(300)])
        await expect(page.locator(".answer-text")).to_contain_text("word299")
        log = page.get_by_role("log", name="The answer, sentence by sentence")
        await expect(log).to_have_attribute("aria-live", "polite")
        assert (
            await page.locator("#answers").evaluate("list => list.closest('[aria-live], [role=log], [role=status]')")
            is None
        )
        for width in (1440, 768, 390, 320):
            await page.set_viewport_size({"width": width, "height": 640})
            assert await page.evaluate("document.documentElement.scrollWidth") == width
            await expect(stop_button(page)).to_be_in_viewport(ratio=1)
            await page.evaluate("document.documentElement.scrollTop = 0")
            await expect(stop_button(page)).to_be_in_viewport(ratio=1)
        await field(page).focus()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator(".answer-state > span")).to_contain_text("Stopped")
        await expect(field(page)).to_be_focused()


async def test_end_stays_in_view(browser: Browser, tmp_path: Path) -> None:
    """The page follows the words, unless the reader has scrolled up."""
    source = Source()
    async with assistant(tmp_path, source) as url, opened(browser, url, viewport={"width": 390, "height": 640}) as tab:
        await ask(tab.page, "What is a log?")
        source.give(*["A line.\n"] * 60)
        await expect(tab.page.locator(".answer-text")).to_contain_text("A line.\n" * 60, use_inner_text=True)
        await expect(tab.page.locator(".answer-state")).to_be_in_viewport()
        await tab.page.evaluate("document.documentElement.scrollTop = 0")
        source.give("The last line.", None)
        await expect(tab.page.locator(".answer-state")).to_contain_text("Complete")
        assert await tab.page.evaluate("document.documentElement.scrollTop") == 0
