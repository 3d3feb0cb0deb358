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

from ..asgi import close_streams
from ..asgi.types import ASGIApp

__all__ = ["DEFAULT_GRACE", "listen", "run"]

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


def run(
    app: ASGIApp,
    listener: socket.socket,
    *,
    grace: int = DEFAULT_GRACE,
    on_start: Callable[[], None] = lambda: None,
) -> None:
    """Serve ``app`` until SIGINT or SIGTERM, then return: both are the usual end of a server.

    Arguments:
        app: its lifespan is run.
        listener: from :func:`listen`; closed at the end.
        grace: seconds that requests under way are given at the end.
        on_start: called when requests are served, and signals too.

    Logging is the caller's to set up.
    """
    config = Config(
        app,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=grace,
    )
    server = _Server(config, on_start)
    with listener, _ending(server):
        server.run(sockets=[listener])


class _Server(Server):
    def __init__(self, config: Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
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
