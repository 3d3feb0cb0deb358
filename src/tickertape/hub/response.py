"""``Hub`` with responses: subscriptions as event streams, in any ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from ..asgi import DisconnectReason, Receive, Scope, Send, Stream, StreamResponse, Takeover, open_streams, send_problem
from ..errors import BrokerError, HubClosedError, SlowConsumerError
from ..wire import ServerSentEvent
from .subscriber import OverflowPolicy
from .subscription import Subscription

__all__ = ["HubResponse"]


class HubResponse(StreamResponse):
    """Answer a request with the events of a subscription; made by :meth:`Hub.response`.

    The first bytes are the place where the stream starts and the time after which to reconnect, in
    a block without data, so that a client that is lost before its first event resumes all the same.
    Then the hub takes the connection over, if its server offers that and nothing stands between;
    else the response sends what the hub gives it, as any other.

    A hub that is draining, or has no log, answers 503 as ``application/problem+json``.
    """

    def __init__(
        self,
        hub: Any,
        patterns: tuple[str, ...],
        last_event_id: str | None,
        last: int | None,
        policy: OverflowPolicy,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
        user: Any,
    ) -> None:
        super().__init__(HTTPStatus.OK, headers, None)
        self._hub = hub
        self._wanted = patterns, last_event_id, last, policy, user

    def __repr__(self) -> str:
        return f"<HubResponse {self._wanted[0]}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        hub = self._hub
        if hub.draining:
            await send_problem(send, HTTPStatus.SERVICE_UNAVAILABLE, "The hub is draining: come back in a moment.")
            return
        try:
            request = await hub.request(*self._wanted)
        except (BrokerError, HubClosedError) as error:
            await send_problem(send, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            return
        if scope["method"] == "HEAD":
            await self._answer_head(send)
        else:
            await self._serve(request, scope, receive, send)

    async def _serve(self, request: Any, scope: Scope, receive: Receive, send: Send) -> None:
        hub = self._hub
        try:
            subscription = hub.serve(request)
        except HubClosedError as error:
            await send_problem(send, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            return
        takeover = await Takeover.find(receive)

        def hand_over(chunk: bytes) -> bool:
            if takeover is None:
                return False
            # A stream that is ending already was told so in the way in which it is served now.
            if subscription.reason or hub.draining:
                takeover.release()
                return False
            direct = hub.serve_direct(subscription)
            transport = takeover.take(chunk, direct)
            if transport is None:
                direct.hand_over()
                return False
            hub.presence.replace(subscription, direct)
            direct.start(transport, takeover.connections)
            # The server may have told its connections of a shutdown before this became one of them.
            open_streams.add(hub, {"server": scope.get("server")})
            return True

        stream = Stream(
            _Chunks(hub, subscription),
            self._start(),
            heartbeat=hub.heartbeat,
            send_timeout=hub.send_timeout,
            clock=hub.clock,
            hand_over=hand_over,
            on_drain=hub.drain,
        )
        try:
            await stream.run(scope, receive, send)
        finally:
            subscription.end(stream.reason or DisconnectReason.CLIENT_CLOSED)


class _Chunks(AsyncIterator[bytes]):
    """The bytes of a subscription: its place, its events, and a last word when the hub drains."""

    __slots__ = ("_hub", "_over", "_primed", "_subscription")

    def __init__(self, hub: Any, subscription: Subscription) -> None:
        self._hub = hub
        self._subscription = subscription
        self._primed = False
        self._over = False

    async def __anext__(self) -> bytes:
        if not self._primed:
            self._primed = True
            return self._opening()
        if self._over:
            raise StopAsyncIteration
        try:
            found = await self._subscription.next_range()
        except SlowConsumerError:
            # Ended as a clean end: the client comes back with its cursor, and is told of the gap.
            raise StopAsyncIteration from None
        if found is not None:
            return (b"" if found.gap is None else found.gap.encode()) + found.chunk
        self._over = True
        return bytes(self._hub.jittered_retry())

    def _opening(self) -> bytes:
        subscription = self._subscription
        gap, subscription.gap = subscription.gap, None
        # One block also with a gap: a client that had the place alone would never be told of the gap.
        place = ServerSentEvent(id=str(subscription.resume_from)) if gap is None else gap
        return place.encode().removesuffix(b"\n") + bytes(self._hub.jittered_retry())
