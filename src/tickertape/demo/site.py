"""Several demos as one ASGI application: an index, a page each in a shared shell, and the routes behind it."""

from __future__ import annotations

import html
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..asgi import Receive, Scope, Send
from ..server.files import SHARED, SHELL, File, fill_page, read_static_files
from ..server.refusal import Refusal, problem_response
from .identity import Identities

__all__ = ["RETRY", "Demo", "Site", "log_url"]

_OWN: Final = files(__package__) / "web"

RETRY: Final = 2_000
"""Milliseconds after which clients are to reconnect: a restart is soon seen, and the countdown can be read."""

_MONTH: Final = 30 * 24 * 3600

_TITLE: Final = "Live, in your browser"
_SUMMARY: Final = (
    "Four small applications on Server-Sent Events: plain HTTP, one way, and nothing lost on the way. "
    "Each is made to be read, and to be taken along."
)


def log_url(file: Path) -> str:
    """Return the URL of a log in ``file``, whatever characters its folder has."""
    return f"sqlite:///{quote(str(file))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """Describe one demo.

    Arguments:
        name: one word for the navigation.
        title: a heading for the page.
        summary: a sentence about what there is to see.
        path: where its page is: ``/name/``.
        web: the folder with ``page.html``, the page's content, and with styles and scripts.
        script: the page's JavaScript module in that folder.
        style: the page's own style sheet there, if it needs one.
        routes: what else the demo answers, by whole paths.
        running: entered while the server runs.
    """

    name: str
    title: str
    summary: str
    path: str
    web: Traversable
    script: str
    style: str | None = None
    routes: Sequence[BaseRoute] = ()
    running: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext


class Site:
    """Serve ``demos``, with an index of them and a navigation between them.

    Arguments:
        demos: in the order of the navigation.
        secret: signs the cookies of who is signed in; by default a new one, which a restart forgets.
    """

    def __init__(self, demos: Sequence[Demo], *, secret: str | None = None) -> None:
        self._demos = demos
        identities = Identities()
        session = Middleware(
            SessionMiddleware, secret_key=secret or secrets.token_hex(32), max_age=_MONTH, same_site="lax"
        )
        self._app = Starlette(
            routes=[*self._pages(), *identities.routes, *(route for demo in demos for route in demo.routes)],
            middleware=[session],
            exception_handlers={HTTPException: self._refuse, Refusal: _refuse},
            lifespan=self._running,
        )
        self._app.state.identities = identities

    def __repr__(self) -> str:
        return f"<Site {' '.join(demo.path for demo in self._demos)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the lifespan."""
        if scope["type"] not in ("http", "lifespan"):
            raise RuntimeError(f"expected an ASGI scope of type 'http' or 'lifespan', got {scope['type']!r}")
        await self._app(scope, receive, send)

    @asynccontextmanager
    async def _running(self, app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as running:
            for demo in self._demos:
                await running.enter_async_context(demo.running())
            yield

    def _pages(self) -> list[Route]:
        folders = dict.fromkeys([SHARED, _OWN, *(demo.web for demo in self._demos)])
        found: dict[str, File] = {f"/static/{name}": file for name, file in read_static_files(*folders).items()}
        found["/"] = fill_page((_OWN / "index.html", SHELL), self._index_values())
        for demo in self._demos:
            found[demo.path] = fill_page((demo.web / "page.html", SHELL), self._page_values(demo))
        return [Route(path, file, methods=["GET"]) for path, file in found.items()]

    def _index_values(self) -> dict[str, str]:
        cards = "".join(_card(demo) for demo in self._demos)
        own = {"title": _TITLE, "summary": _SUMMARY, "script": "index.js", "style": "", "root": "./"}
        return {**own, "retry": str(RETRY), "navigation": self._navigation("./"), "cards": cards}

    def _page_values(self, demo: Demo) -> dict[str, str]:
        style = f'<link rel="stylesheet" href="../static/{demo.style}">\n' if demo.style else ""
        return {
            "title": html.escape(demo.title),
            "summary": html.escape(demo.summary),
            "script": demo.script,
            "style": style,
            "root": "../",
            "retry": str(RETRY),
            "navigation": self._navigation("../", demo),
        }

    def _navigation(self, root: str, current: Demo | None = None) -> str:
        """Write the links; relative ones, so that a proxy may serve the site under a prefix."""
        links = "".join(
            f'<a href="{root}{demo.path[1:]}"{mark}>{html.escape(demo.name)}</a>'
            for demo in self._demos
            for mark in [' aria-current="page"' if demo is current else ""]
        )
        return f'<nav aria-label="Demos">{links}</nav>'

    async def _refuse(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        detail = error.detail
        if error.status_code == 405:
            headers["allow"] = ", ".join(sorted(headers["allow"].split(", ")))
            detail = f"expected one of the methods {headers['allow']} for {path}, got {request.method}"
        elif error.status_code == 404 and "endpoint" not in request.scope:
            detail = f"expected one of /, {', '.join(demo.path for demo in self._demos)} and what they name, got {path}"
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        return problem_response(error.status_code, detail, raw)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return problem_response(error.status, error.detail, **error.extensions)


def _card(demo: Demo) -> str:
    title, summary = html.escape(demo.title), html.escape(demo.summary)
    return (
        f'<li class="card tile"><h2><a href=".{demo.path}">{title}</a></h2><p>{summary}</p>'
        f'<p class="label"><code>tickertape/demo{demo.path}</code></p></li>\n'
    )
