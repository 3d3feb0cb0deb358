"""The examples for React and htmx, with the real libraries in browsers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from support.local import serve_here
from support.npm import installed
from support.page_site import page_site
from support.pages import files_of
from support.servers import until
from support.tabs import OpenProfile
from tickertape import Hub

pytestmark = pytest.mark.asyncio(loop_scope="session")

FILES: Final = files_of("how-to/browser")

LOAD: Final = """
// React is published as CommonJS: a page without a build step loads it by hand.
const known = { react: "react/index.js", "react-dom": "react-dom/index.js", "react-dom/client": "react-dom/client.js",
  scheduler: "scheduler/index.js" };
const loaded = {};
globalThis.process = { env: { NODE_ENV: "production" } };
export function load(name, from = "") {
  const path = known[name] ?? new URL(name, `http://x/${from}`).pathname.slice(1);
  if (!loaded[path]) {
    const request = new XMLHttpRequest();
    request.open("GET", `/npm/${path}`, false);
    request.send();
    const module = (loaded[path] = { exports: {} });
    const run = new Function("module", "exports", "require", request.responseText);
    run(module, module.exports, (other) => load(other, path));
  }
  return loaded[path].exports;
}
export const { createElement, useEffect, useState } = load("react");
"""

COUNTER: Final = """
import { createElement, load } from "react";
import { useEventStream } from "/scripts/use-event-stream.js";

function Order({ topic }) {
  const { data, state } = useEventStream(`/events?topic=${topic}`, "order");
  return createElement("p", null, `${state} ${data?.number ?? "none"}`);
}

const root = load("react-dom/client").createRoot(document.getElementById("root"));
globalThis.render = (topic) => root.render(topic && createElement(Order, { topic }));
"""

HTMX: Final = """
<script src="/npm/htmx.org/dist/htmx.js"></script>
<script type=module src="/scripts/htmx-tickertape.js"></script>
<div id=box hx-ext="tickertape" stream-connect="/events?topic=news">
  <ol stream-swap="item" hx-swap="afterbegin"></ol>
</div>
"""


@asynccontextmanager
async def page_of(open_profile: OpenProfile, config: pytest.Config, body: str) -> AsyncIterator[tuple[Any, Hub]]:
    hub = Hub(drain_window=0)

    async def events(request: Request) -> ASGIApp:
        return hub.response(request, request.query_params.getlist("topic"))

    scripts = {**FILES, "react.js": LOAD, "counter.js": COUNTER}
    packages = installed(config) / "node_modules"
    site = page_site(
        Route("/events", events),
        packages=packages,
        scripts=scripts,
        imports={"react": "/scripts/react.js"},
        body=body,
        lifespan=hub.lifespan,
    )
    async with serve_here(site) as url, open_profile() as open_tab:
        yield await open_tab(url), hub


async def shows(page: Any, expression: str, expected: str) -> None:
    """Return when an expression has a value in the page."""
    loop = f"while (({expression}) !== expected) await new Promise((resolve) => setTimeout(resolve, 20));"
    await page.evaluate(f"async (expected) => {{ {loop} return 1; }}", expected)


async def test_react_hook(open_profile: OpenProfile, pytestconfig: pytest.Config) -> None:
    async with page_of(open_profile, pytestconfig, "<div id=root></div>") as (page, hub):
        await page.evaluate("async () => { await import('/scripts/counter.js'); render('a'); }")
        text = "document.getElementById('root').textContent"
        await shows(page, text, "open none")
        await hub.publish("a", {"number": 42}, event="order")
        await shows(page, text, "open 42")
        await page.evaluate("() => render('b')")
        await until(
            lambda: (hub.subscribers("a"), hub.subscribers("b")) == (0, 1),
            lambda: f"a reader of b alone, got {hub.subscribers('a')} of a and {hub.subscribers('b')} of b",
        )
        await hub.publish("b", {"number": 43}, event="order")
        await shows(page, text, "open 43")
        await page.evaluate("() => render(null)")
        await until(lambda: hub.subscribers() == 0, lambda: f"no reader, got {hub.subscribers()}")


async def test_htmx_extension(open_profile: OpenProfile, pytestconfig: pytest.Config) -> None:
    async with page_of(open_profile, pytestconfig, HTMX) as (page, hub):
        await until(lambda: hub.subscribers("news") == 1, lambda: f"a reader, got {hub.subscribers()}")
        for text in ("one", "two"):
            await hub.publish("news", f"<li>{text}</li>", event="item")
        await shows(page, "document.querySelector('ol').textContent", "twoone")
        await page.evaluate("() => htmx.swap(document.getElementById('box'), '', { swapStyle: 'delete' })")
        await until(lambda: hub.subscribers() == 0, lambda: f"no reader, got {hub.subscribers()}")
