"""An open stream must not keep its server from exiting.

Servers wait for open responses when they stop, and an event stream is a response that waits for
the server: unless somebody ends it, both wait for ever. ASGI has no message for it. What every
server does first, however it was told to stop, is to close its listening socket; so one timer for
each event loop that has open streams looks at that socket, and ends them when it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Final, Protocol

from .sockets import Address, Listener, find_listener, server_address
from .types import Scope

__all__ = ["OpenStream", "OpenStreams", "close_streams", "open_streams"]

_LOOK: Final = 0.25
"""Seconds between two looks at the listening sockets: what a shutdown may take longer by, at most."""

_KNOW_ABSENCE: Final = 10.0
"""Seconds for which "no listener here" is believed: a search asks every descriptor of the process."""


class OpenStream(Protocol):
    """A stream that can be told to end."""

    def drain(self) -> None:
        """End soon; called in the stream's own loop, and perhaps more than once."""


class _Group:
    """The open streams of one event loop, and the listeners that they came through."""

    def __init__(self) -> None:
        self.streams: set[OpenStream] = set()
        self.listeners: dict[Address, Listener] = {}
        self.timer: asyncio.TimerHandle | None = None


class OpenStreams:
    """Know the open streams of the process, and end them when their server stops."""

    def __init__(self) -> None:
        self._groups: dict[asyncio.AbstractEventLoop, _Group] = {}
        self._known: dict[Address, tuple[Listener | None, float]] = {}
        self._lock = threading.Lock()  # loops may live in several threads

    def __len__(self) -> int:
        with self._lock:
            return sum(len(group.streams) for group in self._groups.values())

    def add(self, stream: OpenStream, scope: Scope) -> None:
        """Take a stream into the running loop's group; tell it to end if its server is stopping already."""
        loop = asyncio.get_running_loop()
        address = server_address(scope)
        with self._lock:
            group = self._groups.setdefault(loop, _Group())
            group.streams.add(stream)
        if address is not None and address not in group.listeners:
            listener = self._find(address, loop.time())
            if listener is not None:
                group.listeners[address] = listener
        if group.timer is None and group.listeners:
            group.timer = loop.call_later(_LOOK, self._look, loop, group)
        if address in group.listeners and group.listeners[address].closed:
            stream.drain()

    def discard(self, stream: OpenStream) -> None:
        """Let a stream go; with the last one, nothing of its loop is kept."""
        loop = asyncio.get_running_loop()
        with self._lock:
            group = self._groups.get(loop)
            if group is None:
                return
            group.streams.discard(stream)
            if not group.streams:
                del self._groups[loop]
                if group.timer is not None:
                    group.timer.cancel()

    def close(self) -> None:
        """End every open stream, from any thread."""
        with self._lock:
            streams = [(loop, list(group.streams)) for loop, group in self._groups.items()]
        for loop, members in streams:
            with contextlib.suppress(RuntimeError):  # that loop is closed, its streams with it
                loop.call_soon_threadsafe(_drain, members)

    def _look(self, loop: asyncio.AbstractEventLoop, group: _Group) -> None:
        group.timer = loop.call_later(_LOOK, self._look, loop, group)
        if any(listener.closed for listener in group.listeners.values()):
            _drain(list(group.streams))

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


def _drain(streams: list[OpenStream]) -> None:
    for stream in streams:
        stream.drain()


open_streams: Final = OpenStreams()
"""Those of this process: a set that is empty between streams, bound to no loop."""


def close_streams() -> None:
    """End every open event stream of this process, cleanly; clients reconnect when there is a server again.

    Streams end by themselves when the server that they came through closes its listening socket.
    This is for programs whose server does not do so in this process. May be called from any thread.
    """
    open_streams.close()
