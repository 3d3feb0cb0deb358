"""Several demos as one site: an index, one page for each demo, and the routes of the demos."""

from __future__ import annotations

import html
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..asgi import problem_body, problem_headers, status_of
from ..broker import Retention
from ..browser import File
from ..errors import TickertapeError
from ..hub import Grant, Hub, HubResponse
from ..server import fill_page, read_static_files
from .identity import NAME_LIFETIME, Identities
from .requests import read_json

RETRY: Final = 2_000
"""Milliseconds until clients reconnect: soon after a restart, but long enough to read the countdown on the page."""

MAX_LAST: Final = 2_000
"""Past events with which a stream can start: more than a page asks for."""

_RETENTION: Final = Retention(
    events=10_000, topics={"chat/*/messages": Retention(events=10_000), "notifications/*": Retention(events=10_000)}
)
"""Half an hour of the clock and of the dashboard at their highest rates, and a reserve: about 5 MiB. What people write
is kept apart, so that the clock does not replace it."""

_WEB: Final = files(__package__) / "web"

_MONTH: Final = 30 * 24 * 3600

_TITLE: Final = "Live, in your browser"
_SUMMARY: Final = (
    "Five small applications on Server-Sent Events: plain HTTP from the server to the browser, with no event lost. "
    "Read their source code, and copy what you need."
)


def open_hub(folder: Path) -> Hub:
    """Return the hub whose stream all pages share, with its log in ``folder``."""
    # The path may contain any characters.
    return Hub(f"sqlite:///{quote(str(folder / 'stream.db'))}", retention=_RETENTION, retry=RETRY / 1000)


def _no_topics(request: Request, user: str | None) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """One demo: its page and its routes.

    Arguments:
        name: one word for the navigation.
        title: the heading of the page.
        summary: one sentence on what the page shows.
        path: the path of the page: ``/name/``.
        web: the folder with ``page.html`` (the content of the page), scripts and style sheets.
        script: the JavaScript module of the page, in that folder.
        style: the style sheet of the page, in that folder.
        routes: further routes, with full paths.
        topics: topics of the site's hub that everyone may read. Their names begin with the name of the demo.
        own_topics: called with a request and its user, or None. It returns the topics that this browser may read too.
        running: returns a context that the site enters while the server runs. The hub of the site is open then.
    """

    name: str
    title: str
    summary: str
    path: str
    web: Traversable
    script: str
    style: str | None = None
    routes: Sequence[BaseRoute] = ()
    topics: Sequence[str] = ()
    own_topics: Callable[[Request, str | None], Sequence[str]] = _no_topics
    running: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext


