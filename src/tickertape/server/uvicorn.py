"""Run an application under uvicorn: on a socket that is already bound, with an end that does not wait for streams."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple, cast

import uvicorn
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..asgi import ASGIApp, close_streams
from .descriptors import ACCEPTOR, Acceptor, most_connections
from .protocol import HubProtocol
from .redaction import REDACT_QUERIES
from .request_ids import ADD_REQUEST_ID

logger = logging.getLogger("tickertape.server")

DEFAULT_GRACE: Final = 5
"""Seconds for running requests when the server stops; streams are ended at once."""

_ABORT_BEFORE: Final = 0.1
"""Seconds before the end of the grace at which connections without a running request are cut. At its end, uvicorn
would log an error and leave them open. It looks at its connections every 0.1 s, and starts to count 0.1 s late."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class NotStartedError(Exception):
    """The application's startup has failed; the log contains the reason."""


class Certificate(NamedTuple):
    """The files of a TLS certificate.

    Attributes:
        certificate: the certificate and those between it and the root, in PEM.
        key: its private key, in PEM, without a password.
    """

    certificate: Path
    key: Path


def reloads_on_hangup() -> bool:
    """Return whether SIGHUP reloads: a terminal sends it when it is closed, and ``nohup`` ignores it."""
    return signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and not os.isatty(0)


def run(
    app: ASGIApp,
    listener: socket.socket,
    *,
    grace: int = DEFAULT_GRACE,
    access_log: bool = False,
    tls: Certificate | None = None,
    on_start: Callable[[], None] = lambda: None,
    on_beat: Callable[[], None] = lambda: None,
    on_stop: Callable[[], None] = lambda: None,
    on_reload: Callable[[], None] = lambda: None,
) -> None:
    """Serve ``app`` until SIGINT or SIGTERM, then return normally.

    Set up logging before. SIGHUP reads the certificate again, except at a terminal, which sends it when it is closed.

    Arguments:
        app: its lifespan is run.
        listener: from :func:`listen`; closed at the end.
        grace: seconds for running requests at the end.
        access_log: True to log requests to ``uvicorn.access``.
        tls: serve HTTPS.
        on_start: called when requests and signals are handled.
        on_beat: called each second while the event loop runs.
        on_stop: called when the server begins to stop.
        on_reload: called in the event loop after SIGHUP.

    Raises:
        NotStartedError: the application cannot start.
    """
    server = create_server(
        app,
        grace=grace,
        access_log=access_log,
        tls=tls,
        on_start=on_start,
        on_beat=on_beat,
        on_stop=on_stop,
        on_reload=lambda message: on_reload(),
    )
    run_server(server, listener)


def create_server(
    app: ASGIApp,
    *,
    grace: int,
    access_log: bool,
    tls: Certificate | None = None,
    on_start: Callable[[], None] = lambda: None,
    on_beat: Callable[[], None] = lambda: None,
    on_stop: Callable[[], None] = lambda: None,
    on_reload: Callable[[Any], None] = lambda message: None,
) -> Server:
    """Return a server as :func:`run` runs it; ``on_reload`` gets the message of :meth:`Server.reload`."""

    async def beat() -> None:
        on_beat()

    for change in (REDACT_QUERIES, ADD_REQUEST_ID):
        logging.getLogger("uvicorn.access").addFilter(change)
    config = Config(
        app,
        loop="auto",  # uvloop, except on Windows
        http=HubProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=access_log,
        server_header=False,
        headers=[("x-content-type-options", "nosniff")],
        proxy_headers=False,  # the program trusts the proxies of its settings
        limit_concurrency=most_connections(),
        timeout_graceful_shutdown=grace,
        timeout_notify=1,
        callback_notify=beat,
        ssl_certfile=None if tls is None else tls.certificate,
        ssl_keyfile=None if tls is None else tls.key,
    )
    return Server(config, grace=grace, on_start=on_start, on_stop=on_stop, on_reload=on_reload)


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

    def __init__(
        self,
        config: Config,
        *,
        grace: int,
        on_start: Callable[[], None],
        on_stop: Callable[[], None],
        on_reload: Callable[[Any], None],
    ) -> None:
        super().__init__(config)
        self._on_stop = on_stop
        self._on_reload = on_reload
        self._loop: asyncio.AbstractEventLoop | None = None
        self._acceptor: Acceptor | None = None
        self._early: list[Any] = []  # messages before the loop
        self.interruptible = True
        self._grace = grace
        self._on_start = on_start

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.interruptible or sig != signal.SIGINT:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and report it."""
        self._loop = asyncio.get_running_loop()
        duplicates = None if sockets is None else [listener.dup() for listener in sockets]
        try:
            await super().startup(duplicates)
        except BaseException:
            for listener in duplicates or ():
                listener.close()
            raise
        if self.started and sockets:
            self._acceptor = self.lifespan.state[ACCEPTOR] = Acceptor(sockets, self.servers, self._listen)
        for message in self._early:
            self._reload(message)
        if self.started:
            self._on_start()

    async def _listen(self, listener: socket.socket) -> asyncio.Server:
        config = self.config
        connect: Callable[[], Any] = functools.partial(
            cast("Any", config.http_protocol_class),
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        loop = asyncio.get_running_loop()
        return await loop.create_server(connect, sock=listener, ssl=config.ssl, backlog=config.backlog)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End streams, then requests, then the other connections."""
        self._on_stop()
        if self._acceptor is not None:
            await self._acceptor.close()
        close_streams()  # otherwise they would notice it up to a quarter of a second later
        aborting = asyncio.get_running_loop().call_later(max(0.0, self._grace - _ABORT_BEFORE), self._abort_idle)
        try:
            await super().shutdown(sockets)
        finally:
            aborting.cancel()

    def reload(self, message: Any = None) -> None:
        """Read the certificate again, and pass on a message, soon; for other threads and signal handlers."""
        if self._loop is None:
            self._early.append(message)
        else:
            self._loop.call_soon_threadsafe(self._reload, message)

    def _reload(self, message: Any) -> None:
        config = self.config
        if config.ssl is not None and config.ssl_certfile is not None:
            try:
                # First into another context: one with half of a pair would refuse every connection.
                for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), config.ssl):
                    context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile)
                logger.info("read the certificate again: new connections use it")
            except OSError as error:  # ssl.SSLError is one
                logger.error("the certificate cannot be read, and the former one is still used: %s", error)
        self._on_reload(message)

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

    def reload(number: int, frame: FrameType | None) -> None:
        server.reload()

    former: dict[signal.Signals, Any] = {number: signal.signal(number, stop) for number in _SIGNALS}
    if sys.platform != "win32" and reloads_on_hangup():
        former[signal.SIGHUP] = signal.signal(signal.SIGHUP, reload)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
