"""The peers in Python, each as its documentation shows a broadcast: ``applications.py NAME PORT``.

``GET /events`` is a stream, and ``POST /publish`` sends the body to all streams.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import Any

BACKLOG = 4096
"""Connections that wait to be accepted: thousands come at once."""


class Queues:
    """A queue for each client, filled by the publisher: the usual way to broadcast."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[str]] = set()

    def publish(self, data: str) -> None:
        for queue in self._queues:
            queue.put_nowait(data)

    async def events(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)


def serve(app: Any, port: int, **options: Any) -> None:
    """Run an application under uvicorn with its defaults."""
    import uvicorn

    uvicorn.run(app, port=port, backlog=BACKLOG, log_level="error", access_log=False, **options)


def starlette_app(stream: Callable[[Any], Any], publish: Callable[[str], Any], **options: Any) -> Any:
    """Return an application of Starlette with two routes."""
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    async def post(request: Any) -> Response:
        published = publish((await request.body()).decode())
        if published is not None:
            await published
        return Response(status_code=204)

    async def events(request: Any) -> Any:
        return stream(request)

    routes = [Route("/events", events), Route("/publish", post, methods=["POST"])]
    return Starlette(routes=[*routes, *options.pop("routes", ())], **options)


def tickertape(port: int) -> None:
    from tickertape import Hub

    hub = Hub()

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with hub:
            yield

    app = starlette_app(
        lambda request: hub.response(request, "prices"), lambda data: hub.publish("prices", data), lifespan=lifespan
    )
    serve(app, port)


def starlette(port: int) -> None:
    from starlette.responses import StreamingResponse

    queues = Queues()

    async def blocks() -> AsyncIterator[str]:
        async for data in queues.events():
            yield f"data: {data}\n\n"

    app = starlette_app(lambda _: StreamingResponse(blocks(), media_type="text/event-stream"), queues.publish)
    serve(app, port)


def sse_starlette(port: int) -> None:
    from sse_starlette import EventSourceResponse

    queues = Queues()
    serve(starlette_app(lambda _: EventSourceResponse(queues.events()), queues.publish), port)


def broadcaster(port: int) -> None:
    from broadcaster import Broadcast
    from starlette.responses import StreamingResponse

    broadcast = Broadcast("memory://")

    async def blocks() -> AsyncIterator[str]:
        async with broadcast.subscribe("prices") as subscriber:
            async for event in subscriber:
                yield f"data: {event.message}\n\n"

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with broadcast:
            yield

    app = starlette_app(
        lambda _: StreamingResponse(blocks(), media_type="text/event-stream"),
        lambda data: broadcast.publish("prices", data),
        lifespan=lifespan,
    )
    serve(app, port)


def fastapi(port: int) -> None:
    from fastapi import FastAPI, Request, Response
    from fastapi.sse import EventSourceResponse, ServerSentEvent

    queues = Queues()
    app = FastAPI()

    async def events() -> AsyncIterator[Any]:
        async for data in queues.events():
            yield ServerSentEvent(raw_data=data)

    async def post(request: Any) -> Any:
        queues.publish((await request.body()).decode())
        return Response(status_code=204)

    events.__annotations__["return"] = AsyncIterator[ServerSentEvent]  # FastAPI reads them; this module's are strings
    post.__annotations__["request"] = Request
    app.get("/events", response_class=EventSourceResponse)(events)
    app.post("/publish", response_model=None)(post)
    serve(app, port)


def litestar(port: int) -> None:
    from litestar import Litestar, Request, get, post
    from litestar.channels import ChannelsPlugin
    from litestar.channels.backends.memory import MemoryChannelsBackend
    from litestar.response import ServerSentEvent

    plugin = ChannelsPlugin(backend=MemoryChannelsBackend(), channels=["prices"])

    async def messages() -> AsyncIterator[str]:
        async with plugin.start_subscription(["prices"]) as subscriber:
            async for message in subscriber.iter_events():
                yield message.decode()

    async def events() -> Any:
        return ServerSentEvent(messages())

    async def publish(request: Any) -> None:
        plugin.publish((await request.body()).decode(), ["prices"])

    events.__annotations__["return"] = ServerSentEvent  # Litestar reads them; this module's are strings
    publish.__annotations__.update({"request": Request, "return": None})
    serve(Litestar([get("/events")(events), post("/publish", status_code=204)(publish)], plugins=[plugin]), port)


def django_eventstream(port: int) -> None:
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse
    from django.urls import include, path

    settings.configure(
        SECRET_KEY="benchmark",
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_eventstream"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        ROOT_URLCONF=__name__,
    )
    django.setup()

    async def publish(request: Any) -> HttpResponse:
        from django_eventstream import send_event

        send_event("prices", "message", request.body.decode(), json_encode=False)
        return HttpResponse(status=204)

    events = include("django_eventstream.urls")
    urlpatterns.extend([path("events", events, {"channels": ["prices"]}), path("publish", publish)])
    serve(get_asgi_application(), port, lifespan="off")


urlpatterns: list[Any] = []
"""The routes of Django."""


def aiohttp_sse(port: int) -> None:
    from aiohttp import web
    from aiohttp_sse import sse_response

    queues = Queues()

    async def events(request: web.Request) -> Any:
        async with sse_response(request) as response:
            async for data in queues.events():
                await response.send(data)
        return response

    async def publish(request: web.Request) -> web.Response:
        queues.publish(await request.text())
        return web.Response(status=204)

    app = web.Application()
    app.router.add_get("/events", events)
    app.router.add_post("/publish", publish)
    web.run_app(app, host="127.0.0.1", port=port, backlog=BACKLOG, print=None, access_log=None)


def uvicorn_websocket(port: int) -> None:
    from starlette.routing import WebSocketRoute

    queues = Queues()

    async def stream(websocket: Any) -> None:
        await websocket.accept()
        async for data in queues.events():
            await websocket.send_text(data)

    app = starlette_app(lambda _: None, queues.publish, routes=[WebSocketRoute("/stream", stream)])
    # No pings and no compression, as with the library websockets below.
    serve(app, port, ws_ping_interval=None, ws_per_message_deflate=False)


def websockets(port: int) -> None:
    from websockets.asyncio.server import ServerConnection, broadcast
    from websockets.asyncio.server import serve as serve_websockets

    connections: set[ServerConnection] = set()

    async def stream(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connections.discard(connection)

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the publisher, because the library reads no bodies."""
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            broadcast(connections, (await reader.readexactly(length)).decode())
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def main() -> None:
        import signal

        async def forgiving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await control(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                writer.close()

        # No pings, since the reader of this benchmark does not answer them; no compression, as with all peers.
        options: dict[str, Any] = {"ping_interval": None, "compression": None, "backlog": BACKLOG}
        publishing = await asyncio.start_server(forgiving, "127.0.0.1", port + 1)
        async with publishing, serve_websockets(stream, "127.0.0.1", port, **options) as server:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
            await server.wait_closed()

    import uvloop

    uvloop.run(main())


if __name__ == "__main__":
    hard = getrlimit(RLIMIT_NOFILE)[1]
    setrlimit(RLIMIT_NOFILE, (hard, hard))
    globals()[sys.argv[1].replace("-", "_")](int(sys.argv[2]))
