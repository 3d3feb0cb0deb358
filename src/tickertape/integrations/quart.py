"""Event streams from views of Quart."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from http import HTTPStatus
from typing import Any

from quart import Response, request

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

__all__ = ["stream_items", "stream_topics"]


async def stream_topics(
    hub: Hub, topics: str | Iterable[str], *, send_timeout: float | None = DEFAULT_SEND_TIMEOUT, **options: Any
) -> Response:
    """Answer the current request with the events of a hub's topics, after the client's ``Last-Event-ID``.

    If the topics have ended, and the client has their last events, the answer is 204: it stops an ``EventSource``.
    Await it: an error, such as a topic that the client may not read, is then raised before the response begins.

    Arguments:
        hub: the hub.
        topics: a pattern or several.
        send_timeout: seconds after which a client that does not read is dropped; ``None`` for never.
        options: of :meth:`Hub.stream`, such as ``last=10``.
    """
    scope = _scope()
    chunks = await begin_stream(pass_on(hub.stream(topics, request=scope, **options), scope, send_timeout=send_timeout))
    return Response(status=HTTPStatus.NO_CONTENT) if chunks is None else _respond(chunks)


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
    chunks = encode_stream(items, request=scope, heartbeat=heartbeat)
    return _respond(pass_on(chunks, scope, send_timeout=send_timeout))


def _scope() -> Scope:
    push = request._send_push_promise  # the one attribute of a request that leads to `send`
    return with_connection(dict(request.scope), *getattr(push, "args", ()))


def _respond(chunks: AsyncGenerator[bytes]) -> Response:
    response = Response(chunks, headers=STREAM_HEADERS)
    response.timeout = None  # a stream has no end
    return response
