"""``tickertape.js`` against the cases of the decoder, in browsers, beside other clients."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from support.local import serve_here
from support.npm import installed
from support.page_site import page_site
from support.tabs import OpenProfile
from tickertape.wire import ServerSentEvent
from wire.test_decoder import CASES, Case

REFERENCE: Final = (Path(__file__).parents[2] / "docs" / "reference" / "browser.md").read_text("utf-8")

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLIENTS: Final = (Path(__file__).parent / "clients.js").read_text("utf-8")
TYPES: Final = sorted({"message", *(event.event for case in CASES for event in case.events if event.event)})

OTHERS: Final = ("EventSource", "eventsource", "reconnecting-eventsource", "@microsoft/fetch-event-source")

READ: Final = {"eventsource": 162, "@microsoft/fetch-event-source": 112}
"""The number of cases that these packages read as the standard demands. The others use the browser's client."""


def expected_of(case: Case) -> list[list[str]]:
    """Return the type, data and id of each event, as a page sees them."""
    return [fields_of(event) for event in case.events]


def fields_of(event: ServerSentEvent) -> list[str]:
    return [event.event or "message", event.data or "", event.id or ""]


async def stream(request: Request) -> Response:
    return Response(CASES[request.path_params["number"]].stream, media_type="text/event-stream")


@asynccontextmanager
async def page_of(open_profile: OpenProfile, packages: Path | None = None) -> AsyncIterator[Any]:
    route = Route("/case/{number:int}", stream)
    site = page_site(route, packages=packages, scripts={"clients.js": CLIENTS})
    async with serve_here(site) as url, open_profile() as open_tab:
        yield await open_tab(url)


async def read_all(page: Any, client: str) -> list[dict[str, Any]]:
    """Return the events that a client found in the stream of each case."""
    cases = [{"url": f"/case/{number}", "types": TYPES} for number in range(len(CASES))]
    function = "async ([client, cases]) => (await import('/scripts/clients.js')).readAll(client, cases)"
    found: list[dict[str, Any]] = await page.evaluate(function, [client, cases])
    return found


async def test_our_client(open_profile: OpenProfile) -> None:
    assert f"| `tickertape.js` | {len(CASES)} | {len(CASES)} |" in REFERENCE
    async with page_of(open_profile) as page:
        found = await read_all(page, "tickertape.js")
        for case, result in zip(CASES, found, strict=True):
            assert result == {"events": expected_of(case), "lastEventId": case.last_event_id or ""}, case.name


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_our_client_in_chunks(open_profile: OpenProfile, size: int) -> None:
    async with page_of(open_profile) as page:
        function = "async ([streams, size]) => (await import('/scripts/clients.js')).readChunks(streams, size)"
        found = await page.evaluate(function, [[list(case.stream) for case in CASES], size])
        for case, result in zip(CASES, found, strict=True):
            assert result == {"events": expected_of(case), "lastEventId": case.last_event_id or ""}, case.name


@pytest.mark.parametrize("client", OTHERS)
async def test_other_clients(open_profile: OpenProfile, client: str, pytestconfig: pytest.Config) -> None:
    """The table in the documentation has the numbers: those of packages, and examples of browsers."""
    packages = installed(pytestconfig) / "node_modules"
    async with page_of(open_profile, packages) as page:
        found = await read_all(page, client)
        wrong = [case.name for case, result in zip(CASES, found, strict=True) if result["events"] != expected_of(case)]
        if client in READ:
            assert len(CASES) - len(wrong) == READ[client]
            assert re.search(rf"^\| npm `{client}` \S+ \| {READ[client]} \| {READ[client]} \|", REFERENCE, re.MULTILINE)
        else:
            assert len(wrong) < 10
