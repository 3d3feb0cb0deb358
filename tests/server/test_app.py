"""Subscribe, read and ask over HTTP; routes that do not exist; pages of other origins."""

from __future__ import annotations

import json
import logging
from urllib.parse import unquote

import pytest

from support.http import site


async def test_stream() -> None:
    async with site() as hub, hub.client.open("/events?topic=orders/42&topic=chat/**") as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        for topic in ("orders/41", "orders/42", "chat", "chat/a/b"):
            await hub.post({"topic": topic, "data": topic})
        assert [(await stream.next_event()).data for _ in range(3)] == ["orders/42", "chat", "chat/a/b"]


@pytest.mark.parametrize(
    ("query", "last_event_id", "first"),
    [
        ("last=2", None, "2"),
        ("last=0", None, "4"),
        ("", None, "4"),
        ("", "{epoch}-1", "2"),
        ("last_event_id={epoch}-2", None, "3"),
        ("lastEventId={epoch}-2&last=1", None, "3"),
        ("on_overflow=latest", None, "4"),
        ("on_overflow=skip", None, "4"),
        ("on_overflow=disconnect", None, "4"),
        ("envelope=topic", None, '{"topic":"a","data":"4"}'),
    ],
)
async def test_start_of_a_stream(query: str, last_event_id: str | None, first: str) -> None:
    async with site() as hub:
        await hub.post([{"topic": "a", "data": str(number)} for number in (1, 2, 3)])
        async with hub.client.open("/topics"):
            pass  # now the hub has read the events from the log
        epoch = hub.hub.epoch
        place = last_event_id and last_event_id.format(epoch=epoch)
        url = f"/events?topic=a&{query.format(epoch=epoch)}"
        async with hub.client.open(url, last_event_id=place) as stream:
            await hub.post({"topic": "a", "data": "4"})
            assert (await stream.next_event()).data == first


@pytest.mark.parametrize("last_event_id", ["nonsense", "0a1b2c3d4e5f-7", "9" * 5000, "\N{SNOWMAN}"])
async def test_bad_last_event_id(last_event_id: str) -> None:
    async with site() as hub, hub.client.open("/events?topic=a", last_event_id=last_event_id) as stream:
        assert stream.status == 200
        gap = await stream.next_event()
        assert (gap.event, gap.json()["reason"]) == ("stream:gap", "reset")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "a subscription needs at least one topic"),
        ("topic=", "1 to 255 characters, got 0"),
        ("topic=a/*b", "expected '*' or '**' as a whole segment, got '*b' in 'a/*b'"),
        ("topic=a//b", "without empty segments"),
        ("&".join(f"topic=t{number}" for number in range(101)), "at most 100 topics in a subscription, got 101"),
        ("topic=a&last=-1", "expected last to be an integer from 0 to 10000, got '-1'"),
        ("topic=a&last=10001", "expected last to be an integer from 0 to 10000, got '10001'"),
        ("topic=a&last=1_0", "expected last to be an integer from 0 to 10000, got '1_0'"),
        ("topic=a&last=", "expected last to be an integer from 0 to 10000, got ''"),
        ("topic=a&envelope=all", "expected envelope to be 'topic', got 'all'"),
        ("topic=a&on_overflow=drop", "expected on_overflow to be one of disconnect, skip, latest, got 'drop'"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_bad_subscription(query: str, said: str, method: str) -> None:
    async with site() as hub:
        answer = await hub.ask(method, f"/events?{query}")
        assert answer.status == 400
        assert said in answer.problem()["detail"]


async def test_head_of_a_stream() -> None:
    async with site() as hub:
        answer = await hub.ask("HEAD", "/events?topic=a")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-type"] == "text/event-stream"
        assert hub.hub.subscribers() == 0


async def test_stream_while_draining() -> None:
    async with site() as hub:
        hub.hub.drain()
        assert (await hub.ask("GET", "/events?topic=a")).problem()["status"] == 503


@pytest.mark.parametrize(
    ("query", "data", "gap"),
    [
        ("topic=**", ["1", "2", "3"], None),
        ("topic=a", ["1", "3"], None),
        ("topic=a&topic=b", ["1", "2", "3"], None),
        ("topic=**&limit=2", ["1", "2"], None),
        ("topic=**&after={epoch}-1", ["2", "3"], None),
        ("topic=**&after={epoch}-3", [], None),
        ("topic=**&after=0a1b2c3d4e5f-1", ["1", "2", "3"], "reset"),
        ("topic=none", [], None),
    ],
)
async def test_history(query: str, data: list[str], gap: str | None) -> None:
    async with site() as hub:
        await hub.post([{"topic": topic, "data": text} for topic, text in (("a", "1"), ("b", "2"), ("a", "3"))])
        answer = await hub.ask("GET", f"/history?{query.format(epoch=hub.hub.epoch)}")
        assert answer.status == 200
        assert ([event["data"] for event in answer.json()["events"]], answer.json()["gap"]) == (data, gap)


async def test_history_with_a_gap() -> None:
    async with site(keep=2) as hub:
        await hub.post([{"topic": "a", "data": "x", "event": "e"} for _ in range(5)])
        answer = await hub.ask("GET", f"/history?topic=a&after={hub.hub.epoch}-1&limit=1")
        event = {"cursor": f"{hub.hub.epoch}-4", "topic": "a", "event": "e", "data": "x"}
        assert answer.json() == {"events": [event], "gap": "expired"}


async def test_history_repairs_surrogates() -> None:
    async with site() as hub:
        await hub.post({"topic": "a", "data": "\ud800"})
        assert (await hub.ask("GET", "/history?topic=a")).json()["events"][0]["data"] == "\ufffd"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "a subscription needs at least one topic"),
        ("topic=a&limit=0", "expected limit to be an integer from 1 to 1000, got '0'"),
        ("topic=a&limit=1001", "expected limit to be an integer from 1 to 1000, got '1001'"),
        ("topic=a&limit=ten", "got 'ten'"),
        ("topic=a&after=", "expected after to be a cursor, as '0a1b2c3d4e5f-42', got ''"),
        ("topic=a&after=nonsense", "expected after to be a cursor"),
    ],
)
async def test_bad_history(query: str, said: str) -> None:
    async with site() as hub:
        answer = await hub.ask("GET", f"/history?{query}")
        assert answer.status == 400
        assert said in answer.problem()["detail"]


