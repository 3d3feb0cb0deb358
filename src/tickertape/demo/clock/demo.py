"""The clock: numbered updates in the hub of the site, and the event stream of the guide, with these numbers as ids."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.resources import files
from typing import Any, Final

from starlette.requests import Request
from starlette.routing import Route

from ...asgi import DisconnectReason, EventSourceResponse, get_last_event_id
from ...hub import Hub, HubEvent
from ...timing import Clock, sleep
from ...wire import GAP_EVENT, ServerSentEvent
from ..site import RETRY, Demo

logger = logging.getLogger("tickertape.demo")

TOPIC: Final = "clock/updates"

DEFAULT_INTERVAL: Final = 2.0
"""Seconds between two updates."""

_CONNECTED: Final = ServerSentEvent("Connection established", event="connected").encode()

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


async def newest_number(hub: Hub) -> int:
    """Return the number of the newest update in the hub, or 0."""
    found, _ = await hub.history(TOPIC, last=1)
    return int(json.loads(found[0][1].data)["id"]) if found else 0


async def updates(
    hub: Hub, interval: float, clock: Clock, now: Callable[[], datetime]
) -> AsyncGenerator[dict[str, Any]]:
    """Yield an update with the time every ``interval`` seconds. Their numbers continue after those in the hub."""
    number = await newest_number(hub)
    due = clock.time()
    while True:
        # Exact intervals, without drift. After the loop was blocked, restart from now.
        due = due + interval if due + interval > clock.time() else clock.time() + interval
        await sleep(clock, due - clock.time())
        number += 1
        time = now().isoformat(timespec="seconds").replace("+00:00", "Z")  # RFC 3339, as Go writes it
        yield {"id": number, "event": "update", "data": f"Current time: {time}"}


async def follow(hub: Hub, last_event_id: str | None) -> AsyncGenerator[ServerSentEvent | bytes]:
    """Yield the stream of one client: the updates after the number in ``last_event_id``; without one, from now on."""
    newest = await newest_number(hub)
    asked = int(last_event_id) if last_event_id and _NUMBER.fullmatch(last_event_id) else newest
    seen = min(asked, newest)
    # The id comes with the first bytes, so that a client can resume even if it disconnects before the first update.
    yield _CONNECTED + ServerSentEvent(id=str(seen), retry=RETRY).encode()
    if asked > newest:  # the log that had this number was lost
        yield ServerSentEvent({"reason": "reset", "after": asked, "resumed": newest}, event=GAP_EVENT)
    async with hub.subscribe(TOPIC, last=newest - seen, on_overflow="skip") as events:
        async for event in events:
            number = event.json()["id"] if isinstance(event, HubEvent) else 0
            if number > seen + 1:
                yield ServerSentEvent({"reason": "expired", "after": seen, "resumed": number}, event=GAP_EVENT)
            if number > seen:
                yield ServerSentEvent(event.data, event="update", id=str(number))
                seen = number


def clock_demo(
    hub: Hub,
    *,
    interval: float = DEFAULT_INTERVAL,
    clock: Clock | None = None,
    now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
) -> Demo:
    """Return the clock demo.

    Arguments:
        hub: the hub of the site.
        interval: seconds between two updates, > 0.
        clock: the clock of the timer. The default is the running event loop.
        now: returns the local time for an update.

    Raises:
        ValueError: the interval is not greater than 0.
    """
    if not interval > 0:
        raise ValueError(f"expected an interval of more than 0 seconds, got {interval!r}")

    async def events(request: Request) -> EventSourceResponse:
        """Answer with the stream of the guide. Pages of other origins may read it, as the guide allows."""
        peer = "{}:{}".format(*request.client) if request.client else "unknown"
        last_event_id = get_last_event_id(request)
        reads = request.method == "GET"  # not HEAD
        if reads:
            logger.info("Client connected: peer=%s last_event_id=%.40r", peer, last_event_id)

        def log_disconnect(reason: DisconnectReason) -> None:
            if reads:
                logger.info("Client disconnected: peer=%s reason=%s", peer, reason)

        headers = {"access-control-allow-origin": "*"}
        return EventSourceResponse(follow(hub, last_event_id), headers=headers, on_disconnect=log_disconnect)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        timer = clock or asyncio.get_running_loop()
        feed = hub.feed(TOPIC, lambda: updates(hub, interval, timer, now), key="id", event="update")
        yield
        await feed.stop()

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
        routes=[Route("/events", events, methods=["GET"])],
        topics=[TOPIC],
        running=running,
    )
