"""``HubResponse``: a subscription as an event stream, in any ASGI application."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

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
    status_of,
    tcp_timeout_for,
)
from ..errors import AccessError, BrokerError, HubClosedError, SlowConsumerError
from ..timing import Clock
from ..wire import HEARTBEAT, Cursor, End, Patterns, ServerSentEvent, StreamOpen, encode_fields
from .audience import Form
from .delivery import Delivery, Slice
from .direct import DirectOutput
from .grants import Grant
from .log import Last, Start
from .pull import HubEvent, PullOutput, events_of
from .subscription import OverflowPolicy, Subscription
from .window import envelope_of

logger = logging.getLogger("tickertape.hub")

Filter: TypeAlias = Callable[[HubEvent], bool]
Map: TypeAlias = Callable[[HubEvent], Any]


class Shaping(NamedTuple):
    """The options of one stream.

    Attributes:
        envelope: the data goes out with its topic.
        filter: returns false for events that this subscriber does not get.
        map: returns the data that it gets instead, or an event.
        heartbeat: seconds of silence after which it gets a comment; ``None`` for never.
        retry: seconds after which its client should reconnect; ``None`` for the hub's.
        form: another form of the blocks, for topics whose streams end with a certain record.
    """

    envelope: bool = False
    filter: Filter | None = None
    map: Map | None = None
    heartbeat: float | None = None
    retry: float | None = None
    form: Form | None = None

    def encode(self, found: Slice, epoch: str) -> bytes:
        """Return the bytes of a slice."""
        gap = b"" if found.gap is None else found.gap.encode()
        if self.filter is None and self.map is None:
            return gap + found.chunk if gap else found.chunk
        change = found.change
        events = [self._encode(event, change is None) for event in events_of(found, epoch)]
        return b"".join([gap, *events, b"" if change is None else change.encode()])

    def _encode(self, event: HubEvent | End, with_id: bool) -> bytes:
        if isinstance(event, End):
            return event.encode()
        if self.filter is not None and not self.filter(event):
            return b""
        kind, data = event.event, event.data or ""
        if self.map is not None:
            mapped = ServerSentEvent.of(self.map(event))
            kind, data = mapped.event or kind, mapped.data or ""
        if self.envelope:
            data = envelope_of(event.topic, data)
        return encode_fields(data, kind, event.id if with_id else None)


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
    async def authorize(self, request: Any) -> Grant: ...
    def limit_age(self, subscription: Subscription, until: float | None) -> None: ...
    def limit_right(self, subscription: Subscription, until: float) -> None: ...
    def last_block(self, reason: DisconnectReason | None, retry: float | None = None) -> bytes: ...
    def retry_block(self, seconds: float | None = None) -> bytes: ...
    async def find_start(self, patterns: Patterns, last_event_id: str | None, last: Last) -> Start: ...
    def is_over(self, start: Start, patterns: Patterns) -> bool: ...
    def subscribe_at(
        self, start: Start, patterns: Patterns, policy: OverflowPolicy, user: Any, shaping: Shaping
    ) -> Subscription: ...


def opening_block(subscription: Subscription, epoch: str, retry: bytes, id: str | None = None) -> bytes:
    """Return the first block of a stream: its cursor or its gap, and the reconnection time.

    It is one block, also with a gap: a client that had the cursor alone would never see the gap. If the client has
    asked for the id of the subscription, a block with that follows.
    """
    gap = subscription.take_gap()
    notice = b"" if id is None else StreamOpen.create(id, subscription.audience.patterns).encode()
    if gap is None:
        return f"id: {Cursor(epoch, subscription.cursor)}\n".encode() + retry + notice
    return gap.encode().removesuffix(b"\n") + retry + notice


class HubResponse(StreamResponse):
    """Stream the events of a subscription to a client; made by :meth:`Hub.response`.

    The first block has the cursor at which the stream starts and the reconnection time, but no data: a
    client that loses its connection before the first event resumes all the same. If the server and the
    middleware allow it, the hub then takes the connection over (see :class:`tickertape.asgi.Takeover`),
    and nothing remains of the request. Otherwise the response pulls the events and sends them.

    A response with a filter, a map, or its own heartbeat or reconnection time is always served by pulling.

    If all topics have ended, and the client has everything up to there, the response is 204: an ``EventSource``
    reconnects after a stream has ended, and 204 stops it.

    If the hub is draining or has no log, the response is 503 as ``application/problem+json``. If the grant of the
    request does not cover all patterns, it is 401 without a credential and 403 with one.

    Attributes:
        opened: True if there is, or was, a stream.
    """

    def __init__(
        self,
        hub: StreamingHub,
        request: Any,
        patterns: Patterns,
        last_event_id: str | None,
        *,
        last: Last,
        policy: OverflowPolicy,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
        user: Any,
        grant: Grant | None,
        shaping: Shaping,
        changeable: bool,
        background: Callable[[], Awaitable[Any]] | None,
        on_disconnect: Callable[[DisconnectReason], Any] | None,
    ) -> None:
        super().__init__(HTTPStatus.OK, headers, background)
        self._hub = hub
        self._request = request
        self._grant = grant
        self._patterns = patterns
        self._last_event_id = last_event_id
        self._last = last
        self._policy = policy
        self._user = user
        self._shaping = shaping
        self._changeable = changeable
        self._on_disconnect = on_disconnect
        self.opened = False

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
        request, self._request = self._request, None  # it is as large as the rest of a stream
        try:
            grant = await hub.authorize(request) if self._grant is None else self._grant
            grant.check_subscribe(self._patterns)
            start = await hub.find_start(self._patterns, self._last_event_id, self._last)
            if hub.is_over(start, self._patterns):
                await self._answer_end(send)
                return
            if scope["method"] == "HEAD":
                try:
                    await self._answer_head(send)
                finally:
                    await self._conclude(DisconnectReason.CLIENT_CLOSED)
                return
            user = grant.user if self._user is None else self._user
            subscription = hub.subscribe_at(start, self._patterns, self._policy, user, self._shaping)
            self.opened = True
        except (AccessError, BrokerError, HubClosedError) as error:
            await send_problem(send, status_of(error), str(error))
            return
        self._begin(subscription, grant)
        await self._serve(subscription, scope, receive, send)

    def _begin(self, subscription: Subscription, grant: Grant) -> None:
        """Prepare a subscription that has no output yet."""
        self._hub.limit_age(subscription, grant.until)

    def _can_be_direct(self) -> bool:
        """Return whether all streams of the topics get the same bytes, so that the hub may write them."""
        return self._shaping[1:5] == (None, None, self._hub.heartbeat, None)

    async def _answer_end(self, send: Send) -> None:
        """Answer 204 to a client that has all events of topics that have ended."""
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-type"]
        try:
            await send({"type": "http.response.start", "status": HTTPStatus.NO_CONTENT, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await self._conclude(DisconnectReason.ENDED)

    async def _serve(self, subscription: Subscription, scope: Scope, receive: Receive, send: Send) -> None:
        hub = self._hub
        delivery = hub.delivery
        shaping = self._shaping
        own_id = delivery.presence.name(subscription) if self._changeable else None
        retry = hub.retry_block(shaping.retry) if shaping.form is None else b"\n"
        opening = opening_block(subscription, delivery.window.epoch, retry, own_id)
        started = False
        try:
            takeover = await Takeover.find(receive) if self._can_be_direct() else None
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
            Chunks(hub, PullOutput(delivery, subscription), b"" if started else opening, shaping),
            None if started else self._start(),
            heartbeat=shaping.heartbeat,
            send_timeout=hub.send_timeout,
            clock=hub.clock,
            on_drain=hub.drain,
        )
        try:
            await stream.run(scope, receive, send)
        finally:
            delivery.end(subscription, stream.reason or DisconnectReason.CLIENT_CLOSED)
            await self._conclude(subscription.reason or DisconnectReason.CLIENT_CLOSED)

    async def _conclude(self, reason: DisconnectReason) -> None:
        """Run the callback and the background tasks, once, when the stream is over."""
        on_disconnect, self._on_disconnect = self._on_disconnect, None
        background, self.background = self.background, None
        if on_disconnect is not None:
            try:
                result = on_disconnect(reason)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                logger.exception("on_disconnect failed")
        if background is not None:
            await background()

    def _conclude_later(self, reason: DisconnectReason) -> None:
        task = asyncio.get_running_loop().create_task(self._conclude(reason))
        _concluding.add(task)
        task.add_done_callback(_concluded)

    def _hand_over(self, takeover: Takeover, opening: bytes, delivery: Delivery, subscription: Subscription) -> bool:
        """Make a direct output the owner of the connection, if everything went out unchanged."""
        if subscription.reason is not None or self._hub.draining:
            takeover.release()  # a stream that is ending sends its last block in the portable way
            return False
        output = DirectOutput(delivery, subscription, self._hub.drain)
        transport = takeover.take(opening, output, finite=self._shaping.form is not None)
        if transport is None:
            return False
        if self._on_disconnect is not None or self.background is not None:
            delivery.on_end(subscription, self._conclude_later)
        output.start(transport, takeover.connections)
        if self._hub.send_timeout is not None:
            with suppress(OSError):  # not a TCP socket
                set_tcp_timeout(transport.get_extra_info("socket"), tcp_timeout_for(self._hub.send_timeout))
        return True


class Chunks(AsyncIterator[bytes]):
    """The bytes of a portable stream: the opening, the events, and a last block when the hub drains.

    Arguments:
        hub: the hub.
        output: of the subscription.
        opening: the first block; empty if it was sent.
        shaping: the options of the stream.
        heartbeat: seconds after which a comment is yielded if there is nothing else; ``None`` if the reader sends its
            own.
    """

    __slots__ = ("_heartbeat", "_hub", "_opening", "_output", "_over", "_shaping")

    def __init__(
        self,
        hub: StreamingHub,
        output: PullOutput,
        opening: bytes,
        shaping: Shaping,
        *,
        heartbeat: float | None = None,
    ) -> None:
        self._hub = hub
        self._output = output
        self._opening = opening
        self._shaping = shaping
        self._heartbeat = heartbeat
        self._over = False

    async def __anext__(self) -> bytes:
        if self._opening:
            opening, self._opening = self._opening, b""
            return opening
        if self._over:
            raise StopAsyncIteration
        now = self._hub.clock.time
        due = None if self._heartbeat is None else now() + self._heartbeat
        while True:
            if due is not None and now() >= due:
                return HEARTBEAT
            try:
                found = await self._output.next_slice(until=due)
            except SlowConsumerError:
                # A clean end: the client reconnects with its cursor and gets the gap.
                raise StopAsyncIteration from None
            if found is None:
                if self._output.reason is DisconnectReason.ENDED:
                    raise StopAsyncIteration
                self._over = True
                return self._hub.last_block(self._output.reason, self._shaping.retry)
            if chunk := self._shaping.encode(found, self._hub.delivery.window.epoch):
                return chunk


_concluding: Final[set[asyncio.Task[None]]] = set()
"""The callbacks and background tasks of streams that the hub had taken over."""


def _concluded(task: asyncio.Task[None]) -> None:
    _concluding.discard(task)
    if not task.cancelled() and task.exception() is not None:
        logger.error("the background task of a stream failed", exc_info=task.exception())
