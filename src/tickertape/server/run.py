"""Run an application under uvicorn: on a socket that is bound already, and down without waiting for streams."""

from __future__ import annotations

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

from ..asgi import ASGIApp, close_streams
from .descriptors import LimitedHTTPProtocol, most_connections

__all__ = ["DEFAULT_GRACE", "NotStartedError", "Server", "create_server", "listen", "run", "run_server"]

DEFAULT_GRACE: Final = 5
"""Seconds that requests under way are given when the server stops; streams are told to end at once."""

_SPREADS: Final = sys.platform == "linux"  # elsewhere the last socket bound gets all, or none may share

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def listen(host: str, port: int, *, workers: int = 1) -> socket.socket:
    """Return a socket that listens at ``host`` and ``port``; port 0 takes a free one.

    For several ``workers``, on Linux, it only keeps the address: each worker listens for itself, and the
    kernel spreads connections evenly. Where several take them from one socket, the quickest takes most.

    Raises:
        OSError: the address is in use, or is none of this machine's, or asks for more rights.
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
        # Only now: bound with it, the address of another program that shares its own would not be in use.
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        keeper.close()
        raise
    return keeper


class NotStartedError(Exception):
    """The application's lifespan has failed; the log says why."""


def run(
    app: ASGIApp,
    listener: socket.socket,
    *,
    grace: int = DEFAULT_GRACE,
    access_log: bool = False,
    on_start: Callable[[], None] = lambda: None,
) -> None:
    """Serve ``app`` until SIGINT or SIGTERM, then return: both are the usual end of a server.

    Arguments:
        app: its lifespan is run.
        listener: from :func:`listen`; closed at the end.
        grace: seconds that requests under way are given at the end.
        access_log: whether requests are logged, by ``uvicorn.access``.
        on_start: called when requests are served, and signals too.

    Logging is the caller's to set up.

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
    """Return a server as :func:`run` runs it; ``on_beat`` is called each second for as long as its loop turns."""

    async def beat() -> None:
        on_beat()

    config = Config(
        app,
        loop="auto",  # uvloop wherever there is one: everywhere but on Windows
        http=LimitedHTTPProtocol,
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
    return Server(config, on_start)


def run_server(server: Server, listener: socket.socket) -> None:
    """Serve until the server is told to end, as :func:`run` does."""
    with listener, _ending(server):
        try:
            server.run(sockets=[listener])
        except SystemExit:  # uvicorn's word for an application that cannot start
            if server.started:
                raise
    if not server.started:
        raise NotStartedError


class Server(uvicorn.Server):
    """Tell when requests are served, and close streams at once when the server is to end.

    Attributes:
        interruptible: whether SIGINT ends it.
    """

    def __init__(self, config: Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self.interruptible = True
        self._on_start = on_start

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if self.interruptible or sig != signal.SIGINT:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin, and say so."""
        await super().startup(sockets)
        if self.started:
            self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End streams, then requests."""
        close_streams()  # they would see it by themselves, up to a quarter of a second later
        await super().shutdown(sockets)


@contextlib.contextmanager
def _ending(server: Server) -> Iterator[None]:
    """Take the signals that uvicorn does not.

    Those that come before it looks for them stop it as soon as it starts. Those that it has served
    it raises once more when it is done, to end the process as if nobody had listened; here they
    find a server that has ended.
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
