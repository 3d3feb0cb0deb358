"""Take a connection over from uvicorn after the first bytes of a response.

uvicorn calls an application with ``receive``, a method of its request/response cycle, for its
HTTP/1.1 implementations on httptools and on h11 alike. The cycle knows the transport. A
:class:`Takeover` replaces that transport while the response begins, through all middleware:
if one head and the first chunk are written, unchanged, the caller's protocol gets the transport,
and uvicorn forgets the connection. In any other case the bytes are sent and nothing has changed.

Nothing of uvicorn is imported. If an attribute is missing, there is no takeover.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any, Final, Protocol, Self

from .types import Receive

logger = logging.getLogger("tickertape.asgi")

_SUPPORTED: Final = sys.platform != "win32"  # its event loop writes to handles, not to descriptors


def frame(chunk: bytes) -> bytes:
    """Return a chunk of an HTTP/1.1 chunked body (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(chunk), chunk)


class TransportOwner(Protocol):
    """An :class:`asyncio.Protocol` that a server can ask to end.

    It removes itself from the server's connections when its own is lost.
    """

    def connection_lost(self, exc: Exception | None) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool | None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def shutdown(self) -> None:
        """End the response soon; the server is stopping."""


class Takeover:
    """A chance to take the connection of one request over from its server.

    Call :meth:`find` before the head is sent, then send the head and the first chunk, then call
    :meth:`take`, or :meth:`release` if you decide against it.

    Attributes:
        connections: the server's set of connections. It counts them, and calls ``shutdown()`` of each when it stops.
    """

    __slots__ = ("_cycle", "_protocol", "_recorder", "_transport", "connections")

    def __init__(self, cycle: Any) -> None:
        self._cycle = cycle
        self._protocol = cycle.on_response.__self__
        self._transport: asyncio.Transport = cycle.transport
        self._recorder = _Recorder(self._transport)
        self.connections: set[Any] = self._protocol.server_state.connections
        cycle.transport = self._recorder

    def __repr__(self) -> str:
        return f"<Takeover {self._transport!r}>"

    @classmethod
    async def find(cls, receive: Receive) -> Self | None:
        """Return the takeover of the request that ``receive`` belongs to, or ``None`` if there is none.

        There is none under another server, behind middleware that replaces ``receive`` (Starlette's
        ``BaseHTTPMiddleware``), with TLS or HTTP/1.0, and on Windows.
        """
        cycle: Any = getattr(receive, "__self__", None)
        if not _SUPPORTED or not hasattr(cycle, "on_response"):
            return None
        try:
            if cycle.more_body:
                # With eager tasks, the application is called by the parser, which must not lose its protocol.
                await asyncio.sleep(0)
            return cls(cycle) if _is_suitable(cycle) else None
        except AttributeError as error:
            logger.debug("cannot take connections over from this version of the server: %s", error)
            return None

    def take(self, chunk: bytes, protocol: TransportOwner, *, finite: bool = False) -> asyncio.Transport | None:
        """Make ``protocol`` the owner of the connection and return the transport, with no write buffer limit left.

        The connection is closed after the response. If that is ``finite``, its head announces it, so that the client
        does not send the next request on this connection (RFC 9112, 9.6).

        Return ``None`` if anything but a head and ``chunk`` was sent, or not by this task, or if the
        client has left; the response then continues through ``send``.
        """
        cycle, transport, recorder = self._cycle, self._transport, self._recorder
        written = recorder.written
        if (
            len(written) != 2
            or written[1] != frame(chunk)
            or recorder.task is not asyncio.current_task()  # middleware with a separate task would end the response
            or not _is_chunked_and_plain(written[0])
            or cycle.disconnected
            or transport.is_closing()
        ):
            self.release()
            return None
        cycle.disconnected = True  # later messages are dropped, and uvicorn does not log the missing end
        recorder.detach()
        self._forget_request()
        self.connections.add(protocol)
        transport.set_protocol(protocol)  # type: ignore[arg-type]
        self._protocol.flow.resume_reading()  # a pipelined request paused it; now it must notice the end
        # With the mark at zero the bytes are written at once, and `resume_writing` is called when all are.
        transport.set_write_buffer_limits(high=0)
        head = _announce_close(written[0]) if finite else written[0]
        transport.write(head + written[1])
        return transport

    def release(self) -> None:
        """Leave the connection to its server."""
        self._recorder.flush()
        self._cycle.transport = self._transport

    def _forget_request(self) -> None:
        """Remove the connection from the server, and break the reference cycles between its objects."""
        protocol = self._protocol
        protocol._unset_keepalive_if_required()
        protocol.server_state.total_requests += 1
        protocol.cycle = None
        if hasattr(protocol, "parser"):
            protocol.parser = None
            protocol.pipeline.clear()
        self.connections.discard(protocol)


class _Recorder:
    """Hold back a head and one chunk; pass everything on as soon as anything else is written.

    Attributes:
        written: bytes that are held back.
        task: the task that wrote the last of them.
    """

    __slots__ = ("_flushed", "_transport", "task", "written")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport: asyncio.Transport | None = transport
        self._flushed = False
        self.written: list[bytes] = []
        self.task: asyncio.Task[Any] | None = None

    def write(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self._flushed:
            self._transport.write(data)
            return
        self.written.append(data)
        self.task = asyncio.current_task()
        if not data or len(self.written) > 2:
            self.flush()

    def is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def flush(self) -> None:
        """Write the bytes that are held back, and hold nothing back from now on."""
        self._flushed = True
        if self._transport is not None and self.written:
            self._transport.write(b"".join(self.written))
            self.written = []

    def detach(self) -> None:
        """Ignore every call from now on."""
        self._transport = None


def _is_suitable(cycle: Any) -> bool:
    """Return whether the response of ``cycle`` may be taken over; raise AttributeError if it is not uvicorn's."""
    protocol = cycle.on_response.__self__
    protocol._unset_keepalive_if_required, protocol.flow.resume_reading, protocol.server_state.total_requests  # noqa: B018
    return bool(
        not cycle.response_started
        and not cycle.disconnected
        and cycle.scope["http_version"] == "1.1"
        and cycle.scope["method"] != "HEAD"
        and protocol.scheme == "http"
        and protocol.transport is cycle.transport
        and protocol in protocol.server_state.connections
    )


def _announce_close(head: bytes) -> bytes:
    return head if b"\r\nconnection:" in head.lower() else head[: -len(b"\r\n")] + b"connection: close\r\n\r\n"


def _is_chunked_and_plain(head: bytes) -> bool:
    lower = head.lower()
    return b"\r\ntransfer-encoding: chunked\r\n" in lower and b"\r\ncontent-encoding:" not in lower
