"""Responses of runs: where a reader starts, and which status it gets."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar, Final

import pytest

from support.runs import Source
from tickertape import Decoder, Hub
from tickertape.asgi import Receive, Scope, Send
from tickertape.broker import MemoryBroker, Retention
from tickertape.runs import Frame, RunEnd, RunEvent, RunInfo, Runs
from tickertape.testing import EventStreamClient
from tickertape.wire import HEARTBEAT

FRAMINGS: Final = ("events", "openai_chat", "openai_responses", "anthropic", "ai_sdk", "ag_ui")


class App:
    """An application that answers every request with a run.

    Attributes:
        options: the arguments of the response.
    """

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.options: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answer = self.runs.cancel_response if scope["path"] == "/stop" else self.runs.response
        response: Any = await answer(scope, "chat/1", **self.options)
        await response(scope, receive, send)


class Answer:
    """A whole answer."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.events = Decoder().feed(body)

    @property
    def data(self) -> list[str | None]:
        return [event.data for event in self.events]


async def get(app: App, sent: dict[str, str] | None = None, *, path: str = "/", **options: Any) -> Answer:
    app.options = options
    async with EventStreamClient(app) as client, client.open(path, headers=sent or {}) as stream:
        return Answer(stream.status, stream.headers, await stream.read())


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub() as hub:
        yield hub


@pytest.fixture
async def app(hub: Hub) -> App:
    return App(Runs(hub))


async def finish(runs: Runs, *items: Any, name: str = "chat/1") -> RunInfo:
    source = Source()
    run = await runs.start(name, source)
    source.give(*items, None)
    return await run.wait()


async def test_from_the_beginning(app: App) -> None:
    info = await finish(app.runs, "one", {"two": 2})
    answer = await get(app)
    assert answer.status == 200
    assert answer.body.startswith(f"id: {info.run}\n\n".encode())
    assert answer.data == ["one", '{"two":2}', f'{{"reason": "done", "run": "{info.run}"}}']
    assert answer.events[-1].event == "stream:end"


async def test_last_event_id(app: App) -> None:
    """An ``EventSource`` continues after its last event, and gets 204 when it has the end."""
    info = await finish(app.runs, "one", "two")
    events = (await get(app)).events
    following = await get(app, {"last-event-id": events[0].id or ""})
    assert following.data[0] == "two"
    assert (await get(app, {"last-event-id": info.run})).data[:2] == ["one", "two"]
    assert (await get(app, {"last-event-id": events[-1].id or ""})).status == 204


async def test_last_event_id_belongs_to_a_run(app: App) -> None:
    """A reader that was cut off continues in its own run, although there is a newer one."""
    await finish(app.runs, "one", "two")
    first = (await get(app)).events[0]
    await finish(app.runs, "three")
    assert (await get(app, {"last-event-id": first.id or ""})).data[0] == "two"
    assert (await get(app)).data[0] == "three"
    assert (await get(app, {"last-event-id": "other-1"})).data[0] == "three"


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_after_a_number(app: App, framing: str) -> None:
    """The events after a number are the same as in an uncut stream."""
    await finish(app.runs, "one", "two", "three")
    whole = await get(app, framing=framing, finished="replay")
    for number in range(len(whole.events)):
        part = await get(app, framing=framing, finished="replay", after=number)
        assert part.data == whole.data[number + 1 :]


@pytest.mark.parametrize("framing", FRAMINGS[1:])
async def test_last_event_id_in_other_framings(app: App, framing: str) -> None:
    await finish(app.runs, "one", "two", "three")
    whole = await get(app, framing=framing, finished="replay")
    ids = [event.id for event in whole.events]
    known = dict.fromkeys(known for known in ids[:-1] if known)
    assert len(known) == 3
    for last in known:
        part = await get(app, {"last-event-id": last}, framing=framing, finished="replay")
        assert part.data == whole.data[ids.index(last) + 1 :]


async def test_from_now_on(app: App) -> None:
    source = Source()
    run = await app.runs.start("chat/1", source)
    source.give("one")
    async with aclosing(run.events()) as events:
        await anext(events)
    app.options = {"after": "now"}
    async with EventStreamClient(app) as client, client.open("/") as stream:
        source.give("two", None)
        assert (await stream.next_event()).data == "two"


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        ({}, 404, "There is no run 'chat/1'."),
        ({"missing": 204}, 204, ""),
        ({"run": "e-1"}, 404, "There is no run 'chat/1'."),
    ],
)
async def test_no_run(app: App, options: dict[str, Any], status: int, text: str) -> None:
    answer = await get(app, **options)
    assert answer.status == status
    assert text in answer.body.decode()
    assert "event-stream" not in answer.headers.get("content-type", "")


@pytest.mark.parametrize(
    ("options", "status"),
    [({}, 200), ({"framing": "ai_sdk"}, 204), ({"finished": 204}, 204), ({"finished": 410}, 410)],
)
async def test_finished_run(app: App, options: dict[str, Any], status: int) -> None:
    await finish(app.runs, "one")
    assert (await get(app, **options)).status == status


async def test_headers(app: App) -> None:
    await finish(app.runs, "one")
    answer = await get(app, framing="ai_sdk", finished="replay", headers={"X-Mine": "1"})
    assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert answer.headers["x-mine"] == "1"
    assert answer.headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_authorize(hub: Hub, asynchronous: bool) -> None:
    """A user who may not read a run gets no byte of it."""
    seen: list[tuple[Any, RunInfo]] = []

    def authorize(request: Any, run: RunInfo) -> Any:
        seen.append((request, run))
        allowed = run.owner == "ann"
        return asyncio.sleep(0, allowed) if asynchronous else allowed

    app = App(Runs(hub, authorize=authorize))
    for owner, status in (("bob", 403), ("ann", 200)):
        source = Source()
        source.give("secret", None)
        await (await app.runs.start("chat/1", source, owner=owner)).wait()
        answer = await get(app)
        assert answer.status == status
        assert ("secret" in answer.body.decode()) == (status == 200)
    assert [run.owner for _, run in seen] == ["bob", "ann"]


