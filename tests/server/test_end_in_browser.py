"""The end of a topic and of a run in a real browser: its ``EventSource`` reconnects once, gets 204, and stops."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Browser

from support.browser import open_tab
from support.local import serve_here
from tickertape.hub import Hub
from tickertape.runs import Runs
from tickertape.server import create_app

FOLLOW = """(url) => {
    window.seen = [];
    window.source = new EventSource(url);
    source.onmessage = (event) => seen.push(event.data);
    source.addEventListener("stream:end", (event) => seen.push(JSON.parse(event.data).reason));
}"""
STOPPED = "() => source.readyState === EventSource.CLOSED"


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("kind", ["topic", "run"])
async def test_event_source_stops(browser: Browser, kind: str) -> None:
    hub = Hub(retry=0.2)
    async with serve_here(create_app(hub)) as url, open_tab(browser) as tab:
        address = f"{url}/events?topic=job/7" if kind == "topic" else f"{url}/runs/job/7"
        statuses: list[int] = []
        tab.page.on("response", lambda response: statuses.append(response.status) if response.url == address else None)
        run: Any = await Runs(hub).open("job/7") if kind == "run" else None
        await tab.page.goto(url)
        await tab.page.evaluate(FOLLOW, address)
        await tab.page.wait_for_function("() => source.readyState === EventSource.OPEN")
        if run is None:
            await hub.publish("job/7", "a")
            await hub.end("job/7", reason="done")
        else:
            await run.append("a")
            await run.end()
        await tab.page.wait_for_function(STOPPED)
        assert await tab.page.evaluate("() => seen") == ["a", "done"]
        assert statuses == [200, 204]