class Site:
    """Serve demos, with an index page, a navigation, and one stream for the topics of all demos.

    Pages open the stream with ``shared`` of ``tickertape.js``, each with its topics. So all pages of a browser have one
    connection.

    Arguments:
        hub: the hub for the topics of the demos. It is open while the site runs.
        demos: the demos, in the order of the navigation.
        stream: an application that answers ``GET /stream`` in place of the hub.
        secret: signs the session cookies. The default is a random secret, so a restart signs all users out.
    """

    def __init__(
        self, hub: Hub, demos: Sequence[Demo], *, stream: ASGIApp | None = None, secret: str | None = None
    ) -> None:
        self._hub = hub
        self._demos = demos
        self._identities = Identities(hub)
        session = Middleware(
            SessionMiddleware, secret_key=secret or secrets.token_hex(32), max_age=_MONTH, same_site="lax"
        )
        self._app = Starlette(
            routes=[
                *self._pages(),
                *self._identities.routes,
                Route("/stream", self._stream if stream is None else stream, methods=["GET"]),
                Route("/subscriptions/{id}", self._change, methods=["PATCH"]),
                *(route for demo in demos for route in demo.routes),
            ],
            middleware=[session],
            exception_handlers={HTTPException: self._problem, TickertapeError: self._problem},
            lifespan=self._running,
        )
        self._app.state.identities = self._identities

    def __repr__(self) -> str:
        return f"<Site {' '.join(demo.path for demo in self._demos)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an HTTP request or the lifespan."""
        if scope["type"] not in ("http", "lifespan"):
            raise RuntimeError(f"expected an ASGI scope of type 'http' or 'lifespan', got {scope['type']!r}")
        await self._app(scope, receive, send)

    @asynccontextmanager
    async def _running(self, app: Starlette) -> AsyncIterator[None]:
        async with self._hub, AsyncExitStack() as running:
            for demo in self._demos:
                await running.enter_async_context(demo.running())
            yield

    async def _stream(self, request: Request) -> HubResponse:
        topics, last = request.query_params.getlist("topic"), request.query_params.get("last", "0")
        if not (last.isascii() and last.isdigit() and len(last) < 10 and int(last) <= MAX_LAST):
            sentence = f"expected last to be a number from 0 to {MAX_LAST}, got {last!r:.40}"
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)
        envelope: Literal["topic"] | None = "topic" if "envelope" in request.query_params else None
        return self._hub.response(
            request,
            topics,
            last=int(last),
            envelope=envelope,
            grant=self._grant(request),
            on_overflow="skip",
            changeable="subscription" in request.query_params,
        )

    async def _change(self, request: Request) -> Response:
        fields = await read_json(request)
        add, remove = (_topics(fields, name) for name in ("add", "remove"))
        cursor = await self._hub.change(request.path_params["id"], add=add, remove=remove, grant=self._grant(request))
        return JSONResponse({"cursor": str(cursor)})

    def _grant(self, request: Request) -> Grant:
        """Return the rights of a browser. Those of a user end when another browser may claim the name."""
        user = self._identities.name_of(request)
        own = [topic for demo in self._demos for topic in (*demo.topics, *demo.own_topics(request, user))]
        until = None if user is None else time.time() + NAME_LIFETIME
        return Grant(user=user, subscribe=tuple(own), anonymous=user is None, until=until)

    def _pages(self) -> list[Route]:
        folders = dict.fromkeys([_WEB, *(demo.web for demo in self._demos)])
        pages: dict[str, File] = {f"/static/{name}": file for name, file in read_static_files(*folders).items()}
        pages["/"] = fill_page(_WEB / "index.html", self._index_values())
        for demo in self._demos:
            pages[demo.path] = fill_page(demo.web / "page.html", self._page_values(demo))
        return [Route(path, file, methods=["GET"]) for path, file in pages.items()]

    def _index_values(self) -> dict[str, str]:
        return {
            "title": _TITLE,
            "summary": _SUMMARY,
            "script": "index.js",
            "style": "",
            "root": "./",
            "navigation": self._navigation("./"),
            "cards": "".join(_card(demo) for demo in self._demos),
        }

    def _page_values(self, demo: Demo) -> dict[str, str]:
        style = f'<link rel="stylesheet" href="../static/{demo.style}">\n' if demo.style else ""
        return {
            "title": html.escape(demo.title),
            "summary": html.escape(demo.summary),
            "script": demo.script,
            "style": style,
            "root": "../",
            "navigation": self._navigation("../", demo),
        }

    def _navigation(self, root: str, current: Demo | None = None) -> str:
        """Return the navigation as HTML. Its links are relative, so that a proxy may serve the site below a prefix."""
        links = "".join(
            f'<a href="{root}{demo.path[1:]}"{mark}>{html.escape(demo.name)}</a>'
            for demo in self._demos
            for mark in [' aria-current="page"' if demo is current else ""]
        )
        return f'<nav aria-label="Demos">{links}</nav>'

    async def _problem(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            error = HTTPException(status_of(error), str(error))
        path = request.url.path
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        detail = error.detail
        if error.status_code == 405:
            headers["allow"] = ", ".join(sorted(headers["allow"].split(", ")))
            detail = f"{request.method} is not allowed for {path} (allowed: {headers['allow']})"
        elif error.status_code == 404 and "endpoint" not in request.scope:
            detail = f"no such path: {path} (pages: /, {', '.join(demo.path for demo in self._demos)})"
        body = problem_body(error.status_code, detail)
        response = Response(body, error.status_code)
        response.raw_headers = problem_headers(error.status_code, body)
        response.headers.update(headers)
        return response


def _topics(fields: dict[str, Any], name: str) -> list[str]:
    topics = fields.get(name, [])
    if not (isinstance(topics, list) and all(isinstance(topic, str) for topic in topics)):
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"expected {name} to be a list of topics, got {topics!r:.60}"
        )
    return topics


def _card(demo: Demo) -> str:
    title, summary = html.escape(demo.title), html.escape(demo.summary)
    return (
        f'<li class="card tile"><h2><a href=".{demo.path}">{title}</a></h2><p>{summary}</p>'
        f'<p class="label"><code>tickertape/demo{demo.path}</code></p></li>\n'
    )
