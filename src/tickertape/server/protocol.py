"""``DirectHTTPProtocol``: uvicorn's HTTP/1.1 protocol, which can let go of a connection.

``uvicorn app:app --http tickertape.server.protocol:DirectHTTPProtocol``

An event stream begins as any response, through all middleware, which adds its headers; the access
log has its line. When the first bytes have gone out as they were given, the hub takes the
connection over: its subscriber becomes the protocol of the transport, the ASGI call returns, and
what uvicorn kept for the request is freed. If anything stands between (middleware that changes the
body or sends it from a task of its own, TLS, HTTP/1.0) the response goes on as it began.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ..asgi import ASGIApp, Message, Receive, Scope, Send
from ..hub import DIRECT_EXTENSION, DirectSubscriber

__all__ = ["DirectHTTPProtocol"]

_SUPPORTED: Final = sys.platform != "win32"  # its event loop writes to handles, not to descriptors


class DirectHTTPProtocol(HttpToolsProtocol):
    """Offer the connection of a request to a response that can serve it without a task."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if _SUPPORTED:
            self.app = _Offering(self.app, self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the peer has left."""
        super().connection_lost(exc)
        self.app = self.config.loaded_app  # ours holds this protocol, which would hold it


class _Offering:
    """The application, told of the connection that each of its requests has."""

    __slots__ = ("_app", "_protocol")

    def __init__(self, app: Any, protocol: DirectHTTPProtocol) -> None:
        self._app: ASGIApp = app
        self._protocol = protocol

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cycle = getattr(send, "__self__", None)
        if scope["type"] != "http" or scope["http_version"] != "1.1" or not isinstance(cycle, RequestResponseCycle):
            await self._app(scope, receive, send)
            return
        connection = _Connection(self._protocol, cycle)
        extensions = scope.setdefault("extensions", {})
        extensions[DIRECT_EXTENSION] = connection
        try:
            await self._app(scope, receive, connection.send)
        finally:
            # It knows the protocol, which knows the scope. Middleware may have taken it away.
            extensions.pop(DIRECT_EXTENSION, None)


class _Connection:
    """Watch what a response sends, until it is known whether its connection can be handed over."""

    __slots__ = ("_body", "_cycle", "_encoded", "_handed_over", "_messages", "_protocol", "_task")

    def __init__(self, protocol: DirectHTTPProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._messages = 0
        self._handed_over = False
        self._encoded = False
        self._body = b""
        self._task: asyncio.Task[Any] | None = None

    async def send(self, message: Message) -> None:
        """Pass a message on to the server, and remember the first ones."""
        if self._handed_over:
            return  # middleware that ends the response after the application did: it goes on
        self._messages += 1
        if self._messages == 1:
            self._encoded = any(name.lower() == b"content-encoding" for name, _ in message.get("headers", ()))
        elif self._messages == 2:
            self._body = message.get("body", b"")
            self._task = asyncio.current_task()
        await self._cycle.send(cast("Any", message))

    def offers(self, chunk: bytes) -> bool:
        """Tell whether the response has gone out unchanged so far, ``chunk`` being its first bytes."""
        cycle, transport = self._cycle, self._protocol.transport
        return (
            self._messages == 2
            and self._body == chunk
            and self._task is asyncio.current_task()  # middleware with a task of its own would end the response
            and not self._encoded
            and cycle.chunked_encoding is True
            and not cycle.disconnected
            and not cycle.response_complete
            and transport.get_extra_info("sslcontext") is None
            and transport.get_extra_info("socket") is not None
            and not transport.is_closing()
        )

    def hand_over(self, subscriber: DirectSubscriber) -> None:
        """Make ``subscriber`` the protocol of the connection, and start it."""
        protocol, cycle = self._protocol, self._cycle
        self._handed_over = True
        transport = protocol.transport
        # What the cycle looks at when the application returns: the response is no longer its concern.
        cycle.response_complete = True
        protocol._unset_keepalive_if_required()
        protocol.flow.resume_reading()  # a request sent behind this one paused it; now we watch for the end
        protocol.pipeline.clear()
        protocol.server_state.total_requests += 1
        protocol.connections.discard(protocol)
        # Counted by `limit_concurrency`, and told of a shutdown, as any other connection.
        protocol.connections.add(cast("Any", subscriber))
        transport.set_protocol(subscriber)
        subscriber.start(transport, protocol.connections.discard)
        # What holds the protocol while the protocol holds it: free it now, not at a collection.
        protocol.parser = None  # type: ignore[assignment]
        protocol.cycle = None  # type: ignore[assignment]
        protocol.app = None
