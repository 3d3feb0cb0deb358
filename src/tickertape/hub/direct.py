"""``DirectSubscriber``: a subscriber that is the protocol of its own connection.

It costs a transport, this object and a cursor. While it is live it does nothing at all: its audience
writes to its descriptor. When the peer stops reading, what was left of a chunk is kept as a view of
bytes that all share, given to the transport a piece at a time; when all is written it catches up
from the log, page by page, and is live again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from ..asgi import DisconnectReason
from ..errors import BrokerError, SlowConsumerError
from .audience import frame
from .delivery import PAGE, Delivery, Range
from .subscriber import OverflowPolicy, Start, Subscriber, SubscriberInfo

__all__ = ["DirectSubscriber"]

logger = logging.getLogger("tickertape.hub")

_PAGES_A_TURN: Final = 8
"""Pages written to one subscriber before others have their turn."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

MAX_IGNORED: Final = 64 * 1024
"""Bytes that a peer may send after its request: some pipelined requests, but no endless upload."""

_LAST_CHUNK: Final = b"0\r\n\r\n"


class DirectSubscriber(Subscriber, asyncio.Protocol):
    """Serve one subscriber over the transport of its connection, HTTP/1.1 chunked.

    Arguments:
        delivery: where events come from.
        info: who it is.
        start: where it starts; all before that was sent already.
        policy: what happens when it reads too slowly.
        on_end: called once, with the subscriber, when it is gone.
        on_shutdown: called when the server wants its connections to end.
    """

    __slots__ = (
        "_connections",
        "_fetching",
        "_ignored",
        "_left",
        "_on_shutdown",
        "_rest",
        "_since",
        "_transport",
        "descriptor",
        "place",
    )

    def __init__(
        self,
        delivery: Delivery,
        info: SubscriberInfo,
        start: Start,
        policy: OverflowPolicy,
        on_end: Callable[[Subscriber], Any],
        on_shutdown: Callable[[], Any],
    ) -> None:
        super().__init__(delivery, info, start, policy, on_end)
        self._transport: asyncio.Transport | None = None
        self.descriptor = -1
        self.place = -1  # in the audience's list, while it is live
        self._rest: memoryview | None = None  # of a chunk that the peer did not take whole
        self._since: float | None = None  # when it last took anything, if it is not live
        self._left = 0
        self._fetching: asyncio.Task[None] | None = None
        self._on_shutdown = on_shutdown
        self._connections: set[Any] | None = None
        self._ignored = 0

    def __repr__(self) -> str:
        state = self.reason or ("live" if self.place >= 0 else "behind")
        return f"<DirectSubscriber {self.info.id} {self.info.topics} cursor={self.cursor} {state}>"

    def start(self, transport: asyncio.Transport, connections: set[Any]) -> None:
        """Take over a connection whose response headers were sent.

        Arguments:
            transport: the connection; this is its protocol already.
            connections: those of the server; this one leaves them when it is closed.
        """
        self._transport = transport
        self._connections = connections
        self.descriptor = transport.get_extra_info("socket").fileno()
        # With the mark at nothing, `resume_writing` comes when all is written, not when most is.
        transport.set_write_buffer_limits(high=0)
        if transport.get_write_buffer_size():
            self._wait_for_peer()  # it has not read the answer before this one yet
        asyncio.get_running_loop().call_soon(self.advance)

    # What the audience and the delivery call.

    def stall(self, framed: bytes, written: int, upto: int) -> None:
        """Keep what the peer did not take of a chunk; its audience has let go of it."""
        self.cursor = upto
        self._keep(memoryview(framed)[written:])
        self.advance()  # if the peer has taken the rest already, nobody else will call

    def abort(self, reason: DisconnectReason = DisconnectReason.CLIENT_CLOSED) -> None:
        """Drop the connection and what is unsent."""
        self.end(reason)
        if self._transport is not None:
            self._transport.abort()

    def wake(self) -> None:
        """Look again what lies behind the cursor."""
        self.advance()

    def advance(self) -> None:
        """Write what lies between the cursor and the head, as far as the peer takes it; then be live."""
        pages = 0
        while self._may_write():
            gap, self.gap = self.gap, None
            if gap is not None:
                self._write(gap.encode())
            elif self.cursor >= self.position:
                self._caught_up = True
                self._since = None
                self._delivery.join(self)
                return
            elif not self._in_window():
                self._fetching = asyncio.get_running_loop().create_task(self._fetch_page())
                return
            elif pages == _PAGES_A_TURN:
                asyncio.get_running_loop().call_soon(self.advance)
                return
            else:
                pages += 1
                self._take(self._next_in_window(self.position, behind=self._caught_up))

    def check(self, now: float, send_timeout: float) -> None:
        """Drop the connection if the peer has taken nothing for ``send_timeout`` seconds."""
        if self._since is None or self._transport is None:
            return
        left = self._transport.get_write_buffer_size() + (len(self._rest) if self._rest else 0)
        if left != self._left:
            self._left = left
            self._since = now
        elif left and now - self._since >= send_timeout:
            # A peer that reads nothing would not see the end, and the kernel would keep all that it holds for it.
            with contextlib.suppress(OSError):
                self._transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
                )
            self.abort(DisconnectReason.SEND_TIMEOUT)

    def finish(self, chunk: bytes, reason: DisconnectReason) -> None:
        """Say a last word and end the response; a peer that is not reading is dropped."""
        if self.reason is not None or self._transport is None:
            return
        taken = self._flush(self._transport)
        self.end(reason)
        if taken:
            self._transport.write(frame(chunk) + _LAST_CHUNK)
            self._transport.close()
        if self._transport.get_write_buffer_size():
            self._transport.abort()

    def end(self, reason: DisconnectReason) -> None:
        """Leave the hub, and its audience's list at once: the descriptor may soon be another's."""
        if self.place >= 0:
            self.cursor = self.position
            self.audience.leave(self)
        self._delivery.forget(self)
        if self._fetching is not None:
            self._fetching.cancel()
        super().end(reason)

    # What the event loop and the server call.

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the peer has left."""
        self.end(DisconnectReason.CLIENT_CLOSED)
        self._rest = None
        if self._connections is not None:
            self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Ignore what the peer sends after its request; close the connection if that is much."""
        self._ignored += len(data)
        if self._ignored > MAX_IGNORED:
            logger.info("closed the connection of subscriber %d: it keeps sending data", self.info.id)
            self.abort()

    def resume_writing(self) -> None:
        """Go on: all that the transport held is written."""
        if self._since is not None:
            self._since = self._delivery.clock.time()
        self.advance()

    def shutdown(self) -> None:
        """Let the hub end its streams: the server is stopping."""
        self._on_shutdown()

    # Writing.

    def _may_write(self) -> bool:
        if self._transport is None or self.reason is not None or self.place >= 0 or self._fetching is not None:
            return False
        return self._flush(self._transport)

    def _flush(self, transport: asyncio.Transport) -> bool:
        """Hand on what is left of a chunk; return whether nothing is unwritten before the next."""
        while self._rest is not None and not transport.get_write_buffer_size() and not transport.is_closing():
            piece, self._rest = self._rest[:PAGE], self._rest[PAGE:] or None
            transport.write(piece)
        return self._rest is None and not transport.get_write_buffer_size() and not transport.is_closing()

    def _take(self, found: Range) -> None:
        self.cursor = found.upto
        self._delivery.counters.delivered += len(found.entries)
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

    async def _fetch_page(self) -> None:
        try:
            found = await self._fetch()
        except Exception as error:
            slow = isinstance(error, SlowConsumerError)
            if not slow:
                expected = isinstance(error, BrokerError)
                logger.error("subscriber %d cannot catch up: %s", self.info.id, error, exc_info=not expected)
            self._fetching = None
            self.abort(DisconnectReason.SLOW_CONSUMER if slow else DisconnectReason.ERROR)
            return
        self._fetching = None
        if found is not None and self.gap is None:  # else the log was replaced before the page was asked for
            if found.gap is not None:
                found = found._replace(chunk=found.gap.encode() + found.chunk)
            self._take(found)
        self.advance()
