"""The file of the client: its size, its answers, and its places."""

from __future__ import annotations

import gzip
from importlib.resources import files

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from support.http import site
from tickertape import Hub
from tickertape.testing import EventStreamClient

BODY = (files("tickertape.browser") / "tickertape.min.js").read_bytes()

ROUTES = [
    ("a route", Route("/tickertape.js", Hub().asgi_client()), "/tickertape.js"),
    ("a mount", Mount("/js", Hub().asgi_client()), "/js/tickertape.js"),
]


@pytest.mark.parametrize(("route", "path"), [row[1:] for row in ROUTES], ids=[row[0] for row in ROUTES])
async def test_application(route: Route | Mount, path: str) -> None:
    async with EventStreamClient(Starlette(routes=[route])) as client:
        async with client.open(path) as answer:
            assert (answer.status, await answer.read()) == (200, BODY)
            assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
            assert answer.headers["access-control-allow-origin"] == "*"
            etag = answer.headers["etag"]
        async with client.open(path, headers={"if-none-match": etag}) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
        async with client.open(path, method="HEAD") as answer:
            assert (answer.status, answer.headers["content-length"]) == (200, str(len(BODY)))


async def test_refused() -> None:
    async with EventStreamClient(Starlette(routes=[Mount("/js", Hub().asgi_client())])) as client:
        async with client.open("/js/other.js") as answer:
            assert answer.status == 404
        async with client.open("/js/tickertape.js", method="POST") as answer:
            assert answer.status == 405


@pytest.mark.parametrize("path", ["/tickertape.js", "/static/tickertape.js"])
async def test_served_by_the_hub(path: str) -> None:
    async with site() as hub:
        assert (await hub.ask("GET", path)).body == BODY


def test_size() -> None:
    assert len(gzip.compress(BODY, 9)) <= 5 * 1024
