"""Run an application under uvicorn: on a socket that is bound already, and down without waiting for streams."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

from uvicorn import Config, Server
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from ..asgi import close_streams
from ..asgi.types import ASGIApp
from .descriptors import LimitedHTTPProtocol, most_connections

__all__ = ["DEFAULT_GRACE", "NotStartedError", "listen", "run", "run_workers"]

DEFAULT_GRACE: Final = 5
"""Seconds that requests under way are given when the server stops; streams are told to end at once."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at ``host`` and ``port``; port 0 takes a free one.

    Raises:
        OSError: the address is in use, or is none of this machine's, or asks for more rights.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family)


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
    server = _Server(_config(app, grace, access_log), on_start)
    with listener, _ending(server):
        server.run(sockets=[listener])
    if not server.started:
        raise NotStartedError


def run_workers(
    factory: Callable[[], ASGIApp],
    listener: socket.socket,
    *,
    workers: int,
    grace: int = DEFAULT_GRACE,
    access_log: bool = False,
    on_start: Callable[[], None] = lambda: None,
) -> None:
    """Serve the application in several processes; as :func:`run`, but for two arguments.

    Arguments:
        factory: called in each process, to which it is brought by pickling; it sets up logging there.
        workers: the number of processes; one that dies is started anew.
    """
    supervisor = _Supervisor(_config(factory, grace, access_log, workers), [listener])
    with listener:
        on_start()
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise NotStartedError


def _config(app: ASGIApp | Callable[[], ASGIApp], grace: int, access_log: bool, workers: int | None = None) -> Config:
    return Config(
        app,
        factory=workers is not None,
        workers=workers,
        loop="auto",  # uvloop wherever there is one: everywhere but on Windows
        http=LimitedHTTPProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=access_log,
        server_header=False,
        limit_concurrency=most_connections(),
        timeout_graceful_shutdown=grace,
    )


class _Server(Server):
    def __init__(self, config: Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        close_streams()  # they would see it by themselves, up to a quarter of a second later
        await super().shutdown(sockets)


class _Supervisor(Multiprocess):
    def terminate_all(self) -> None:
        # Kept to start processes anew. While it is open, connections go on to come, and nobody takes them.
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


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
