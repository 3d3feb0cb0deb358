"""``EventStream`` with the access control of a hub: tickets for each attempt, and refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from support.access import protect
from support.local import serve_here
from support.page_site import page_site
from support.tabs import OpenProfile
from tickertape import Hub
from tickertape.hub import Grant
from tickertape.server import create_app

pytestmark = pytest.mark.asyncio(loop_scope="session")

OPEN = """
import { EventStream } from "tickertape";

globalThis.listen = (topic, options) => {
  globalThis.seen = [];
  globalThis.stream = new EventStream(`/events?topic=${topic}`, { ticket: "/tickets", ...options });
  for (const type of ["message", "expired"]) stream.addEventListener(type, ({ data }) => seen.push(data ?? type));
  return new Promise((resolve) => {
    stream.onopen = () => resolve("open");
    stream.onerror = ({ status, reason }) => resolve([status, reason]);
  });
};
"""


@asynccontextmanager
async def page_of(open_profile: OpenProfile, grant: Grant) -> AsyncIterator[tuple[Any, Hub]]:
    """Open a page of a user whose session cookie is the word ``ann``."""
    hub = Hub(drain_window=0, retry=0.5)
    protect(hub, {"ann": grant}, cookie="session")
    server = create_app(hub)
    pages = page_site(scripts={"open.js": OPEN})

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and (scope["path"] == "/" or scope["path"].startswith("/scripts/"))
        await (pages if is_page else server)(scope, receive, send)

    async with serve_here(both) as url, open_profile() as open_tab:
        page = await open_tab(url)
        await page.evaluate("async () => { document.cookie = 'session=ann'; await import('/scripts/open.js'); }")
        yield page, hub


@pytest.mark.parametrize("shared", [False, True])
async def test_tickets(open_profile: OpenProfile, shared: bool) -> None:
    """Each attempt has its own ticket: a used one is refused."""
    async with page_of(open_profile, Grant(user="ann", subscribe=("a",))) as (page, hub):
        assert await page.evaluate("(shared) => listen('a', { shared })", shared) == "open"
        await hub.publish("a", "1")
        await hub.disconnect(user="ann")
        await hub.publish("a", "2")
        await page.evaluate("async () => { while (seen.length < 3) await new Promise((r) => setTimeout(r, 10)); }")
        seen = await page.evaluate("() => seen")
        assert "expired" in seen  # it may overtake the first event, which then follows
        assert [each for each in seen if each != "expired"] == ["1", "2"]


async def test_topic_of_another_user(open_profile: OpenProfile) -> None:
    async with page_of(open_profile, Grant(user="ann", subscribe=("a",))) as (page, _):
        status, reason = await page.evaluate("() => listen('b')")
        assert status == 403
        assert "b" in reason
