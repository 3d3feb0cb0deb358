"""Several demos as one ASGI application: a page each in a shared shell, and the routes behind it."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from ..asgi.types import ASGIApp, Receive, Scope, Send
from ..server.files import SHARED, SHELL, answer, fill_page, read_static_files

__all__ = ["RETRY", "Demo", "Site"]

_OWN: Final = files(__package__)

RETRY: Final = 2_000
"""Milliseconds after which clients are to reconnect: a restart is soon seen, and the countdown can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """Describe one demo.

    Arguments:
        name: one word for the navigation.
        title: a heading for the page.
        summary: a sentence about what there is to see.
        path: where its page is.
        page: the file of the page's content, under ``pages/``.
        script: the page's JavaScript module, under ``static/``.
        routes: applications by method and exact path, as ``"GET /events"``; one for GET is given HEAD too.
        running: entered while the server runs.
    """

    name: str
    title: str
    summary: str
    path: str
    page: str
    script: str
    routes: Mapping[str, ASGIApp]
    running: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext


class Site:
    """Serve ``demos``, with a navigation between them as soon as there are two."""

    def __init__(self, demos: Sequence[Demo]) -> None:
        self._demos = demos
        self._routes: dict[str, dict[str, ASGIApp]] = {}
        for name, file in read_static_files(SHARED, _OWN / "static").items():
            self._add(f"GET /static/{name}", file)
        for demo in demos:
            self._add(f"GET {demo.path}", fill_page((_OWN / "pages" / demo.page, SHELL), self._values(demo)))
            for route, app in demo.routes.items():
                self._add(route, app)

    def __repr__(self) -> str:
        return f"<Site {' '.join(demo.path for demo in self._demos)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            raise RuntimeError(f"expected an ASGI scope of type 'http' or 'lifespan', got {scope['type']!r}")

    def _add(self, route: str, app: ASGIApp) -> None:
        method, _, path = route.partition(" ")
        methods = self._routes.setdefault(path, {})
        methods[method] = app
        if method == "GET":
            methods["HEAD"] = app

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        methods = self._routes.get(path)
        if methods is None:
            paths = ", ".join(path for path in self._routes if not path.startswith("/static/"))
            await _refuse(send, 404, f"expected one of {paths}, got {path}")
        elif method not in methods:
            allow = ", ".join(methods)
            await _refuse(send, 405, f"expected {allow}, got {method}", {"allow": allow})
        else:
            await methods[method](scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as running:
            await receive()
            for demo in self._demos:
                await running.enter_async_context(demo.running())
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def _values(self, demo: Demo) -> dict[str, str]:
        return {
            "title": html.escape(demo.title),
            "summary": html.escape(demo.summary),
            "script": demo.script,
            "retry": str(RETRY),
            "navigation": _navigation(self._demos, demo) if len(self._demos) > 1 else "",
        }


def _navigation(demos: Sequence[Demo], current: Demo) -> str:
    """Write the links; relative ones, so that a proxy may serve the site under a prefix."""
    links = "".join(
        f'<a href=".{demo.path}"{mark}>{html.escape(demo.name)}</a>'
        for demo in demos
        for mark in [' aria-current="page"' if demo is current else ""]
    )
    return f'<nav aria-label="Demos">{links}</nav>'


async def _refuse(send: Send, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
    fields = {"content-type": "text/plain; charset=utf-8"} | (headers or {})
    await answer(send, status, f"{sentence}\n".encode(), fields)
