"""Event streams from aiohttp's own handlers and its own server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Any, Final

from aiohttp import web

from ..asgi import DEFAULT_HEARTBEAT, DEFAULT_SEND_TIMEOUT, STREAM_HEADERS, Scope, encode_stream, stop_when
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
    return await _respond(request, hub.stream(topics, request=scope_of(request), **options), send_timeout)


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
    return await _respond(request, encode_stream(items, request=scope_of(request), heartbeat=heartbeat), send_timeout)


def scope_of(request: web.Request) -> Scope:
    """Return the parts of a request that a stream needs, as an ASGI scope names them."""
    address = None if request.transport is None else request.transport.get_extra_info("sockname")
    return {
        "headers": [(name.lower(), value) for name, value in request.raw_headers],
        "query_string": request.rel_url.raw_query_string.encode(),
        "server": address[:2] if isinstance(address, tuple) else (address, None) if address else None,
    }


async def _respond(
    request: web.Request, chunks: AsyncGenerator[bytes], send_timeout: float | None
) -> web.StreamResponse:
    response = web.StreamResponse(headers=STREAM_HEADERS)
    async with aclosing(stop_when(_leaving(request), chunks)) as chunks:
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        first = await anext(chunks, None)  # an exception before the first event becomes an HTTP error
        await response.prepare(request)
        if first is None:
            return response
        try:
            await _write(response, first, send_timeout)
            async for chunk in chunks:
                await _write(response, chunk, send_timeout)
        except ConnectionError:
            pass  # the client has left
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
    return response


async def _leaving(request: web.Request) -> None:
    """Return when the client has left; aiohttp cancels handlers then only if its runner is configured so."""
    while (transport := request.transport) is not None and not transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(_LOOK)


async def _write(response: web.StreamResponse, chunk: bytes, send_timeout: float | None) -> None:
    async with asyncio.timeout(send_timeout):
        await response.write(chunk)
