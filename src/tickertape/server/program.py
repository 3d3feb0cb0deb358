"""``tickertape serve``: the hub as a program, from its settings to its end."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette

from ..asgi import ASGIApp, Message, Receive, Scope, Send
from ..broker import create_broker
from ..errors import BrokerError
from ..hub import Hub
from .app import create_app
from .descriptors import raise_descriptor_limit
from .garbage import steady
from .run import run
from .settings import Settings
from .silence import SILENCE_FACTOR, drop_silent_clients
from .supervisor import run_workers

__all__ = ["create_program", "reach_broker", "serve", "set_up_logging"]

logger = logging.getLogger("tickertape.server")

REACH_WITHIN: Final = 5.0
"""Seconds in which the broker has to answer at the start: longer than a connection over the world takes."""

_LAST_REQUESTS: Final = 1
"""Seconds that requests under way have at the end, at least: uvicorn counts in whole ones, and streams come first."""


def reach_broker(settings: Settings) -> None:
    """Open the log and close it again, so that a server which cannot work does not start.

    Raises:
        BrokerError: it cannot be reached.
    """
    asyncio.run(_reach(settings))


async def _reach(settings: Settings) -> None:
    broker = create_broker(settings.broker, retention=settings.retention)
    try:
        async with asyncio.timeout(REACH_WITHIN):
            await broker.open()
    except TimeoutError:
        raise BrokerError(f"expected an answer within {REACH_WITHIN:.0f} seconds, got none") from None
    finally:
        await broker.close()


def serve(settings: Settings, listener: socket.socket, *, on_start: Callable[[], None] = lambda: None) -> None:
    """Run the hub's program until it is told to stop.

    Arguments:
        settings: host and port are not used: they are the listener's.
        listener: closed at the end.
        on_start: called when requests are served.

    Raises:
        NotStartedError: it cannot start; the log says why.
    """
    raise_descriptor_limit()
    set_up_logging(settings)
    if settings.send_timeout is not None:
        drop_silent_clients(listener, after=SILENCE_FACTOR * settings.send_timeout)
    grace = math.floor(settings.drain_window) + _LAST_REQUESTS
    if settings.workers == 1:
        app = _in_one_line(create_program(settings))
        run(app, listener, grace=grace, access_log=settings.access_log, on_start=on_start)
    else:
        factory = functools.partial(_create_worker, settings)
        run_workers(
            factory,
            listener,
            workers=settings.workers,
            grace=grace,
            access_log=settings.access_log,
            on_start=on_start,
        )


def create_program(settings: Settings) -> Starlette:
    """Return the application of one process of the program."""
    hub = Hub(
        settings.broker,
        retention=settings.retention,
        heartbeat=settings.heartbeat,
        send_timeout=settings.send_timeout,
        retry=settings.retry,
        max_event_size=settings.max_event_size,
        max_topics=settings.max_topics,
        drain_window=settings.drain_window,
    )

    node = secrets.token_hex(4)  # not the process's number, which is the same in many containers

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with hub, steady():
            if settings.workers > 1:
                logger.info("serving as node %s", node)
            yield

    return create_app(hub, cors_origins=settings.cors_origin, lifespan=lifespan, node=node)


def _create_worker(settings: Settings) -> ASGIApp:
    set_up_logging(settings)  # this process was started anew, and knows nothing of its parent's
    return _in_one_line(create_program(settings))


def _in_one_line(app: ASGIApp) -> ASGIApp:
    """Let an application whose log cannot be opened say so in a sentence: its traceback is of no use to anyone."""

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
    """Log to standard error: ours from the chosen level on, others' from WARNING on, requests if asked for.

    Lines of several workers name the process.
    """
    who = "" if settings.workers == 1 else "[%(process)d] "
    form = f"%(asctime)s %(levelname)s {who}%(message)s"
    logging.basicConfig(format=form, datefmt="%H:%M:%S", level=logging.WARNING)
    logging.getLogger("tickertape").setLevel(settings.log_level.upper())
    if settings.access_log:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
