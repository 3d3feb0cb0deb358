"""The tutorials: run their code blocks in order."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from support.browser import Tab, open_tab
from support.servers import BIN, Service
from tickertape.testing import EventStreamClient

DOCS = Path(__file__).parents[2] / "docs" / "tutorial"
FIRST_STREAM = (DOCS / "first-stream.md").read_text("utf-8")
TUTORIAL = (DOCS / "chat.md").read_text("utf-8")
ROOMS, PAGE, WHOLE = re.findall(r"```python\n(.*?)```", TUTORIAL, re.DOTALL)
BODY, MOMENT = re.findall(r"```html\n(.*?)```", TUTORIAL, re.DOTALL)
COMMAND = re.findall(r"curl --json '(.*?)' localhost:8000(\S+)", TUTORIAL)
SHOWN = re.findall(r"^data: (.*)$", TUTORIAL, re.MULTILINE)


async def test_first_stream() -> None:
    names: dict[str, Any] = {"__name__": "app"}
    exec("\n".join(re.findall(r"```python\n(.*?)```", FIRST_STREAM, re.DOTALL)), names)
    async with EventStreamClient(names["app"]) as client:
        async with client.open("/events") as stream:
            assert (await stream.next_event()).json() == {"left": 10}
        async with client.open("/") as page:
            assert "new EventSource" in (await page.read()).decode()
        for last_event_id, number in ((None, 1), ("41", 42)):
            async with client.open("/numbers", last_event_id=last_event_id) as stream:
                event = await stream.next_event()
                assert (event.id, event.event, event.json()) == (str(number), "number", {"number": number})


async def test_rooms_in_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [(body, path)] = COMMAND
    for run in (1, 2):
        names: dict[str, Any] = {"__name__": "app"}
        exec(ROOMS, names)
        async with EventStreamClient(names["app"]) as client:
            for _ in range(2):
                posted = client.open(
                    path, method="POST", body=body.encode(), headers={"content-type": "application/json"}
                )
                async with posted as answer:
                    assert re.fullmatch(r'\{"id":"\w+-1"\}', (await answer.read()).decode()), run
                    assert answer.status == 201
            async with client.open(f"{path}/events") as stream:
                event = await stream.next_event()
                assert [event.data] == SHOWN
                assert json.loads(body) == json.loads(event.data or "")
            async with client.open("/rooms/*/events") as response:
                assert response.status == 422
    assert (tmp_path / "chat.db").exists()


class App(Service):
    """The files of the reader, run as in the tutorial."""

    def __init__(self, folder: Path, app: str, page: str) -> None:
        (folder / "app.py").write_text(app)
        (folder / "chat.html").write_text(page)
        super().__init__(str(BIN / "uvicorn"), "app:app", "--port={port}", folder=folder)


@asynccontextmanager
async def window(browser: Browser, app: App, name: str) -> AsyncIterator[Tab]:
    async with open_tab(browser) as tab:
        await tab.page.goto(app.url)
        await tab.page.get_by_label("Name").fill(name)
        yield tab


async def post(tab: Tab, text: str) -> None:
    await tab.page.get_by_label("Message").fill(text)
    await tab.page.get_by_role("button", name="Send").click()


@asynccontextmanager
async def running(app: App) -> AsyncIterator[App]:
    app.start()
    try:
        yield app
    finally:
        app.kill()


@pytest.mark.asyncio(loop_scope="session")
async def test_two_windows_and_a_restart(browser: Browser, tmp_path: Path) -> None:
    async with (
        running(App(tmp_path, ROOMS + PAGE, BODY)) as app,
        window(browser, app, "Ada") as ada,
        window(browser, app, "Bo") as bo,
    ):
        await post(ada, "<b>hello</b>")
        for tab in (ada, bo):
            await expect(tab.page.locator("li:not(.unsent)")).to_have_text(["Ada: <b>hello</b>"])
        app.kill()
        await post(ada, "from Ada")
        await post(bo, "from Bo")
        await post(bo, "more from Bo")
        await expect(bo.page.locator("li.unsent")).to_have_text(["Bo: from Bo", "Bo: more from Bo"])
        app.start()
        for tab in (ada, bo):
            await expect(tab.page.locator("li.unsent")).to_have_count(0)
            await expect(tab.page.locator("li")).to_have_count(4)
            assert [error for error in tab.own_errors if "404" not in error] == []  # the page has no icon
        texts = await ada.page.locator("li").all_text_contents()
        assert await bo.page.locator("li").all_text_contents() == texts
        assert sorted(texts) == ["Ada: <b>hello</b>", "Ada: from Ada", "Bo: from Bo", "Bo: more from Bo"]
        assert texts.index("Bo: from Bo") < texts.index("Bo: more from Bo")


@pytest.mark.asyncio(loop_scope="session")
async def test_presence_and_typing(browser: Browser, tmp_path: Path) -> None:
    async with running(App(tmp_path, WHOLE, BODY + MOMENT)) as app, window(browser, app, "Ada") as ada:
        async with window(browser, app, "Bo") as bo:
            await post(ada, "hello")
            await expect(bo.page.locator("li")).to_have_text(["Ada: hello"])
            await expect(ada.page.locator("#people")).to_have_text("Here: Ada")
            await bo.page.get_by_label("Message").fill("h")
            await expect(ada.page.locator("#typing")).to_have_text("Bo is typing")
            await expect(ada.page.locator("#people")).to_have_text("Here: Ada, Bo")
        await expect(ada.page.locator("#people")).to_have_text("Here: Ada")
        assert [error for error in ada.own_errors if "404" not in error] == []  # the page has no icon
