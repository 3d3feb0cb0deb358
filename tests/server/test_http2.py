"""HTTP/2 in the process itself: the hub as an application under hypercorn, with a real browser."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from playwright.async_api import Browser

from support.browser import open_tab
from support.servers import Server, free_port
from support.tls import certify

STREAMS = 20
"""More than the six connections that a browser opens to one host with HTTP/1.1."""

OPEN = """async count => {
    const streams = Array.from({length: count}, (_, number) => new EventSource(`events?topic=t/${number}`));
    await Promise.all(streams.map(stream => new Promise(resolve => { stream.onopen = resolve; })));
    const received = Promise.all(streams.map(stream => new Promise(resolve => {
        stream.onmessage = event => resolve(event.data);
    })));
    for (let number = 0; number < count; number++) {
        await fetch(`events/t/${number}`, {method: "POST", body: `event ${number}`});
    }
    return await received;
}"""


@pytest.mark.asyncio(loop_scope="session")
async def test_many_streams_on_one_page(browser: Browser, tmp_path: Path) -> None:
    certificate, key = certify(tmp_path)
    port = free_port()
    options = (f"--bind=127.0.0.1:{port}", f"--certfile={certificate}", f"--keyfile={key}")
    with closing(Server("hypercorn", "support.hub_app:app", *options, address=port)) as server:
        server.wait_for(port)
        async with open_tab(browser, ignore_https_errors=True) as tab:
            await tab.page.goto(f"https://127.0.0.1:{port}/")
            assert await tab.page.evaluate(OPEN, STREAMS) == [f"event {number}" for number in range(STREAMS)]
            used = await tab.page.evaluate(
                "performance.getEntries().map(entry => entry.nextHopProtocol).filter(Boolean)"
            )
            assert {*used} == {"h2"}
            assert tab.errors == []
