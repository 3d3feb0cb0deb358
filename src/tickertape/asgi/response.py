"""``EventSourceResponse``: any iterable as an event stream, in any ASGI application."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, ClassVar, Final, Protocol, cast
from urllib.parse import parse_qs

from ..timing import Clock
from ..wire import ServerSentEvent
from .iteration import check_iterable, close_iterator, iterate
from .stream import DEFAULT_HEARTBEAT, DEFAULT_SEND_TIMEOUT, DisconnectReason, Stream
from .types import Message, Receive, Scope, Send

logger = logging.getLogger("tickertape.asgi")

_STREAM_HEADERS: Final = {
    "content-type": "text/event-stream",
    # `no-transform` keeps proxies from compressing, which delays events.
    "cache-control": "no-store, no-transform",
    # nginx buffers responses by default.
    "x-accel-buffering": "no",
    # Asks any other proxy to forward each piece at once (RFC 10036).
    "incremental": "?1",
}
"""Never ``Connection``: HTTP/2 forbids it (RFC 9113, 8.2.2), and HTTP/1.1 servers add it when they need it."""

_RAW_STREAM_HEADERS: Final = tuple((name.encode(), value.encode()) for name, value in _STREAM_HEADERS.items())
"""Shared by all responses, to save memory."""

_QUERY_NAMES: Final = ("last_event_id", "lastEventId")

_UNSET: Final = object()


class Headers(MutableMapping[str, str]):
    """The headers of a response: names without case, values as Latin-1, in their order.

    Arguments:
        headers: a mapping, or pairs of a name and a value; pairs may repeat a name.

    Attributes:
        raw: the list that ASGI sends. Frameworks append to it.
    """

    def __init__(self, headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        self.raw: list[tuple[bytes, bytes]] = [_encode_header(name, value) for name, value in pairs]

    def __getitem__(self, name: str) -> str:
        key = name.lower().encode("latin-1")
        for known, value in self.raw:
            if known == key:
                return value.decode("latin-1")
        raise KeyError(name)

    def __setitem__(self, name: str, value: str) -> None:
        pair = _encode_header(name, value)
        self.raw[:] = [known for known in self.raw if known[0] != pair[0]]
        self.raw.append(pair)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        key = name.lower().encode("latin-1")
        self.raw[:] = [known for known in self.raw if known[0] != key]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(known == name.lower().encode("latin-1") for known, _ in self.raw)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.decode("latin-1") for name, _ in self.raw))

    def __len__(self) -> int:
        return len({name for name, _ in self.raw})

    def __repr__(self) -> str:
        return f"Headers({[(name.decode('latin-1'), value.decode('latin-1')) for name, value in self.raw]!r})"


class StreamResponse:
    """Base class of our event stream responses, accepted by Starlette and FastAPI.

    Arguments:
        status_code: the HTTP status, from 200 to 599. Browsers accept only 200.
        headers: additional headers; one with the same name replaces ours.
        background: an object that is called and awaited after the stream, such as Starlette's ``BackgroundTask``.

    Raises:
        ValueError: a value is out of its range, or a header contains a line break.
    """

    media_type: ClassVar = _STREAM_HEADERS["content-type"]
    """FastAPI shows it in the OpenAPI description of ``response_class=``."""

    def __init__(
        self,
        status_code: int,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
        background: Callable[[], Awaitable[Any]] | None,
    ) -> None:
        self.status_code = _checked_status(status_code)
        self.headers = Headers(headers or ())
        given = {name for name, _ in self.headers.raw}
        self.headers.raw.extend(pair for pair in _RAW_STREAM_HEADERS if pair[0] not in given)
        self.background = background

    def _check_scope(self, scope: Scope) -> None:
        if scope["type"] != "http":
            name = type(self).__name__
            raise RuntimeError(f"{name} answers HTTP requests only, expected scope type 'http', got {scope['type']!r}")

    def _start(self) -> Message:
        return {"type": "http.response.start", "status": self.status_code, "headers": self.headers.raw}

    async def _answer_head(self, send: Send) -> None:
        await send(self._start())
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    # FastAPI encodes the result of a path operation as JSON unless it is an instance of Starlette's
    # Response, and builds a model from a return annotation that is not a subclass of it. These two
    # make us such a response for FastAPI without importing a framework into every program.

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        starlette = sys.modules.get("starlette.responses")
        return type(self) if starlette is None else cast("type[Any]", starlette.Response)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, str]:
        return {"type": "any"}


class EventSourceResponse(StreamResponse):
    """Answer a request with an event stream, one event for each item.

    Arguments:
        items: an async or sync iterable (a sync one is iterated on a separate thread). Items may be
            ``ServerSentEvent``; ``str``, sent as text; ``bytes``, sent unchanged, a part of the stream
            that you have encoded; a Pydantic model or anything else that JSON can represent.
        status_code: the HTTP status, from 200 to 599. Browsers accept only 200.
        headers: additional headers; one with the same name replaces ours.
        background: an object that is called and awaited after the stream, such as Starlette's ``BackgroundTask``.
        heartbeat: seconds without an event after which a comment is sent, > 0; ``None`` for none.
            ``ping`` is another name for it.
        send_timeout: seconds after which a client that does not read is dropped, > 0; ``None`` for never.
            A client that vanished is dropped after 1.5 times as long, if the system supports it.
        retry: the client's reconnection time, sent first, in milliseconds, an int >= 0.
        on_disconnect: called (and awaited, if it returns an awaitable) with the
            :class:`DisconnectReason` if the stream ends before its items do.
        clock: for timers; by default the running event loop.

    The response starts after the first item, or after one heartbeat interval if that is earlier. So an
    exception before the first item becomes an HTTP error, as usual. A later exception ends the stream
    with ``event: stream:error`` and cuts the connection, so that clients see a failure.

    The iterable is closed when the client leaves, when the client stops reading, and when the server
    stops. ``HEAD`` is answered with the headers alone. Needs asyncio; one response serves one request.

    Follows WHATWG HTML, "Server-sent events", and the ASGI specification, "HTTP".

    Raises:
        TypeError: ``items`` is not an iterable of events, or ``on_disconnect`` is not callable.
        ValueError: a number is out of its range, or a header contains a line break.
    """

    def __init__(
        self,
        items: AsyncIterable[Any] | Iterable[Any],
        status_code: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        background: Callable[[], Awaitable[Any]] | None = None,
        *,
        heartbeat: float | None = DEFAULT_HEARTBEAT,
        ping: Any = _UNSET,
        send_timeout: float | None = DEFAULT_SEND_TIMEOUT,
        retry: int | None = None,
        on_disconnect: Callable[[DisconnectReason], Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_iterable(items)
        super().__init__(status_code, headers, background)
        if not (on_disconnect is None or callable(on_disconnect)):
            raise TypeError(f"expected on_disconnect to be callable, or None, got {on_disconnect!r}")
        self._items = items
        self._opening = b"" if retry is None else ServerSentEvent(retry=retry).encode()
        self._heartbeat = _checked_seconds("heartbeat", heartbeat if ping is _UNSET else ping)
        self._send_timeout = _checked_seconds("send_timeout", send_timeout)
        self._on_disconnect = on_disconnect
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
            await self._answer_head(send)
        else:
            self._stream = Stream(
                items,
                self._start(),
                encode=_encode_item,
                opening=self._opening,
                heartbeat=self._heartbeat,
                send_timeout=self._send_timeout,
                clock=self._clock,
            )
            try:
                await self._stream.run(scope, receive, send)
            finally:
                await self._report(self._stream.reason)
        if self.background is not None:
            await self.background()

    async def _report(self, reason: DisconnectReason | None) -> None:
        if reason is None or self._on_disconnect is None:
            return
        try:
            result = self._on_disconnect(reason)
            if inspect.isawaitable(result):
                await result
        except Exception:
            logger.exception("on_disconnect failed")


class HasScope(Protocol):
    """A request of any ASGI framework: Starlette's, FastAPI's, Litestar's, Django's."""

    @property
    def scope(self) -> Mapping[str, Any]:
        """The ASGI connection scope."""


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


def _encode_item(item: Any) -> bytes:
    return bytes(item) if isinstance(item, (bytes, bytearray, memoryview)) else ServerSentEvent.of(item).encode()


def _encode_header(name: str, value: str) -> tuple[bytes, bytes]:
    text = name + value
    if "\r" in text or "\n" in text or "\0" in text:
        raise ValueError(f"expected a header without line breaks, got {name!r}: {value!r}")
    return name.lower().encode("latin-1"), value.encode("latin-1")


def _checked_status(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 599:
        raise ValueError(f"expected status_code to be an int from 200 to 599, got {value!r}")
    return value


def _checked_seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"expected {name} to be a number of seconds > 0, or None, got {value!r}")
    return float(value)
