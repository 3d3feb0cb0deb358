"""Sources that change the topics of an open stream: by a request, or by a new stream where that is not possible."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest

from support.access import protect
from support.command import hub_program
from support.local import serve_here
from support.raw_server import RawServer, Script, answer, stream
from support.servers import until
from support.sources import Shell, Source, SourceClock, run
from tickertape import ServerSentEvent
from tickertape.client import (
    EventSource,
    ForbiddenError,
    InvalidTopicError,
    Publisher,
    StatusError,
    SubscriptionBusyError,
    SyncEventSource,
    TopicsChange,
    UnauthorizedError,
)
from tickertape.errors import ClientError
from tickertape.hub import Grant, Hub
from tickertape.server import create_app
from tickertape.wire import Cursor, compile_patterns

SHELLS = pytest.mark.parametrize("shell", ["async", "sync"])

OPEN = b'id: e-1\n\nevent: stream:open\ndata: {"subscription": "key", "topics": ["a"]}\n\n'
CURSOR = json.dumps({"cursor": "e-7"}).encode()


def changed(source: Source, method: str, *topics: str, **options: Any) -> str | None:
    """Call ``subscribe`` or ``unsubscribe`` of a source where that does not wait for the network."""
    result: Any = getattr(source, method)(*topics, **options)
    if not asyncio.iscoroutine(result):
        return cast("str | None", result)
    try:
        result.send(None)
    except StopIteration as stop:
        return cast("str | None", stop.value)
    raise AssertionError("expected a change without a request")


def change_at(data: str, method: str, *topics: str, results: list[Any], **options: Any) -> Any:
    """Return the body of a loop that changes the topics at an event, and records the result or the error."""

    def each(event: ServerSentEvent, source: Source, clock: SourceClock) -> Any:
        if event.data != data:
            return None
        call = getattr(source, method)
        if isinstance(source, EventSource):
            return in_loop(call)
        try:
            results.append(call(*topics, **options))
        except Exception as error:
            results.append(error)
        return None

    async def in_loop(call: Any) -> None:
        try:
            results.append(await call(*topics, **options))
        except Exception as error:
            results.append(error)

    return each


@SHELLS
def test_change_by_a_request(shell: Shell) -> None:
    """The stream stays open. After it is lost, the next attempt has the changed topics and asks for the id."""
    results: list[Any] = []
    notices: list[TopicsChange] = []
    notice = b'id: e-2\nevent: stream:topics\ndata: {"topics": ["a", "b/*"], "ended": []}\n\n'
    patched = threading.Event()

    def patch_script(connection: Any) -> None:
        answer(200, body=CURSOR)(connection)
        patched.set()

    def script(connection: Any) -> None:
        connection.begin()
        connection.chunk(OPEN + b"id: e-2\ndata: 1\n\n")
        connection.wait(patched)
        connection.chunk(notice + b"id: e-3\ndata: 2\n\n")

    with RawServer(script, patch_script, stream(OPEN)) as server:
        url = f"{server.url}/hub/events?topic=a&last=2&subscription=true"
        result = run(
            shell,
            url,
            each=change_at("1", "subscribe", "b/*", last=3, results=results),
            headers={"X-Tenant": "1"},
            auth=lambda: "word",
            on_topics=notices.append,
        )
    assert result.data == ["1", "2"]
    assert results == ["e-7"]
    assert [(each.topics, each.id) for each in notices] == [(("a", "b/*"), "e-2")]
    first, patch, second = server.requests[:3]
    assert (patch.method, patch.target) == ("PATCH", "/hub/subscriptions/key")
    assert json.loads(patch.body) == {"add": ["b/*"], "remove": [], "last": 3}
    sent = [patch.headers.get(name) for name in ("x-tenant", "authorization", "content-type", "last-event-id")]
    assert sent == [b"1", b"Bearer word", b"application/json", None]
    assert first.target == "/hub/events?topic=a&last=2&subscription=true"
    assert httpx2.URL(second.target).params.multi_items() == [
        ("last", "2"),
        ("subscription", "true"),
        ("topic", "a"),
        ("topic", "b/*"),
    ]
    assert second.headers["last-event-id"] == b"e-3"


FORBIDDEN = b'{"title": "Forbidden", "detail": "no right to b"}'
PROBLEM = "Content-Type: application/problem+json"


@SHELLS
@pytest.mark.parametrize(
    ("refusal", "error", "message"),
    [
        (answer(403, PROBLEM, body=FORBIDDEN), ForbiddenError, "Forbidden: no right to b"),
        (answer(401), UnauthorizedError, "status 401"),
        (answer(400, body=b"bad"), InvalidTopicError, "bad"),
        (answer(429), SubscriptionBusyError, "status 429"),
        (answer(413, body=b"long"), StatusError, "got 413: long"),
        (answer(200, body=b"<html>"), ClientError, "expected a cursor in the hub's response, got '<html>'"),
        (answer(200, body=b"[]"), ClientError, "expected a cursor"),
    ],
)
def test_refused_change(shell: Shell, refusal: Script, error: type[Exception], message: str) -> None:
    """The caller gets the error. The stream continues with its topics."""
    results: list[Any] = []
    first = stream(OPEN + b"id: e-2\ndata: 1\n\nid: e-3\ndata: 2\n\n")
    with RawServer(first, refusal) as server:
        result = run(
            shell,
            f"{server.url}/events?topic=a&subscription=true",
            each=change_at("1", "subscribe", "b", results=results),
        )
    assert result.data == ["1", "2"]
    assert type(results[0]) is error
    assert message in str(results[0])
    assert server.requests[2].target == "/events?topic=a&subscription=true"


@SHELLS
@pytest.mark.parametrize(
    ("opening", "answers"),
    [
        pytest.param(OPEN, [answer(404)], id="not found"),
        pytest.param(OPEN, [answer(405)], id="not allowed"),
        pytest.param(OPEN, [answer(503)], id="not known"),
        pytest.param(OPEN, [answer(307, "Location: /elsewhere")], id="redirect"),
        pytest.param(OPEN, [lambda connection: None], id="no answer"),
        pytest.param(b"", [], id="no id"),
    ],
)
def test_change_by_a_new_stream(shell: Shell, opening: bytes, answers: list[Script]) -> None:
    """Events that had arrived are asked for again: those of the new topics may lie between them."""
    results: list[Any] = []
    first = stream(opening + b"id: e-2\ndata: 1\n\nid: e-3\ndata: 2\n\n", then="hold")
    second = stream(opening + b"id: e-2\n\nid: e-3\ndata: 2\n\nid: e-4\ndata: 3\n\n")
    with RawServer(first, *answers, second) as server:
        result = run(shell, f"{server.url}/events?topic=a", each=change_at("1", "subscribe", "b", results=results))
    assert result.data == ["1", "2", "3"]
    assert results == [None]
    assert result.reasons[0] == "the topics have changed"
    again = server.requests[1 + len(answers)]
    assert again.target == "/events?subscription=true&topic=a&topic=b"
    assert again.headers["last-event-id"] == b"e-2", "the event that is being handled is not repeated"


@SHELLS
def test_change_before_the_first_attempt(shell: Shell) -> None:
    results: list[Any] = []

    def before(source: Source, clock: SourceClock) -> None:
        results.append(changed(source, "subscribe", "b", "c"))
        results.append(changed(source, "unsubscribe", "a"))
        with pytest.raises(InvalidTopicError, match="at least one"):
            changed(source, "unsubscribe", "b", "c")

    with RawServer(stream(b"data: 1\n\n")) as server:
        result = run(shell, f"{server.url}/events?topic=a&last=9", before=before)
    assert (result.data, results) == (["1"], [None, None])
    assert server.requests[0].target == "/events?last=9&subscription=true&topic=b&topic=c"


@SHELLS
def test_change_while_waiting_keeps_the_delay(shell: Shell) -> None:
    sources: list[Source] = []

    def change() -> None:
        if sources[0].topics == ("a",):
            changed(sources[0], "subscribe", "b")

    def each(event: ServerSentEvent, source: Source, clock: SourceClock) -> None:
        clock.on_sleep = change
        sources.append(source)

    with RawServer(stream(b"id: e-2\ndata: 1\n\n"), answer(503, "Retry-After: 7")) as server:
        result = run(shell, f"{server.url}/events?topic=a", each=each)
    assert [request.target for request in server.requests[1:]] == ["/events?subscription=true&topic=a&topic=b"] * 2
    assert "the topics have changed" not in result.reasons
    with pytest.raises(RuntimeError, match="closed"):
        changed(sources[0], "subscribe", "c")


@SHELLS
@pytest.mark.parametrize(
    ("topics", "options", "error", "message"),
    [
        ([], {}, InvalidTopicError, "at least one"),
        (["a//b"], {}, InvalidTopicError, "a//b"),
        (["b"], {"last": -1}, ValueError, "expected last to be an int from 0 to 1000, got -1"),
        (["b"], {"last": True}, ValueError, "got True"),
    ],
)
def test_invalid_change(shell: Shell, topics: list[str], options: Any, error: type[Exception], message: str) -> None:
    source: Source = EventSource("http://h/") if shell == "async" else SyncEventSource("http://h/")
    with pytest.raises(error, match=message):
        changed(source, "subscribe", *topics, **options)


# A hub.


@SHELLS
async def test_rights(shell: Shell) -> None:
    hub = Hub()
    async with serve_here(create_app(hub)) as url:
        protect(hub, {"ann": Grant(user="ann", subscribe=("a/*",), publish=("a/*", "b"))}, 1.0)
        token = {"word": "ann"}
        target = f"{url}/events?topic=a/1&subscription=true"
        source: Any = (EventSource if shell == "async" else SyncEventSource)(target, auth=lambda: token["word"])

        async def call(function: Callable[..., Any], *topics: str) -> Any:
            if shell == "async":
                return await function(*topics)
            return await asyncio.to_thread(function, *topics)

        async def next_event() -> str:
            if shell == "async":
                return str((await anext(source)).data)
            return str((await asyncio.to_thread(next, source)).data)

        waiting = asyncio.ensure_future(next_event())
        await until(lambda: source.state == "open" and source._machine.subscription, lambda: "an open stream")
        with pytest.raises(ForbiddenError, match="b"):
            await call(source.subscribe, "b")
        token["word"] = "wrong"
        with pytest.raises(UnauthorizedError):
            await call(source.subscribe, "a/2")
        token["word"] = "ann"
        assert Cursor.parse(await call(source.subscribe, "a/2")) == Cursor((await hub.check()).epoch, 0)
        await hub.publish("b", "no")
        await hub.publish("a/2", "1")
        assert await waiting == "1"
        assert source.statistics().connections == 1
        await call(source.aclose if shell == "async" else source.close)


@pytest.mark.parametrize(("shell", "kills"), [("async", 0), ("sync", 0), ("async", 1)])
async def test_ledger(shell: Shell, kills: int, tmp_path: Path) -> None:
    """Sources change their topics while events are published and, in one case, the hub is killed.

    Two workers serve them, so half of the requests reach the wrong one. Each source gets the events of its topics
    between the cursors of its changes, once and in order. After a kill these are not known, so only the events of a
    topic that it always has are certain.
    """
    rng = random.Random(kills)
    topics = [f"t/{number}" for number in range(6)]
    published: list[tuple[int, str, str]] = []
    histories: dict[Any, list[tuple[int, tuple[str, ...]]]] = {}
    notices: dict[Any, list[TopicsChange]] = defaultdict(list)
    got: dict[Any, list[str]] = defaultdict(list)
    stopped = asyncio.Event()
    changes = 0
    pool = ThreadPoolExecutor(6)  # the default one is for the changes

    async def publish(url: str) -> None:
        async with Publisher(url, max_attempts=None, max_delay=0.3) as publisher:
            while not stopped.is_set():
                topic = rng.choice([*topics, "always"])
                cursor = Cursor.parse(await publisher.publish(topic, str(len(published))))
                assert cursor is not None
                published.append((cursor.offset, topic, str(len(published))))

    def read_sync(source: SyncEventSource) -> None:
        for event in source:
            got[source].append(event.data)

    async def read(source: Any) -> None:
        if shell == "sync":
            await asyncio.get_running_loop().run_in_executor(pool, read_sync, source)
            return
        async for event in source:
            got[source].append(event.data)

    async def change(source: Any, own: random.Random) -> None:
        nonlocal changes
        while not stopped.is_set():
            await asyncio.sleep(own.random() * 0.02)
            if source._machine.subscription is None and own.random() < 0.9:
                continue  # each change without an id begins another attempt
            adds = own.random() < 0.5
            pattern = own.choice([*topics, "t/*"])
            function: Callable[..., Any] = source.subscribe if adds else source.unsubscribe
            call: Awaitable[str | None] = (
                function(pattern) if shell == "async" else asyncio.to_thread(function, pattern)
            )
            cursor = Cursor.parse(await call or "")
            if not kills:
                assert cursor is not None
                histories[source].append((cursor.offset, source.topics))
            changes += 1

    def expected(source: Any) -> list[str]:
        result = []
        history = histories[source]
        for (after, has), (upto, _) in zip(history, [*history[1:], (1 << 60, ())], strict=True):
            matches = compile_patterns(tuple(sorted(has)) if not kills else ("always",))
            result += [data for offset, topic, data in published if after < offset <= upto and matches(topic)]
        return result

    def certain(source: Any) -> list[str]:
        always = {data for _, topic, data in published if topic == "always"}
        return [data for data in got[source] if not kills or data in always]

    def has_progress(count: int) -> Callable[[], bool]:
        more_events, more_changes = len(published) + count, changes + count
        return lambda: (
            len(published) >= more_events
            and changes >= more_changes
            and all(source._machine.subscription for source in histories)
        )

    with hub_program("--workers", "2", broker=f"sqlite:///{tmp_path / 'log.db'}") as hub, ExitStack() as closing:
        made = EventSource if shell == "async" else SyncEventSource
        url = f"{hub.url}/events?topic=always&subscription=true"
        for _ in range(6):
            seen: list[TopicsChange] = []
            source: Any = made(url, max_delay=0.3, on_topics=seen.append)
            histories[source], notices[source] = [(0, ("always",))], seen
            closing.callback(source.close)
        reading = [asyncio.create_task(read(source)) for source in histories]
        await until(lambda: all(source._machine.subscription for source in histories), lambda: "open streams")
        tasks = [asyncio.create_task(publish(hub.url))]
        tasks += [asyncio.create_task(change(source, random.Random(at))) for at, source in enumerate(histories)]
        for _ in range(kills):
            await until(has_progress(60), lambda: "events and changes on open streams", within=60)
            hub.kill()
            await asyncio.to_thread(hub.start)
        await until(has_progress(60 if kills else 400), lambda: "events and changes on open streams", within=60)
        stopped.set()
        await asyncio.gather(*tasks)
        await until(
            lambda: all(len(certain(source)) >= len(expected(source)) for source in histories),
            lambda: f"all events, got {[(len(certain(source)), len(expected(source))) for source in histories]}",
        )
        for source in histories:
            source.close()
        await asyncio.gather(*reading)
    for source, history in histories.items():
        assert certain(source) == expected(source)
        assert len(certain(source)) > 10
        assert len(set(got[source])) == len(got[source])
        if not kills:
            assert source.statistics().connections == 1
            seen_changes = [(Cursor.parse(each.id or ""), set(each.topics)) for each in notices[source]]
            assert [(cursor and cursor.offset, has) for cursor, has in seen_changes] == [
                (offset, set(has)) for offset, has in history[1:]
            ]
