"""``EventSourceResponse``: any iterable as an event stream, in any ASGI application."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal
from urllib.parse import parse_qs
from weakref import ref

from ..timing import Clock, check_limit, check_seconds
from ..wire import ServerSentEvent
from .base import Response
from .drain import current_stream
from .items import encode_item, encode_with_retry
from .iteration import check_iterable, close_iterator, iterate
from .plain import encode_header
from .stream import DEFAULT_HEARTBEAT, DEFAULT_SEND_TIMEOUT, FIRST_ITEM, DisconnectReason, Stream
from .types import HasScope, Message, Receive, Scope, Send

logger = logging.getLogger("tickertape.asgi")

STREAM_HEADERS: Final = {
    "content-type": "text/event-stream",
    # `no-transform` keeps proxies from compressing, which delays events.
    "cache-control": "no-store, no-transform",
    # nginx buffers responses by default.
    "x-accel-buffering": "no",
    # Asks any other proxy to forward each piece at once (RFC 10036).
    "incremental": "?1",
}
"""Never ``Connection``: HTTP/2 forbids it (RFC 9113, 8.2.2), and HTTP/1.1 servers add it when they need it."""

_RAW_STREAM_HEADERS: Final = tuple((name.encode(), value.encode()) for name, value in STREAM_HEADERS.items())
"""Shared by all responses, to save memory."""

_QUERY_NAMES: Final = ("last_event_id", "lastEventId")

_ON_ERROR: Final = 5.0
"""Seconds that ``on_error`` may take: the client waits, and so does a server that stops."""

_UNSET: Final = object()


class StreamResponse(Response):
    """Base class of our event stream responses: a ``Response`` of Starlette if Starlette is installed.

    Arguments:
        status_code: the HTTP status, from 200 to 599. Browsers accept only 200.
        headers: additional headers; one with the same name replaces ours. ``Connection`` is dropped.
        background: an object that is called and awaited after the stream, such as Starlette's ``BackgroundTask``.
        media_type: the content type, by default that of event streams.

    Raises:
        ValueError: a value is out of its range, or a header contains a line break.
    """

    media_type = "text/event-stream"
    """FastAPI shows it in the OpenAPI description of ``response_class=``."""

    def __init__(
        self,
        status_code: int,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
        background: Callable[[], Awaitable[Any]] | None,
        media_type: str | None = None,
    ) -> None:
        # The base would build a body of known length.
        self.status_code = _checked_status(status_code)
        if media_type is not None:
            self.media_type = media_type
        self.raw_headers = _stream_headers(headers, media_type)
        self.background: Any = background

    def _check_scope(self, scope: Scope) -> None:
        if scope["type"] != "http":
            name = type(self).__name__
            raise RuntimeError(f"{name} answers HTTP requests only, expected scope type 'http', got {scope['type']!r}")

    def _start(self) -> Message:
        return {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}

    async def _answer_head(self, send: Send) -> None:
        await send(self._start())
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class EventSourceResponse(StreamResponse):
    """Answer a request with an event stream, one event for each item.

    With FastAPI, ``@app.get("/events", response_class=EventSourceResponse)`` makes an event stream of an endpoint
    that yields. FastAPI calls its own encoding only for its own class, and passes the items to this one.

    Arguments:
        content: an async or sync iterable (a sync one is iterated on a separate thread). Items may be
            ``ServerSentEvent``; ``str``, sent as text; ``bytes``, sent unchanged, a part of the stream
            that you have encoded; an event of FastAPI or sse-starlette; a Pydantic model or anything else
            that JSON can represent.
        status_code: the HTTP status, from 200 to 599. Browsers accept only 200.
        headers: additional headers; one with the same name replaces ours. ``Connection`` is dropped.
        media_type: the content type, by default that of event streams.
        background: an object that is called and awaited after the stream, such as Starlette's ``BackgroundTask``.
        head: when the response starts. ``"first"`` waits for the first item, for at most 1 s, so that an exception
            before it becomes an HTTP error, as usual. ``"now"`` does not wait. A number is the seconds to wait, > 0.
        heartbeat: seconds without an event after which a comment is sent, > 0; ``None`` for none.
            ``ping`` is another name for it.
        send_timeout: seconds after which a client that does not read is dropped, > 0; ``None`` for never.
            A client that vanished is dropped after 1.5 times as long, if the system supports it.
        retry: the client's reconnection time, sent with the first event that has data, in milliseconds, an int >= 0.
        on_error: called with an exception that the items raise after the head was sent. It returns (or its
            awaitable does) the last item, or a list, tuple or iterator of the last items, which are sent before the
            response ends normally; the exception is logged. ``None`` sends nothing and cuts the connection. If it
            fails, or takes more than 5 s, this is logged, and the stream ends as without it.
        on_disconnect: called (and awaited, if it returns an awaitable) with the
            :class:`DisconnectReason` if the stream ends before its items do.
        on_drain: called when the server is stopping, before the stream is ended.
        drain_grace: seconds that the items may continue after that, >= 0. A server's own limit may be lower.
        cut_on_drain: when the server is stopping, cut the connection instead of ending the response: for protocols
            whose clients take a clean end for a complete answer.
        clock: for timers; by default the running event loop.

    Without ``on_error``, an exception after the head ends the stream with ``event: stream:error`` and cuts the
    connection, so that clients see a failure.

    The iterable is closed when the client leaves, when the client stops reading, and when the server
    stops; see :func:`stream_until_drain` for a last event. ``HEAD`` is answered with the headers alone: the items
    are closed, and ``on_disconnect`` and ``background`` are called. Needs asyncio; one response serves one request.

    Follows WHATWG HTML, "Server-sent events", and the ASGI specification, "HTTP".

    Raises:
        TypeError: ``content`` is not an iterable of events, or a callback is not callable.
        ValueError: a number is out of its range, or a header contains a line break.
    """

    # Beside the dictionary of the base: one response stays in memory for each stream.
    __slots__ = (
        "_clock",
        "_cut_on_drain",
        "_drain_grace",
        "_head",
        "_heartbeat",
        "_items",
        "_on_disconnect",
        "_on_drain",
        "_on_error",
        "_retry",
        "_send_timeout",
        "_stream",
        "_used",
    )

    def __init__(
        self,
        content: AsyncIterable[Any] | Iterable[Any],
        status_code: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        media_type: str | None = None,
        background: Callable[[], Awaitable[Any]] | None = None,
        *,
        head: Literal["first", "now"] | float = "first",
        heartbeat: float | None = DEFAULT_HEARTBEAT,
        ping: Any = _UNSET,
        send_timeout: float | None = DEFAULT_SEND_TIMEOUT,
        retry: int | None = None,
        on_error: Callable[[Exception], Any] | None = None,
        on_disconnect: Callable[[DisconnectReason], Any] | None = None,
        on_drain: Callable[[], Any] | None = None,
        drain_grace: float = 0.0,
        cut_on_drain: bool = False,
        clock: Clock | None = None,
    ) -> None:
        check_iterable(content)
        super().__init__(status_code, headers, background, media_type)
        self._items = content
        self._head = _checked_head(head)
        self._retry = None if retry is None else ServerSentEvent(retry=retry).retry
        self._heartbeat = check_limit("heartbeat", heartbeat if ping is _UNSET else ping)
        self._send_timeout = check_limit("send_timeout", send_timeout)
        self._on_error = _checked_callback("on_error", on_error)
        self._on_disconnect = _checked_callback("on_disconnect", on_disconnect)
        self._on_drain = _checked_callback("on_drain", on_drain)
        self._cut_on_drain = cut_on_drain
        self._drain_grace = check_seconds("drain_grace", drain_grace)
        self._clock = clock
        self._stream: Stream | None = None
        self._used = False

    def __repr__(self) -> str:
        state = "new" if self._stream is None else self._stream.reason or "open"
        return f"<EventSourceResponse {self.status_code} {state}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            RuntimeError: the scope is not an HTTP request, or this is the second request.
            Exception: raised by the items.
        """
        self._check_scope(scope)
        if self._used:
            raise RuntimeError("EventSourceResponse serves one request; create a new one for each")
        self._used = True
        items = iterate(self._items)
        if scope.get("method") == "HEAD":
            await close_iterator(items)
            try:
                await self._answer_head(send)
            finally:
                await self._report(DisconnectReason.CLIENT_CLOSED)
        else:
            stream = self._stream = self._create_stream(items)
            token = current_stream.set(ref(stream))
            try:
                await stream.run(scope, receive, send)
            finally:
                current_stream.reset(token)
                await self._report(stream.reason)
        if self.background is not None:
            await self.background()

    def _create_stream(self, items: AsyncIterator[Any]) -> Stream:
        stream = Stream(
            items,
            self._start(),
            encode=encode_item if self._retry is None else self._encode,
            head=self._head,
            heartbeat=self._heartbeat,
            send_timeout=self._send_timeout,
            clock=self._clock,
            on_error=None if self._on_error is None else self._last_words,
            cut_on_drain=self._cut_on_drain,
        )
        if self._on_drain is not None or self._drain_grace:
            stream.hold(self._on_drain or _do_nothing, self._drain_grace)
        return stream

    def _encode(self, item: Any) -> bytes:
        """Encode items up to the one that takes the reconnection time with it."""
        if self._retry is None:
            return encode_item(item)
        encoded, done = encode_with_retry(item, self._retry)
        if done:
            self._retry = None
        return encoded

    async def _last_words(self, error: Exception) -> bytes | None:
        assert self._on_error is not None
        try:
            async with asyncio.timeout(_ON_ERROR):
                found = self._on_error(error)
                if inspect.isawaitable(found):
                    found = await found
            if found is None:
                return b""
            items = found if isinstance(found, (list, tuple, Iterator)) else (found,)
            return b"".join(map(encode_item, items))
        except Exception:
            logger.exception("on_error failed")
            return None

    async def _report(self, reason: DisconnectReason | None) -> None:
        if reason is None or self._on_disconnect is None:
            return
        try:
            result = self._on_disconnect(reason)
            if inspect.isawaitable(result):
                await result
        except Exception:
            logger.exception("on_disconnect failed")


