"""The stream of the clock, by hand: what a hub does for the other demos, in the fewest lines."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Final

from starlette.routing import Route

from ...asgi import ASGIApp, DisconnectReason, EventSourceResponse, Receive, Scope, Send, get_last_event_id
from ...wire import ServerSentEvent
from ..site import RETRY, Demo
from .ticker import Ticker

__all__ = ["ClockStream", "clock_demo"]

logger = logging.getLogger("tickertape.demo")

_CONNECTED: Final = ServerSentEvent("Connection established", event="connected").encode()


class ClockStream:
    """Answer each request with the updates of ``ticker``, from the client's cursor on.

    Pages of other origins may read it, as the guide's stream allows.
    """

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        peer = "{}:{}".format(*scope["client"]) if scope.get("client") else "unknown"
        last_event_id = get_last_event_id(scope)
        cursor = self._ticker.cursor_after(last_event_id)
        if scope["method"] == "GET":
            logger.info("Client connected: peer=%s last_event_id=%.40r after=%d", peer, last_event_id, cursor)

        def log_disconnect(reason: DisconnectReason) -> None:
            logger.info("Client disconnected: peer=%s reason=%s", peer, reason)

        response = EventSourceResponse(
            follow(self._ticker, cursor), headers={"access-control-allow-origin": "*"}, on_disconnect=log_disconnect
        )
        await response(scope, receive, send)


async def follow(ticker: Ticker, cursor: int) -> AsyncIterator[bytes]:
    """Give the stream of one client, whose place in the log is ``cursor``."""
    # The id comes before any update does: a client that drops within the first seconds resumes as well.
    yield _CONNECTED + ServerSentEvent(id=str(cursor), retry=RETRY).encode()
    while True:
        updates, gap = await ticker.read(cursor)
        if gap:
            told = {"reason": "expired", "after": cursor, "resumed": updates[0].id}
            yield ServerSentEvent(told, event="stream:gap").encode()
        yield b"".join(update.encoded for update in updates)
        cursor = updates[-1].id


def clock_demo(ticker: Ticker, *, events: ASGIApp | None = None) -> Demo:
    """Describe the clock demo.

    Arguments:
        ticker: started and stopped with the server.
        events: what answers ``GET /events``, if not the stream of ``ticker``.
    """
    return Demo(
        name="Clock",
        title="Live clock",
        summary=(
            "One stream of events, pushed by the server over plain HTTP. "
            "Disconnect for a while, or stop the server and start it again: the page goes on where it was."
        ),
        path="/clock/",
        web=files(__package__) / "web",
        script="clock.js",
        routes=[Route("/events", ClockStream(ticker) if events is None else events, methods=["GET"])],
        running=lambda: ticker,
    )
