"""Event streams from views of Quart."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import Any

from quart import Response, request

from ..asgi import DEFAULT_HEARTBEAT, STREAM_HEADERS, encode_stream
from ..hub import Hub

__all__ = ["stream_items", "stream_topics"]


def stream_topics(hub: Hub, topics: str | Iterable[str], **options: Any) -> Response:
    """Answer the current request with the events of a hub's topics, after the client's ``Last-Event-ID``.

    Arguments:
        hub: the hub.
        topics: a pattern or several.
        options: of :meth:`Hub.stream`, such as ``last=10``.
    """
    return _respond(hub.stream(topics, request=dict(request.scope), **options))


def stream_items(items: AsyncIterable[Any] | Iterable[Any], *, heartbeat: float | None = DEFAULT_HEARTBEAT) -> Response:
    """Answer the current request with an event stream, one event for each item.

    Arguments:
        items: an async or sync iterable, as of :class:`EventSourceResponse`.
        heartbeat: seconds without an event after which a comment is sent; ``None`` for none.

    Raises:
        TypeError: ``items`` is not an iterable of events.
    """
    return _respond(encode_stream(items, request=dict(request.scope), heartbeat=heartbeat))


def _respond(chunks: AsyncGenerator[bytes]) -> Response:
    response = Response(chunks, headers=STREAM_HEADERS)
    response.timeout = None  # a stream has no end
    return response
