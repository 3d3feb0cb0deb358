"""An open stream must not keep its server from exiting.

Servers wait for open responses when they stop, and an event stream is a response that waits for
events. ASGI has no message for it. Every server first closes its listening socket, so one timer for
each event loop with open streams observes that socket and ends the streams when it is closed.

Servers also wait for clients that do not read, because they hold bytes for them. The same timer aborts
the connections of such clients, and cuts off those of streams that have failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Mapping
from typing import Final, Protocol

from .sockets import (
    CONNECTION,
    Address,
    Connection,
    Ends,
    Listener,
    Stuck,
    Unknown,
    abort,
    abort_if_stuck,
    abort_stuck,
    cut_off,
    find_connection,
    find_listener,
    server_address,
    set_timeout,
    set_timeouts,
    stuck_at,
)
from .types import Scope

logger = logging.getLogger("tickertape.asgi")

PARTING: Final = 0.5
"""Seconds for the last bytes of a stream that is cut short: a client that reads has taken them by then."""

_LOOK: Final = 0.1
"""Seconds between two looks at the listening sockets: the most that a shutdown is delayed."""

_SEARCH: Final = 0.5
"""Seconds at least between two searches for connections. One looks at every descriptor, 0.1 s for 10,000."""

_SEARCH_FOR_TIMEOUTS: Final = 5.0
"""Seconds at least between two searches that only set TCP user timeouts: a storm of new streams costs 2 % of a core."""

_NO_PROGRESS: Final = 1.0
"""Seconds without progress after which an unknown connection is aborted when its server stops."""

ABORT_UNKNOWN: Final = 2 * (_NO_PROGRESS + _SEARCH)
"""Seconds within which an unknown connection is aborted when its server stops."""

_KNOW_ABSENCE: Final = 10.0
"""Seconds for which "no listener" is remembered: a search looks at every descriptor of the process."""


class OpenStream(Protocol):
    """A stream that can be ended."""

    def drain(self) -> float:
        """End soon, and return within how many seconds. Called in the stream's own loop, perhaps more than once."""


class _Group:
    """The streams of one event loop.

    Attributes:
        streams: open streams by their listener, each with its connection (``None``: ends by itself).
        doomed: connections to abort if their clients do not read, and when.
        stuck: the connections that were stuck at the last look at unknown ones.
        failed: connections to cut off, each with a future that is resolved when it is done.
        timeouts: TCP user timeouts to set.
        searched: time of the last search for connections.
        timer: the next look.
    """

    def __init__(self) -> None:
        self.streams: dict[Listener | None, dict[OpenStream, Connection | None]] = {}
        self.doomed: dict[Connection, float] = {}
        self.stuck: dict[Unknown, Stuck] = {}
        self.failed: dict[Ends, asyncio.Future[None]] = {}
        self.timeouts: dict[Ends, float] = {}
        self.searched = -_SEARCH_FOR_TIMEOUTS
        self.timer: asyncio.TimerHandle | None = None


