"""FastAPI: the description of streams, and the end of dependencies that yield."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Final, Literal

import fastapi.sse
import pytest
from fastapi import APIRouter, BackgroundTasks, Body, Depends, FastAPI, HTTPException, Query, Request, Response
from openapi_spec_validator import OpenAPIV32SpecValidator
from pydantic import BaseModel, Field, TypeAdapter

from support.asgi import settle
from support.pages import files_of
from tickertape import EventSourceResponse, Hub, HubResponse, ServerSentEvent
from tickertape.integrations.fastapi import EventSourceRoute, stream_of
from tickertape.testing import EventStreamClient


class News(BaseModel):
    text: str


def description_of(app: FastAPI) -> Any:
    """Return the description of the successful answer of ``GET /events``."""
    return app.openapi()["paths"]["/events"]["get"]["responses"]["200"]


@pytest.mark.parametrize("yields", [False, True], ids=["hub", "generator"])
def test_description(yields: bool) -> None:
    app, hub = FastAPI(), Hub()
    if yields:

        @app.get("/events", response_class=EventSourceResponse, **stream_of(News, event="news"))
        async def generate() -> AsyncIterator[News]:
            yield News(text="hello")

    else:

        @app.get("/events", **stream_of(News, event="news"))
        async def events(request: Request) -> HubResponse:
            return hub.response(request, "news")

    app.openapi_version = "3.2.0"
    described = description_of(app)
    item = described["content"]["text/event-stream"]["itemSchema"]
    assert item["required"] == ["data", "event"]
    assert item["properties"]["event"] == {"const": "news"}
    assert item["properties"]["data"]["contentSchema"]["properties"]["text"]["type"] == "string"
    assert app.openapi()["openapi"] == "3.2.0"


def test_description_of_any_type() -> None:
    (content,) = stream_of(int | str)["responses"][200]["content"].values()
    assert content["itemSchema"]["properties"]["data"]["contentSchema"]["anyOf"] == [
        {"type": "integer"},
        {"type": "string"},
    ]


class Author(BaseModel):
    name: str
    friends: "list[Author]" = []


class Article(BaseModel):
    kind: Literal["article"] = "article"
    author: Author
    title: str = Field(default="?", serialization_alias="headLine")


class Picture(BaseModel):
    kind: Literal["picture"] = "picture"


class Page(BaseModel):
    item: Annotated[Article | Picture, Field(discriminator="kind")]


def test_description_has_no_references() -> None:
    """References into a schema have no meaning in the document; a model inside itself is described once."""
    text = json.dumps(stream_of(Page))
    assert "$ref" not in text
    assert "$defs" not in text
    assert "headLine" in text
    assert '"properties": {"name"' in text


class Mapped(BaseModel):
    """Has fields with the names of a discriminator's own."""

    propertyName: str = "kind"  # noqa: N815
    mapping: dict[str, int]


def test_description_of_a_mapping() -> None:
    """Only a discriminator's mapping is left out."""
    (content,) = stream_of(Mapped)["responses"][200]["content"].values()
    assert set(content["itemSchema"]["properties"]["data"]["contentSchema"]["properties"]) == {
        "propertyName",
        "mapping",
    }


def test_description_of_text() -> None:
    (content,) = stream_of(str)["responses"][200]["content"].values()
    assert content["itemSchema"]["properties"]["data"] == {"type": "string"}


def test_description_is_valid() -> None:
    app = FastAPI()
    app.openapi_version = "3.2.0"
    app.router.route_class = EventSourceRoute

    @app.get("/events", response_class=EventSourceResponse)
    async def generate() -> AsyncIterator[Page]:
        yield Page(item=Picture())

    @app.get("/hub", **stream_of(Page))
    async def events() -> HubResponse:
        raise NotImplementedError

    document = app.openapi()
    OpenAPIV32SpecValidator(document).validate()
    streams = [document["paths"][path]["get"]["responses"]["200"]["content"] for path in ("/events", "/hub")]
    assert [stream["text/event-stream"]["itemSchema"] for stream in streams] == [
        stream_of(Page)["responses"][200]["content"]["text/event-stream"]["itemSchema"]
    ] * 2


SCOPES: Final[dict[str, tuple[Any, list[str]]]] = {
    "request": ("request", ["opened", "streaming", "closed"]),
    "function": ("function", ["opened", "closed", "streaming"]),
}


