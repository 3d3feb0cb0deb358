"""Event streams from resources of Falcon's ASGI applications."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from http import HTTPStatus
from typing import Any, cast

from falcon.asgi import Request, Response

from ..asgi import (
    DEFAULT_HEARTBEAT,
    DEFAULT_SEND_TIMEOUT,
    STREAM_HEADERS,
    Receive,
    Scope,
    begin_stream,
    encode_stream,
    pass_on,
    wait_for_disconnect,
    with_connection,
)
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


async def stream_topics(
    request: Request,
    response: Response,
    hub: Hub,
    topics: str | Iterable[str],
    *,
    send_timeout: float | None = DEFAULT_SEND_TIMEOUT,
    **options: Any,
) -> None:
    """Make a response of the events of a hub's topics, after the client's ``Last-Event-ID``.

    If the topics have ended, and the client has their last events, the answer is 204: it stops an ``EventSource``.
    Await it: an error, such as a topic that the client may not read, is then raised before the response begins.

    Arguments:
        request: the request.
        response: the response that the resource fills.
        hub: the hub.
        topics: a pattern or several.
        send_timeout: seconds after which a client that does not read is dropped; ``None`` for never.
        options: of :meth:`Hub.stream`, such as ``last=10``.
    """
    scope = _scope_of(request)
    chunks = await begin_stream(_pass_on(request, scope, hub.stream(topics, request=scope, **options), send_timeout))
    if chunks is None:
        response.status = HTTPStatus.NO_CONTENT
    else:
        _fill(response, chunks)


def stream_items(
    request: Request,
    response: Response,
    items: AsyncIterable[Any] | Iterable[Any],
    *,
    heartbeat: float | None = DEFAULT_HEARTBEAT,
    send_timeout: float | None = DEFAULT_SEND_TIMEOUT,
) -> None:
    """Make a response of any iterable, one event for each item.

    Arguments:
        request: the request.
        response: the response that the resource fills.
        items: an async or sync iterable, as of :class:`EventSourceResponse`.
        heartbeat: seconds without an event after which a comment is sent; ``None`` for none.
        send_timeout: seconds after which a client that does not read is dropped; ``None`` for never.

    Raises:
        TypeError: ``items`` is not an iterable of events.
    """
    scope = _scope_of(request)
    chunks = encode_stream(items, request=scope, heartbeat=heartbeat)
    _fill(response, _pass_on(request, scope, chunks, send_timeout))


def _scope_of(request: Request) -> Scope:
    return with_connection(request.scope, request.stream._receive)


def _pass_on(
    request: Request, scope: Scope, chunks: AsyncGenerator[bytes], send_timeout: float | None
) -> AsyncGenerator[bytes]:
    leaving = wait_for_disconnect(
        cast("Receive", request.stream._receive)
    )  # Falcon does not look while a response is streamed
    return pass_on(chunks, scope, send_timeout=send_timeout, leaving=leaving)


def _fill(response: Response, chunks: AsyncGenerator[bytes]) -> None:
    for name, value in STREAM_HEADERS.items():
        response.set_header(name, value)
    response.stream = chunks
