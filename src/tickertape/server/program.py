"""``tickertape serve``: the hub as a program."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import Final

from pythonjsonlogger.json import JsonFormatter
from starlette.applications import Starlette

from ..asgi import ASGIApp, Message, Receive, Scope, Send, set_tcp_timeout, tcp_timeout_for
from ..broker import create_broker
from ..errors import BrokerError
from ..hub import Hub
from .app import create_app
from .descriptors import raise_descriptor_limit
from .gc_policy import gc_policy
from .metrics import Metrics, WorkerMetrics
from .settings import Settings
from .uvicorn import run
from .workers import run_workers

logger = logging.getLogger("tickertape.server")

REACH_WITHIN: Final = 5.0
"""Seconds in which the broker must answer at the start: longer than a connection around the world takes."""

_LAST_REQUESTS: Final = 1
"""Least seconds for running requests at the end, after the streams: uvicorn's unit is whole seconds."""


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


def serve(settings: Settings, listener: socket.socket, *, on_start: Callable[[], None] = lambda: None) -> None:
    """Run the hub as a program until a signal ends it.

    Arguments:
        settings: host and port are ignored: the listener has them.
        listener: closed at the end.
        on_start: called when requests are served.

    Raises:
        NotStartedError: the hub cannot start; the log contains the reason.
    """
    raise_descriptor_limit()
    set_up_logging(settings)
    if settings.send_timeout is not None:
        set_tcp_timeout(listener, tcp_timeout_for(settings.send_timeout))
    grace = math.floor(settings.drain_window) + _LAST_REQUESTS
    if settings.workers == 1:
        app = _with_short_errors(create_program(settings))
        run(app, listener, grace=grace, access_log=settings.access_log, on_start=on_start)
    else:
        with closing(WorkerMetrics(settings.workers)) as shared:
            run_workers(
                functools.partial(_create_worker, settings, shared),
                listener,
                workers=settings.workers,
                grace=grace,
                access_log=settings.access_log,
                on_start=on_start,
                on_restart=shared.count_restart,
            )
    logger.info("stopped")


def create_program(settings: Settings, shared: WorkerMetrics | None = None) -> Starlette:
    """Return the application of one process of the program.

    Arguments:
        settings: the settings of the program.
        shared: what several workers share for their metrics.
    """
    hub = Hub(settings.broker, retention=settings.retention, **settings.hub_options)
    metrics = Metrics(hub, shared)
    node = secrets.token_hex(4)  # not the process id, which is the same in many containers

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with hub, gc_policy(), metrics.serving():
            if settings.workers > 1:
                logger.info("serving as node %s", node)
            yield

    return create_app(hub, cors_origins=settings.cors_origin, lifespan=lifespan, node=node, metrics=metrics)


def _create_worker(settings: Settings, shared: WorkerMetrics) -> ASGIApp:
    set_up_logging(settings)  # a spawned process inherits nothing of its parent's logging
    return _with_short_errors(create_program(settings, shared))


def _with_short_errors(app: ASGIApp) -> ASGIApp:
    """Reduce the traceback of a broker that cannot be opened at startup to its last line."""

    async def program(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_line(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                name, _, sentence = message["message"].strip().rpartition("\n")[2].partition(": ")
                if name == f"{BrokerError.__module__}.{BrokerError.__qualname__}":
                    message = {**message, "message": sentence}
            await send(message)

        await app(scope, receive, send_line if scope["type"] == "lifespan" else send)

    return program


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
    logging.getLogger("tickertape").setLevel(settings.log_level.upper())
    if settings.access_log:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    else:
        logging.getLogger("tickertape.hub.streams").setLevel(logging.WARNING)