@pytest.mark.parametrize("scope", SCOPES)
async def test_dependency_that_yields(scope: str) -> None:
    """It lasts as long as the stream, unless its scope is the function."""
    steps: list[str] = []

    async def session() -> AsyncIterator[str]:
        steps.append("opened")
        yield "session"
        steps.append("closed")

    async def items() -> AsyncIterator[str]:
        steps.append("streaming")
        yield "x"

    app = FastAPI()
    kind, expected = SCOPES[scope]

    @app.get("/events")
    async def events(session: Annotated[str, Depends(session, scope=kind)]) -> EventSourceResponse:
        return EventSourceResponse(items())

    async with EventStreamClient(app) as client, client.open("/events") as stream:
        assert await stream.read() == b"data: x\n\n"
    assert steps == expected


async def test_example_of_the_migration_page() -> None:
    names: dict[str, Any] = {}
    exec(files_of("migration/fastapi-sse")["app.py"], names)
    async with EventStreamClient(names["app"]) as client, client.open("/steps", last_event_id="1") as stream:
        events = [await stream.next_event() for _ in range(2)]
    assert [(event.event, event.id, event.json()) for event in events] == [
        ("step", "2", {"number": 2}),
        ("step", "3", {"number": 3}),
    ]


async def test_events_of_both_libraries() -> None:
    """The rows of the migration page about text and raw data."""

    async def items() -> AsyncIterator[Any]:
        yield fastapi.sse.ServerSentEvent(raw_data="text", id="1")
        yield ServerSentEvent("text", id="1")
        yield fastapi.sse.ServerSentEvent(data="text", id="1")
        yield ServerSentEvent(json.dumps("text"), id="1")

    app = FastAPI()
    app.add_api_route("/", lambda: EventSourceResponse(items()), response_model=None)
    async with EventStreamClient(app) as client, client.open("/") as stream:
        events = [await stream.next_event() for _ in range(4)]
    assert events[0] == events[1]
    assert events[2] == events[3]


async def test_background_tasks_after_a_hub_stream() -> None:
    """FastAPI gives its tasks to the response; they run once, when the client has left."""
    ran: list[str] = []
    hub = Hub()
    app = FastAPI(lifespan=hub.lifespan)

    @app.get("/events")
    async def events(request: Request, tasks: BackgroundTasks) -> HubResponse:
        tasks.add_task(ran.append, "left")
        return hub.response(request, "news")

    async with EventStreamClient(app) as client:
        async with client.open("/events"):
            assert ran == []
        await settle(lambda: bool(ran))
        assert ran == ["left"]


# Path operations that yield, on an `EventSourceRoute`.


def routed(register: Callable[[APIRouter], object]) -> FastAPI:
    """Return an application with a path operation on a router that it includes, below a prefix."""
    app, router = FastAPI(), APIRouter(route_class=EventSourceRoute)
    register(router)
    app.include_router(router, prefix="/api", dependencies=[Depends(allowed)])
    return app


async def allowed(token: str = "good") -> None:
    if token != "good":
        raise HTTPException(401)


def stories(router: APIRouter) -> None:
    @router.post("/{author}", response_class=EventSourceResponse)
    async def generate(
        author: str,
        response: Response,
        tags: Annotated[list[str], Body()],
        count: Annotated[int, Query(ge=0)] = 1,
    ) -> AsyncIterator[Article]:
        response.headers["x-late"] = "lost"
        if not count:
            raise HTTPException(404)
        for tag in tags * count:
            yield Article(author=Author(name=author), title=tag)


@pytest.mark.parametrize(
    ("url", "body", "status"),
    [
        ("/api/ada?count=2", ["x"], 200),
        ("/api/ada?count=-1", ["x"], 422),
        ("/api/ada", {"no": "list"}, 422),
        ("/api/ada?count=0", ["x"], 404),
        ("/api/ada?token=bad", ["x"], 401),
    ],
)
async def test_checked_request(url: str, body: Any, status: int) -> None:
    """Parameters, the body and the dependencies of an included router are checked before the stream."""
    app = routed(stories)
    async with EventStreamClient(app) as client, client.open(url, method="POST", json=body) as stream:
        assert stream.status == status
        if status == 200:
            assert (await stream.next_event()).json() == {
                "kind": "article",
                "author": {"name": "ada", "friends": []},
                "headLine": "x",
            }
            await stream.next_event()
            assert (await stream.read()).count(b"data:") == 2
        else:
            await stream.read()


