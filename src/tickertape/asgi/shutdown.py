"""An open stream must not keep its server from exiting.

Servers wait for open responses when they stop, and an event stream is a response that waits for
the server: unless somebody ends it, both wait for ever. ASGI has no message for it. What every
server does first, however it was told to stop, is to close its listening socket; so one timer for
each event loop that has open streams looks at that socket, and ends them when it is gone.

A client that does not read is the other thing that servers wait for, to hand over what they hold
for it. The same timer drops such connections, and cuts off those of streams that have failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Mapping
from typing import Final, Protocol

from .sockets import Address, Connection, Listener, abort_stuck, connection_of, cut_off, find_listener, server_address
from .types import Scope

__all__ = ["OpenStream", "OpenStreams", "close_streams", "open_streams"]

logger = logging.getLogger("tickertape.asgi")

_LOOK: Final = 0.1
"""Seconds between two looks at the listening sockets: what a shutdown may take longer by, at most."""

_SEARCH: Final = 0.5
"""Seconds at least between two searches for connections: one asks every descriptor, 0.1 s of 10,000."""

_PARTING: Final = 0.5
"""Seconds for which a server that stops lets a client take the rest: one that reads has taken it by then."""

_KNOW_ABSENCE: Final = 10.0
"""Seconds for which "no listener here" is believed: a search asks every descriptor of the process."""


class OpenStream(Protocol):
    """A stream that can be told to end."""

    def drain(self) -> float:
        """End soon, in the seconds that are returned; called in the stream's own loop, perhaps more than once."""


class _Group:
    """What is known of one event loop.

    Attributes:
        streams: the open streams by the listener that they came through, each with its connection.
        doomed: the connections to be dropped unless their clients read by then, and when.
        failed: the connections to be cut off, and what waits for that.
        searched: when connections were last searched.
        timer: the next look.
    """

    def __init__(self) -> None:
        self.streams: dict[Listener | None, dict[OpenStream, Connection | None]] = {}
        self.doomed: dict[Connection, float] = {}
        self.failed: dict[Connection, asyncio.Future[None]] = {}
        self.searched = -_SEARCH
        self.timer: asyncio.TimerHandle | None = None


class OpenStreams:
    """Know the open streams of the process, and end them when their server stops."""

    def __init__(self) -> None:
        self._groups: dict[asyncio.AbstractEventLoop, _Group] = {}
        self._known: dict[Address, tuple[Listener | None, float]] = {}
        self._lock = threading.Lock()  # loops may live in several threads

    def __len__(self) -> int:
        with self._lock:
            return sum(len(streams) for group in self._groups.values() for streams in group.streams.values())

    def add(self, stream: OpenStream, scope: Scope) -> None:
        """Take a stream into the running loop's group; tell it to end if its server is stopping already."""
        loop = asyncio.get_running_loop()
        listener = self._find(server_address(scope), loop.time())
        connection = connection_of(scope)
        with self._lock:
            group = self._group(loop)
            group.streams.setdefault(listener, {})[stream] = connection
            self._look_again_or_forget(loop, group)
        if listener is not None and listener.closed:
            self._drain(group, {stream: connection}, loop.time())

    def discard(self, stream: OpenStream) -> None:
        """Let a stream go; with the last one, nothing of its loop is kept."""
        loop = asyncio.get_running_loop()
        with self._lock:
            group = self._group(loop)
            for streams in group.streams.values():
                streams.pop(stream, None)
            self._look_again_or_forget(loop, group)

    def drop(self, scope: Scope) -> None:
        """Drop a request's connection whose client does not read: soon, and in one search with others."""
        connection = connection_of(scope)
        if connection is not None:
            loop = asyncio.get_running_loop()
            with self._lock:
                group = self._group(loop)
                group.doomed[connection] = loop.time()
                self._look_again_or_forget(loop, group)

    async def cut_off(self, scope: Scope) -> None:
        """Cut a request's connection off, and return when it is done: soon, and in one search with others.

        A server does so itself when the application raises. But there is middleware that ends the
        response first, cleanly, before it lets the exception through: Starlette's ``BaseHTTPMiddleware``.
        """
        loop = asyncio.get_running_loop()
        connection = connection_of(scope)
        if connection is not None and self._find(server_address(scope), loop.time()) is not None:
            with self._lock:
                group = self._group(loop)
                done = group.failed[connection] = loop.create_future()
                self._look_again_or_forget(loop, group)
            await done

    def close(self) -> None:
        """End every open stream, from any thread."""
        with self._lock:
            pairs = [
                (loop, stream)
                for loop, group in self._groups.items()
                for streams in group.streams.values()
                for stream in streams
            ]
        for loop, stream in pairs:
            with contextlib.suppress(RuntimeError):  # that loop is closed, its streams with it
                loop.call_soon_threadsafe(stream.drain)

    def _group(self, loop: asyncio.AbstractEventLoop) -> _Group:
        for other in [other for other in self._groups if other.is_closed()]:
            del self._groups[other]
        return self._groups.setdefault(loop, _Group())

    def _look_again_or_forget(self, loop: asyncio.AbstractEventLoop, group: _Group) -> None:
        group.streams = {listener: streams for listener, streams in group.streams.items() if streams}
        to_watch = group.doomed or group.failed or any(group.streams)
        if group.timer is None and to_watch:
            group.timer = loop.call_later(_LOOK, self._look, loop, group)
        elif group.timer is not None and not to_watch:
            group.timer.cancel()
            group.timer = None
        if not group.streams and not to_watch:
            del self._groups[loop]

    def _look(self, loop: asyncio.AbstractEventLoop, group: _Group) -> None:
        now = loop.time()
        for listener, streams in list(group.streams.items()):
            if listener is not None and listener.closed:
                self._drain(group, streams, now)
        if now - group.searched >= _SEARCH:
            _search(group, now)
        with self._lock:
            group.timer = None
            self._look_again_or_forget(loop, group)

    def _drain(self, group: _Group, streams: Mapping[OpenStream, Connection | None], now: float) -> None:
        """Tell streams to end, and give their clients a moment to read the rest."""
        for stream, connection in list(streams.items()):
            takes = stream.drain()
            if connection is not None:
                group.doomed.setdefault(connection, now + takes + _PARTING)

    def _find(self, address: Address, now: float) -> Listener | None:
        """Search the listener at ``address``, or remember it.

        One that has closed is remembered too, unless another took its place: a stream that opens
        late, while its server waits for the last requests, must be told to end as well.
        """
        listener, since = self._known.get(address, (None, -_KNOW_ABSENCE))
        if listener is None and now - since < _KNOW_ABSENCE:
            return None
        if listener is None or listener.closed:
            listener = find_listener(address) or listener
            self._known[address] = listener, now
        return listener


def _search(group: _Group, now: float) -> None:
    due = {connection for connection, when in group.doomed.items() if when <= now}
    if due:
        group.searched = now
        logger.info("dropped %d clients that did not read", abort_stuck(due))
        for connection in due:
            del group.doomed[connection]
    if group.failed:
        group.searched = now
        cut_off(group.failed)
        for done in group.failed.values():
            if not done.done():
                done.set_result(None)
        group.failed.clear()


open_streams: Final = OpenStreams()
"""Those of this process: a set that is empty between streams, bound to no loop."""


def close_streams() -> None:
    """End every open event stream of this process, cleanly; clients reconnect when there is a server again.

    Streams end by themselves when the server that they came through closes its listening socket.
    This is for programs whose server does not do so in this process. May be called from any thread.
    """
    open_streams.close()
