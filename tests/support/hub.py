"""Hubs without servers: clients with both outputs, over transports that a test controls."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from tickertape import Decoder, ServerSentEvent
from tickertape.asgi import Message, Receive, StreamResponse, frame
from tickertape.hub import DirectOutput, Hub

__all__ = ["Chunks", "HubClient", "ScriptedTransport", "gap_of", "settle"]

KEPT: Final = 256 * 1024
"""Bytes of a body after which no more is kept."""

PIECE: Final = 4096
"""Bytes asked of the kernel to hold: it takes the least that it can, a few thousand."""


async def settle(turns: int = 30) -> None:
    """Run the callbacks that are ready, and those that become ready then. No time passes."""
    for _ in range(turns):
        await asyncio.sleep(0)


def gap_of(event: ServerSentEvent) -> dict[str, str]:
    """Return the fields of a ``stream:gap``."""
    assert event.event == "stream:gap", event
    fields: dict[str, str] = event.json()
    return fields


_HEAD: Final = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Chunks:
    """Read a chunked body (RFC 9112, 7.1) as its bytes arrive, and check the syntax.

    Attributes:
        complete: true after the last chunk.
    """

    def __init__(self) -> None:
        self.complete = False
        self._buffer = b""
        self._left = 0  # of a chunk's data

    def feed(self, data: bytes) -> bytes:
        """Accept bytes; return those of the body."""
        self._buffer += data
        body = []
        while self._buffer:
            if self._left:
                piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
                self._left -= len(piece)
                body.append(piece)
                if not self._left:
                    self._buffer = b"-" + self._buffer  # the line break after the data must follow
            elif self._buffer.startswith(b"-"):
                if len(self._buffer) < 3:
                    break
                assert self._buffer[:3] == b"-\r\n", self._buffer[:40]
                self._buffer = self._buffer[3:]
            else:
                size, line_break, rest = self._buffer.partition(b"\r\n")
                if not line_break:
                    assert len(size) < 10, size
                    break
                assert not self.complete, self._buffer
                self._left, self._buffer = int(size, 16), rest
                if not self._left:
                    assert rest in (b"", b"\r", b"\r\n"), rest
                    self.complete = rest == b"\r\n"
                    self._buffer = b"" if self.complete else b"0\r\n" + rest
                    break
        return b"".join(body)


class ScriptedTransport(asyncio.Transport):
    """A connection over a pair of real sockets that makes progress when the test asks for it.

    Arguments:
        lazy: whether it writes at the next :meth:`pump` only, as uvloop's does, or at once, as asyncio's.
    """

    def __init__(self, *, lazy: bool = False) -> None:
        super().__init__()
        self._ours, self._theirs = socket.socketpair()
        for end in (self._ours, self._theirs):
            end.setblocking(False)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        self._lazy = lazy
        self._buffer = bytearray()
        self._high = 64 * 1024
        self._paused = False
        self._closing = False
        self._protocol: DirectOutput | None = None
        self.lost = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._ours if name == "socket" else default

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high or 0
        self._pause_if_full()

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def write(self, data: Any) -> None:
        self._buffer += data
        if not self._lazy:
            self._flush()
        self._pause_if_full()

    def close(self) -> None:
        self._closing = True
        if not self._buffer:
            self._lose()

    def abort(self) -> None:
        self._closing = True
        self._buffer.clear()
        self._lose()

    # Called by the test.

    def read(self, limit: int = 1 << 20) -> bytes:
        """Read the available bytes as the peer."""
        try:
            return self._theirs.recv(limit)
        except (BlockingIOError, OSError):
            return b""

    def pump(self) -> None:
        """Write what the kernel accepts, as the event loop does when the socket is writable."""
        self._flush()
        if self._paused and not self._buffer and self._protocol is not None:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self._buffer:
            self._lose()

    def hang_up(self) -> None:
        """Close the peer's end: the next write fails, before or after the hub is notified."""
        self._theirs.close()

    def notice(self) -> None:
        """Notify the protocol that its peer is gone."""
        self.abort()

    def _flush(self) -> None:
        try:
            while self._buffer:
                del self._buffer[: self._ours.send(self._buffer)]
        except BlockingIOError:
            pass
        except OSError:
            self.abort()

    def _pause_if_full(self) -> None:
        if len(self._buffer) > self._high and not self._paused and self._protocol is not None:
            self._paused = True
            self._protocol.pause_writing()

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            asyncio.get_running_loop().call_soon(self._connection_lost)

    def _connection_lost(self) -> None:
        if self._protocol is not None:
            self._protocol.connection_lost(None)
        self._ours.close()

    def dispose(self) -> None:
        """Close both ends."""
        self._ours.close()
        self._theirs.close()


class _Cycle:
    """The part of uvicorn's request/response cycle, and of its protocol, that a takeover uses."""

    def __init__(self, scope: dict[str, Any], transport: ScriptedTransport, receive: Receive) -> None:
        self.scope = scope
        self.transport: Any = transport
        self.response_started = self.disconnected = self.more_body = False
        self.on_response = _Protocol(transport).on_response
        self._receive = receive

    async def receive(self) -> Message:
        return await self._receive()


class _Protocol:
    scheme = "http"

    def __init__(self, transport: ScriptedTransport) -> None:
        self.transport = transport
        self.cycle: Any = None
        self.total_requests = 0
        self.connections: set[Any] = {self}
        self.server_state = self.flow = self

    def on_response(self) -> None: ...

    def resume_reading(self) -> None: ...

    def _unset_keepalive_if_required(self) -> None: ...


