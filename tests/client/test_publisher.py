"""Publishing over HTTP, by both publishers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from support.raw_server import Connection, RawServer, Script, answer
from support.sources import PublisherClock, Shell
from tickertape import InvalidEventError
from tickertape.client import Draft, Publisher, SyncPublisher
from tickertape.client.http import Answer
from tickertape.client.policy import Delays
from tickertape.client.publisher import Publication
from tickertape.errors import ClientError, GaveUpError, InvalidTopicError, PublishError

pytestmark = pytest.mark.parametrize("shell", ["async", "sync"])

AnyPublisher = Publisher | SyncPublisher
Check = Callable[[AnyPublisher, PublisherClock], None]
NO_REUSE = httpx2.Limits(max_keepalive_connections=0)


def stored(*cursors: str) -> Script:
    return answer(201, "Content-Type: application/json", body=json.dumps({"cursors": cursors}).encode())


STORED = answer(201, "Content-Type: application/json", body=b'{"cursor": "e-1"}')


def publish(
    shell: Shell,
    url: str,
    *drafts: Draft,
    check: Check = lambda publisher, clock: None,
    **options: Any,
) -> list[str]:
    """Publish one event by ``publish``, or several by ``publish_many``, with a clock that does not wait."""
    keys = iter(range(1000))
    options = {"random": lambda: 1.0, "new_key": lambda: f"key{next(keys)}", **options}

    if shell == "async":
        return asyncio.run(_publish_async(url, drafts, check, options))
    clock = PublisherClock()
    with httpx2.Client(limits=NO_REUSE) as client, SyncPublisher(url, client=client, clock=clock, **options) as hub:
        try:
            if len(drafts) == 1:
                return [hub.publish(drafts[0].topic, drafts[0].data, **keywords(drafts[0]))]
            return hub.publish_many(drafts)
        finally:
            check(hub, clock)


async def _publish_async(url: str, drafts: tuple[Draft, ...], check: Check, options: dict[str, Any]) -> list[str]:
    clock = PublisherClock()
    async with (
        httpx2.AsyncClient(limits=NO_REUSE) as client,
        Publisher(url, client=client, clock=clock, **options) as hub,
    ):
        try:
            if len(drafts) == 1:
                return [await hub.publish(drafts[0].topic, drafts[0].data, **keywords(drafts[0]))]
            return await hub.publish_many(drafts)
        finally:
            check(hub, clock)


def keywords(draft: Draft) -> dict[str, Any]:
    return {"event": draft.event, "key": draft.key}


def bodies(server: RawServer) -> list[Any]:
    return [json.loads(request.body) for request in server.requests]


def test_one_event(shell: Shell) -> None:
    def check(publisher: AnyPublisher, clock: PublisherClock) -> None:
        assert publisher.statistics() == (1, 1, 0)
        assert repr(publisher) == f"<{type(publisher).__name__} {server.url}/base/events published=1 retries=0>"

    with RawServer(STORED) as server:
        draft = Draft("orders/42", {"n": 1, "é": None}, event="paid", key="k")
        url = server.url.replace("//", "//me:secret@")
        assert publish(shell, f"{url}/base/", draft, check=check, headers={"X-Who": "me"}) == ["e-1"]
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/base/events")
    assert request.headers["content-type"] == b"application/json"
    assert request.headers["x-who"] == b"me"
    assert request.headers["authorization"].startswith(b"Basic")
    assert bodies(server) == [{"topic": "orders/42", "data": '{"n":1,"é":null}', "event": "paid", "key": "k"}]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("", ""),
        ("a\nb", "a\nb"),
        (b"\xc3\xa9", "é"),
        (None, "null"),
        (7, "7"),
        (["\u2028"], '["\\u2028"]'),
        ("\ud800", "\ufffd"),
    ],
)
def test_data(shell: Shell, data: Any, text: str) -> None:
    with RawServer(STORED) as server:
        publish(shell, server.url, Draft("t", data))
    assert bodies(server) == [{"topic": "t", "data": text, "key": "key0"}]


def test_many_events(shell: Shell) -> None:
    def check(publisher: AnyPublisher, clock: PublisherClock) -> None:
        assert publisher.statistics() == (3, 1, 0)

    with RawServer(stored("e-1", "e-2", "e-3")) as server:
        drafts = [Draft("t", 1), Draft("u", 2, key="mine"), Draft("t", 3, event="x")]
        assert publish(shell, server.url, *drafts, check=check) == ["e-1", "e-2", "e-3"]
    assert bodies(server) == [
        [
            {"topic": "t", "data": "1", "key": "key0"},
            {"topic": "u", "data": "2", "key": "mine"},
            {"topic": "t", "data": "3", "event": "x", "key": "key1"},
        ]
    ]


def test_no_events(shell: Shell) -> None:
    with RawServer() as server:
        assert publish(shell, server.url) == []
    assert server.requests == []


def test_random_keys(shell: Shell) -> None:
    with RawServer(stored("e-1", "e-2")) as server:
        publish(shell, server.url, Draft("t", 1), Draft("t", 2), new_key=None)
    one, two = bodies(server)[0]
    assert one["key"] != two["key"]
    assert len(one["key"]) == 32


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_transient_status(shell: Shell, status: int) -> None:
    def check(publisher: AnyPublisher, clock: PublisherClock) -> None:
        assert clock.slept == [7.0, 2.0]
        assert publisher.statistics() == (1, 3, 2)

    tokens = iter("abc")
    busy = answer(status, "Retry-After: 7")
    with RawServer(busy, Connection.close, STORED) as server:
        assert publish(shell, server.url, Draft("t", "x"), check=check, auth=lambda: next(tokens)) == ["e-1"]
    assert bodies(server) == [{"topic": "t", "data": "x", "key": "key0"}] * 3
    assert [request.headers["authorization"] for request in server.requests] == [b"Bearer a", b"Bearer b", b"Bearer c"]


def test_max_attempts(shell: Shell) -> None:
    with RawServer(*[answer(503)] * 3) as server, pytest.raises(GaveUpError) as caught:
        publish(shell, server.url, Draft("t", "x"), max_attempts=3)
    assert (caught.value.attempts, caught.value.seconds) == (3, 3.0)
    assert isinstance(caught.value.__cause__, PublishError)


def test_no_hub(shell: Shell) -> None:
    with RawServer() as server:
        url = server.url

    def check(publisher: AnyPublisher, clock: PublisherClock) -> None:
        assert clock.slept == [1, 2, 4, 8, 16, 30, 30]

    with pytest.raises(GaveUpError) as caught:
        publish(shell, url, Draft("t", "x"), check=check)
    assert isinstance(caught.value.__cause__, httpx2.ConnectError)


PROBLEM = b"""{
    "type": "https://example.org/problems/topic", "title": "Bad topic", "status": 400,
    "detail": "expected a topic without '*', got 'a/*'", "instance": "/problems/7", "topic": "a/*"
}"""


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
def test_problem_details(shell: Shell, status: int) -> None:
    refused = answer(status, "Content-Type: application/problem+json", body=PROBLEM)
    with RawServer(refused) as server, pytest.raises(PublishError) as caught:
        publish(shell, server.url, Draft("t", "x"))
    error = caught.value
    assert (error.status, error.type, error.title) == (status, "https://example.org/problems/topic", "Bad topic")
    assert (error.detail, error.instance) == ("expected a topic without '*', got 'a/*'", "/problems/7")
    assert error.extensions == {"topic": "a/*"}
    assert str(error) == f"expected status 201, got {status} Bad topic: expected a topic without '*', got 'a/*'"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        ("text/plain", b"go away", "expected status 201, got 404 go away"),
        ("text/html", b"<h1>", "expected status 201, got 404"),
        ("application/problem+json", b"[1]", "expected status 201, got 404 [1]"),
        ("application/problem+json", b'{"title": 7, "x": 1}', "expected status 201, got 404"),
    ],
)
def test_other_refusals(shell: Shell, content_type: str, body: bytes, message: str) -> None:
    refused = answer(404, f"Content-Type: {content_type}", body=body)
    with RawServer(refused) as server, pytest.raises(PublishError) as caught:
        publish(shell, server.url, Draft("t", "x"))
    assert str(caught.value) == message
    assert caught.value.type == "about:blank"


def test_redirect(shell: Shell) -> None:
    with RawServer(answer(301, "Location: https://h/")) as server, pytest.raises(PublishError) as caught:
        publish(shell, server.url, Draft("t", "x"))
    assert str(caught.value) == "expected status 201, got 301 a redirect to 'https://h/'"


@pytest.mark.parametrize("body", [b"", b"ok", b"{}", b"[]", b'{"cursor": 7}', b'{"cursors": ["e-1", "e-2"]}'])
def test_response_without_cursors(shell: Shell, body: bytes) -> None:
    with RawServer(answer(200, body=body)) as server, pytest.raises(ClientError, match="expected 1 cursors"):
        publish(shell, server.url, Draft("t", "x"))


def test_invalid_event(shell: Shell) -> None:
    """It is not sent. The same checks apply as for every :class:`Draft`."""

    async def run(url: str, *arguments: Any, **options: Any) -> None:
        async with Publisher(url) as publisher:
            await publisher.publish(*arguments, **options)

    def publish_one(url: str, *arguments: Any, **options: Any) -> None:
        if shell == "async":
            asyncio.run(run(url, *arguments, **options))
            return
        with SyncPublisher(url) as publisher:
            publisher.publish(*arguments, **options)

    with RawServer() as server:
        for arguments, options in [(("t", object()), {}), (("t", float("nan")), {}), (("t", "x"), {"event": "a\nb"})]:
            with pytest.raises(InvalidEventError):
                publish_one(server.url, *arguments, **options)
        with pytest.raises(InvalidTopicError):
            publish_one(server.url, "a/*", "x")
    assert server.requests == []


def test_invalid_max_attempts(shell: Shell) -> None:
    with pytest.raises(ValueError, match="expected max_attempts"):
        publish(shell, "http://127.0.0.1:1", Draft("t", "x"), max_attempts=0)


def test_unsupported_scheme(shell: Shell) -> None:
    with pytest.raises(httpx2.UnsupportedProtocol):
        publish(shell, "ftp://127.0.0.1:1", Draft("t", "x"))


def test_closed_publisher(shell: Shell) -> None:
    async def run() -> None:
        publisher = Publisher("http://127.0.0.1:1")
        await publisher.aclose()
        await publisher.aclose()
        with pytest.raises(RuntimeError, match="the publisher is closed"):
            await publisher.publish("t", "x")

    if shell == "async":
        asyncio.run(run())
        return
    publisher = SyncPublisher("http://127.0.0.1:1")
    publisher.close()
    publisher.close()
    with pytest.raises(RuntimeError, match="the publisher is closed"):
        publisher.publish("t", "x")


def test_own_client(shell: Shell) -> None:
    """An unclosed socket would be a warning, and so a failure."""
    left = threading.Event()

    def script(connection: Connection) -> None:
        STORED(connection)
        connection.hold()
        left.set()

    async def run(url: str) -> None:
        async def auth() -> str:
            return "token"

        async with Publisher(url, auth=auth) as publisher:
            assert await publisher.publish("t", "x") == "e-1"

    with RawServer(script) as server:
        if shell == "async":
            asyncio.run(run(server.url))
        else:
            with SyncPublisher(server.url, auth=lambda: "token") as publisher:
                assert publisher.publish("t", "x") == "e-1"
        assert left.wait(30.0)
    assert server.requests[0].headers["authorization"] == b"Bearer token"


def test_coroutine_function(shell: Shell) -> None:
    async def auth() -> str:
        return "token"

    if shell == "async":
        Publisher("http://127.0.0.1:1", auth=auth)
        return
    with pytest.raises(TypeError, match="a SyncPublisher cannot call the coroutine function"):
        SyncPublisher("http://127.0.0.1:1", auth=auth)  # type: ignore[arg-type]


def test_close_during_wait(shell: Shell) -> None:
    """A publication that waits for its next attempt ends."""
    if shell == "async":
        return
    asked = threading.Event()

    def script(connection: Connection) -> None:
        answer(503, "Retry-After: 1000")(connection)
        asked.set()

    with RawServer(script) as server:
        publisher = SyncPublisher(server.url)
        errors: list[Exception] = []

        def publish_one() -> None:
            try:
                publisher.publish("t", "x")
            except RuntimeError as error:
                errors.append(error)

        thread = threading.Thread(target=publish_one, daemon=True)
        thread.start()
        assert asked.wait(30.0)
        publisher.close()
        thread.join(30.0)
        assert not thread.is_alive()
    assert [str(error) for error in errors] == ["the publisher is closed"]


BUSY = Answer(503, {"retry-after": "7"}, b"")


@pytest.mark.parametrize(
    ("answer", "attempt", "step"),
    [
        (Answer(201, {}, b'{"cursor": "e-1"}'), 1, ["e-1"]),
        (Answer(200, {}, b'{"cursors": ["e-1"]}'), 9, ["e-1"]),
        (BUSY, 1, 7.0),
        (BUSY, 4, 8.0),
        (ConnectionError("oops"), 1, 1.0),
        (ConnectionError("oops"), 2, 2.0),
        (BUSY, 5, "gave up after 5 attempts in 10.0 s, the last one: expected status 201, got 503"),
        (ConnectionError("oops" * 10_000), 5, "gave up after 5 attempts"),
        (ConnectionError(), 5, "gave up after 5 attempts in 10.0 s, the last one: ConnectionError"),
        (Answer(404, {}, b"nothing here"), 1, "expected status 201, got 404 nothing here"),
        (Answer(302, {"location": "/x"}, b""), 1, "expected status 201, got 302 a redirect to '/x'"),
        (Answer(200, {}, b"[" * 10_000), 1, "expected 1 cursors in the hub's response"),
    ],
)
def test_next_step(shell: Shell, answer: Answer | Exception, attempt: int, step: object) -> None:
    publication = Publication(httpx2.URL("http://hub/events"), b"", 1, 5, Delays(1.0, 30.0, lambda: 1.0), began=100.0)
    if not isinstance(step, str):
        assert publication.next_step(answer, attempt, now=110.0, wall=0.0) == step
        return
    with pytest.raises(ClientError) as caught:
        publication.next_step(answer, attempt, now=110.0, wall=0.0)
    assert str(caught.value).startswith(step)
    assert len(str(caught.value)) < 500
