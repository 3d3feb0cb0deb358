"""The application that tests run under real servers: a path for each kind of stream and of its end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import socket
import struct
import termios
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tickertape import EventSourceResponse, Hub, ServerSentEvent, stream_until_drain
from tickertape.asgi import ASGIApp, Receive, Scope, Send
from tickertape.asgi.sockets import find_listener, server_address

__all__ = ["app"]

BLOCK: Final = b"data: " + b"x" * 20_000 + b"\n\n"


def say(text: str) -> None:
    """Report an event to the test, which reads the output of this process."""
    print(f"[{text}]", flush=True)  # noqa: T201


@contextmanager
def noted(name: str) -> Iterator[None]:
    try:
        yield
    finally:
        say(f"finalised {name}")


async def finite(request: Request) -> AsyncIterator[Any]:
    yield "one"
    yield ServerSentEvent("two", event="e", id="2")
    yield {"three": 3}


async def idle(request: Request) -> AsyncIterator[str]:
    with noted("idle"):
        yield "hello"
        await asyncio.Event().wait()


async def farewell(request: Request) -> AsyncIterator[str]:
    """Send a last event when the server stops."""
    with noted("farewell"):
        async for item in stream_until_drain(idle(request)):
            yield item
        yield "bye"


async def graceful(request: Request) -> Any:
    """Send a last event, for which the server waits, after another event was set."""
    stopping = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        yield "hello"
        await stopping.wait()
        yield "bye"

    return EventSourceResponse(items(), on_drain=stopping.set, drain_grace=1)


def blocked(request: Request) -> Iterator[str]:
    yield "hello"
    threading.Event().wait()


async def busy(request: Request) -> AsyncIterator[int]:
    number = 0
    with noted("busy"):
        while True:
            yield number
            number += 1


async def flood(request: Request) -> AsyncIterator[bytes]:
    with noted("flood"):
        while True:
            yield BLOCK


async def brimful(request: Request) -> AsyncIterator[bytes]:
    """Send to a client that does not read, until the rest stays in the server: too little to make it wait."""
    client, looks = request.scope["client"], 0
    while looks < 20:  # in a row: servers write later, some in another thread
        if not looks:
            before = held_by_the_kernel(client)
            yield BLOCK
        await asyncio.sleep(0.005)
        looks = looks + 1 if held_by_the_kernel(client) == before > 0 else 0
    say("brimful")
    await asyncio.Event().wait()


def held_by_the_kernel(client: Any) -> int:
    """Return how many bytes for ``client`` the kernel holds."""
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(path.name))) as copy:
            if list(map(str, copy.getpeername())) == list(map(str, client)):
                (count,) = struct.unpack("i", fcntl.ioctl(copy, termios.TIOCOUTQ, bytes(4)))
                return int(count)
    return 0


async def broken(request: Request) -> AsyncIterator[str]:
    yield "hello"
    raise LookupError("the items of this stream are broken")


async def forbidden(request: Request) -> AsyncIterator[str]:
    if request.method == "GET":
        raise HTTPException(403, "not for you")
    yield "never"


def stream(items: Callable[[Request], Any], **options: Any) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Any:
        name = request.url.path[1:]
        return EventSourceResponse(items(request), on_disconnect=lambda reason: say(f"{reason} {name}"), **options)

    return endpoint


async def late(request: Request) -> Any:
    """Answer with a stream when the server is stopping already."""
    listener = find_listener(server_address(request.scope))
    say("late")
    while listener is not None and not listener.closed:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return EventSourceResponse(idle(request), retry=100)


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


def hide(app: ASGIApp) -> ASGIApp:
    """Wrap an application in middleware that hides the application, as compiled code does."""

    class Opaque:
        __slots__ = ("call",)

        def __init__(self, call: Any) -> None:
            self.call = call

        def __call__(self, *args: Any) -> Any:
            return self.call(*args)

    async def hidden(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "client": None}, Opaque(receive), Opaque(send))

    return hidden


async def memory(request: Request) -> Response:
    return JSONResponse(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


hub = Hub()


async def of_hub(request: Request) -> Any:
    return hub.response(request, "news")


app = Starlette(
    lifespan=hub.lifespan,
    routes=[
        Route("/hub", of_hub),
        Route("/finite", stream(finite, retry=100)),
        Route("/idle", stream(idle)),
        Route("/cut", stream(idle, cut_on_drain=True)),
        Route("/farewell", stream(farewell)),
        Route("/graceful", graceful),
        Route("/blocked", stream(blocked)),
        Route("/busy", stream(busy)),
        Route("/flood", stream(flood)),
        Route("/hidden", stream(flood), middleware=[Middleware(hide)]),
        Route("/brimful", stream(brimful)),
        Route("/stalled", stream(flood, send_timeout=0.5)),
        Route("/vanished", stream(idle, heartbeat=0.2, send_timeout=1)),
        Route("/broken", stream(broken)),
        Route("/broken-behind", stream(broken), middleware=[Middleware(BaseHTTPMiddleware, dispatch=pass_on)]),
        Route("/forbidden", stream(forbidden)),
        Route("/late", late),
        Route("/memory", memory),
    ],
)
