"""``EventSourceResponse`` with the signature of sse-starlette, ``AppStatus`` and ``SendTimeoutError``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, Protocol

from ...asgi import DisconnectReason, Message, Receive, Scope, Send, Stream, StreamResponse
from .content import ContentItems
from .event import ServerSentEvent, ensure_bytes
from .status import AppStatus

__all__ = ["AppStatus", "EventSourceResponse", "SendTimeoutError", "ServerSentEvent", "ensure_bytes"]


class SendTimeoutError(TimeoutError):
    """Raised by a response whose client took nothing for ``send_timeout`` seconds."""


class Event(Protocol):
    """An ``asyncio.Event`` or ``anyio.Event``."""

    def set(self) -> object:
        """Wake up everything that waits for it."""


class EventSourceResponse(StreamResponse):
    """An event stream with the arguments of sse-starlette, for Starlette and FastAPI.

    Arguments:
        content: an async or sync iterable of ``str``, ``bytes``, event objects, dicts of fields, or anything that
            ``str()`` makes text of.
        status_code: the HTTP status.
        headers: additional headers. ``Connection`` is dropped: HTTP/2 forbids it.
        media_type: the content type, without the charset.
        background: called and awaited after the stream.
        ping: seconds without a write after which a ping is sent, 15 by default; 0 for never.
        sep: the line separator of dicts, text and pings; CRLF by default.
        ping_message_factory: returns the ping to send; by default a comment with the time.
        data_sender_callable: a coroutine function that runs while the response does, and is cancelled at its end.
            If it fails, the response ends and raises its exception.
        send_timeout: seconds that one write may take; ``None`` for no limit.
        client_close_handler_callable: awaited with the ASGI message when the client has left.
        shutdown_event: set when the server is stopping, so that the content can send a last event.
        shutdown_grace_period: seconds that the content may continue after that, >= 0; at most half of the
            server's own limit, if that is known.
        cleanup_timeout: seconds that closing the content may take; ``None`` for no limit.

    The head is sent at once. The response needs asyncio.

    Source: the interface of sse-starlette 3.

    Raises:
        ValueError: an argument is out of its range.
        TypeError: ``ping`` is not a number, or ``content`` is not iterable.
    """

    DEFAULT_PING_INTERVAL: ClassVar[float] = 15
    DEFAULT_SEPARATOR: ClassVar = "\r\n"
    DEFAULT_CLEANUP_TIMEOUT: ClassVar = 30.0

    def __init__(
        self,
        content: AsyncIterable[Any] | Iterable[Any],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str = "text/event-stream",
        background: Callable[[], Awaitable[Any]] | None = None,
        ping: float | None = None,
        sep: str | None = None,
        ping_message_factory: Callable[[], ServerSentEvent] | None = None,
        data_sender_callable: Callable[[], Coroutine[Any, Any, None]] | None = None,
        send_timeout: float | None = None,
        client_close_handler_callable: Callable[[Message], Awaitable[None]] | None = None,
        shutdown_event: Event | None = None,
        shutdown_grace_period: float = 0,
        cleanup_timeout: float | None = DEFAULT_CLEANUP_TIMEOUT,
    ) -> None:
        if sep not in (None, "\r\n", "\r", "\n"):
            raise ValueError(f"sep must be one of: \\r\\n, \\r, \\n, got: {sep!r}")
        if shutdown_grace_period < 0:
            raise ValueError("shutdown_grace_period must be >= 0")
        if cleanup_timeout is not None and cleanup_timeout < 0:
            raise ValueError("cleanup_timeout must be >= 0")
        super().__init__(status_code, headers, background, f"{media_type}; charset=utf-8")
        self.media_type = media_type
        self.body_iterator = content
        self.sep = sep or self.DEFAULT_SEPARATOR
        self.ping_interval = self.DEFAULT_PING_INTERVAL if ping is None else ping
        self.ping_message_factory = ping_message_factory
        self.data_sender_callable = data_sender_callable
        self.send_timeout = send_timeout
        self.client_close_handler_callable = client_close_handler_callable
        self.active = True
        self._shutdown_event = shutdown_event
        self._grace = shutdown_grace_period
        self._cleanup_timeout = cleanup_timeout
        self._drain_end: float | None = None
        self._stream: Stream | None = None

    @property
    def ping_interval(self) -> float:
        """Seconds without a write after which a ping is sent; 0 for never."""
        return self._ping_interval

    @ping_interval.setter
    def ping_interval(self, value: float) -> None:
        if not isinstance(value, (int, float)):
            raise TypeError("ping interval must be int or float")
        if value < 0:
            raise ValueError("ping interval must be >= 0 (0 disables ping)")
        self._ping_interval = value

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            SendTimeoutError: the client took nothing for ``send_timeout`` seconds.
            RuntimeError: the scope is not an HTTP request.
            Exception: raised by the content, by the sender or by the close handler.
        """
        self._check_scope(scope)
        if scope["method"] == "HEAD":
            await self._answer_head(send)
        else:
            await self._serve(scope, receive, send)
        if self.background is not None:
            await self.background()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = self._stream = Stream(
            ContentItems(self.body_iterator, self._cleanup_timeout),
            self._start(),
            head=0,
            encode=partial(ensure_bytes, sep=self.sep),
            heartbeat=self._ping_interval or None,
            beat=self._ping,
            send_timeout=self.send_timeout,
            on_error=_cut,
            on_drain=self._drain,
        )
        try:
            if AppStatus.should_exit:
                self._drain(None)
            await self._run_with_sender(stream, scope, receive, send)
        finally:
            self.active = False
        if stream.reason is DisconnectReason.CLIENT_CLOSED and self.client_close_handler_callable is not None:
            await self.client_close_handler_callable({"type": "http.disconnect"})
        if stream.reason is DisconnectReason.SEND_TIMEOUT:
            raise SendTimeoutError

    async def _run_with_sender(self, stream: Stream, scope: Scope, receive: Receive, send: Send) -> None:
        if self.data_sender_callable is None:
            await stream.run(scope, receive, send)
            return

        def on_done(task: asyncio.Task[None]) -> None:
            if _failed(task):
                stream.interrupt(DisconnectReason.ERROR)

        sender = asyncio.get_running_loop().create_task(self.data_sender_callable())
        sender.add_done_callback(on_done)
        try:
            await stream.run(scope, receive, send)
        finally:
            sender.cancel()
            await asyncio.wait([sender])
        if _failed(sender):
            await sender

    def _ping(self) -> bytes:
        make = self.ping_message_factory
        ping = ServerSentEvent(comment=f"ping - {datetime.now(UTC)}", sep=self.sep) if make is None else make()
        return ensure_bytes(ping, self.sep)

    def _drain(self, limit: float | None) -> float:
        """Start the grace period in which the content may end by itself; return the rest of it."""
        if not (AppStatus.should_exit or AppStatus.enable_automatic_graceful_drain) or self._stream is None:
            return 0.0
        loop = asyncio.get_running_loop()
        if self._drain_end is None:
            grace = self._grace if limit is None else min(self._grace, limit)
            self._drain_end = loop.time() + grace
            if self._shutdown_event is not None:
                self._shutdown_event.set()
            if grace > 0:
                loop.call_later(grace, self._stream.interrupt, DisconnectReason.DRAINING)
            else:
                self._stream.interrupt(DisconnectReason.DRAINING)
        return max(0.0, self._drain_end - loop.time())


async def _cut(error: Exception) -> bytes:
    """Send nothing after an exception, so that the server cuts the connection."""
    return b""


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None