class HubClient:
    """One connection to a hub, in either way of delivery, read as the test wants.

    Arguments:
        hub: the hub.
        topics: patterns.
        direct: whether the connection is offered to the hub; else its response sends.
        lazy: how the transport of a direct one writes.
        query: of the request.
        make: returns another response of the hub for a scope; by default :meth:`Hub.response`.
        options: of :meth:`Hub.response`.

    Attributes:
        status: of the response; 0 before it.
        body: of the response, as far as it was read; its start, if that is long.
        received: bytes of the body read.
        complete: true if the body has ended properly.
        output: the direct output, once the connection was handed over.
        stalled: whether the peer does not read; the server of a portable one waits in ``send`` then.
    """

    def __init__(
        self,
        hub: Hub,
        *topics: str,
        direct: bool = False,
        lazy: bool = False,
        last_event_id: str | None = None,
        query: Mapping[str, str] | None = None,
        method: str = "GET",
        make: Callable[[Any], StreamResponse] | None = None,
        **options: Any,
    ) -> None:
        self.direct = direct
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.received = 0
        self.complete = False
        self.stalled = False
        self.transport = ScriptedTransport(lazy=lazy) if direct else None
        self.decoder = Decoder(comments=True, max_event_size=None)
        self.events: list[ServerSentEvent] = []
        self._chunks = Chunks()
        self._head: bytes | None = b""  # as far as it was read; then None
        self._sent: list[bytes] = []
        self._unread = 0
        self._asked = False
        self._left = asyncio.Event()
        self._may_send = asyncio.Event()
        headers = [] if last_event_id is None else [(b"last-event-id", last_event_id.encode())]
        scope = {
            "type": "http",
            "method": method,
            "path": "/events",
            "http_version": "1.1",
            "headers": headers,
            "query_string": urlencode(query or {}).encode(),
        }
        self._cycle = None if self.transport is None else _Cycle(scope, self.transport, self._receive)
        self.response = hub.response(scope, topics, **options) if make is None else make(scope)
        receive = self._receive if self._cycle is None else self._cycle.receive
        self.task = asyncio.create_task(self.response(scope, receive, self._send))

    # The server's side.

    async def _receive(self) -> Message:
        # Called again when a stream has dropped its connection and waits for its server to see it.
        if not self._asked:
            self._asked = True
            await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        while self._unread > 65536 and not self._left.is_set():
            self._may_send.clear()
            await self._may_send.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            if self._cycle is not None and self.status == 200:
                self._cycle.transport.write(_HEAD)
        elif self._cycle is not None and self.status == 200:
            if message["body"]:
                self._cycle.transport.write(frame(message["body"]))
            if not message["more_body"]:
                self._cycle.transport.write(b"0\r\n\r\n")
        elif not self._left.is_set():
            self._sent.append(message["body"])
            self._unread += len(message["body"])
            self.complete = not message["more_body"]

    # The client's side.

    @property
    def output(self) -> DirectOutput | None:
        return None if self.transport is None else self.transport.get_protocol()

    @property
    def ended(self) -> bool:
        """True if no more bytes will follow."""
        if self.output is not None:
            assert self.transport is not None
            return self.transport.lost
        return self.task.done()

    @property
    def last_event_id(self) -> str | None:
        return self.decoder.last_event_id

    def read(self, limit: int = 1 << 20) -> list[ServerSentEvent]:
        """Read and decode about ``limit`` bytes; return the events."""
        data = bytearray()
        while self._sent and len(data) < limit:
            data += self._sent.pop(0)
        self._unread -= len(data)
        self._may_send.set()
        while self.transport is not None and len(data) < limit:
            self.transport.pump()
            framed = self.transport.read(limit - len(data))
            if not framed:
                break
            data += self._chunks.feed(self._skip_head(framed))
        self.complete = self.complete or self._chunks.complete
        self.received += len(data)
        if len(self.body) < KEPT:
            self.body += data
        events = self.decoder.feed(bytes(data))
        self.events += events
        return events

    def _skip_head(self, framed: bytes) -> bytes:
        if self._head is None:
            return framed
        head, end, rest = (self._head + framed).partition(b"\r\n\r\n")
        if not end:
            self._head = head
            return b""
        self._head = None
        lines = head.decode().lower().split("\r\n")[1:]
        # transfer-encoding is a header of the connection, not of the response.
        self.headers |= dict(line.split(": ", 1) for line in lines if not line.startswith("transfer-encoding:"))
        return rest

    async def read_all(self, turns: int = 5) -> list[ServerSentEvent]:
        """Read until no more bytes arrive; return the events, without comments."""
        events: list[ServerSentEvent] = []
        idle = 0
        while idle < turns:
            await settle(5)
            before = self.received
            events += self.read()
            idle = idle + 1 if self.received == before else 0
        return [event for event in events if event.comment is None]

    def leave(self, *, noticed: bool = True) -> None:
        """Hang up; the server sees it at once, or when it writes next."""
        if self.transport is not None:
            self.transport.hang_up()
            if self.output is not None and noticed:
                self.transport.notice()
        if noticed or self.output is None:
            self._left.set()
            self._may_send.set()

    async def close(self) -> None:
        """Leave, and return when the server's side is done."""
        self.leave()
        await asyncio.wait([self.task])
        await settle(3)
        if self.transport is not None:
            self.transport.dispose()
