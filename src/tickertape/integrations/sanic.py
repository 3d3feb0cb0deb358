"""Event streams from handlers of Sanic, under its own server or one for ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from typing import Any

from sanic import HTTPResponse, Request, Sanic, empty

from ..asgi import (
    DEFAULT_HEARTBEAT,
    DEFAULT_SEND_TIMEOUT,
    STREAM_HEADERS,
    Scope,
    encode_stream,
    pass_on,
    wait_for_disconnect,
    with_connection,
)
from ..hub import Hub

__all__ = ["add_hub", "scope_of", "stream_items", "stream_topics"]


def add_hub(app: Sanic[Any, Any], hub: Hub) -> None:
    """Open a hub with an application, end its streams when the server stops, and close it then.

    Arguments:
        app: the application.
        hub: the hub.
    """

    async def open_hub(app: Sanic[Any, Any]) -> None:
        await hub.open()

    async def drain(app: Sanic[Any, Any]) -> None:
        await asyncio.sleep(hub.drain())
        await hub.close()

    app.register_listener(open_hub, "before_server_start")
    app.register_listener(drain, "before_server_stop")


async def stream_topics(
    request: Request[Any, Any],
    hub: Hub,
    topics: str | Iterable[str],
    *,
    send_timeout: float | None = DEFAULT_SEND_TIMEOUT,
    **options: Any,
) -> HTTPResponse | None:
    """Answer a request with the events of a hub's topics, after the client's ``Last-Event-ID``.

    If the topics have ended, and the client has their last events, the answer is 204: it stops an ``EventSource``.

    Arguments:
        request: the request.
        hub: the hub.
        topics: a pattern or several.
        send_timeout: seconds after which a client that does not read is dropped; ``None`` for never.
        options: of :meth:`Hub.stream`, such as ``last=10``.
    """
    scope = scope_of(request)
    return await _respond(request, scope, hub.stream(topics, request=scope, **options), send_timeout, empty())


async def stream_items(
    request: Request[Any, Any],
    items: AsyncIterable[Any] | Iterable[Any],
    *,
    heartbeat: float | None = DEFAULT_HEARTBEAT,
    send_timeout: float | None = DEFAULT_SEND_TIMEOUT,
) -> HTTPResponse | None:
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


def scope_of(request: Request[Any, Any]) -> Scope:
    """Return the parts of a request that a stream needs, as an ASGI scope names them."""
    transport: Any = request.transport
    given = getattr(transport, "scope", None)
    if given is not None:  # of a server for ASGI
        return with_connection(given, transport._receive, transport._send)
    address = transport.get_extra_info("sockname")
    scope: Scope = {
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.items()],
        "query_string": request.query_string.encode(),
        "server": address[:2] if isinstance(address, tuple) else None,
    }
    return with_connection(scope, transport)


async def _respond(
    request: Request[Any, Any],
    scope: Scope,
    chunks: AsyncGenerator[bytes],
    send_timeout: float | None,
    over: HTTPResponse | None = None,
) -> HTTPResponse | None:
    """Send the chunks as the response. If there are none, the response is ``over``."""
    receive = getattr(request.transport, "_receive", None)  # under a server for ASGI: Sanic does not await it then
    leaving = None if receive is None else wait_for_disconnect(receive)
    async with aclosing(pass_on(chunks, scope, send_timeout=send_timeout, leaving=leaving)) as chunks:
        first = await anext(chunks, None)  # an exception before the first event becomes an HTTP error
        if first is None and over is not None:
            return over
        headers = {name: value for name, value in STREAM_HEADERS.items() if name != "content-type"}
        response = await request.respond(headers=headers, content_type=STREAM_HEADERS["content-type"])
        await response.send(first or b"")
        async for chunk in chunks:
            await response.send(chunk)
        await response.eof()
    return None