async def test_items_close_before_dependencies() -> None:
    """On FastAPI's own route the garbage collector closes the generator, when its session may be closed already."""
    closed: list[str] = []
    app = FastAPI()
    app.router.route_class = EventSourceRoute

    async def session() -> AsyncIterator[str]:
        yield "session"
        closed.append("session")

    @app.get("/", response_class=EventSourceResponse)
    async def generate(session: Annotated[str, Depends(session)]) -> AsyncIterator[str]:
        try:
            while True:
                yield session
        finally:
            closed.append("items")

    async with EventStreamClient(app) as client, client.open("/") as stream:
        await stream.next_event()
    await settle(lambda: len(closed) == 2)
    assert closed == ["items", "session"]


async def test_cookies_and_background_tasks() -> None:
    ran: list[str] = []
    app = FastAPI()
    app.router.route_class = EventSourceRoute

    async def remember(response: Response, tasks: BackgroundTasks) -> None:
        response.set_cookie("seen", "1")
        response.status_code = 203
        tasks.add_task(ran.append, "after")

    @app.get("/", response_class=EventSourceResponse, dependencies=[Depends(remember)])
    def generate() -> Iterator[int]:
        yield 1
        ran.append("yielded")

    async with EventStreamClient(app) as client, client.open("/") as stream:
        assert stream.status == 203
        assert stream.headers["set-cookie"].startswith("seen=1")
        assert await stream.read() == b"data: 1\n\n"
    assert ran == ["yielded", "after"]


async def test_item_of_another_type() -> None:
    """An item that does not fit the annotation is an error, as in other path operations."""
    app = FastAPI()
    app.router.route_class = EventSourceRoute

    @app.get("/", response_class=EventSourceResponse)
    async def generate() -> AsyncIterator[News]:
        yield {"text": "fits"}  # type: ignore[misc]
        yield {"words": "does not"}  # type: ignore[misc]

    stream = EventStreamClient(app).open("/")
    async with stream:
        assert [event.event for event in [await stream.next_event(), await stream.next_event()]] == [
            None,
            "stream:error",
        ]
    assert "validation error" in str(stream.error)


NATIVE: Final[dict[str, Any]] = {
    "text": "a",
    "model": News(text="a"),
    "dict": {"a": 1},
    "event": fastapi.sse.ServerSentEvent(data="a", event="e", id="1", retry=5, comment="c"),
    "raw": fastapi.sse.ServerSentEvent(raw_data="a\nb"),
    "no-data": fastapi.sse.ServerSentEvent(event="e", id="1"),
}


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("annotation", [AsyncIterator[Any], AsyncIterator[fastapi.sse.ServerSentEvent], None])
async def test_same_events_as_fastapi(name: str, annotation: Any) -> None:
    """With the class of ``fastapi.sse``, clients receive the same events from both routes."""
    found = []
    for route in (APIRouter().route_class, EventSourceRoute):
        app = FastAPI()
        app.router.route_class = route

        async def generate():  # type: ignore[no-untyped-def]
            yield NATIVE[name]

        if annotation is not None:
            generate.__annotations__["return"] = annotation
        app.get("/", response_class=fastapi.sse.EventSourceResponse)(generate)
        async with EventStreamClient(app) as client, client.open("/") as stream:
            body = await stream.read()
        lines = [line for line in body.decode().split("\n") if line]
        found.append(sorted(line if ": {" not in line else json.dumps(json.loads(line[6:])) for line in lines))
    assert found[0] == found[1]


async def test_own_defaults() -> None:
    """A subclass of the response has the options that its path operations share."""

    class Quick(EventSourceResponse):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, retry=500, **options)

    app = FastAPI()
    app.router.route_class = EventSourceRoute

    @app.get("/", response_class=Quick)
    async def generate() -> AsyncIterator[int]:
        yield 1

    @app.get("/other")
    async def other() -> int:
        return TypeAdapter(int).validate_python("1")

    async with EventStreamClient(app) as client:
        async with client.open("/") as stream:
            assert await stream.read() == b"retry: 500\ndata: 1\n\n"
        async with client.open("/other") as answer:
            assert await answer.read() == b"1"
