"""Applications of frameworks whose streams fill the buffers of clients that do not read.

Each has items at ``/items``, the events of a hub at ``/hub``, and items whose clients must read within half a second
at ``/timeout``. Run aiohttp's as ``python -m support.stuck PORT``; an ASGI server finds the others by name.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from tickertape import Hub

_SEND_TIMEOUT: Final = 0.5
_EVENT: Final = "x" * 100_000
_EVENTS: Final = 160

hub: Final = Hub("memory://")


async def flood() -> AsyncIterator[str]:
    try:
        while True:
            yield _EVENT
    finally:
        sys.stdout.write("[finalised]\n")


async def fill() -> None:
    for _ in range(_EVENTS):
        await hub.publish("t", _EVENT)


def aiohttp() -> Any:
    from aiohttp import web

    from tickertape.integrations.aiohttp import hub_context, stream_items, stream_topics

    async def items(request: web.Request) -> web.StreamResponse:
        return await stream_items(request, flood())

    async def topics(request: web.Request) -> web.StreamResponse:
        return await stream_topics(request, hub, "t", last="all")

    async def timeout(request: web.Request) -> web.StreamResponse:
        return await stream_items(request, flood(), send_timeout=_SEND_TIMEOUT)

    async def start(app: web.Application) -> None:
        await fill()

    app = web.Application()
    app.add_routes([web.get("/items", items), web.get("/hub", topics), web.get("/timeout", timeout)])
    app.cleanup_ctx.append(hub_context(hub))
    app.on_startup.append(start)
    return app


def quart() -> Any:
    from quart import Quart, Response

    from tickertape.integrations.quart import stream_items, stream_topics

    app = Quart("stuck")

    @app.before_serving
    async def start() -> None:
        await hub.open()
        await fill()

    @app.get("/items")
    async def items() -> Response:
        return stream_items(flood())

    @app.get("/hub")
    async def topics() -> Response:
        return await stream_topics(hub, "t", last="all")

    @app.get("/timeout")
    async def timeout() -> Response:
        return stream_items(flood(), send_timeout=_SEND_TIMEOUT)

    return app


def sanic() -> Any:
    from sanic import HTTPResponse, Request, Sanic

    from tickertape.integrations.sanic import add_hub, stream_items, stream_topics

    app: Sanic[Any, Any] = Sanic("stuck")
    add_hub(app, hub)

    async def start(app: Sanic[Any, Any]) -> None:
        await fill()

    app.register_listener(start, "before_server_start")

    @app.get("/items")
    async def items(request: Request[Any, Any]) -> HTTPResponse | None:
        return await stream_items(request, flood())

    @app.get("/hub")
    async def topics(request: Request[Any, Any]) -> HTTPResponse | None:
        return await stream_topics(request, hub, "t", last="all")

    @app.get("/timeout")
    async def timeout(request: Request[Any, Any]) -> HTTPResponse | None:
        return await stream_items(request, flood(), send_timeout=_SEND_TIMEOUT)

    return app


def falcon() -> Any:
    from falcon.asgi import App, Request, Response

    from tickertape.integrations.falcon import HubMiddleware, stream_items, stream_topics

    class Filling(HubMiddleware):
        async def process_startup(self, scope: Any, event: Any) -> None:
            await super().process_startup(scope, event)
            await fill()

    class Resource:
        def __init__(self, respond: Callable[[Request, Response], Awaitable[None] | None]) -> None:
            self._respond = respond

        async def on_get(self, request: Request, response: Response) -> None:
            found = self._respond(request, response)
            if found is not None:
                await found

    app = App(middleware=[Filling(hub)])
    app.add_route("/items", Resource(lambda request, response: stream_items(request, response, flood())))
    app.add_route("/hub", Resource(lambda request, response: stream_topics(request, response, hub, "t", last="all")))
    app.add_route(
        "/timeout",
        Resource(lambda request, response: stream_items(request, response, flood(), send_timeout=_SEND_TIMEOUT)),
    )
    return app


def blacksheep() -> Any:
    from blacksheep import Application, Request, Response

    from tickertape.integrations.blacksheep import stream_items, stream_topics

    app = Application()

    async def lifespan() -> AsyncIterator[None]:
        async with hub:
            await fill()
            yield

    app.lifespan(lifespan)  # type: ignore[no-untyped-call]

    @app.router.get("/items")
    async def items(request: Request) -> Response:
        return stream_items(request, flood())

    @app.router.get("/hub")
    async def topics(request: Request) -> Response:
        return await stream_topics(request, hub, "t", last="all")

    @app.router.get("/timeout")
    async def timeout(request: Request) -> Response:
        return stream_items(request, flood(), send_timeout=_SEND_TIMEOUT)

    return app


def __getattr__(name: str) -> Any:
    """Make an application when its server looks for it: only its framework is imported."""
    make = {"quart_app": quart, "sanic_app": sanic, "falcon_app": falcon, "blacksheep_app": blacksheep}.get(name)
    if make is None:
        raise AttributeError(name)
    app = globals()[name] = make()
    return app


if __name__ == "__main__":
    from aiohttp import web

    web.run_app(aiohttp(), host="127.0.0.1", port=int(sys.argv[1]))