async def test_health() -> None:
    async with site() as hub:
        await hub.post({"topic": "a", "data": "x"})
        assert (await hub.ask("GET", "/health/live")).json() == {"status": "live"}
        ready = (await hub.ask("GET", "/health/ready")).json()
        assert ready == {"status": "ready", "epoch": hub.hub.epoch, "oldest": 1, "newest": 1}
        hub.broker.fail("state")
        answer = await hub.ask("GET", "/health/ready")
        assert "scripted failure" in answer.problem()["detail"]
        assert answer.status == 503
        assert (await hub.ask("GET", "/health/live")).status == 200
        hub.broker.recover()
        assert (await hub.ask("GET", "/health/ready")).status == 200
        hub.hub.drain()
        assert "draining" in (await hub.ask("GET", "/health/ready")).problem()["detail"]
        assert (await hub.ask("GET", "/health/live")).status == 200


async def test_ready_with_a_silent_broker() -> None:
    async with site(ready_within=0.01) as hub:
        hub.broker.hold("state")
        answer = await hub.ask("GET", "/health/ready")
        assert answer.status == 503
        assert "the broker did not answer within 0.01 seconds" in answer.problem()["detail"]
        hub.broker.release()


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/events", "GET, HEAD, POST"),
        ("OPTIONS", "/events", "GET, HEAD, POST"),
        ("GET", "/events/a", "POST"),
        ("POST", "/history", "GET, HEAD"),
        ("PUT", "/topics", "GET, HEAD"),
        ("POST", "/subscribers", "GET, HEAD"),
        ("POST", "/health/live", "GET, HEAD"),
        ("POST", "/health/ready", "GET, HEAD"),
        ("POST", "/openapi.json", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
        ("POST", "/static/hub.js", "GET, HEAD"),
    ],
)
async def test_unsupported_methods(method: str, path: str, allow: str) -> None:
    async with site() as hub:
        answer = await hub.ask(method, path)
        assert answer.headers["allow"] == allow
        problem = answer.problem()
        assert problem["title"] == "Method Not Allowed"
        assert problem["detail"] == f"{path} supports {allow}, not {method}"


@pytest.mark.parametrize("path", ["/nothing", "/event", "/history/", "/static/", "/static/../app.py", "//"])
async def test_unknown_paths(path: str) -> None:
    async with site() as hub:
        answer = await hub.ask("GET", path)
        assert answer.status == 404
        assert answer.problem()["detail"].startswith("no such path: ")


@pytest.mark.parametrize(
    "path", ["/events/a%0A", "/events/a%0Ab", "/runs/a%0A", "/runs/a%0Ab/end", "/topics/a%0Ab/end"]
)
async def test_line_feed_in_a_name(path: str) -> None:
    async with site() as hub:
        answer = await hub.ask("POST", path, b"{}", {"content-type": "application/json"})
        assert (answer.status, answer.problem()["detail"][:16]) == (400, "expected a topic")


async def test_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    async with site() as hub:
        hub.broker.fail("append", error=RuntimeError("secret"))
        async with hub.client.open(
            "/events/a", method="POST", body=b"x", headers={"content-type": "text/plain"}
        ) as response:
            body = await response.read()
        assert isinstance(response.error, RuntimeError)  # for the server's log
        assert json.loads(body)["detail"] == "internal error: see the server's log"


