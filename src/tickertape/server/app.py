"""The hub as an ASGI application: routes, errors as problems, and who may read from elsewhere."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Lifespan

from ..asgi import status_of
from ..errors import BrokerError, HubClosedError, InvalidTopicError, TickertapeError
from ..hub import Hub
from .endpoints import READY_WITHIN, Endpoints
from .files import WEB, fill_page, read_static_files
from .refusal import Refusal, problem_response

__all__ = ["create_app"]

logger = logging.getLogger("tickertape.server")

_METHODS: Final = ("GET", "HEAD", "POST")


def create_app(
    hub: Hub,
    *,
    cors_origins: Sequence[str] = (),
    lifespan: Lifespan[Any] | None = None,
    ready_within: float = READY_WITHIN,
    node: str = "",
) -> Starlette:
    """Return the hub's HTTP interface as an application.

    Arguments:
        hub: opened and closed with the application, unless ``lifespan`` does so.
        cors_origins: origins whose pages may read and publish, as ``https://example.org``; ``*`` for all.
        lifespan: in place of the hub's own.
        ready_within: seconds in which the broker has to answer for the hub to be ready.
        node: the name of this process in answers that tell of it alone; made up if left out.
    """
    cors = Middleware(
        CORSMiddleware,
        allow_origins=cors_origins,
        allow_methods=_METHODS,
        allow_headers=("Content-Type", "Last-Event-ID", "Cache-Control"),
        expose_headers=("Allow", "Retry-After"),
    )
    app = Starlette(
        routes=_routes(Endpoints(hub, cors_origins, ready_within, node or secrets.token_hex(4))),
        middleware=[cors] if cors_origins else [],
        exception_handlers={
            Refusal: _refuse,
            HTTPException: _refuse_route,
            InvalidTopicError: _explain,
            HubClosedError: _explain,
            BrokerError: _explain,
            Exception: _fail,
        },
        lifespan=lifespan or hub.lifespan,
    )
    app.router.redirect_slashes = False  # `orders/` is no topic, and no other name of one
    return app


def _routes(endpoints: Endpoints) -> list[BaseRoute]:
    files = read_static_files(WEB / "hub")
    page = {
        "title": "Live stream",
        "summary": "Events as they are published to this hub. Choose topics, watch, and publish one yourself.",
        "script": "hub.js",
        "retry": "3000",
        "navigation": "",
        "style": "",
        "root": "./",
    }
    return [
        Route("/events", endpoints.events, methods=["GET", "POST"]),
        Route("/events/{topic:path}", endpoints.publish_text, methods=["POST"]),
        Route("/history", endpoints.history),
        Route("/topics", endpoints.topics),
        Route("/subscribers", endpoints.subscribers),
        Route("/health/live", endpoints.live),
        Route("/health/ready", endpoints.ready),
        Route("/openapi.json", endpoints.openapi),
        Route("/", fill_page(WEB / "hub.html", page), methods=["GET"]),
        *(Route(f"/static/{name}", file, methods=["GET"], include_in_schema=False) for name, file in files.items()),
    ]


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return problem_response(error.status, error.detail, **error.extensions)


async def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, TickertapeError)
    status = status_of(error)
    if isinstance(error, BrokerError):
        logger.error("%s %s was not served: %s", request.method, request.url.path, error)
    return problem_response(status, str(error))


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        allow = ", ".join(sorted((error.headers or {})["Allow"].split(", ")))
        detail = f"expected one of the methods {allow} for {path}, got {request.method}"
        return problem_response(405, detail, [(b"allow", allow.encode())])
    return problem_response(error.status_code, f"expected a path that /openapi.json names, got {path}")


async def _fail(request: Request, error: Exception) -> Response:
    # The exception itself is for the server's log, where it goes from here.
    return problem_response(500, "The server failed; its log says why.")
