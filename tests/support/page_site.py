"""A site for tests of pages: an empty page, scripts, packages of npm, and routes of a test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Lifespan

from tickertape.browser import CLIENT_SCRIPT, client_script

__all__ = ["MODULES", "page_site"]

MODULES: Final = {
    "@microsoft/fetch-event-source": "@microsoft/fetch-event-source/lib/esm/index.js",
    "eventsource": "eventsource/dist/index.js",
    "eventsource-parser": "eventsource-parser/dist/index.js",
    "eventsource-parser/stream": "eventsource-parser/dist/stream.js",
    "reconnecting-eventsource": "reconnecting-eventsource/build/esm/reconnecting-eventsource.js",
}
"""The file of each module that pages import by name."""


def page_site(
    *routes: BaseRoute,
    packages: Path | None = None,
    scripts: Mapping[str, str] | None = None,
    imports: Mapping[str, str] | None = None,
    body: str = "",
    lifespan: Lifespan[Starlette] | None = None,
) -> Starlette:
    """Return an application with a page at ``/``.

    Arguments:
        routes: further routes.
        packages: the folder ``node_modules``, below ``/npm/``.
        scripts: modules by name, below ``/scripts/``.
        imports: URLs of further modules that pages import by name.
        body: the content of the page.
        lifespan: of the application.
    """
    known = {name: f"/npm/{path}" for name, path in MODULES.items()} | {"tickertape": f"/{CLIENT_SCRIPT}"}
    modules = json.dumps({"imports": {**known, **(imports or {})}})
    head = f'<link rel=icon href=data:><script type="importmap">{modules}</script>'

    async def page(request: Request) -> Response:
        return HTMLResponse(f"<!doctype html><title>Test</title>{head}<body>{body}")

    async def script(request: Request) -> Response:
        return Response((scripts or {})[request.path_params["name"]], media_type="text/javascript")

    async def package(request: Request) -> Response:
        assert packages is not None
        path = packages / request.path_params["path"]
        # Some packages import their own files without a suffix.
        file = path if path.is_file() else path.with_name(path.name + ".js")
        return Response(file.read_bytes(), media_type="text/javascript")

    return Starlette(
        routes=[
            Route("/", page),
            Route(f"/{CLIENT_SCRIPT}", client_script()),
            Route("/scripts/{name}", script),
            Route("/npm/{path:path}", package),
            *routes,
        ],
        lifespan=lifespan,
    )
