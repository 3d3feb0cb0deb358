"""The clock: an event stream written by hand, as the guide does it, and the same updates in the hub of the site."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Final

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ...asgi import DisconnectReason, EventSourceResponse, get_last_event_id
from ...hub import Hub
from ...wire import GAP_EVENT, ServerSentEvent
from ..site import RETRY, Demo
from .ticker import DEFAULT_INTERVAL, Ticker, Update

logger = logging.getLogger("tickertape.demo")

TOPIC: Final = "clock/updates"

_CONNECTED: Final = ServerSentEvent("Connection established", event="connected").encode()


class ClockStream:
    """An ASGI application that answers each request with the updates of ``ticker`` after the cursor of the client.

    Pages of other origins may read it, as the guide allows.
    """

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        peer = "{}:{}".format(*scope["client"]) if scope.get("client") else "unknown"
        last_event_id = get_last_event_id(scope)
        cursor = self._ticker.cursor_after(last_event_id)
        reads = scope["method"] == "GET"  # not HEAD
        if reads:
            logger.info("Client connected: peer=%s last_event_id=%.40r after=%d", peer, last_event_id, cursor)

        def log_disconnect(reason: DisconnectReason) -> None:
            if reads:
                logger.info("Client disconnected: peer=%s reason=%s", peer, reason)

        response = EventSourceResponse(
            follow(self._ticker, cursor), headers={"access-control-allow-origin": "*"}, on_disconnect=log_disconnect
        )
        await response(scope, receive, send)


async def follow(ticker: Ticker, cursor: int) -> AsyncIterator[bytes]:
    """Yield the stream of one client: all updates after ``cursor``."""
    # The id comes before the first update, so that a client can resume even if it disconnects before that update.
    yield _CONNECTED + ServerSentEvent(id=str(cursor), retry=RETRY).encode()
    while True:
        updates, gap = await ticker.read(cursor)
        if gap:
            notice = {"reason": "expired", "after": cursor, "resumed": updates[0].id}
            yield ServerSentEvent(notice, event=GAP_EVENT).encode()
        yield b"".join(update.encoded for update in updates)
        cursor = updates[-1].id


async def updates_for(hub: Hub, ticker: Ticker) -> AsyncIterator[Update]:
    """Yield all updates from now on. Their ids follow those in the hub, also after a restart."""
    cursor = ticker.cursor_after(None)
    if hub.topics(within=TOPIC):
        async with hub.subscribe(TOPIC, last=1) as kept:
            async for event in kept:
                cursor = ticker.cursor_after(str(event.json()["id"]))
                break
    while True:
        for update in (await ticker.read(cursor)).updates:
            yield update
            cursor = update.id


def clock_demo(hub: Hub, ticker: Ticker | None = None, *, interval: float = DEFAULT_INTERVAL) -> Demo:
    """Return the clock demo.

    Arguments:
        hub: the hub of the site.
        ticker: the source of the updates. It starts and stops with the server.
        interval: seconds between two updates, if no ticker is passed.
    """
    ticker = ticker or Ticker(interval=interval)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with ticker:
            hub.feed(
                TOPIC, lambda: updates_for(hub, ticker), key=None, event="update", data=lambda update: update.message
            )
            yield

    return Demo(
        name="Clock",
        title="Live clock",
        summary=(
            "One event stream over plain HTTP. Disconnect for a while, or stop the server and start it again: "
            "the page continues where it was."
        ),
        path="/clock/",
        web=files(__package__) / "web",
        script="clock.js",
        routes=[Route("/events", ClockStream(ticker), methods=["GET"])],
        topics=[TOPIC],
        running=running,
    )
