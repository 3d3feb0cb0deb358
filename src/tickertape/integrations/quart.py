"""Event streams from views of Quart."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import Any

from quart import Response, request

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

__all__ = ["stream_items", "stream_topics"]


def stream_topics(
    hub: Hub, topics: str | Iterable[str], *, send_timeout: float | None = DEFAULT_SEND_TIMEOUT, **options: Any
) -> Response:
    """Answer the current request with the events of a hub's topics, after the client's ``Last-Event-ID``.

    Arguments:
        hub: the hub.
        topics: a pattern or several.
        send_timeout: seconds after which a client that does not read is dropped; ``None`` for never.
        options: of :meth:`Hub.stream`, such as ``last=10``.
    """
    scope = _scope()
    return _respond(scope, hub.stream(topics, request=scope, **options), send_timeout)


def stream_items(
    items: AsyncIterable[Any] | Iterable[Any],
    *,
    heartbeat: float | None = DEFAULT_HEARTBEAT,
    send_timeout: float | None = DEFAULT_SEND_TIMEOUT,
) -> Response:
    """Answer the current request with an event stream, one event for each item.

    Arguments:
        items: an async or sync iterable, as of :class:`EventSourceResponse`.
        heartbeat: seconds without an event after which a comment is sent; ``None`` for none.
        send_timeout: seconds after which a client that does not read is dropped; ``None`` for never.

    Raises:
        TypeError: ``items`` is not an iterable of events.
    """
    scope = _scope()
    return _respond(scope, encode_stream(items, request=scope, heartbeat=heartbeat), send_timeout)


def _scope() -> Scope:
    push = request._send_push_promise  # the one attribute of a request that leads to `send`
    return with_connection(dict(request.scope), *getattr(push, "args", ()))


def _respond(scope: Scope, chunks: AsyncGenerator[bytes], send_timeout: float | None) -> Response:
    response = Response(pass_on(chunks, scope, send_timeout=send_timeout), headers=STREAM_HEADERS)
    response.timeout = None  # a stream has no end
    return response
