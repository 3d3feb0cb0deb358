"""Event streams from handlers of BlackSheep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final, cast

from blacksheep import Request, Response, StreamedContent

from ..asgi import (
    DEFAULT_HEARTBEAT,
    DEFAULT_SEND_TIMEOUT,
    STREAM_HEADERS,
    Scope,
    begin_stream,
    encode_stream,
    pass_on,
    with_connection,
)
from ..hub import Hub

_LOOK: Final = 0.5
"""Seconds between two looks at a connection."""

__all__ = ["stream_items", "stream_topics"]


async def stream_topics(
    request: Request,
    hub: Hub,
    topics: str | Iterable[str],
    *,
    send_timeout: float | None = DEFAULT_SEND_TIMEOUT,
    **options: Any,
) -> Response:
    """Return the events of a hub's topics, after the client's ``Last-Event-ID``.

    If the topics have ended, and the client has their last events, the answer is 204: it stops an ``EventSource``.
    Await it: an error, such as a topic that the client may not read, is then raised before the response begins.

    Arguments:
        request: the request.
        hub: the hub.
        topics: a pattern or several.
        send_timeout: seconds after which a client that does not read is dropped; ``None`` for never.
        options: of :meth:`Hub.stream`, such as ``last=10``.
    """
    scope = _scope_of(request)
    chunks = await begin_stream(_pass_on(request, scope, hub.stream(topics, request=scope, **options), send_timeout))
    return Response(HTTPStatus.NO_CONTENT) if chunks is None else _respond(chunks)


def stream_items(
    request: Request,
    items: AsyncIterable[Any] | Iterable[Any],
    *,
    heartbeat: float | None = DEFAULT_HEARTBEAT,
    send_timeout: float | None = DEFAULT_SEND_TIMEOUT,
) -> Response:
    """Return an event stream, one event for each item.

    Arguments:
        request: the request.
        items: an async or sync iterable, as of :class:`EventSourceResponse`.
        heartbeat: seconds without an event after which a comment is sent; ``None`` for none.
        send_timeout: seconds after which a client that does not read is dropped; ``None`` for never.

    Raises:
        TypeError: ``items`` is not an iterable of events.
    """
    scope = _scope_of(request)
    chunks = encode_stream(items, request=scope, heartbeat=heartbeat)
    return _respond(_pass_on(request, scope, chunks, send_timeout))


def _scope_of(request: Request) -> Scope:
    return with_connection(cast("Scope", request.scope), getattr(request.content, "receive", None))


def _pass_on(
    request: Request, scope: Scope, chunks: AsyncGenerator[bytes], send_timeout: float | None
) -> AsyncGenerator[bytes]:
    return pass_on(chunks, scope, send_timeout=send_timeout, leaving=_leaving(request))


def _respond(chunks: AsyncGenerator[bytes]) -> Response:
    async def provide() -> AsyncGenerator[bytes]:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    headers = [(name.encode(), value.encode()) for name, value in STREAM_HEADERS.items() if name != "content-type"]
    return Response(200, headers, StreamedContent(STREAM_HEADERS["content-type"].encode(), provide))


async def _leaving(request: Request) -> None:
    """Return when the client has left: BlackSheep does not look for it while a response is streamed."""
    while not await request.is_disconnected():  # noqa: ASYNC110
        await asyncio.sleep(_LOOK)
