"""The response under every framework, and behind the middleware that apps have."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.testclient import TestClient
from litestar import Litestar, asgi
from litestar.types import Receive as LitestarReceive
from litestar.types import Scope as LitestarScope
from litestar.types import Send as LitestarSend
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from support.asgi import settle
from tickertape import EventSourceResponse, get_last_event_id
from tickertape.asgi.types import ASGIApp, Receive, Scope, Send
from tickertape.testing import EventStreamClient


class Source:
    """Items that the test gives one by one, to a response that an application makes of them."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self.steps: list[str] = []

    async def _items(self) -> AsyncIterator[Any]:
        try:
            while (item := await self._queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.steps.append("finalised")

    def give(self, *items: Any) -> None:
        for item in items:
            self._queue.put_nowait(item)

    def response(self) -> EventSourceResponse:
        return EventSourceResponse(self._items())


def bare(source: Source) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await source.response()(scope, receive, send)

    return app


def starlette(source: Source, *middleware: Middleware) -> Starlette:
    async def endpoint(request: Request) -> Any:
        return source.response()

    return Starlette(routes=[Route("/", endpoint)], middleware=middleware)


def starlette_sync(source: Source) -> Starlette:
    return Starlette(routes=[Route("/", lambda request: source.response())])


def starlette_mount(source: Source) -> Starlette:
    return Starlette(routes=[Mount("/", bare(source))])


def fastapi(source: Source) -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def endpoint():  # type: ignore[no-untyped-def]
        return source.response()

    return app


def fastapi_annotated(source: Source) -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def endpoint() -> EventSourceResponse:
        return source.response()

    return app


def fastapi_sync(source: Source) -> FastAPI:
    app = FastAPI()

    @app.get("/")
    def endpoint() -> EventSourceResponse:
        return source.response()

    return app


def fastapi_dependencies(source: Source) -> FastAPI:
    app = FastAPI()

    def sync_dependency() -> Iterator[str]:
        yield "sync"

    async def async_dependency() -> AsyncIterator[str]:
        yield "async"

    @app.get("/")
    async def endpoint(
        one: Annotated[str, Depends(sync_dependency)], two: Annotated[str, Depends(async_dependency)]
    ) -> EventSourceResponse:
        assert (one, two) == ("sync", "async")
        return source.response()

    return app


def litestar(source: Source) -> ASGIApp:
    @asgi("/", is_mount=True, copy_scope=True)
    async def handler(scope: LitestarScope, receive: LitestarReceive, send: LitestarSend) -> None:
        await source.response()(scope, receive, send)  # type: ignore[arg-type]

    return Litestar([handler], openapi_config=None, logging_config=None)  # type: ignore[return-value]


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    response.headers["x-passed"] = "on"
    return response


MIDDLEWARE = {
    "cors": Middleware(CORSMiddleware, allow_origins=["*"]),
    "gzip": Middleware(GZipMiddleware, minimum_size=1),
    "base-http": Middleware(BaseHTTPMiddleware, dispatch=pass_on),
    "session": Middleware(SessionMiddleware, secret_key="secret"),
}


def behind(*names: str) -> Callable[[Source], ASGIApp]:
    return lambda source: starlette(source, *(MIDDLEWARE[name] for name in names))


APPS: dict[str, Callable[[Source], ASGIApp]] = {
    "bare": bare,
    "starlette": starlette,
    "starlette-sync": starlette_sync,
    "starlette-mount": starlette_mount,
    "fastapi": fastapi,
    "fastapi-annotated": fastapi_annotated,
    "fastapi-sync": fastapi_sync,
    "fastapi-dependencies": fastapi_dependencies,
    "litestar": litestar,
    **{name: behind(name) for name in MIDDLEWARE},
    "all-middleware": behind(*MIDDLEWARE),
    "base-http-twice": behind("base-http", "base-http"),
}

ENDS_WHAT_FAILED = [APPS[name] for name in ("base-http", "all-middleware", "base-http-twice")]
"""Those whose middleware ends the response before it raises; under a real server, the connection is cut off first."""

every_app = pytest.mark.parametrize("make", APPS.values(), ids=APPS)

BROWSER = {"accept-encoding": "gzip, deflate, br", "origin": "https://page.example"}


@every_app
async def test_no_buffering(make: Callable[[Source], ASGIApp]) -> None:
    source = Source()
    async with EventStreamClient(make(source), headers=BROWSER).open("/", wait=False) as stream:
        for text in ("a", "b" * 2000):
            source.give(text)
            assert (await stream.next_event()).data == text
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert "connection" not in stream.headers
        assert "content-length" not in stream.headers
        source.give(None)
        await stream.read()
        assert stream.complete
    assert stream.error is None
    assert source.steps == ["finalised"]


@every_app
@pytest.mark.parametrize("spec_version", ["2.1", "2.5"])
async def test_disconnect(make: Callable[[Source], ASGIApp], spec_version: str) -> None:
    source = Source()
    before = asyncio.all_tasks()
    async with EventStreamClient(make(source), spec_version=spec_version).open("/", wait=False) as stream:
        source.give("a")
        await stream.next_event()
        await settle()
        assert source.steps == []
        await stream.disconnect()
        assert source.steps == ["finalised"]
    await settle()
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("make", [APPS[name] for name in APPS if name not in ("bare", "litestar", "starlette-mount")])
async def test_early_http_exception(make: Callable[[Source], ASGIApp]) -> None:
    source = Source()
    source.give(HTTPException(403, "not for you"))
    async with EventStreamClient(make(source)).open("/") as stream:
        assert stream.status == 403
        assert b"not for you" in await stream.read()
    assert source.steps == ["finalised"]


@every_app
async def test_late_exception(make: Callable[[Source], ASGIApp]) -> None:
    source = Source()
    source.give("a", LookupError("broken"))
    async with EventStreamClient(make(source)).open("/") as stream:
        assert [event.event async for event in stream] == [None, "stream:error"]
        if make not in ENDS_WHAT_FAILED:
            assert not stream.complete
        await stream.disconnect()
    assert isinstance(stream.error, LookupError) or isinstance(stream.error.__cause__, LookupError)  # type: ignore[union-attr]


# FastAPI


def test_openapi() -> None:
    for make in (fastapi, fastapi_annotated, fastapi_sync, fastapi_dependencies):
        app = make(Source())
        assert isinstance(app, FastAPI)
        assert list(app.openapi()["paths"]["/"]) == ["get"]


def test_openapi_media_type() -> None:
    app = FastAPI()

    @app.get("/", response_class=EventSourceResponse)
    async def endpoint() -> EventSourceResponse:
        return EventSourceResponse(["a"])

    description = app.openapi()["paths"]["/"]["get"]["responses"]["200"]
    assert list(description["content"]) == ["text/event-stream"]
    with TestClient(app) as client:
        assert client.get("/").text == "data: a\n\n"


async def test_dependencies() -> None:
    source, app = Source(), FastAPI()

    async def connection() -> AsyncIterator[str]:
        source.steps.append("opened")
        yield "connection"
        source.steps.append("closed")

    @app.get("/")
    async def endpoint(dependency: Annotated[str, Depends(connection)]) -> EventSourceResponse:
        return source.response()

    async with EventStreamClient(app).open("/", wait=False) as stream:
        source.give("a")
        await stream.next_event()
        assert source.steps == ["opened"]
    assert source.steps == ["opened", "finalised", "closed"]


async def test_fastapi_background() -> None:
    source, app = Source(), FastAPI()

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> EventSourceResponse:
        tasks.add_task(source.steps.append, "background")
        return source.response()

    source.give("a", None)
    async with EventStreamClient(app).open("/") as stream:
        await stream.read()
    assert source.steps == ["finalised", "background"]


async def test_last_event_id() -> None:
    app = FastAPI()

    @app.get("/")
    async def endpoint(request: Request) -> EventSourceResponse:
        return EventSourceResponse([get_last_event_id(request)])

    client = EventStreamClient(app)
    async with client.open("/", last_event_id="ü-7") as stream:
        assert (await stream.next_event()).data == "ü-7"
    async with client.open("/", query={"lastEventId": "8"}) as stream:
        assert (await stream.next_event()).data == "8"


def test_starlette_test_client() -> None:
    source = Source()
    source.give("a", None)
    with TestClient(fastapi_annotated(source)) as client:
        response = client.get("/")
    assert (response.status_code, response.text) == (200, "data: a\n\n")


async def test_head() -> None:
    source = Source()
    async with EventStreamClient(starlette(source)).open("/", method="HEAD") as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert await stream.read() == b""
    assert source.steps == []


# Middleware


async def test_cors_headers() -> None:
    source = Source()
    source.give("a", None)
    async with EventStreamClient(behind("cors", "base-http")(source), headers=BROWSER).open("/") as stream:
        assert stream.headers["access-control-allow-origin"] == "*"
        assert stream.headers["x-passed"] == "on"


async def test_session() -> None:
    async def endpoint(request: Request) -> Any:
        request.session["user"] = "ada"
        return EventSourceResponse(["a"])

    app = Starlette(routes=[Route("/", endpoint)], middleware=[MIDDLEWARE["session"]])
    async with EventStreamClient(app).open("/") as stream:
        assert stream.headers["set-cookie"].startswith("session=")
        assert (await stream.next_event()).data == "a"
