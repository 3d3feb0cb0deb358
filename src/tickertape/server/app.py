"""The hub's HTTP interface as an ASGI application: routes, problems, and pages of other origins."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Lifespan

from ..asgi import status_of
from ..browser import CLIENT_SCRIPT, client_script
from ..errors import (
    AccessError,
    BrokerError,
    HubClosedError,
    InvalidTopicError,
    RunActiveError,
    RunOwnerError,
    SubscriptionNotFoundError,
)
from ..hub import Hub
from ..runs import Runs
from .broker_health import BrokerHealth
from .checks import RequestCheck, RootPath
from .endpoints import READY_WITHIN, Endpoints
from .hosts import AllowedHosts
from .limits import GUARD, Guard, Limits
from .metrics import Audience, Metrics
from .overview import Overview
from .peers import Peers
from .problems import Problem, problem_response
from .protocol import STREAMS, DirectStreams
from .request_ids import RequestIds
from .runs import RunEndpoints
from .settings import DEFAULT_MAX_AGE
from .static import WEB, console_page, hub_page, read_static_files

_METHODS: Final = ("GET", "HEAD", "PATCH", "POST")


class _Application(Starlette):
    """An application whose requests have ids, also those that fail: its middleware for errors is within."""

    def build_middleware_stack(self) -> ASGIApp:
        """Return the application with its middleware."""
        return RequestIds(super().build_middleware_stack())


def create_app(
    hub: Hub,
    *,
    cors_origins: Sequence[str] = (),
    cors_credentials: bool = False,
    cors_max_age: int = DEFAULT_MAX_AGE,
    allowed_hosts: Sequence[str] = ("*",),
    guard: Guard | None = None,
    lifespan: Lifespan[Any] | None = None,
    ready_within: float = READY_WITHIN,
    peers: Peers | None = None,
    root_path: str = "",
    metrics: Audience = "admin",
) -> Starlette:
    """Return the hub's HTTP interface as an application.

    Arguments:
        hub: opened and closed with the application, unless ``lifespan`` does so.
        cors_origins: origins whose pages may read and publish, as ``https://example.org``; ``*`` for all.
        cors_credentials: allow these pages to send cookies and to authenticate.
        cors_max_age: seconds for which browsers remember what they may send.
        allowed_hosts: names in the ``Host`` header of requests that are served, besides addresses; ``*`` for all.
        guard: the limits for clients; the default ones by default.
        lifespan: replaces the hub's own.
        ready_within: seconds in which the broker must answer for the hub to be ready.
        peers: all workers of this server; by default, this process alone.
        root_path: a path below which a proxy publishes the hub, as ``/live``; the proxy may keep it or remove it.
        metrics: the requests that ``GET /metrics`` answers.
    """
    cors: dict[str, Any] = {
        "allow_origins": cors_origins,
        "allow_methods": _METHODS,
        "allow_headers": ("Authorization", "Content-Type", "Last-Event-ID", "Cache-Control", "X-Request-ID"),
        "allow_credentials": cors_credentials,
        "expose_headers": ("Allow", "Retry-After", "WWW-Authenticate", "X-Request-ID"),
        "max_age": cors_max_age,
    }
    guard = Guard(Limits()) if guard is None else guard
    hosts = AllowedHosts(allowed_hosts)
    peers = peers or Peers()
    metric_endpoint = Metrics(hub, peers, metrics)
    metric_endpoint.add_limits(guard.statistics)
    health = BrokerHealth()

    async def handle_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        if error.limit is not None:
            guard.count(error.limit)
        return problem_response(error.status, error.detail, error.headers, **error.extensions)

    async def handle_broker_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, BrokerError)
        health.log(f"{request.method} {request.url.path}", error)
        return _handle_hub_error(request, error)

    @asynccontextmanager
    async def with_streams(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with (lifespan or hub.lifespan)(app):
            state: dict[str, Any] = {GUARD: guard}
            if sys.platform != "win32":  # its event loop writes to handles, not to descriptors
                state[STREAMS] = DirectStreams(hub, cors if cors_origins else None, guard, hosts, root_path)
            yield state

    runs = Runs(hub)
    endpoints = Endpoints(hub, health, cors_origins, ready_within, runs, guard)
    overview = Overview(hub, peers, metric_endpoint, guard)
    app = _Application(
        routes=_routes(endpoints, RunEndpoints(hub, runs, health, guard, endpoints.receive), metric_endpoint, overview),
        middleware=[
            Middleware(RootPath, root_path),
            Middleware(RequestCheck, hosts, guard),
            *([Middleware(CORSMiddleware, **cors)] if cors_origins else []),
        ],
        exception_handlers={
            Problem: handle_problem,
            HTTPException: _handle_routing_error,
            InvalidTopicError: _handle_hub_error,
            HubClosedError: _handle_hub_error,
            SubscriptionNotFoundError: _handle_hub_error,
            RunActiveError: _handle_hub_error,
            RunOwnerError: _handle_hub_error,
            BrokerError: handle_broker_error,
            AccessError: _handle_hub_error,
            Exception: _handle_bug,
        },
        lifespan=with_streams,
    )
    app.router.redirect_slashes = False  # `orders/` is not a topic, and not another name of one
    return app


def _routes(endpoints: Endpoints, runs: RunEndpoints, metrics: Metrics, overview: Overview) -> list[BaseRoute]:
    files = read_static_files(WEB / "hub", WEB / "console")
    routes = [
        Route("/events", endpoints.events, methods=["GET", "POST"]),
        Route("/events/{topic:path}", endpoints.publish_text, methods=["POST"]),
        Route("/tickets", endpoints.tickets, methods=["POST"]),
        Route("/revocations", endpoints.revocations, methods=["POST"]),
        Route("/subscriptions/{id}", endpoints.change, methods=["PATCH"]),
        Route("/history", endpoints.history),
        Route("/topics", overview.topics),
        Route("/topics/{topic:path}/end", endpoints.end_topic, methods=["POST"]),
        Route("/subscribers", overview.subscribers),
        Route("/statistics", overview.statistics),
        Route("/runs", runs.list_runs),
        Route("/runs/{name:path}/events", runs.append, methods=["POST"]),
        Route("/runs/{name:path}/end", runs.end, methods=["POST"]),
        Route("/runs/{name:path}/cancel", runs.cancel, methods=["POST"]),
        Route("/runs/{name:path}", runs.run, methods=["GET", "POST"]),
        Route("/health/live", endpoints.live),
        Route("/health/ready", endpoints.ready),
        Route("/metrics", metrics.metrics),
        Route("/openapi.json", endpoints.openapi),
        Route(f"/{CLIENT_SCRIPT}", client_script(), methods=["GET"], include_in_schema=False),
        Route("/", hub_page(), methods=["GET"]),
        Route("/console", console_page(), methods=["GET"]),
        *(Route(f"/static/{name}", file, methods=["GET"], include_in_schema=False) for name, file in files.items()),
    ]
    for route in routes:
        # A line feed is part of a name, which is refused then. Without this, the path is unknown, or the name is cut.
        route.path_regex = re.compile(route.path_regex.pattern, re.DOTALL)
    return [*routes]


def _handle_hub_error(request: Request, error: Exception) -> Response:
    return problem_response(status_of(error), str(error))


async def _handle_routing_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        allow = ", ".join(sorted((error.headers or {})["Allow"].split(", ")))
        return problem_response(405, f"{path} supports {allow}, not {request.method}", [(b"allow", allow.encode())])
    return problem_response(error.status_code, f"no such path: {path} (see /openapi.json)")


async def _handle_bug(request: Request, error: Exception) -> Response:
    # Starlette raises the exception again, and the server logs it.
    return problem_response(500, "internal error: see the server's log")
