"""``DirectOutput``, which serves a subscription as the protocol of its own connection.

It costs a transport, this object and a subscription. While it is live it does nothing at all: its
audience writes to its descriptor. When the peer stops reading, the rest of a chunk is kept as a view of
bytes that all share, and passed to the transport a piece at a time. When all is written, the output
catches up from the log, page by page, and is live again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any, ClassVar, Final

from ..asgi import DisconnectReason, frame, reset_on_close
from ..errors import BrokerError, SlowConsumerError
from .delivery import PAGE, Delivery, Slice
from .statistics import Way
from .subscription import Subscription

logger = logging.getLogger("tickertape.hub")

_PAGES_A_TURN: Final = 8
"""Pages written to one subscriber before the others are served."""

MAX_RECEIVED: Final = 64 * 1024
"""Bytes that a client may send after its request. A stream has no end, so nothing it asks for will be answered."""

_LAST_CHUNK: Final = b"0\r\n\r\n"


class DirectOutput(asyncio.Protocol):
    """Serve one subscription over the transport of its connection, HTTP/1.1 chunked.

    Arguments:
        delivery: the source of events.
        subscription: its head and its first chunk were sent already.
        on_shutdown: called when the server wants its connections to end.

    Attributes:
        descriptor: the file descriptor of the socket.
        place: the index in the audience's list while the output is live; else -1.
    """

    __slots__ = (
        "_connections",
        "_delivery",
        "_fetching",
        "_left",
        "_on_shutdown",
        "_received",
        "_rest",
        "_since",
        "_transport",
        "descriptor",
        "place",
        "subscription",
    )

    way: ClassVar[Way] = "direct"

    def __init__(self, delivery: Delivery, subscription: Subscription, on_shutdown: Callable[[], Any]) -> None:
        self.subscription = subscription
        self.descriptor = -1
        self.place = -1
        self._delivery = delivery
        self._transport: asyncio.Transport | None = None
        self._rest: memoryview | None = None  # of a chunk that the peer did not take whole
        self._since: float | None = None  # the last time at which it took anything, if it is not live
        self._left = 0
        self._received = 0
        self._fetching: asyncio.Task[None] | None = None
        self._on_shutdown = on_shutdown
        self._connections: set[Any] | None = None

    def __repr__(self) -> str:
        return f"<DirectOutput {'live' if self.place >= 0 else 'behind'} {self.subscription!r}>"

    def start(self, transport: asyncio.Transport, connections: set[Any]) -> None:
        """Begin to write.

        Arguments:
            transport: the connection, without a write buffer limit; this is its protocol already.
            connections: the server's connections; this one is removed when it is closed.
        """
        self._delivery.begin(self.subscription, self)
        self._transport = transport
        self._connections = connections
        self.descriptor = transport.get_extra_info("socket").fileno()
        if transport.get_write_buffer_size():
            self._wait_for_peer()  # it has not read the response before this one yet
        self.advance()

    # Called by the audience and the delivery.

    @property
    def live(self) -> bool:
        """True while the audience writes to the descriptor."""
        return self.place >= 0

    def stall(self, framed: bytes, written: int, upto: int) -> None:
        """Keep the rest of a chunk of which the peer took only ``written`` bytes."""
        self._leave(upto)
        self._keep(memoryview(framed)[written:])
        self.advance()  # if the peer has taken the rest already, no callback will follow

    def move_to(self, offset: int) -> None:
        """Store the cursor: the output is no longer live."""
        self._leave(offset)

    def _leave(self, offset: int) -> None:
        self.subscription.cursor = offset
        self.subscription.add(self.subscription.audience.events, self.subscription.audience.bytes)

    def abort(self, reason: DisconnectReason = DisconnectReason.CLIENT_CLOSED) -> None:
        """Drop the connection and everything unsent."""
        self._delivery.end(self.subscription, reason)
        if self._transport is not None:
            self._transport.abort()

    def settle(self) -> bool:
        """Store the exact cursor and leave the audience, if no round runs."""
        if self.place >= 0:
            if self._delivery.running:
                return False
            self.subscription.audience.leave(self)
            self.move_to(self._delivery.position)
        return True

    def wake(self) -> None:
        """Continue: the log was replaced, or the topics have changed."""
        self.advance()

    def advance(self) -> None:
        """Write the events between the cursor and the position, as far as the peer accepts them; then be live."""
        subscription, delivery = self.subscription, self._delivery
        pages = 0
        while self._may_write():
            gap = subscription.take_gap()
            if gap is not None:
                self._write(gap.encode())
            elif (changed := delivery.take_change(subscription)) is not None:
                self._take(changed)
            elif delivery.is_over(subscription):
                self._end(self._transport)
                return
            elif subscription.cursor >= delivery.position:
                subscription.caught_up = True
                self._since = None
                delivery.join(self)
                return
            elif not delivery.in_window(subscription):
                self._fetching = asyncio.get_running_loop().create_task(self._fetch_slice())
                return
            elif pages == _PAGES_A_TURN:
                asyncio.get_running_loop().call_soon(self.advance)
                return
            else:
                pages += 1
                self._take(delivery.next_slice(subscription, delivery.position))

    def check(self, now: float, send_timeout: float) -> None:
        """Drop the connection if the peer has taken nothing for ``send_timeout`` seconds."""
        if self._since is None or self._transport is None:
            return
        left = self._transport.get_write_buffer_size() + (len(self._rest) if self._rest else 0)
        if left != self._left:
            self._left = left
            self._since = now
        elif left and now - self._since >= send_timeout:
            with contextlib.suppress(OSError):
                reset_on_close(self._transport.get_extra_info("socket"))
            self.abort(DisconnectReason.SEND_TIMEOUT)

    def finish(self, chunk: bytes, reason: DisconnectReason) -> None:
        """Write a last chunk and end the response; a peer that is not reading is dropped."""
        if self.subscription.reason is not None or self._transport is None:
            return
        flushed = self._flush(self._transport)
        self._delivery.end(self.subscription, reason)
        if flushed:
            self._transport.write(frame(chunk) + _LAST_CHUNK)
            self._transport.close()
        if self._transport.get_write_buffer_size():
            self._transport.abort()

    def _end(self, transport: asyncio.Transport | None) -> None:
        """End the response after the end of the last topic. All events are written before."""
        with contextlib.suppress(OSError):  # a peer that cannot take it reconnects, and gets 204
            os.write(self.descriptor, _LAST_CHUNK)
        self._delivery.end(self.subscription, DisconnectReason.ENDED)
        if transport is not None:
            transport.close()

    def ended(self) -> None:
        """Leave the audience at once: the descriptor may soon be reused."""
        self._delivery.forget(self)
        if self._fetching is not None:
            self._fetching.cancel()

    # Called by the event loop and the server.

    def connection_lost(self, exc: Exception | None) -> None:
        """End the subscription: the peer has left."""
        self._delivery.end(self.subscription, DisconnectReason.CLIENT_CLOSED)
        self._rest = None
        self._transport = None
        if self._connections is not None:
            self._connections.discard(self)
        # The transport keeps its protocol. Without these references no cycle waits for the garbage collector.
        self._transport = None
        self.subscription.output = None

    def data_received(self, data: bytes) -> None:
        """Ignore the bytes that the client sends after its request, up to a limit; then drop the connection."""
        self._received += len(data)
        if self._received > MAX_RECEIVED:
            logger.info("closed the connection of subscriber %d: it keeps sending data", self.subscription.id)
            self.abort()

    def resume_writing(self) -> None:
        """Continue: everything that the transport held is written."""
        if self._since is not None:
            self._since = self._delivery.clock.time()
        self.advance()

    def shutdown(self) -> None:
        """Ask the hub to end its streams: the server is stopping."""
        self._on_shutdown()

    # Writing.

    def _may_write(self) -> bool:
        if self._transport is None or self.subscription.reason is not None:
            return False
        return self.place < 0 and self._fetching is None and self._flush(self._transport)

    def _flush(self, transport: asyncio.Transport) -> bool:
        """Pass on the rest of a chunk; return whether nothing is unwritten before the next."""
        while self._rest is not None and not transport.get_write_buffer_size() and not transport.is_closing():
            piece, self._rest = self._rest[:PAGE], self._rest[PAGE:] or None
            transport.write(piece)
        return self._rest is None and not transport.get_write_buffer_size() and not transport.is_closing()

    def _take(self, found: Slice) -> None:
        self.subscription.cursor = found.upto
        self._delivery.count_sent(self.subscription, found)
        if found.chunk:
            self._write(found.chunk)

    def _write(self, chunk: bytes) -> None:
        framed = frame(chunk)
        try:
            written = os.write(self.descriptor, framed)
        except BlockingIOError:
            written = 0
        except OSError:
            self.abort()
            return
        if written < len(framed):
            self._keep(memoryview(framed)[written:])

    def _keep(self, rest: memoryview) -> None:
        self._rest = rest
        self._wait_for_peer()

    def _wait_for_peer(self) -> None:
        if self._since is None:
            self._since = self._delivery.clock.time()
        self._delivery.behind.add(self)

    async def _fetch_slice(self) -> None:
        try:
            found = await self._delivery.fetch_slice(self.subscription)
        except Exception as error:
            slow = isinstance(error, SlowConsumerError)
            if not slow:
                expected = isinstance(error, BrokerError)
                logger.error("subscriber %d cannot catch up: %s", self.subscription.id, error, exc_info=not expected)
            self._fetching = None
            self.abort(DisconnectReason.SLOW_CONSUMER if slow else DisconnectReason.ERROR)
            return
        self._fetching = None
        if found is not None and self.subscription.gap is None:  # else the log was replaced before the read
            if found.gap is not None:
                found = found._replace(chunk=found.gap.encode() + found.chunk)
            self._take(found)
        self.advance()
