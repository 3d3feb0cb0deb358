"""The contenders of the fan-out benchmark, each a separate program: ``python -m bench.fanout_servers NAME PORT``.

All send the same event, and answer three requests: ``/events`` streams, ``/burst?n=…`` publishes ``n``
events, each when the one before was written to everyone, and ``/health`` answers at once.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import selectors
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

RESUMABLE: Final = 1_000
"""Events in the log of a server to which clients reconnect."""

TOPIC: Final = "bench/prices"
SIZE: Final = 120
"""Bytes of an event's data."""

END: Final = "~"
"""Occurs once in each event's data: readers count it."""


def event_data() -> str:
    """Return the data of one event: its time, then filling up to the size."""
    moment = f"{time.monotonic():.6f}"
    return moment + END + "x" * (SIZE - len(moment) - 1)


# The bare loop: no server can be faster.


def serve_bare(port: int) -> None:
    """Write to a list of descriptors, and do nothing else."""
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    streams: dict[int, socket.socket] = {}
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as every server sets it
                selector.register(connection, selectors.EVENT_READ)
                continue
            connection = key.fileobj  # type: ignore[assignment]
            try:
                request = connection.recv(65536)
            except ConnectionResetError:
                request = b""
            if not request:
                selector.unregister(connection)
                streams.pop(connection.fileno(), None)
                connection.close()
                continue
            url = urlsplit(request.split()[1].decode())
            if url.path == "/events":
                missed = _missed(request)
                connection.send(head + missed)
                streams[connection.fileno()] = connection
            elif url.path == "/burst":
                _burst_bare(list(streams), int(parse_qs(url.query)["n"][0]))
                connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            else:
                connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


def _missed(request: bytes) -> bytes:
    """Return the events that a reconnecting client has missed."""
    place = request.lower().partition(b"last-event-id: ")[2].partition(b"\r\n")[0]
    if not place:
        return b""
    behind = range(int(place.rpartition(b"-")[2]) + 1, RESUMABLE + 1)
    blocks = b"".join(f"id: 0123456789ab-{number}\ndata: {event_data()}\n\n".encode() for number in behind)
    return b"%x\r\n%b\r\n" % (len(blocks), blocks)


def _burst_bare(descriptors: list[int], count: int) -> None:
    for number in range(count):
        block = f"id: 0123456789ab-{number}\ndata: {event_data()}\n\n".encode()
        chunk = b"%x\r\n%b\r\n" % (len(block), block)
        for descriptor in descriptors:
            written = 0
            while written < len(chunk):  # wait for a slow reader, so that everything is written
                try:
                    written += os.write(descriptor, chunk[written:])
                except BlockingIOError:
                    time.sleep(0.001)


# Applications under uvicorn.

Burst = Callable[[int], Awaitable[None]]


def serve_app(port: int, app: Any) -> None:
    import uvicorn

    gc.freeze()
    uvicorn.run(app, port=port, log_level="error", access_log=False, backlog=4096)


def hub_app(*, in_one_turn: bool = False) -> Any:
    """Return an application on a hub; ``in_one_turn`` publishes a burst without waiting in between."""
    from tickertape import EventSourceResponse  # noqa: F401 - what an application imports too
    from tickertape.hub import Hub

    hub = Hub(drain_window=0.1)

    async def burst(count: int) -> None:
        async with hub.subscribe(TOPIC) as last:  # the last to join is the last to be served
            for _ in range(count):
                await hub.publish(TOPIC, event_data())
                if not in_one_turn:
                    await anext(last)
                    await asyncio.sleep(0)
            while in_one_turn and count:
                await anext(last)
                count -= 1

    return application(lambda scope: hub.response(scope, TOPIC), burst, hub)


def queue_app(stream: Callable[[AsyncIterator[str]], Any]) -> Any:
    """Return an application as most are written: a queue for each client, filled by the publisher."""
    queues: set[asyncio.Queue[str]] = set()

    async def events() -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    async def burst(count: int) -> None:
        for _ in range(count):
            data = event_data()
            for queue in queues:
                queue.put_nowait(data)
            while any(not queue.empty() for queue in queues):
                await asyncio.sleep(0)

    return application(lambda scope: stream(events()), burst)


def application(respond: Callable[[Any], Any], burst: Burst, hub: Any = None) -> Any:
    """Return a raw ASGI application, so that no framework's cost is in the figure."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            if hub is not None:
                await hub.open()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            if hub is not None:
                await hub.close()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["path"] == "/events":
            await respond(scope)(scope, receive, send)
        else:
            if scope["path"] == "/burst":
                await burst(int(parse_qs(scope["query_string"].decode())["n"][0]))
            headers = [(b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b""})

    return app


def hide_server(app: Any) -> Any:
    """Replace ``receive`` by another function, as some middleware does: streams stay portable."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def pass_on() -> Any:
            return await receive()

        await app(scope, pass_on, send)

    return wrapped


def fastapi_app() -> Any:
    """Return an application with FastAPI's own event streams, and a queue for each client."""
    from fastapi import FastAPI
    from fastapi.sse import EventSourceResponse, ServerSentEvent

    queues: set[asyncio.Queue[str]] = set()
    app = FastAPI()

    @app.get("/events", response_class=EventSourceResponse)
    async def events() -> AsyncIterator[ServerSentEvent]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        queues.add(queue)
        try:
            while True:
                yield ServerSentEvent(raw_data=await queue.get())
        finally:
            queues.discard(queue)

    @app.get("/burst")
    async def burst(n: int) -> None:
        for _ in range(n):
            data = event_data()
            for queue in queues:
                queue.put_nowait(data)
            while any(not queue.empty() for queue in queues):
                await asyncio.sleep(0)

    @app.get("/health")
    async def health() -> None:
        pass

    return app


def sse_starlette_app() -> Any:
    """Return an application with sse-starlette's response, and a queue for each client."""
    from sse_starlette import EventSourceResponse

    return queue_app(EventSourceResponse)


def tickertape_queue_app() -> Any:
    """Return an application with our response, and a queue for each client."""
    from tickertape import EventSourceResponse

    return queue_app(EventSourceResponse)


CONTENDERS: Final[dict[str, Callable[[int], None]]] = {
    "bare": serve_bare,
    "direct": lambda port: serve_app(port, hub_app()),
    "direct-burst": lambda port: serve_app(port, hub_app(in_one_turn=True)),
    "portable": lambda port: serve_app(port, hide_server(hub_app())),
    "response": lambda port: serve_app(port, tickertape_queue_app()),
    "sse-starlette": lambda port: serve_app(port, sse_starlette_app()),
    "fastapi": lambda port: serve_app(port, fastapi_app()),
}

if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    CONTENDERS[sys.argv[1]](int(sys.argv[2]))
