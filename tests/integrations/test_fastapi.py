"""FastAPI: the description of streams, and the end of dependencies that yield."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import fastapi.sse
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request
from pydantic import BaseModel

from support.asgi import settle
from support.pages import files_of
from tickertape import EventSourceResponse, Hub, HubResponse, ServerSentEvent
from tickertape.integrations.fastapi import stream_of
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
