"""The application that tests run under uvicorn: one hub, behind one middleware after another."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response

from tickertape.asgi import DisconnectReason
from tickertape.asgi.types import ASGIApp, Message, Receive, Scope, Send
from tickertape.broker import Retention
from tickertape.hub import DirectOutput, Hub, SubscriberInfo

__all__ = ["app"]

hub = Hub(
    # Memory has the limits of the log: a subscriber that is too old for the one is too old for the other.
    retention=Retention(events=int(os.environ.get("EVENTS", "100000"))),
    drain_window=1.0,
    send_timeout=float(os.environ.get("SEND_TIMEOUT", "30")),
)


@hub.presence.on_leave
def print_reason(info: SubscriberInfo, reason: DisconnectReason) -> None:
    """Report to the test, which reads the output of this process."""
    print(f"[left {info.topics[0]} {reason}]", flush=True)  # noqa: T201


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a stream, in no framework."""
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    policy = query.get("policy", "disconnect")
    await hub.response(scope, query["topic"], on_overflow=policy)(scope, receive, send)


fastapi = FastAPI()


@fastapi.get("/{name}/events")
async def events(request: Request, name: str, topic: str) -> Any:
    return hub.response(request, topic)


def with_header(app: ASGIApp) -> ASGIApp:
    """Add a header, and leave the body as it is."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-added", b"yes")]}
            await send(message)

        await app(scope, receive, add)

    return wrapped


def with_body(app: ASGIApp) -> ASGIApp:
    """Append a comment to every chunk."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def change(message: Message) -> None:
            if message["type"] == "http.response.body" and message.get("more_body"):
                message = {**message, "body": message["body"] + b": changed\n\n"}
            await send(message)

        await app(scope, receive, change)

    return wrapped


def with_two_messages(app: ASGIApp) -> ASGIApp:
    """Send an empty piece of the body before the first one."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def more(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                await send({"type": "http.response.body", "body": b"", "more_body": True})

        await app(scope, receive, more)

    return wrapped


def with_an_end(app: ASGIApp) -> ASGIApp:
    """End the response after the application, even if it has ended already."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return wrapped


def with_failure(app: ASGIApp) -> ASGIApp:
    """Raise an exception after the application has returned."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)
        raise RuntimeError("failed after the response")

    return wrapped


def with_receive(app: ASGIApp) -> ASGIApp:
    """Replace ``receive``, so that the server cannot be found through it."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def pass_on() -> Message:
            return await receive()

        await app(scope, pass_on, send)

    return wrapped


async def pass_on(request: StarletteRequest, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


APPS: Final[dict[str, Any]] = {
    "bare": bare,
    "fastapi": fastapi,
    "cors": CORSMiddleware(bare, allow_origins=["*"]),
    "session": SessionMiddleware(bare, "secret"),
    "gzip": GZipMiddleware(bare, minimum_size=1),
    "header": with_header(bare),
    "end": with_an_end(bare),
    "failing": with_failure(bare),
    "several": with_header(CORSMiddleware(SessionMiddleware(fastapi, "secret"), allow_origins=["*"])),
    "base": BaseHTTPMiddleware(bare, dispatch=pass_on),
    "body": with_body(bare),
    "portable": with_receive(bare),
    "two": with_two_messages(bare),
}


# More requests of the test


async def publish(query: dict[str, str]) -> Any:
    """Publish numbers in a row, each in a text of ``size`` characters."""
    count, size, first = (int(query.get(name, default)) for name, default in (("n", 1), ("size", 0), ("first", 0)))
    topic = query["topic"]
    cursors = []
    for start in range(first, first + count, 10):  # each ten of them in one turn of the loop, as publishers do
        numbers = range(start, min(start + 10, first + count))
        cursors += await hub.publish_many([hub.draft(topic, str(number).ljust(size, ".")) for number in numbers])
        await asyncio.sleep(0)
    return [str(cursor) for cursor in cursors]


async def ways(query: dict[str, str]) -> Any:
    """Report the output of each subscriber of a topic, and which direct outputs are live."""
    present = [each.output for each in hub.presence.subscriptions if each.info.topics == (query["topic"],)]
    return [
        "portable" if not isinstance(each, DirectOutput) else "direct" if each.place >= 0 else "direct, behind"
        for each in present
    ]


async def wait(query: dict[str, str]) -> Any:
    """Answer when the hub drains: the request is under way when the server stops."""
    print("[waiting]", flush=True)  # noqa: T201
    while not hub.draining:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return "waited"


async def large(query: dict[str, str]) -> Any:
    """Answer with what fits into a server's buffer, but not into those of the kernel if the client does not read."""
    return "x" * int(query["size"])


ANSWERS: Final[dict[str, Callable[[dict[str, str]], Awaitable[Any]]]] = {
    "publish": publish,
    "ways": ways,
    "wait": wait,
    "large": large,
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Open the hub, and choose the application by the first part of the path."""
    if scope["type"] == "lifespan":
        await receive()
        if os.environ.get("EAGER"):
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        async with hub:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    name = scope["path"].split("/")[1]
    if name in APPS:
        await APPS[name](scope, receive, send)
        return
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    body = json.dumps(await ANSWERS[name](query)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
