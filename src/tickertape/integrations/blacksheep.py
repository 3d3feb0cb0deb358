"""Event streams from handlers of BlackSheep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from typing import Any, Final, cast

from blacksheep import Request, Response, StreamedContent

from ..asgi import DEFAULT_HEARTBEAT, STREAM_HEADERS, Scope, encode_stream, stop_when
from ..hub import Hub

_LOOK: Final = 0.5
"""Seconds between two looks at a connection."""

__all__ = ["stream_items", "stream_topics"]


def stream_topics(request: Request, hub: Hub, topics: str | Iterable[str], **options: Any) -> Response:
    """Return the events of a hub's topics, after the client's ``Last-Event-ID``.

    Arguments:
        request: the request.
        hub: the hub.
        topics: a pattern or several.
        options: of :meth:`Hub.stream`, such as ``last=10``.
    """
    return _respond(request, hub.stream(topics, request=cast("Scope", request.scope), **options))


def stream_items(
    request: Request, items: AsyncIterable[Any] | Iterable[Any], *, heartbeat: float | None = DEFAULT_HEARTBEAT
) -> Response:
    """Return an event stream, one event for each item.

    Arguments:
        request: the request.
        items: an async or sync iterable, as of :class:`EventSourceResponse`.
        heartbeat: seconds without an event after which a comment is sent; ``None`` for none.

    Raises:
        TypeError: ``items`` is not an iterable of events.
    """
    return _respond(request, encode_stream(items, request=cast("Scope", request.scope), heartbeat=heartbeat))


def _respond(request: Request, chunks: AsyncGenerator[bytes]) -> Response:
    async def provide() -> AsyncGenerator[bytes]:
        async with aclosing(stop_when(_leaving(request), chunks)) as following:
            async for chunk in following:
                yield chunk

    headers = [(name.encode(), value.encode()) for name, value in STREAM_HEADERS.items() if name != "content-type"]
    return Response(200, headers, StreamedContent(STREAM_HEADERS["content-type"].encode(), provide))


async def _leaving(request: Request) -> None:
    """Return when the client has left: BlackSheep does not look for it while a response is streamed."""
    while not await request.is_disconnected():  # noqa: ASYNC110
        await asyncio.sleep(_LOOK)
