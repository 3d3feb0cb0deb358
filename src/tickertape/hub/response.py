"""``HubResponse``: a subscription as an event stream, in any ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Protocol

from ..asgi import (
    DisconnectReason,
    Receive,
    Scope,
    Send,
    Stream,
    StreamResponse,
    Takeover,
    open_streams,
    send_problem,
    set_tcp_timeout,
    tcp_timeout_for,
)
from ..errors import BrokerError, HubClosedError, SlowConsumerError
from ..timing import Clock
from ..wire import Cursor
from .delivery import Delivery
from .direct import DirectOutput
from .log import Start
from .pull import PullOutput
from .subscription import OverflowPolicy, Subscription
from .topics import Patterns


class StreamingHub(Protocol):
    """The part of a hub that a response needs."""

    heartbeat: float | None
    send_timeout: float | None

    @property
    def clock(self) -> Clock: ...
    @property
    def draining(self) -> bool: ...
    @property
    def delivery(self) -> Delivery: ...
    def drain(self, within: float | None = None) -> float: ...
    def retry_block(self) -> bytes: ...
    async def find_start(self, patterns: Patterns, last_event_id: str | None, last: int | None) -> Start: ...
    def subscribe_at(self, start: Start, patterns: Patterns, policy: OverflowPolicy, user: Any) -> Subscription: ...


def opening_block(subscription: Subscription, epoch: str, retry: bytes) -> bytes:
    """Return the first block of a stream: its cursor or its gap, and the reconnection time.

    It is one block, also with a gap: a client that had the cursor alone would never see the gap.
    """
    gap = subscription.take_gap()
    if gap is None:
        return f"id: {Cursor(epoch, subscription.cursor)}\n".encode() + retry
    return gap.encode().removesuffix(b"\n") + retry


class HubResponse(StreamResponse):
    """Stream the events of a subscription to a client; made by :meth:`Hub.response`.

    The first block has the cursor at which the stream starts and the reconnection time, but no data: a
    client that loses its connection before the first event resumes all the same. If the server and the
    middleware allow it, the hub then takes the connection over (see :class:`tickertape.asgi.Takeover`),
    and nothing remains of the request. Otherwise the response pulls the events and sends them.

    If the hub is draining or has no log, the response is 503 as ``application/problem+json``.
    """

    def __init__(
        self,
        hub: StreamingHub,
        patterns: Patterns,
        last_event_id: str | None,
        *,
        last: int | None,
        policy: OverflowPolicy,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
        user: Any,
    ) -> None:
        super().__init__(HTTPStatus.OK, headers, None)
        self._hub = hub
        self._patterns = patterns
        self._last_event_id = last_event_id
        self._last = last
        self._policy = policy
        self._user = user

    def __repr__(self) -> str:
        return f"<HubResponse {self._patterns}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"a hub's response answers HTTP requests, not a scope of type {scope['type']!r}")
        hub = self._hub
        if hub.draining:
            await send_problem(send, HTTPStatus.SERVICE_UNAVAILABLE, "The hub is draining: try again in a moment.")
            return
        try:
            start = await hub.find_start(self._patterns, self._last_event_id, self._last)
            if scope["method"] == "HEAD":
                await self._answer_head(send)
                return
            subscription = hub.subscribe_at(start, self._patterns, self._policy, self._user)
        except (BrokerError, HubClosedError) as error:
            await send_problem(send, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            return
        await self._serve(subscription, scope, receive, send)

    async def _serve(self, subscription: Subscription, scope: Scope, receive: Receive, send: Send) -> None:
        hub = self._hub
        delivery = hub.delivery
        opening = opening_block(subscription, delivery.window.epoch, hub.retry_block())
        started = False
        try:
            takeover = await Takeover.find(receive)
            if takeover is not None:
                started = True
                await send(self._start())
                await send({"type": "http.response.body", "body": opening, "more_body": True})
                if self._hand_over(takeover, opening, delivery, subscription):
                    # The server may have notified its connections of a shutdown before this became one of them.
                    open_streams.add(hub, scope)
                    return
        except BaseException:
            delivery.end(subscription, DisconnectReason.CLIENT_CLOSED)
            raise
        stream = Stream(
            _Chunks(hub, PullOutput(delivery, subscription), b"" if started else opening),
            None if started else self._start(),
            heartbeat=hub.heartbeat,
            send_timeout=hub.send_timeout,
            clock=hub.clock,
            on_drain=hub.drain,
        )
        try:
            await stream.run(scope, receive, send)
        finally:
            delivery.end(subscription, stream.reason or DisconnectReason.CLIENT_CLOSED)

    def _hand_over(self, takeover: Takeover, opening: bytes, delivery: Delivery, subscription: Subscription) -> bool:
        """Make a direct output the owner of the connection, if everything went out unchanged."""
        if subscription.reason is not None or self._hub.draining:
            takeover.release()  # a stream that is ending sends its last block in the portable way
            return False
        output = DirectOutput(delivery, subscription, self._hub.drain)
        transport = takeover.take(opening, output)
        if transport is None:
            return False
        output.start(transport, takeover.connections)
        if self._hub.send_timeout is not None:
            with suppress(OSError):  # not a TCP socket
                set_tcp_timeout(transport.get_extra_info("socket"), tcp_timeout_for(self._hub.send_timeout))
        return True


class _Chunks(AsyncIterator[bytes]):
    """The bytes of a portable stream: the opening, the events, and a last block when the hub drains."""

    __slots__ = ("_hub", "_opening", "_output", "_over")

    def __init__(self, hub: StreamingHub, output: PullOutput, opening: bytes) -> None:
        self._hub = hub
        self._output = output
        self._opening = opening
        self._over = False

    async def __anext__(self) -> bytes:
        if self._opening:
            opening, self._opening = self._opening, b""
            return opening
        if self._over:
            raise StopAsyncIteration
        try:
            found = await self._output.next_slice()
        except SlowConsumerError:
            # A clean end: the client reconnects with its cursor and gets the gap.
            raise StopAsyncIteration from None
        if found is not None:
            return found.chunk if found.gap is None else found.gap.encode() + found.chunk
        self._over = True
        return self._hub.retry_block()