def get_last_event_id(request: HasScope | Scope) -> str | None:
    """Return the id of the last event that the client received, or ``None`` if it starts from the beginning.

    Arguments:
        request: a request that has a ``scope``, or an ASGI scope itself.

    The header ``Last-Event-ID`` comes first. A browser sends it when it reconnects, while the query of
    its URL is as old as the page. A query parameter ``last_event_id`` or ``lastEventId`` comes next, for
    pages that know their place. An empty id counts as none.

    Follows WHATWG HTML, "The `Last-Event-ID` header": the value is UTF-8.
    """
    scope = request if isinstance(request, Mapping) else request.scope
    for name, value in scope.get("headers", ()):
        if name.lower() == b"last-event-id" and value:
            return bytes(value).decode("utf-8", "replace")
    query_string = scope.get("query_string", b"")
    if b"vent" not in query_string and b"%" not in query_string:
        return None  # to parse it takes longer than all the rest
    query = parse_qs(query_string.decode("utf-8", "replace"))
    return next((query[name][-1] for name in _QUERY_NAMES if name in query), None)


def _stream_headers(
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None, media_type: str | None
) -> list[tuple[bytes, bytes]]:
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    raw = [encode_header(name, value) for name, value in pairs]
    if media_type is not None and all(name != b"content-type" for name, _ in raw):
        raw.append(encode_header("content-type", media_type))
    given = {name for name, _ in raw}
    if b"connection" in given:
        raw = [pair for pair in raw if pair[0] != b"connection"]
    raw.extend(pair for pair in _RAW_STREAM_HEADERS if pair[0] not in given)
    return raw


def _do_nothing() -> None:
    pass


def _checked_head(value: Any) -> float:
    if value in ("first", "now"):
        return 0.0 if value == "now" else FIRST_ITEM
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"expected head to be 'first', 'now' or a number of seconds > 0, got {value!r}")
    return float(value)


def _checked_callback(name: str, value: Any) -> Any:
    if not (value is None or callable(value)):
        raise TypeError(f"expected {name} to be callable, or None, got {value!r}")
    return value


def _checked_status(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 599:
        raise ValueError(f"expected status_code to be an int from 200 to 599, got {value!r}")
    return value
