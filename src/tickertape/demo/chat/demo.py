"""The chat demo: its routes, the checks of its requests, and the rate limits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from ...hub import Hub
from ...timing import Clock
from ..identity import signed_in
from ..requests import check_key, check_text, read_json
from ..site import Demo
from .rooms import MAX_TEXT, ROOMS, Chat

_CLEANUP_SIZE: Final = 1_000
"""Number of buckets at which a rate limiter removes the full ones."""


class RateLimiter:
    """A token bucket for each user.

    A bucket is stored as one number: the time at which it will be full again.

    Arguments:
        burst: tokens in a full bucket.
        rate: tokens added per second.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, burst: int, rate: float, now: Callable[[], float]) -> None:
        self.burst = burst
        self.rate = rate
        self._now = now
        self._full_at: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<RateLimiter burst={self.burst} rate={self.rate:g} users={len(self._full_at)}>"

    def take(self, user: str) -> float:
        """Take a token and return 0. If there is none, return the seconds until the next one."""
        now = self._now()
        full_at = max(self._full_at.get(user, now), now) + 1 / self.rate
        wait = full_at - now - self.burst / self.rate
        if wait > 1e-3:  # more than a rounding error
            return wait
        if len(self._full_at) >= _CLEANUP_SIZE:
            self._full_at = {user: moment for user, moment in self._full_at.items() if moment > now}
        self._full_at[user] = full_at
        return 0.0


class _Requests:
    def __init__(self, chat: Chat, messages: RateLimiter, typing: RateLimiter) -> None:
        self._chat = chat
        self._messages = messages
        self._typing = typing

    async def rooms(self, request: Request) -> Response:
        signed_in(request)
        rooms = [{"name": name, "about": about, "names": self._chat.members(name)} for name, about in ROOMS.items()]
        return JSONResponse({"rooms": rooms, "max_text": MAX_TEXT}, headers={"cache-control": "no-store"})

    async def history(self, request: Request) -> Response:
        signed_in(request)
        messages = await self._chat.history(_room(request.query_params.get("room")))
        return JSONResponse({"messages": messages}, headers={"cache-control": "no-store"})

    async def post(self, request: Request) -> Response:
        name = signed_in(request)
        fields = await read_json(request)
        room, key = _room(fields.get("room")), check_key(fields.get("key"))
        text = check_text(fields.get("text"), "message", MAX_TEXT)
        _check_rate(self._messages, name, "messages")
        return JSONResponse({"id": await self._chat.post(room, name, text, key)}, HTTPStatus.CREATED)

    async def typing(self, request: Request) -> Response:
        name = signed_in(request)
        room = _room((await read_json(request)).get("room"))
        _check_rate(self._typing, name, "typing notices")
        self._chat.notify_typing(room, name)
        return Response(status_code=HTTPStatus.NO_CONTENT)


def chat_demo(hub: Hub, *, clock: Clock | None = None) -> Demo:
    """Return the chat demo.

    Arguments:
        hub: the hub of the site.
        clock: the clock of the rate limits. The default is the system's.
    """
    chat = Chat(hub)
    now = time.monotonic if clock is None else clock.time
    requests = _Requests(chat, RateLimiter(10, 1.0, now), RateLimiter(5, 1.0, now))
    routes = [
        Route("/rooms", requests.rooms),
        Route("/messages", requests.history),
        Route("/messages", requests.post, methods=["POST"]),
        Route("/typing", requests.typing, methods=["POST"]),
    ]
    return Demo(
        name="Chat",
        title="Chat rooms",
        summary=(
            "Open it in two browsers and talk. After a lost connection, you get every message that you missed, "
            "in order and once."
        ),
        path="/chat/",
        web=files(__package__) / "web",
        script="chat.js",
        style="chat.css",
        routes=[Mount("/chat", routes=routes)],
        own_topics=lambda request, user: [] if user is None else ["chat/**"],
        running=chat.running,
    )


def _room(value: Any) -> str:
    if not isinstance(value, str) or value not in ROOMS:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"expected room to be one of {', '.join(ROOMS)}, got {value!r:.60}")
    return value


def _check_rate(limiter: RateLimiter, name: str, what: str) -> None:
    wait = math.ceil(limiter.take(name.casefold()))
    if wait:
        sentence = f"too many {what}: the limit is {limiter.burst} at once and {limiter.rate:g} per second after that"
        raise HTTPException(
            HTTPStatus.TOO_MANY_REQUESTS, f"{sentence}; try again in {wait} s", {"Retry-After": str(wait)}
        )