class OpenStreams:
    """The open streams of the process, which end when their server stops."""

    def __init__(self) -> None:
        self._groups: dict[asyncio.AbstractEventLoop, _Group] = {}
        self._known: dict[Address, tuple[Listener | None, float]] = {}
        self._lock = threading.Lock()  # loops may live in several threads

    def __len__(self) -> int:
        with self._lock:
            return sum(len(streams) for group in self._groups.values() for streams in group.streams.values())

    def add(
        self,
        stream: OpenStream,
        scope: Scope,
        connection: Connection | None = None,
        *,
        tcp_timeout: float | None = None,
    ) -> None:
        """Add a stream of the running loop. If its server is stopping already, drain it.

        Arguments:
            stream: has to be discarded when it ends.
            scope: of its request; names the server.
            connection: aborted if its client does not read when the server stops. ``None`` if the
                stream sees to that itself.
            tcp_timeout: seconds after which a client that vanished is dropped; ``None`` for the system's default.
        """
        loop = asyncio.get_running_loop()
        listener = self._find(server_address(scope), loop.time())
        with self._lock:
            group = self._group(loop)
            group.streams.setdefault(listener, {})[stream] = connection
            if tcp_timeout is not None:
                _limit_silence(group, listener, connection, tcp_timeout)
            self._schedule(loop, group)
        if listener is not None and listener.closed:
            self._drain(group, {stream: connection}, loop.time())

    def add_foreign(self, stream: OpenStream, scope: Scope) -> None:
        """Add a stream that another library's response sends, as :meth:`add` does.

        Its connection is the one that :func:`with_connection` put into the scope, or is found by its addresses.

        Arguments:
            stream: has to be discarded when it ends.
            scope: of its request; an empty one names neither a server nor a connection.
        """
        connection = scope.get(CONNECTION)
        if connection is None and ("type" in scope or scope.get("server")):
            connection = find_connection(scope)
        self.add(stream, scope, connection)

    def discard(self, stream: OpenStream) -> None:
        """Remove a stream. With the last one, nothing of its loop is kept."""
        loop = asyncio.get_running_loop()
        with self._lock:
            group = self._group(loop)
            for streams in group.streams.values():
                streams.pop(stream, None)
            self._schedule(loop, group)

    def drop(self, connection: Connection) -> None:
        """Abort a connection if its client does not read. If it is unknown, its server has to do so."""
        if isinstance(connection, Ends):
            loop = asyncio.get_running_loop()
            with self._lock:
                group = self._group(loop)
                group.doomed[connection] = loop.time()
                self._schedule(loop, group)
        elif not isinstance(connection, Unknown):
            abort_if_stuck(connection)

    async def cut_off(self, connection: Connection, scope: Scope) -> bool:
        """Close a connection after the bytes sent so far, and return when it is closed. Return False if it is unknown.

        A server does so itself if the application raises. But some middleware first ends the response
        cleanly and raises then, Starlette's ``BaseHTTPMiddleware`` for one.
        """
        loop = asyncio.get_running_loop()
        if isinstance(connection, Ends):
            if self._find(server_address(scope), loop.time()) is None:
                return False
            with self._lock:
                group = self._group(loop)
                done = group.failed[connection] = loop.create_future()
                self._schedule(loop, group)
            await done
        elif not isinstance(connection, Unknown):
            deadline = loop.time() + PARTING
            while connection.get_write_buffer_size() and loop.time() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK)
            # Bytes written after a close are dropped only if no others wait to be sent.
            if not abort_if_stuck(connection):
                connection.close()
        return not isinstance(connection, Unknown)

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

    def _schedule(self, loop: asyncio.AbstractEventLoop, group: _Group) -> None:
        """Set or cancel the timer, or forget the group if nothing is left of it."""
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
        _abort_due(group, now)
        with self._lock:
            group.timer = None
            self._schedule(loop, group)

    def _drain(self, group: _Group, streams: Mapping[OpenStream, Connection | None], now: float) -> None:
        """Drain streams. Their clients have a moment more to read the rest."""
        for stream, connection in list(streams.items()):
            seconds = stream.drain()
            if connection is not None:
                group.doomed.setdefault(connection, now + seconds + PARTING)

    def _find(self, address: Address, now: float) -> Listener | None:
        """Find the listener at ``address``, or remember it.

        A closed one is remembered too, unless another has replaced it. A stream may start late, while
        its server waits for the last requests, and must be ended as well.
        """
        listener, since = self._known.get(address, (None, -_KNOW_ABSENCE))
        if listener is None and now - since < _KNOW_ABSENCE:
            return None
        if listener is None or listener.closed:
            listener = find_listener(address) or listener
            self._known[address] = listener, now
        return listener


def _limit_silence(group: _Group, listener: Listener | None, connection: Connection | None, seconds: float) -> None:
    if isinstance(connection, Ends):
        if listener is not None:  # else the socket is not in this process
            group.timeouts[connection] = seconds
    elif connection is not None and not isinstance(connection, Unknown):
        set_timeout(connection, seconds)


def _abort_due(group: _Group, now: float) -> None:
    """Abort the doomed connections whose time has come: transports at once, others by a search at intervals."""
    due = [connection for connection, when in group.doomed.items() if when <= now]
    count = 0
    for connection in due:
        if not isinstance(connection, (Ends, Unknown)):
            del group.doomed[connection]
            count += abort_if_stuck(connection)
    ends = [connection for connection in due if isinstance(connection, Ends)]
    unknown = [connection for connection in due if isinstance(connection, Unknown)]
    if (ends or unknown or group.failed) and now - group.searched >= _SEARCH:
        count += _search(group, ends, unknown, now)
    if group.timeouts and now - group.searched >= _SEARCH_FOR_TIMEOUTS:
        group.searched = now
        set_timeouts(group.timeouts)
        group.timeouts.clear()
    if count:
        logger.info("dropped %d clients that did not read", count)


def _search(group: _Group, ends: list[Ends], unknown: list[Unknown], now: float) -> int:
    group.searched = now
    count = 0
    if ends:
        count += abort_stuck(ends)
        for connection in ends:
            del group.doomed[connection]
    for place in unknown:
        count += _abort_without_progress(group, place, now)
    if group.failed:
        cut_off(group.failed)
        for done in group.failed.values():
            if not done.done():
                done.set_result(None)
        group.failed.clear()
    return count


def _abort_without_progress(group: _Group, place: Unknown, now: float) -> int:
    """Abort the connections to a stopped server without progress since the last look; look again if any are left."""
    stuck = stuck_at(place.server)
    before = group.stuck.get(place, {})
    dead = {key: progress for key, progress in stuck.items() if progress <= before.get(key, progress - 1)}
    abort(dead)
    if len(dead) < len(stuck):
        group.stuck[place] = stuck
        group.doomed[place] = now + _NO_PROGRESS
    else:
        group.stuck.pop(place, None)
        del group.doomed[place]
    return len(dead)


open_streams: Final = OpenStreams()
"""Those of this process: empty between streams, bound to no loop."""


def close_streams() -> None:
    """End every open event stream of this process cleanly. Clients reconnect when a server is available again.

    Streams end by themselves when their server closes its listening socket. This function is for programs
    whose server does not do so in this process. It may be called from any thread.
    """
    open_streams.close()
