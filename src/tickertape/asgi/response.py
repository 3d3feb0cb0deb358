"""``EventSourceResponse``: any iterable as an event stream, in any ASGI application."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from ..timing import Clock
from ..wire import ServerSentEvent
from .base import StreamResponse
from .iteration import check_iterable, close_iterator, iterate
from .stream import DEFAULT_HEARTBEAT, DEFAULT_SEND_TIMEOUT, DisconnectReason, Stream
from .types import Receive, Scope, Send

__all__ = ["EventSourceResponse"]

logger = logging.getLogger("tickertape.asgi")

_UNSET: Final = object()


class EventSourceResponse(StreamResponse):
    """Answer a request with an event stream, one event for each item.

    Arguments:
        items: an async or sync iterable (a sync one is pulled on a thread of its own). It may give
            ``ServerSentEvent``; ``str``, sent as text; ``bytes``, sent as they are, a part of the
            stream that you have encoded; a Pydantic model or anything else that JSON can say.
        status_code: the HTTP status. Browsers take none but 200.
        headers: more headers; one of the same name takes the place of ours.
        background: an object called, and awaited, after the stream, as Starlette's ``BackgroundTask``.
        heartbeat: seconds without an event after which a comment is sent; ``None`` for none.
            ``ping`` is another name for it.
        send_timeout: seconds after which a client that does not read is dropped; ``None`` for never.
        retry: the reconnection time that clients are told first, in milliseconds.
        on_disconnect: called, and awaited, with the :class:`DisconnectReason` when the stream
            ends before its items do.
        clock: where timers are set; by default the running event loop.

    The first item is awaited before the response starts (for one heartbeat interval at most), so
    what is raised before it becomes an HTTP error as usual. What is raised later ends the stream
    with ``event: stream:error`` and cuts the connection, which clients see as a failure.

    The iterable is finalised when the client leaves, when it stops reading, and when the server
    stops. ``HEAD`` answers the headers alone. Needs asyncio; one response serves one request.

    Follows WHATWG HTML, "Server-sent events", and the ASGI specification, "HTTP".
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
        self._items = items
        self._opening = b"" if retry is None else ServerSentEvent(retry=retry).encode()
        self._heartbeat = _check_seconds("heartbeat", heartbeat if ping is _UNSET else ping)
        self._send_timeout = _check_seconds("send_timeout", send_timeout)
        self._on_disconnect = on_disconnect
        self._clock = clock
        self._stream: Stream | None = None
        self._used = False

    def __repr__(self) -> str:
        state = "new" if self._stream is None else self._stream.reason or "open"
        return f"<EventSourceResponse {self.status_code} {state}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"expected an ASGI scope of type 'http', got {scope['type']!r}")
        if self._used:
            raise RuntimeError("expected one request for an EventSourceResponse, got a second one")
        self._used = True
        chunks = EncodedItems(iterate(self._items))
        if scope.get("method") == "HEAD":
            await chunks.aclose()
            await self._answer_head(send)
        else:
            self._stream = Stream(
                chunks,
                self._start(),
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


class EncodedItems(AsyncIterator[bytes]):
    """Encode each item of ``items``."""

    def __init__(self, items: AsyncIterator[Any]) -> None:
        self._items = items

    async def __anext__(self) -> bytes:
        item = await anext(self._items)
        return bytes(item) if isinstance(item, (bytes, bytearray, memoryview)) else ServerSentEvent.of(item).encode()

    async def aclose(self) -> None:
        """Finalise the items."""
        await close_iterator(self._items)


def _check_seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"expected {name} to be a number of seconds over 0, or None, got {value!r}")
    return float(value)
