"""The events of ``tickertape.integrations.datastar`` in a page of Datastar.

npm has only versions with the older protocol, so the bundle of version 1 is kept here, from its repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from support.local import serve_here
from support.page_site import page_site
from support.servers import until
from support.tabs import OpenProfile, wait_in
from tickertape import EventSourceResponse, Hub
from tickertape.integrations.datastar import execute_script, patch_elements, patch_signals, remove

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUNDLE: Final = (Path(__file__).parent / "third_party" / "datastar.js").read_text("utf-8")

BODY: Final = """
<script type=module src="/scripts/datastar.js"></script>
<div data-signals="{name: 'none', kept: 1}" data-on-load="@get('/updates')">
  <output id=count>none</output>
  <p id=name data-text="$name"></p>
  <p id=kept data-text="$kept"></p>
  <ul id=list><li>first</li></ul>
  <p id=gone>x</p>
  <button id=once data-on-click="@get('/once')">Once</button>
</div>
"""

TEXT: Final = "<b>2</b>\u2028\n & more"

SHOWN: Final = (
    """() => [...document.querySelectorAll("#count, #name, #kept, li, #gone")].map((each) => each.textContent)"""
)


async def test_page(open_profile: OpenProfile) -> None:
    """A hub and a response patch elements and signals, run a script and remove an element."""
    hub = Hub()

    async def updates(request: Request) -> Response:
        return hub.response(request, "page")

    async def once(request: Request) -> Response:
        return EventSourceResponse([patch_signals({"name": "once"}), execute_script("document.title = 'run'")])

    events = [
        patch_elements('<output id="count">1</output>'),
        patch_elements(f"<li>\n{TEXT}\n</li>", selector="#list", mode="append"),
        patch_signals({"name": "Ada"}),
        patch_signals({"kept": 2}, only_if_missing=True),
        remove("#gone"),
    ]
    routes = [Route("/updates", updates), Route("/once", once)]
    site = page_site(*routes, scripts={"datastar.js": BUNDLE}, body=BODY, lifespan=hub.lifespan)
    async with serve_here(site) as url, open_profile() as open_tab:
        page = await open_tab(url)
        await until(lambda: len(hub.presence) == 1, lambda: "the stream of the page")
        for event in events:
            await hub.publish("page", event.data, event=event.event)
        await wait_in(page, "!document.getElementById('gone')")
        assert await page.evaluate(SHOWN) == ["1", "Ada", "1", "first", "\n2\u2028\n & more\n"]
        await page.evaluate("() => document.getElementById('once').click()")
        await wait_in(page, "document.title === 'run'")
        assert (await page.evaluate(SHOWN))[1] == "once"
