"""``HTTPProtocol``: uvicorn's protocol for HTTP/1.1, with limits for clients that send too much or too slowly.

uvicorn parses all that it receives, whatever that is. Here the parser gets small pieces, and between two of them:

- the bytes of a head or of trailers are counted, since the parser reports neither before it is complete;
- a request that arrives while another is being answered stops the parser, until it is its turn.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from ..asgi import problem_body, problem_headers, reset_on_close
from .descriptors import is_full
from .limits import GUARD, Guard, Limits, address_of

_PIECE: Final = 1024
"""Bytes that the parser gets at once, outside of a body of known length: a usual head, or some 40 of the smallest."""

_BODY_PIECE: Final = 64 * 1024
"""Bytes of a body of known length that the parser gets at once."""

_MAX_UNPARSED: Final = 256 * 1024
"""Bytes that are kept for later while a request is answered: one read of the event loop. Then reading pauses."""


def guard_of(app_state: dict[str, Any]) -> Guard:
    """Return the guard of a server; that of another application has the default limits."""
    guard: Guard | None = app_state.get(GUARD)
    if guard is None:
        guard = app_state[GUARD] = Guard(Limits())
    return guard


class HTTPProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with these changes.

    - Connections beyond ``limit_concurrency`` are closed. The log reports the begin and the end of that state.
    - Heads, trailers, bodies and answers have the limits of :class:`~tickertape.server.limits.Limits`.
    - An HTTP/1.0 client gets no chunked body, which it could not decode; the end of the connection ends the body.
    - A connection that is lost leaves no timer and no pipelined request behind that would keep it in memory.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._guard = guard_of(app_state)
        self.timeout_keep_alive = cast("int", self._guard.limits.keep_alive)
        self._unparsed = bytearray()
        self._in_head = False
        self._refused = False  # nothing that the parser reports counts any more
        self._progress = 0  # events of the parser that are not part of a head or of trailers
        self._without_progress = 0  # bytes since the last of them
        self._header_count = 0
        self._body_left = 0  # of a body of known length
        self._in_body = False
        self.received = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or close it."""
        limit = self.limit_concurrency
        if limit is not None and is_full(self.server_state, len(self.connections), limit):
            self._guard.count("descriptors")
            transport.abort()
        super().connection_made(transport)
        self._guard.watch_head(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn does so after a clean end only
        self._guard.forget_head(self)
        self._guard.forget_body(self)
        self._guard.forget_answer(self)
        self.pipeline.clear()
        self._unparsed.clear()

    def data_received(self, data: bytes) -> None:
        """Parse a piece of a request, or keep it for later."""
        if self._refused or self.transport.is_closing():
            return
        if self.pipeline or self._unparsed:
            self._unparsed += data
            if len(self._unparsed) > _MAX_UNPARSED:
                self.flow.pause_reading()
            return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        cycle: Any = self.cycle
        if not self._in_body and (cycle is None or cycle.response_complete):
            self._guard.watch_head(self)  # for bytes that do not begin a head, too
        view = memoryview(data)
        at = 0
        while at < len(view):
            if self.pipeline:
                self._unparsed += view[at:]
                self.flow.pause_reading()
                return
            size = min(self._body_left, _BODY_PIECE) if self._body_left > 0 else _PIECE
            progress = self._progress
            super().data_received(bytes(view[at : at + size]))
            at += size
            if self._refused or self.transport.is_closing():
                return
            self._without_progress = 0 if self._progress > progress else self._without_progress + size
            if self._without_progress > self._guard.limits.max_head_size:
                self._refuse("head_size")
                return

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head = True
        self._header_count = self.received = self._body_left = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; drop a trailer."""
        self._header_count += 1
        if self._refused:
            return
        if self._header_count > self._guard.limits.max_headers:
            self._refuse("headers")
        elif self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request."""
        self._in_head = False
        self._in_body = True
        self._progress += 1
        if self._refused:
            return
        self._guard.forget_head(self)
        super().on_headers_complete()
        cycle: Any = self.cycle
        if cycle is not None and cycle.scope["http_version"] == "1.0":
            # The application starts later, in a task. Neither chunked nor of a known length is unknown to uvicorn.
            cycle.chunked_encoding = False
            cycle.expected_content_length = _UnknownLength()
        headers = dict(self.headers)
        if b"transfer-encoding" not in headers and headers.get(b"content-length", b"").isdigit():
            self._body_left = int(headers[b"content-length"])
        if self._body_left or b"transfer-encoding" in headers:
            self._guard.watch_body(self)

    def on_body(self, body: bytes) -> None:
        """Pass a piece of the body on."""
        self._progress += 1
        self.received += len(body)
        self._body_left -= len(body)
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        self._in_body = False
        self._progress += 1
        self._guard.forget_body(self)
        if not self._refused:
            super().on_message_complete()

    # Answers.

    def on_response_complete(self) -> None:
        """Continue with the bytes received during the answer, or wait for the next request."""
        super().on_response_complete()
        self._guard.watch_answer(self)
        if self._unparsed and not self.pipeline and not self.transport.is_closing():
            data = bytes(self._unparsed)
            self._unparsed.clear()
            self._parse(data)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, unless its client still reads the last answer."""
        if not self.unread:
            super().timeout_keep_alive_handler()
            return
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    @property
    def unread(self) -> int:
        """The bytes of answers that the client has not read yet."""
        return self.transport.get_write_buffer_size()

    @property
    def address(self) -> str:
        """The address of the client."""
        return address_of(self.transport)

    # Refusals.

    def overdue(self, limit: str) -> None:
        """Close the connection: a head or a body was not complete in time, or an answer was not read."""
        if limit == "send_timeout":
            self._abort()
        else:
            self._close(HTTPStatus.REQUEST_TIMEOUT, _LATE[limit])

    def _refuse(self, limit: str) -> None:
        self._guard.count(limit)
        limits = self._guard.limits
        most = f"{limits.max_head_size} bytes" if limit == "head_size" else f"{limits.max_headers} headers"
        self._close(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"expected at most {most} before a body and after it")

    def _close(self, status: HTTPStatus, detail: str) -> None:
        """Answer with a problem if no answer has begun, and close the connection."""
        self._refused = True
        self._guard.forget_head(self)
        self._guard.forget_body(self)
        cycle: Any = self.cycle
        running = cycle is not None and not cycle.response_complete
        if self.transport.get_write_buffer_size() or (running and cycle.response_started):
            self._abort()
            return
        if running:
            cycle.disconnected = True  # its own answer is dropped
            cycle.message_event.set()
        if self.scope is not None:  # something was received
            body = problem_body(status, detail)
            headers = [*self.server_state.default_headers, *problem_headers(status, body), (b"connection", b"close")]
            lines = [b"%b: %b\r\n" % header for header in headers]
            self.transport.write(
                b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, status.phrase.encode(), b"".join(lines), body)
            )
        self.transport.close()

    def _abort(self) -> None:
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            reset_on_close(connection)
        self.transport.abort()


_LATE: Final = {
    "head_timeout": "the head of the request was not complete in time",
    "body_timeout": "the body of the request was not complete in time",
}


class _UnknownLength(int):
    """The length of a body that ends with its connection: equal to, and never less than, whatever was sent."""

    def __lt__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return False

    def __sub__(self, other: object) -> _UnknownLength:
        return self
