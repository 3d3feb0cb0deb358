"""``tickertape serve``: the hub as a program."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import Any, Final

from pythonjsonlogger.json import JsonFormatter
from starlette.applications import Starlette
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ..access import Revocations, Tickets
from ..asgi import Message, Receive, Scope, Send, set_tcp_timeout, tcp_timeout_for
from ..broker import create_broker
from ..errors import BrokerError
from ..hub import Hub
from .access import check_access, create_access, read_ticket_secret
from .app import create_app
from .descriptors import raise_descriptor_limit
from .gc_policy import gc_policy
from .hosts import default_hosts
from .limits import Guard, Limits
from .peers import Peers, WorkerShare
from .settings import OF_ACCESS, OF_THE_HUB, Settings, SettingsError
from .systemd import ServiceManager
from .uvicorn import run
from .workers import Reload, run_workers

logger = logging.getLogger("tickertape.server")

REACH_WITHIN: Final = 5.0
"""Seconds in which the broker must answer at the start: longer than a connection around the world takes."""

_LAST_REQUESTS: Final = 1
"""Least seconds for running requests at the end, after the streams: uvicorn's unit is whole seconds."""


def check_files(settings: Settings) -> None:
    """Read the files of access and the certificate once, so that a server with a mistake in them does not start.

    Raises:
        SettingsError: a file cannot be used, or PyJWT is missing.
    """
    check_access(settings)
    if settings.certificate is not None:
        certificate, key = settings.certificate
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        except OSError as error:  # ssl.SSLError is one
            raise SettingsError(f"cannot use tls_cert {certificate} with tls_key {key}: {error}") from None


def check_broker(settings: Settings) -> None:
    """Open the log and close it again, so that a server without a working broker does not start.

    Raises:
        BrokerError: the broker does not work.
    """
    asyncio.run(_check_broker(settings))


async def _check_broker(settings: Settings) -> None:
    broker = create_broker(settings.broker, retention=settings.retention)
    try:
        async with asyncio.timeout(REACH_WITHIN):
            await broker.open()
    except TimeoutError:
        raise BrokerError(f"no answer within {REACH_WITHIN:.0f} seconds") from None
    finally:
        await broker.close()


def serve(
    settings: Settings,
    listener: socket.socket,
    *,
    on_start: Callable[[], None] = lambda: None,
    load: Callable[[], Settings] | None = None,
) -> None:
    """Run the hub as a program until a signal ends it.

    SIGHUP reads the settings and the certificate again, and ends no stream.

    Arguments:
        settings: host and port are ignored: the listener has them.
        listener: closed at the end.
        on_start: called when requests are served.
        load: returns the settings as they are now; may raise :class:`SettingsError`.

    Raises:
        NotStartedError: the hub cannot start; the log contains the reason.
    """
    raise_descriptor_limit()
    set_up_logging(settings)
    if settings.send_timeout is not None and listener.family != getattr(socket, "AF_UNIX", None):
        set_tcp_timeout(listener, tcp_timeout_for(settings.send_timeout))
    secret = read_ticket_secret(settings)
    manager = ServiceManager()

    def start() -> None:
        on_start()
        manager.ready()

    def reload() -> Settings | None:
        """Return the new settings, or ``None`` if there are none to read or they are invalid."""
        manager.reloading()
        try:
            return None if load is None else load()
        except SettingsError as error:
            logger.error("the settings are not changed: %s", error)
            return None
        finally:
            manager.ready()

    options: dict[str, Any] = {
        "grace": math.floor(settings.drain_window) + _LAST_REQUESTS,
        "access_log": settings.access_log,
        "tls": settings.certificate,
        "on_start": start,
        "on_beat": manager.beat,
        "on_stop": manager.stopping,
    }
    if settings.workers == 1:
        program = Program(settings, secret)
        run(program, listener, on_reload=lambda: program.reload(reload()), **options)
    else:
        with closing(WorkerShare(settings.workers)) as share:

            def reload_workers() -> Reload:
                changed = reload()
                create = None if changed is None else functools.partial(_create_worker, changed, secret, share)
                return Reload(create, changed)

            run_workers(
                functools.partial(_create_worker, settings, secret, share),
                listener,
                workers=settings.workers,
                on_reload=reload_workers,
                on_restart=share.count_restart,
                **options,
            )
    logger.info("stopped")


