"""Event streams from resources of Falcon's ASGI applications."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import Any

from falcon.asgi import Request, Response

from ..asgi import DEFAULT_HEARTBEAT, STREAM_HEADERS, Scope, encode_stream, stop_when
from ..hub import Hub

__all__ = ["HubMiddleware", "stream_items", "stream_topics"]


class HubMiddleware:
    """Open a hub with an application and close it afterwards: ``falcon.asgi.App(middleware=[HubMiddleware(hub)])``.

    Arguments:
        hub: the hub.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def process_startup(self, scope: Scope, event: Any) -> None:
        """Open the hub."""
        await self._hub.open()

    async def process_shutdown(self, scope: Scope, event: Any) -> None:
        """Close the hub."""
        await self._hub.close()


def stream_topics(request: Request, response: Response, hub: Hub, topics: str | Iterable[str], **options: Any) -> None:
    """Make a response of the events of a hub's topics, after the client's ``Last-Event-ID``.

    Arguments:
        request: the request.
        response: the response that the resource fills.
        hub: the hub.
        topics: a pattern or several.
        options: of :meth:`Hub.stream`, such as ``last=10``.
    """
    _fill(request, response, hub.stream(topics, request=request.scope, **options))


def stream_items(
    request: Request,
    response: Response,
    items: AsyncIterable[Any] | Iterable[Any],
    *,
    heartbeat: float | None = DEFAULT_HEARTBEAT,
) -> None:
    """Make a response of any iterable, one event for each item.

    Arguments:
        request: the request.
        response: the response that the resource fills.
        items: an async or sync iterable, as of :class:`EventSourceResponse`.
        heartbeat: seconds without an event after which a comment is sent; ``None`` for none.

    Raises:
        TypeError: ``items`` is not an iterable of events.
    """
    _fill(request, response, encode_stream(items, request=request.scope, heartbeat=heartbeat))


def _fill(request: Request, response: Response, chunks: AsyncGenerator[bytes]) -> None:
    for name, value in STREAM_HEADERS.items():
        response.set_header(name, value)
    response.stream = stop_when(_leaving(request), chunks)


async def _leaving(request: Request) -> None:
    """Return when the client has left: Falcon does not look for it while a response is streamed."""
    receive = request.stream._receive
    while (await receive())["type"] != "http.disconnect":  # noqa: ASYNC110
        await asyncio.sleep(0)  # a body that is not read must not occupy the loop