async def test_broker_that_does_not_store(caplog: pytest.LogCaptureFixture) -> None:
    """Many refused events: the server is not ready, and logs two lines."""
    caplog.set_level(logging.WARNING, "tickertape.server")
    async with site() as hub:
        hub.broker.fail("append")
        for _ in range(100):
            assert (await hub.ask("POST", "/events/a", b"x")).status == 503
            ready = await hub.ask("GET", "/health/ready")
            assert ready.status == 503
            assert ready.problem()["detail"] == "the broker did not store the last events: scripted failure"
        hub.broker.recover()
        assert (await hub.ask("POST", "/events/a", b"x")).status == 201
        assert (await hub.ask("GET", "/health/ready")).status == 200
    assert [record.getMessage() for record in caplog.records] == [
        "POST /events/a failed: scripted failure",
        "the broker works again (99 more requests have failed)",
    ]


@pytest.mark.parametrize(
    ("http_version", "hosts", "status"),
    [("1.1", 1, 200), ("1.1", 0, 400), ("1.1", 2, 400), ("1.0", 0, 200), ("1.0", 2, 200), ("2", 0, 200)],
)
@pytest.mark.parametrize("path", ["/topics", "/events", "/nothing"])
async def test_host(http_version: str, hosts: int, status: int, path: str) -> None:
    async with site() as hub:
        answer = await hub.call("HEAD", path, b"topic=a", [(b"host", b"a")] * hosts, http_version=http_version)
        assert answer == (404 if (status, path) == (200, "/nothing") else status)


@pytest.mark.parametrize(
    ("method", "path", "query", "status"),
    [
        ("POST", b"/events/%C3%A4", b"", 201),
        ("POST", b"/events/%ff", b"", 400),
        ("POST", b"/events/a%C3", b"", 400),
        ("POST", b"/events/%ED%A0%80", b"", 400),
        ("HEAD", b"/events", b"topic=%C3%A4", 200),
        ("HEAD", b"/events", b"topic=%ff", 400),
        ("POST", b"/events/a", b"key=%ff", 400),
        ("GET", b"/topics", b"after=%ff", 400),
    ],
)
async def test_encoding(method: str, path: bytes, query: bytes, status: int) -> None:
    async with site() as hub:
        assert await hub.call(method, unquote(path.decode()), query, [(b"host", b"a")], raw_path=path) == status
        assert len(await hub.stored()) == (status == 201)


ELSEWHERE = "https://elsewhere.example"
FRIEND = "https://friend.example"


@pytest.mark.parametrize(
    ("allowed", "origin", "allowed_origin"),
    [((), ELSEWHERE, None), ((FRIEND,), ELSEWHERE, None), ((FRIEND,), FRIEND, FRIEND), (("*",), ELSEWHERE, "*")],
)
@pytest.mark.parametrize("url", ["/topics", "/events?topic=a", "/nothing"])
async def test_reading_from_other_origins(
    allowed: tuple[str, ...], origin: str, allowed_origin: str | None, url: str
) -> None:
    async with (
        site(cors_origins=allowed) as hub,
        hub.client.open(url, headers={"origin": origin}) as response,
    ):
        await response.started()
        assert response.headers.get("access-control-allow-origin") == allowed_origin


@pytest.mark.parametrize(
    ("allowed", "origin", "status", "allowed_origin"),
    [((), ELSEWHERE, 405, None), ((FRIEND,), ELSEWHERE, 400, None), ((FRIEND,), FRIEND, 200, FRIEND)],
)
async def test_preflight(allowed: tuple[str, ...], origin: str, status: int, allowed_origin: str | None) -> None:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }
    async with site(cors_origins=allowed) as hub:
        answer = await hub.ask("OPTIONS", "/events", headers=headers)
        assert answer.status == status
        assert answer.headers.get("access-control-allow-origin") == allowed_origin


@pytest.mark.parametrize(
    ("allowed", "headers", "status"),
    [
        ((), {}, 201),  # a program
        ((), {"origin": "http://testserver"}, 201),
        ((), {"origin": "http://testserver", "sec-fetch-site": "same-origin"}, 201),
        ((), {"origin": "https://behind.a.proxy", "sec-fetch-site": "same-origin"}, 201),
        ((), {"sec-fetch-site": "none"}, 201),
        ((), {"origin": ELSEWHERE}, 403),
        ((), {"origin": "null"}, 403),
        ((), {"origin": "http://["}, 403),
        ((), {"origin": "http://[", "sec-fetch-site": "same-origin"}, 201),
        ((), {"origin": ELSEWHERE, "sec-fetch-site": "cross-site"}, 403),
        ((), {"origin": "http://testserver:81", "sec-fetch-site": "same-site"}, 403),
        ((FRIEND,), {"origin": FRIEND, "sec-fetch-site": "cross-site"}, 201),
        ((FRIEND,), {"origin": ELSEWHERE, "sec-fetch-site": "cross-site"}, 403),
        (("*",), {"origin": ELSEWHERE, "sec-fetch-site": "cross-site"}, 201),
    ],
)
async def test_publishing_from_other_origins(allowed: tuple[str, ...], headers: dict[str, str], status: int) -> None:
    async with site(cors_origins=allowed) as hub:
        answer = await hub.ask("POST", "/events/a", b"x", headers)
        assert answer.status == status
        assert len(await hub.stored()) == (status == 201)
