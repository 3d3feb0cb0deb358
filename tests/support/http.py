"""The hub's HTTP interface in the test's own process: a request and its whole response."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tickertape.hub import Hub
from tickertape.server import create_app
from tickertape.server.limits import Guard
from tickertape.server.metrics import Audience
from tickertape.testing import EventStreamClient, ScriptedBroker

__all__ = ["JSON", "Answer", "Site", "site"]

JSON = {"content-type": "application/json"}


class Answer(NamedTuple):
    """A complete response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def problem(self) -> dict[str, Any]:
        """The body as a problem, whose fields agree with the status line."""
        assert self.headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = self.json()
        assert problem["status"] == self.status
        assert ("retry-after" in self.headers) is (self.status in (429, 503))
        return problem


class Site:
    """A hub over a scripted log, and a client of its application."""

    def __init__(self, hub: Hub, broker: ScriptedBroker, client: EventStreamClient) -> None:
        self.hub = hub
        self.broker = broker
        self.client = client

    async def ask(self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request and read the whole response."""
        async with self.client.open(url, method=method, body=body, headers=headers) as response:
            return Answer(response.status, response.headers, await response.read())

    async def call(self, method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]], **scope: Any) -> int:
        """Call the application with a scope that no client sends, and return the status."""
        messages: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            messages.append(message)

        whole = {"type": "http", "method": method, "path": path, "query_string": query, "headers": headers, **scope}
        await self.client._app(whole, receive, send)
        return int(messages[0]["status"])

    async def post(self, value: Any, url: str = "/events") -> Answer:
        """Send JSON."""
        return await self.ask("POST", url, json.dumps(value).encode(), JSON)

    async def stored(self) -> list[tuple[str, str | None, str]]:
        """Return the topic, type and data of every record in the log."""
        return [(record.topic, record.event, record.data) for record in (await self.broker.read(0, 1000)).records]


@asynccontextmanager
async def site(
    *,
    cors_origins: Sequence[str] = (),
    ready_within: float = 5.0,
    keep: int | None = None,
    guard: Guard | None = None,
    metrics: Audience = "admin",
    **options: Any,
) -> AsyncIterator[Site]:
    """Run an application; ``options`` are the hub's."""
    broker = ScriptedBroker(keep=keep)
    hub = Hub(broker, **options)
    app = create_app(hub, cors_origins=cors_origins, ready_within=ready_within, guard=guard, metrics=metrics)
    async with EventStreamClient(app) as client:
        yield Site(hub, broker, client)
