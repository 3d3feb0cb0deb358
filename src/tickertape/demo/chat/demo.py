"""The chat as a demo: its requests, and what they may ask for."""

from __future__ import annotations

import math
import re
import time
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from ...asgi import ASGIApp, EventSourceResponse, get_last_event_id, status_of
from ...broker import Retention
from ...errors import TickertapeError
from ...hub import Hub
from ...timing import Clock
from ..identity import signed_in
from ..requests import read_json
from ..site import RETRY, Demo, log_url
from .allowance import Allowance
from .rooms import MAX_TEXT, ROOMS, Chat

__all__ = ["chat_demo"]

_MOMENT: Final = Retention(events=1_000)
"""Of what counts for a moment no more is kept than a slow connection may be behind."""

_KEY: Final = re.compile(r"[0-9A-Za-z-]{1,64}")


class _Requests:
    def __init__(self, chat: Chat, messages: Allowance, signs: Allowance) -> None:
        self._chat = chat
        self._messages = messages
        self._signs = signs  # of life: somebody is typing

    async def rooms(self, request: Request) -> Response:
        rooms = [{"name": name, "about": about} for name, about in ROOMS.items()]
        return JSONResponse({"rooms": rooms, "longest": MAX_TEXT})

    async def events(self, request: Request) -> ASGIApp:
        room, name = _room(request.query_params.get("room")), signed_in(request)
        return EventSourceResponse(self._chat.follow(room, name, get_last_event_id(request)), retry=RETRY)

    async def say(self, request: Request) -> Response:
        name = signed_in(request)
        fields = await read_json(request)
        room, text, key = _room(fields.get("room")), _text(fields.get("text")), _key(fields.get("key"))
        _spend(self._messages, name, "messages")
        try:
            published = await self._chat.say(room, name, text, key)
        except TickertapeError as error:
            raise HTTPException(status_of(error), str(error)) from error
        return JSONResponse({"id": published}, HTTPStatus.CREATED)

    async def type(self, request: Request) -> Response:
        name = signed_in(request)
        room = _room((await read_json(request)).get("room"))
        _spend(self._signs, name, "signs of typing")
        self._chat.type(room, name)
        return Response(status_code=HTTPStatus.NO_CONTENT)


def chat_demo(*, folder: Path, messages: Hub | None = None, clock: Clock | None = None) -> Demo:
    """Describe the chat demo.

    Arguments:
        folder: where the messages are kept.
        messages: the hub that keeps them instead, in another log.
        clock: where timers are set; by default the running event loop.
    """
    if messages is None:
        messages = Hub(log_url(folder / "chat.db"))
    chat = Chat(messages, Hub("memory://", retention=_MOMENT, clock=clock))
    now = time.monotonic if clock is None else clock.time
    requests = _Requests(chat, Allowance(10, 1.0, now), Allowance(5, 1.0, now))
    routes = [
        Route("/rooms", requests.rooms),
        Route("/events", requests.events),
        Route("/messages", requests.say, methods=["POST"]),
        Route("/typing", requests.type, methods=["POST"]),
    ]
    return Demo(
        name="Chat",
        title="Chat rooms",
        summary=("Open it in two browsers and talk. Whoever was away gets what was said meanwhile, in order and once."),
        path="/chat/",
        web=files(__package__) / "web",
        script="chat.js",
        style="chat.css",
        routes=[Mount("/chat", routes=routes)],
        running=chat.running,
    )


def _room(value: Any) -> str:
    if not isinstance(value, str) or value not in ROOMS:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"expected one of the rooms {', '.join(ROOMS)}, got {value!r:.60}")
    return value


def _text(value: Any) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if not 0 < len(text) <= MAX_TEXT:
        sentence = f"expected a message of 1 to {MAX_TEXT:,} characters, got {len(text):,}"
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)
    return text


def _key(value: Any) -> str:
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        sentence = f"expected a key of 1 to 64 letters, digits and dashes, got {value!r:.60}"
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)
    return value


def _spend(allowance: Allowance, name: str, what: str) -> None:
    wait = math.ceil(allowance.take(name.casefold()))
    if wait:
        sentence = (
            f"expected at most {allowance.burst} {what} in a row and {allowance.rate:g} a second after that, "
            f"got one more: try again in {wait} s"
        )
        raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, sentence, {"Retry-After": str(wait)})
