"""The how-to page on notifications: run its code."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.errors import NotFoundError
from playwright.async_api import Browser, expect

from broker.nats_logs import SERVER, nats_absent
from broker.private_servers import require
from support.browser import open_tab
from support.local import serve_here
from tickertape.testing import EventStreamClient

TEXT = (Path(__file__).parents[3] / "docs" / "how-to" / "notifications.md").read_text("utf-8")


def block(heading: str, language: str) -> str:
    """Return the first block of code below a heading."""
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return found[0]


def run(program: str, names: dict[str, Any]) -> dict[str, Any]:
    exec(compile(program, "notifications.md", "exec", dont_inherit=True), names)
    return names


def application(folder: Path) -> dict[str, Any]:
    """Run ``app.py`` with its files in a folder of the test, and return its names."""
    program = block("The server", "python").replace('"app.db"', f'"{folder}/app.db"')
    program = program.replace("sqlite:///", f"sqlite:///{folder}/").replace('"index.html"', f'"{folder}/index.html"')
    (folder / "index.html").write_text(block("The page", "html"), "utf-8")
    return run(program, {"__name__": "app"})


@pytest.mark.asyncio(loop_scope="session")
async def test_application(browser: Browser, tmp_path: Path) -> None:
    names = application(tmp_path)
    names["query"]("INSERT INTO notifications (user, title) VALUES ('ann', '<b>before</b>'), ('bob', 'of Bob')")
    async with serve_here(names["app"]) as url, open_tab(browser) as tab:
        request = tab.page.request
        assert (await request.get(f"{url}/events")).status == 401
        assert (await request.post(f"{url}/session", data={"user": "ann"})).ok
        await tab.page.goto(url)
        await expect(tab.page.locator("li")).to_have_text(["● <b>before</b>"])
        assert (await request.post(f"{url}/notifications", data={"to": "ann", "title": "after"})).ok
        await expect(tab.page.locator("li")).to_have_text(["● after", "● <b>before</b>"])
        await expect(tab.page.get_by_role("status")).to_have_text("after")
        await expect(tab.page).to_have_title("(2) Inbox")
        await tab.page.get_by_role("button", name="Mark all read").click()
        await expect(tab.page.locator("li")).to_have_text(["after", "<b>before</b>"])
        await expect(tab.page).to_have_title("Inbox")
    assert names["query"]("SELECT count(*) FROM notifications WHERE read_at IS NULL")[0][0] == 1  # Bob's


async def test_queue(tmp_path: Path) -> None:
    require(nats_absent())
    name = f"test-{secrets.token_hex(6)}"
    names = application(tmp_path)
    program = block("From a message queue", "python").replace("nats://localhost:4222", SERVER)
    run(program.replace('"notify"', f'"{name}"').replace('"NOTIFY"', f'"{name}"'), names)
    client = await nats.connect(SERVER)
    jetstream = client.jetstream()
    await jetstream.add_stream(name=name, subjects=[name])
    async with EventStreamClient(names["app"]) as app:
        async with app.open(
            "/session", method="POST", headers={"content-type": "application/json"}, body=b'{"user": "ann"}'
        ) as answer:
            cookie = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
        storing = asyncio.create_task(names["store_messages"]())
        try:
            async with app.open("/events", headers=cookie) as stream:
                await jetstream.publish(name, json.dumps({"to": "ann", "title": "queued"}).encode())
                assert (await stream.next_event(30)).json()["title"] == "queued"
        finally:
            storing.cancel()
            await asyncio.wait([storing])
            with suppress(NotFoundError):
                await jetstream.delete_stream(name)
            await client.close()
