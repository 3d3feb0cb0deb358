"""One process of several that serve an application: what it is given, and how it lives and ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from uvicorn.config import STARTUP_FAILURE

from ..asgi import ASGIApp
from .run import NotStartedError, Server, create_server, run_server
from .silence import copy_limit

__all__ = ["BEAT", "READY", "Job", "work"]

READY: Final = b"ready"
"""The first word of a worker: it serves requests."""

BEAT: Final = b"beat"
"""Its word of each second: its loop turns."""


@dataclass(frozen=True)
class Job:
    """What a worker does; it is brought to its process by pickling.

    Attributes:
        factory: gives the application, and sets up logging.
        listener: listens for all workers, or else keeps the address at which each listens for itself.
        grace: seconds that requests under way are given at the end.
        access_log: whether requests are logged.
    """

    factory: Callable[[], ASGIApp]
    listener: socket.socket
    grace: int
    access_log: bool

    def listen(self) -> socket.socket:
        """Return the socket that this worker takes its connections from."""
        if self.listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return self.listener
        with self.listener as keeper:
            own = socket.create_server(keeper.getsockname()[:2], family=keeper.family, reuse_port=True)
            copy_limit(keeper, own)
            return own


def work(job: Job, lifeline: Connection, pulse: Connection) -> None:
    """Serve until ``lifeline`` ends, by its other end being closed or by the death of who held it.

    SIGTERM ends it too. SIGINT is the parent's: Ctrl-C comes to both, and to be told twice would be to drop everything.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the parent's
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
        os.set_blocking(pulse.fileno(), False)  # a parent that is stopped reads nothing, and stops nobody
    server = create_server(
        job.factory(),
        grace=job.grace,
        access_log=job.access_log,
        on_start=lambda: _say(pulse, READY),
        on_beat=lambda: _say(pulse, BEAT),
    )
    server.interruptible = False
    threading.Thread(target=_end_with, args=(lifeline, server), daemon=True).start()
    try:
        run_server(server, job.listen())
    except NotStartedError:
        sys.exit(STARTUP_FAILURE)


def _say(pulse: Connection, word: bytes) -> None:
    with contextlib.suppress(OSError):
        pulse.send_bytes(word)


def _end_with(lifeline: Connection, server: Server) -> Any:
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv_bytes()
    server.should_exit = True
