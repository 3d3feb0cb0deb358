"""Run an application under uvicorn: on a socket that is already bound, with an end that does not wait for streams."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..asgi import ASGIApp, close_streams
from .descriptors import most_connections
from .protocol import HubProtocol

DEFAULT_GRACE: Final = 5
"""Seconds for running requests when the server stops; streams are ended at once."""

_ABORT_BEFORE: Final = 0.1
"""Seconds before the end of the grace at which connections without a running request are cut. At its end, uvicorn
would log an error and leave them open. It looks at its connections every 0.1 s, and starts to count 0.1 s late."""

_SPREADS: Final = sys.platform == "linux"  # elsewhere the last socket bound gets all connections, or binding fails

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class NotStartedError(Exception):
    """The application's startup has failed; the log contains the reason."""


def listen(host: str, port: int, *, workers: int = 1) -> socket.socket:
    """Return a socket that listens on ``host`` and ``port``; port 0 chooses a free one.

    For several ``workers`` on Linux, the socket only keeps the address: each worker listens by itself, and the kernel
    spreads connections evenly. If workers share one socket, the quickest one gets most connections.

    Raises:
        OSError: the address is in use, does not belong to this machine, or needs more rights.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    if workers == 1 or not _SPREADS:
        return socket.create_server(address[:2], family=family)
    keeper = socket.socket(family)
    try:
        if family == socket.AF_INET6:
            keeper.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(address)
        # After binding: otherwise the address of another program that also shares would not count as in use.
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        keeper.close()
        raise
    return keeper


def run(
    app: ASGIApp,
    listener: socket.socket,
    *,
    grace: int = DEFAULT_GRACE,
    access_log: bool = False,
    on_start: Callable[[], None] = lambda: None,
) -> None:
    """Serve ``app`` until SIGINT or SIGTERM, then return normally.

    Set up logging before.

    Arguments:
        app: its lifespan is run.
        listener: from :func:`listen`; closed at the end.
        grace: seconds for running requests at the end.
        access_log: True to log requests to ``uvicorn.access``.
        on_start: called when requests and signals are handled.

    Raises:
        NotStartedError: the application cannot start.
    """
    run_server(create_server(app, grace=grace, access_log=access_log, on_start=on_start), listener)


def create_server(
    app: ASGIApp,
    *,
    grace: int,
    access_log: bool,
    on_start: Callable[[], None] = lambda: None,
    on_beat: Callable[[], None] = lambda: None,
) -> Server:
    """Return a server as :func:`run` runs it; ``on_beat`` is called each second while its event loop runs."""

    async def beat() -> None:
        on_beat()

    config = Config(
        app,
        loop="auto",  # uvloop, except on Windows
        http=HubProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=access_log,
        server_header=False,
        limit_concurrency=most_connections(),
        timeout_graceful_shutdown=grace,
        timeout_notify=1,
        callback_notify=beat,
    )
    return Server(config, grace=grace, on_start=on_start)


def run_server(server: Server, listener: socket.socket) -> None:
    """Serve until the server must end, as :func:`run` does."""
    with listener, _handling_signals(server):
        try:
            server.run(sockets=[listener])
        except SystemExit:  # raised by uvicorn if the application cannot start
            if server.started:
                raise
    if not server.started:
        raise NotStartedError


class Server(uvicorn.Server):
    """A uvicorn server that reports its start, ends streams at once, and ends without lingering connections.

    Attributes:
        interruptible: False to ignore SIGINT.
    """

    def __init__(self, config: Config, *, grace: int, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self.interruptible = True
        self._grace = grace
        self._on_start = on_start

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.interruptible or sig != signal.SIGINT:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and report it."""
        await super().startup(sockets)
        if self.started:
            self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End streams, then requests, then the other connections."""
        close_streams()  # otherwise they would notice it up to a quarter of a second later
        aborting = asyncio.get_running_loop().call_later(max(0.0, self._grace - _ABORT_BEFORE), self._abort_idle)
        try:
            await super().shutdown(sockets)
        finally:
            aborting.cancel()

    def _abort_idle(self) -> None:
        """Cut connections without a running request, as of clients that do not read the end of a stream."""
        connections: list[Any] = list(self.server_state.connections)
        for connection in connections:
            if not isinstance(connection, HttpToolsProtocol):
                connection.abort()  # a stream of the hub, or a connection without a request
                continue
            cycle: Any = connection.cycle
            if cycle is None or cycle.response_complete:
                connection.transport.abort()


@contextlib.contextmanager
def _handling_signals(server: Server) -> Iterator[None]:
    """Handle the signals that uvicorn does not.

    A signal before uvicorn installs its handlers stops it as soon as it starts. After its end, uvicorn raises the
    signals again that it has handled, to end the process; these are ignored here.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    former: dict[signal.Signals, Any] = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