@pytest.mark.parametrize(("owner", "status"), [("ann", 200), ("bob", 403), (None, 403)])
async def test_owner(app: App, owner: str | None, status: int) -> None:
    source = Source()
    source.give("secret", None)
    await (await app.runs.start("chat/1", source, owner="ann")).wait()
    answer = await get(app, owner=owner)
    assert answer.status == status
    assert ("secret" in answer.body.decode()) == (status == 200)


async def test_cancel(hub: Hub) -> None:
    """A client that may not read a run may not cancel it."""
    app = App(Runs(hub, authorize=lambda scope, run: (b"who", b"ann") in scope["headers"]))
    ann = {"who": "ann"}
    assert (await get(app, ann, path="/stop")).status == 404
    assert (await get(app, ann, path="/stop", missing=204)).status == 204
    run = await app.runs.start("chat/1", Source(), owner="ann")
    for sent, options in (({}, {}), (ann, {"owner": "bob"}), (ann, {"owner": None})):
        answer = await get(app, sent, path="/stop", **options)
        assert (answer.status, "You may not cancel this run." in answer.body.decode()) == (403, True)
    assert (await get(app, ann, path="/stop", run="other-1")).status == 404
    assert run.info.active
    assert (await get(app, ann, path="/stop", run=run.id)).status == 202
    assert (await run.wait()).state == "cancelled"
    assert (await get(app, ann, path="/stop")).status == 204


async def test_run_that_is_kept_in_part() -> None:
    """Our own events have a gap; other protocols have none, so the answer is an error before the first byte."""
    broker = MemoryBroker(retention=Retention(topics={"run/**": Retention(events=100)}))
    async with Hub(broker, retention=Retention(topics={"run/**": Retention(events=10)})) as hub:
        app = App(Runs(hub))
        await finish(app.runs, *(f"{number}" for number in range(90)))
        for _ in range(50):
            await hub.publish("run/other", "x")
        assert (await get(app)).events[0].event == "stream:gap"
        answer = await get(app, framing="openai_chat")
        assert answer.status == 410
        assert "no longer kept" in answer.body.decode()


async def test_framing_of_your_own(app: App) -> None:
    class Lines:
        headers: ClassVar[dict[str, str]] = {}
        native = False

        def __init__(self, info: RunInfo) -> None:
            self.name = info.name

        def frames(self, event: RunEvent) -> list[Frame]:
            return [Frame(event.data.upper())]

        def end(self, end: RunEnd) -> list[Frame]:
            return [Frame(f"{self.name} {end.state}")]

    await finish(app.runs, "one")
    assert (await get(app, framing=Lines)).data == ["ONE", "chat/1 done"]


@pytest.mark.parametrize("after", [-2, "later", 1.5, True])
async def test_bad_number(app: App, after: Any) -> None:
    info = await finish(app.runs, "one")
    run = await app.runs.get("chat/1")
    assert run is not None
    assert run.id == info.run
    with pytest.raises(ValueError, match="expected after to be the number of an event, or 'now'"):
        run.response(after=after)


# Many readers.

READERS: Final = 1_000
EACH: Final = 16 * 1024
"""Bytes that a reader that waits may take, with its task and its response."""


class Client:
    """A client that keeps its connection open; it stores what it receives."""

    def __init__(self) -> None:
        self.body = b""
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.body += message.get("body", b"")


def strip_heartbeats(client: Client) -> bytes:
    return client.body.replace(HEARTBEAT, b"")


@pytest.mark.parametrize("framing", ["events", "openai_chat"])
async def test_many_readers(hub: Hub, framing: Any) -> None:
    """A thousand readers of one run cost little memory, all get the same, and nothing of them is left."""
    runs = Runs(hub, on_disconnect="cancel")
    source = Source()
    run = await runs.start("chat/1", source)
    source.give(*(f"piece {number} " for number in range(30)))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}

    async def follow(client: Client) -> None:
        response: Any = await runs.response(scope, "chat/1", framing=framing)
        await response(scope, client.receive, client.send)

    async def follow_up_to(text: str, clients: list[Client]) -> None:
        async with asyncio.timeout(60):
            while not all(text in client.body.decode() for client in clients):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    first = Client()
    tasks = [asyncio.create_task(follow(first))]
    await follow_up_to("piece 29 ", [first])
    gc.collect()
    tracemalloc.start()
    try:
        clients = [Client() for _ in range(READERS)]
        tasks += [asyncio.create_task(follow(client)) for client in clients]
        await follow_up_to("piece 29 ", clients)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - sum(len(client.body) for client in clients)
    finally:
        tracemalloc.stop()
    print(f"{taken / READERS / 1024:.1f} KiB for each reader")  # noqa: T201
    assert taken / READERS < EACH
    leaving, staying = clients[: READERS // 2], clients[READERS // 2 :]
    for client in leaving:
        client.gone.set()
    source.give("last", None)
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks)
    assert {strip_heartbeats(client) for client in staying} == {strip_heartbeats(first)}
    assert first.body.count(b"piece") == 30
    assert (await run.wait()).state == "done"
    assert hub.subscribers() == 1  # which follows the runs
