"""Event streams from aiohttp's own handlers and its own server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from ..asgi import (
    DEFAULT_HEARTBEAT,
    DEFAULT_SEND_TIMEOUT,
    STREAM_HEADERS,
    Scope,
    encode_stream,
    pass_on,
    with_connection,
)
from ..hub import Hub

_LOOK: Final = 0.5
"""Seconds between two looks at a connection."""

__all__ = ["hub_context", "scope_of", "stream_items", "stream_topics"]


def hub_context(hub: Hub) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a context that opens a hub with an application and closes it afterwards.

    Append it to ``app.cleanup_ctx``. Streams end when the application shuts down, before its server waits for them.
    """

    async def context(app: web.Application) -> AsyncIterator[None]:
        async def drain(app: web.Application) -> None:
            await asyncio.sleep(hub.drain())

        app.on_shutdown.append(drain)
        async with hub:
            yield

    return context


async def stream_topics(
    request: web.Request,
    hub: Hub,
    topics: str | Iterable[str],
    *,
    send_timeout: float | None = DEFAULT_SEND_TIMEOUT,
    **options: Any,
) -> web.StreamResponse:
    """Answer a request with the events of a hub's topics, after the client's ``Last-Event-ID``.

    If the topics have ended, and the client has their last events, the answer is 204: it stops an ``EventSource``.

    Arguments:
        request: the request.
        hub: the hub.
        topics: a pattern or several.
        send_timeout: seconds after which a client that does not read is dropped; ``None`` for never.
        options: of :meth:`Hub.stream`, such as ``last=10``.

    Raises:
        InvalidTopicError: a pattern breaks the syntax, or there are too many.
        BrokerError: the log cannot be read.
    """
    scope = scope_of(request)
    chunks = hub.stream(topics, request=scope, **options)
    return await _respond(request, scope, chunks, send_timeout, web.Response(status=HTTPStatus.NO_CONTENT))


async def stream_items(
    request: web.Request,
    items: AsyncIterable[Any] | Iterable[Any],
    *,
    heartbeat: float | None = DEFAULT_HEARTBEAT,
    send_timeout: float | None = DEFAULT_SEND_TIMEOUT,
) -> web.StreamResponse:
    """Answer a request with an event stream, one event for each item.

    Arguments:
        request: the request.
        items: an async or sync iterable, as of :class:`EventSourceResponse`.
        heartbeat: seconds without an event after which a comment is sent; ``None`` for none.
        send_timeout: seconds after which a client that does not read is dropped; ``None`` for never.

    Raises:
        TypeError: ``items`` is not an iterable of events.
        Exception: raised by the items.
    """
    scope = scope_of(request)
    return await _respond(request, scope, encode_stream(items, request=scope, heartbeat=heartbeat), send_timeout)


def scope_of(request: web.Request) -> Scope:
    """Return the parts of a request that a stream needs, as an ASGI scope names them."""
    address = None if request.transport is None else request.transport.get_extra_info("sockname")
    scope: Scope = {
        "headers": [(name.lower(), value) for name, value in request.raw_headers],
        "query_string": request.rel_url.raw_query_string.encode(),
        "server": address[:2] if isinstance(address, tuple) else (address, None) if address else None,
    }
    return with_connection(scope, request.transport)


async def _respond(
    request: web.Request,
    scope: Scope,
    chunks: AsyncGenerator[bytes],
    send_timeout: float | None,
    over: web.Response | None = None,
) -> web.StreamResponse:
    """Send the chunks as the response. If there are none, the response is ``over``."""
    response = web.StreamResponse(headers=STREAM_HEADERS)
    async with aclosing(pass_on(chunks, scope, send_timeout=send_timeout, leaving=_leaving(request))) as chunks:
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        first = await anext(chunks, None)  # an exception before the first event becomes an HTTP error
        if first is None and over is not None:
            return over
        await response.prepare(request)
        if first is None:
            return response
        try:
            await response.write(first)
            async for chunk in chunks:
                await response.write(chunk)
        except ConnectionError:
            pass  # the client has left, or was dropped
    return response


async def _leaving(request: web.Request) -> None:
    """Return when the client has left; aiohttp cancels handlers then only if its runner is configured so."""
    while (transport := request.transport) is not None and not transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(_LOOK)