class Program:
    """The application of one process of the program; an ASGI application.

    Arguments:
        settings: the settings of the program.
        ticket_secret: signs tickets; the same in all processes.
        share: what the workers share; ``None`` for one process.
    """

    def __init__(self, settings: Settings, ticket_secret: bytes, share: WorkerShare | None = None) -> None:
        self._settings = settings
        self.hub = Hub(settings.broker, retention=settings.retention, **settings.hub_options)
        self._tickets = Tickets(ticket_secret, self.hub)
        self._revocations = Revocations(self.hub)
        self.hub.access = create_access(settings, self._tickets, self._revocations)
        self._peers = Peers(share)
        self._guard = Guard(settings.limits)
        self._app = create_app(
            self.hub,
            cors_origins=settings.cors_origin,
            cors_credentials=settings.cors_credentials,
            cors_max_age=settings.cors_max_age,
            allowed_hosts=["*"] if settings.uds else [*default_hosts(settings.host), *settings.allowed_hosts],
            guard=self._guard,
            lifespan=self._lifespan,
            peers=self._peers,
            root_path=settings.root_path or "",
            metrics=settings.metrics,
        )
        if settings.trusted_proxies:
            self._app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the life of the application."""
        await self._app(scope, receive, _shorten_errors(send) if scope["type"] == "lifespan" else send)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with self.hub, gc_policy(), self._peers.serving():
            if self._settings.workers > 1:
                logger.info("this worker serves")
            yield

    def reload(self, settings: Settings | None) -> None:
        """Take over those of the settings that can change while streams are open, and log the others."""
        if settings is None:
            return
        before, self._settings = self._settings, settings
        changed = {name for name in Settings.model_fields if getattr(before, name) != getattr(settings, name)}
        if "log_level" in changed:
            set_log_level(settings)
        for name in changed & {*OF_THE_HUB}:
            setattr(self.hub, name, settings.hub_options[name])
        self._guard.apply(settings.limits)
        live = changed & {*OF_THE_HUB, *Limits._fields, "log_level"} - {"trusted_proxies"}
        if changed & {*OF_ACCESS} and self._change_access(settings):
            live |= changed & {*OF_ACCESS}
        later = sorted(changed - live)
        logger.info("read the settings again: %s", f"changed {', '.join(sorted(live))}" if live else "no change")
        if later:
            logger.warning("restart the server to change %s", ", ".join(later))

    def _change_access(self, settings: Settings) -> bool:
        """Take over the settings of access; return whether that was possible. Open streams keep their grants."""
        try:
            self.hub.access = create_access(settings, self._tickets, self._revocations)
        except SettingsError as error:
            logger.error("the settings of access are not changed: %s", error)
            return False
        return True


def _create_worker(settings: Settings, ticket_secret: bytes, share: WorkerShare) -> Program:
    set_up_logging(settings)  # a spawned process inherits nothing of its parent's logging
    return Program(settings, ticket_secret, share)


def _shorten_errors(send: Send) -> Send:
    """Reduce the traceback of a broker that cannot be opened at startup to its last line."""

    async def send_line(message: Message) -> None:
        if message["type"] == "lifespan.startup.failed":
            name, _, sentence = message["message"].strip().rpartition("\n")[2].partition(": ")
            if name in _names(BrokerError):
                message = {**message, "message": sentence}
        await send(message)

    return send_line


def _names(error: type[Exception]) -> set[str]:
    """Return the names of an exception and of its subclasses, as a traceback has them."""
    names = {f"{error.__module__}.{error.__qualname__}"}
    return names.union(*(_names(each) for each in error.__subclasses__()))


def set_up_logging(settings: Settings) -> None:
    """Log to standard error: tickertape from the configured level, others from WARNING, and requests if configured.

    With several workers, each line contains the process id. As JSON, each line is an object with the fields ``time``
    (ISO 8601, UTC), ``level``, ``logger``, ``message`` and ``process``, and those of its event, as ``stream``.
    """
    handler = logging.StreamHandler()
    if settings.log_format == "json":
        handler.setFormatter(
            JsonFormatter(
                ["levelname", "name", "message", "process"],
                rename_fields={"levelname": "level", "name": "logger", "timestamp": "time"},
                timestamp=True,
            )
        )
    else:
        process = "" if settings.workers == 1 else "[%(process)d] "
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {process}%(message)s", "%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    set_log_level(settings)
    if settings.access_log:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    else:
        logging.getLogger("tickertape.hub.streams").setLevel(logging.WARNING)


def set_log_level(settings: Settings) -> None:
    """Log the program's own messages from the configured level."""
    logging.getLogger("tickertape").setLevel(settings.log_level.upper())
