"""Publishing over HTTP: all formats, all refusals, and batches that are stored as a whole or not at all."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from typing import Any

import pytest

from support.http import JSON, site
from tickertape.errors import BatchTooLargeError
from tickertape.server.body import Turns, parse_publication
from tickertape.server.limits import Guard, Limits

FORM = "application/x-www-form-urlencoded"
LINES = "application/x-ndjson"

LONG = "x" * 256
DEEP = b'{"topic":"a","data":' + b"[" * 900 + b"]" * 900 + b"}"


@pytest.mark.parametrize(
    ("content_type", "body", "stored"),
    [
        ("application/json", b'{"topic":"a","data":"x"}', ("a", None, "x")),
        ("application/json; charset=utf-8", b'{"topic":"a/b","data":{"n":1},"event":"e"}', ("a/b", "e", '{"n":1}')),
        ("APPLICATION/JSON", b'{"topic":"a","data":null,"event":null,"key":null}', ("a", None, "null")),
        ("application/json", b'\xef\xbb\xbf{"topic":"a","data":""}', ("a", None, "")),
        ("application/json", '{"topic":"ä","data":"€"}'.encode(), ("ä", None, "€")),
        ("application/json", b'{"topic":"a","data":"\\ud800"}', ("a", None, "\ufffd")),
        (FORM, b"topic=a&data=x+y%0Az", ("a", None, "x y\nz")),
        (FORM, b"topic=a&data=&event=&key=", ("a", None, "")),
        (FORM, b"topic=a&data=x&event=e&key=k", ("a", "e", "x")),
    ],
)
async def test_one_event(content_type: str, body: bytes, stored: tuple[str, str | None, str]) -> None:
    async with site() as hub:
        answer = await hub.ask("POST", "/events", body, {"content-type": content_type})
        assert (answer.status, answer.json()) == (201, {"cursor": f"{hub.hub.epoch}-1"})
        assert answer.headers["content-type"] == "application/json"
        assert await hub.stored() == [stored]


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("application/json", b"[]", []),
        ("application/json", b'[{"topic":"a","data":"1"}]', ["1"]),
        ("application/json", b'[{"topic":"a","data":"1"},{"topic":"b","data":"2"}]', ["1", "2"]),
        (LINES, b"", []),
        (LINES, b'{"topic":"a","data":"1"}', ["1"]),
        (LINES, b'\n{"topic":"a","data":"1"}\r\n \n{"topic":"b","data":"2"}\n', ["1", "2"]),
        ("application/jsonl", b'{"topic":"a","data":"1"}\n', ["1"]),
    ],
)
async def test_several_events(content_type: str, body: bytes, data: list[str]) -> None:
    async with site() as hub:
        answer = await hub.ask("POST", "/events", body, {"content-type": content_type})
        cursors = [f"{hub.hub.epoch}-{offset}" for offset, _ in enumerate(data, 1)]
        assert (answer.status, answer.json()) == (201, {"cursors": cursors})
        assert [text for _, _, text in await hub.stored()] == data


@pytest.mark.parametrize(
    ("url", "body", "stored"),
    [
        ("/events/greetings", b"hello", ("greetings", None, "hello")),
        ("/events/orders/42?event=paid", b'{"a": 1}\n', ("orders/42", "paid", '{"a": 1}\n')),
        ("/events/a%20b?event=&key=", b"", ("a b", None, "")),
        ("/events/a", b"topic=b&data=c", ("a", None, "topic=b&data=c")),
        ("/events/a", "ä€".encode(), ("a", None, "ä€")),
    ],
)
@pytest.mark.parametrize("content_type", [FORM, "text/plain", None])
async def test_raw_body(url: str, body: bytes, stored: tuple[str, str | None, str], content_type: str | None) -> None:
    async with site() as hub:
        headers = {} if content_type is None else {"content-type": content_type}
        answer = await hub.ask("POST", url, body, headers)
        assert (answer.status, answer.json()) == (201, {"cursor": f"{hub.hub.epoch}-1"})
        assert await hub.stored() == [stored]


async def test_idempotency_key() -> None:
    async with site() as hub:
        answers = [
            await hub.post({"topic": "a", "data": "1", "key": "k"}),
            await hub.post({"topic": "a", "data": "2", "key": "k"}),
            await hub.ask("POST", "/events/a?key=k", b"3"),
        ]
        assert {answer.body for answer in answers} == {answers[0].body}
        assert await hub.stored() == [("a", None, "1")]


def event(**fields: Any) -> dict[str, Any]:
    return {"topic": "a", "data": "x", **fields}


REFUSED = [
    (400, "application/json", b"", "the body is not valid JSON: Expecting value"),
    (400, "application/json", b'{"topic":', "the body is not valid JSON: "),
    (400, "application/json", b"\xff", "the body is not valid JSON: "),
    (400, "application/json", b'{"topic":"a","data":NaN}', "the body is not valid JSON: NaN is not a JSON value"),
    (400, "application/json", b"[" * 100_000, "the body is not valid JSON: "),
    (400, "application/json", json.dumps(event(topic="")).encode(), "1 to 255 characters, got 0"),
    (400, "application/json", json.dumps(event(topic="a//b")).encode(), "without empty segments, got 'a//b'"),
    (400, "application/json", json.dumps(event(topic="a/*")).encode(), "wildcards are for subscriptions"),
    (400, "application/json", json.dumps(event(topic="\ud800")).encode(), "printable characters"),
    (400, FORM, b"topic=a&data=%ff", "the body does not consist of form fields in UTF-8: "),
    (400, FORM, b"topic=a&data=\xff", "the body does not consist of form fields in UTF-8: "),
    (413, "application/json", json.dumps(event(data="x" * 101)).encode(), "at most 100 bytes, got 101 bytes"),
    (413, "application/json", b" " * 801, "expected a body of at most 800 bytes, got 801"),
    (415, None, b'{"topic":"a","data":"x"}', "expected a Content-Type of application/json, "),
    (415, "text/plain", b"hello", "got text/plain"),
    (415, "multipart/form-data; boundary=x", b"--x--", "got multipart/form-data"),
    (415, FORM, b'{"topic":"a","data":"x"}', "send it with the Content-Type application/json"),
    (422, "application/json", b'"hello"', 'expected an event to be a JSON object, got "hello"'),
    (422, "application/json", b"{}", "the event has no field 'topic'"),
    (422, "application/json", b'{"topic":"a"}', "the event has no field 'data'"),
    (422, "application/json", json.dumps(event(id="1")).encode(), "but not 'id'"),
    (422, "application/json", json.dumps(event(topic=1)).encode(), "expected 'topic' to be a string, got 1"),
    (422, "application/json", json.dumps(event(event=1)).encode(), "expected 'event' to be a string, got 1"),
    (422, "application/json", json.dumps(event(event="a\nb")).encode(), "got 'a\\nb'"),
    (
        422,
        "application/json",
        json.dumps(event(event="stream:gap")).encode(),
        "event types that start with 'stream:' are reserved",
    ),
    (422, "application/json", json.dumps(event(key="")).encode(), "expected a key of 1 to 255 characters"),
    (422, "application/json", json.dumps(event(key=LONG)).encode(), "expected a key of 1 to 255 characters"),
    (422, "application/json", json.dumps(event(key="\ud800")).encode(), "expected 'key' to be a string"),
    (422, "application/json", json.dumps(event(key=["k"])).encode(), "expected 'key' to be a string"),
    (422, FORM, b"", "the event has no field 'topic'"),
    (422, FORM, b"topic=a&data=x&data=y", "a form field is repeated"),
    (422, FORM, b"topic=a&data=x&last=1", "but not 'last'"),
]


@pytest.mark.parametrize(("status", "content_type", "body", "said"), REFUSED)
async def test_invalid_body(status: int, content_type: str | None, body: bytes, said: str) -> None:
    async with site(max_event_size=100 if status == 413 else 1 << 20) as hub:
        headers = {} if content_type is None else {"content-type": content_type}
        answer = await hub.ask("POST", "/events", body, headers)
        assert answer.status == status
        problem = answer.problem()
        assert said in problem["detail"]
        assert "index" not in problem
        assert await hub.stored() == []


@pytest.mark.parametrize(
    ("status", "content_type", "body", "index"),
    [
        (422, "application/json", json.dumps([event(), event(event="stream:x"), event(key="")]).encode(), 1),
        (422, "application/json", json.dumps([event(), event(), 3]).encode(), 2),
        (400, "application/json", json.dumps([event(topic="/")]).encode(), 0),
        (413, "application/json", json.dumps([event(), event(data="x" * 101)]).encode(), 1),
        (400, LINES, b'{"topic":"a","data":"1"}\n\n{"topic":}\n', 1),
        (422, LINES, b'{"topic":"a","data":"1"}\n{"topic":"a"}\n', 1),
    ],
)
async def test_invalid_event_in_a_batch(status: int, content_type: str, body: bytes, index: int) -> None:
    async with site(max_event_size=100) as hub:
        answer = await hub.ask("POST", "/events", body, {"content-type": content_type})
        assert (answer.status, answer.problem()["index"]) == (status, index)
        assert await hub.stored() == []


async def test_size_of_a_batch() -> None:
    async with site() as hub:
        answer = await hub.post([event()] * 10_001)
        assert answer.status == 413
        assert answer.problem()["detail"] == "expected at most 10000 events in a batch, got more"


NUMBERS = b'{"topic":"a","data":[%s]}'


@pytest.mark.parametrize(
    ("limit", "body", "content_type", "status"),
    [
        ("max_batch", b"[" + b",".join([NUMBERS % b"1"] * 4) + b"]", "application/json", 413),
        ("max_batch", (NUMBERS % b"1" + b"\n") * 4, LINES, 413),
        ("max_values", NUMBERS % b"1,2,3,4", "application/json", 413),
        ("max_values", NUMBERS % b"1,2,3,4", LINES, 413),
        ("max_digits", NUMBERS % b"1234", "application/json", 400),
        ("max_digits", b"[" + NUMBERS % b"1234" + b"]", "application/json", 400),
        ("max_digits", NUMBERS % b"-1234", LINES, 400),
        ("max_event_size", b'{"topic":"a","data":"%b"}' % (b"x" * 31), "application/json", 413),
    ],
)
async def test_limits_of_bodies(limit: str, body: bytes, content_type: str, status: int) -> None:
    """A body over a limit is refused, and counted; with the next higher limit it is stored."""
    headers = {"content-type": content_type}
    for more, expected in ((0, status), (1, 201)):
        values: dict[str, Any] = {limit: (30 if limit == "max_event_size" else 3) + more}
        size = values.pop("max_event_size", 1000)
        guard = Guard(Limits(**values))
        async with site(guard=guard, max_event_size=size) as hub:
            assert (await hub.ask("POST", "/events", body, headers)).status == expected
            counted = {name: count for name, count in guard.statistics()._asdict().items() if count}
            assert counted == ({limit.removeprefix("max_"): 1} if not more else {})


async def test_batch_too_large_for_the_broker() -> None:
    """It is the client's error: the hub stays ready, and logs nothing."""
    async with site() as hub:
        hub.broker.fail("append", error=BatchTooLargeError(2000, 1000, "max_payload of NATS at n"))
        answer = await hub.post([event()])
        expected = "expected events of at most 1000 bytes together (max_payload of NATS at n), got 2000 bytes"
        assert (answer.status, answer.problem()["detail"]) == (413, expected)
        hub.broker.recover()
        assert (await hub.ask("GET", "/health/ready")).status == 200


@pytest.mark.parametrize(
    ("status", "url", "body", "said"),
    [
        (400, "/events/", b"x", "expected a topic of 1 to 255 characters, got 0"),
        (400, "/events/a//b", b"x", "without empty segments"),
        (400, "/events/a/**", b"x", "wildcards are for subscriptions"),
        (400, "/events/a", b"ab\xff", "expected a body in UTF-8, got the byte 0xff at 2"),
        (413, "/events/a", b"x" * 101, "expected a body of at most 100 bytes, got 101 bytes or more"),
        (422, "/events/a?event=stream:gap", b"x", "event types that start with 'stream:' are reserved"),
        (422, f"/events/a?key={LONG}", b"x", "expected a key of 1 to 255 characters"),
    ],
)
async def test_invalid_raw_body(status: int, url: str, body: bytes, said: str) -> None:
    async with site(max_event_size=100) as hub:
        answer = await hub.ask("POST", url, body)
        assert answer.status == status
        assert said in answer.problem()["detail"]
        assert await hub.stored() == []


async def test_deeply_nested_data() -> None:
    async with site() as hub:
        answer = await hub.ask("POST", "/events", DEEP, JSON)
        assert answer.status in (201, 400, 422)  # as deep as this machine's stack is
        assert (await hub.ask("POST", "/events", b'[{"a":' * 50_000, JSON)).status == 400


async def test_compressed_body() -> None:
    async with site() as hub:
        answer = await hub.ask("POST", "/events/a", b"x", {"content-encoding": "gzip"})
        assert (answer.status, answer.problem()["detail"]) == (
            415,
            "send the body without a Content-Encoding, got 'gzip'",
        )


ITEM = json.dumps(event()).encode()


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b" [ ] ", 0),
        (b"[" + ITEM + b"]", 1),
        (b"\xef\xbb\xbf\r\n[\t" + ITEM + b" ,\n" + ITEM + b" ]\n", 2),
        (("[" + ITEM.decode() + "]").encode("utf-16"), 1),
    ],
)
async def test_json_array(body: bytes, count: int) -> None:
    assert len((await parse_publication("application/json", body, Turns(), Limits())).events) == count


@pytest.mark.parametrize(
    ("body", "mistake"),
    [
        (b"[", "Expecting value: line 1 column 2 (char 1)"),
        (b"[" + ITEM, "Expecting ',' delimiter: line 1 column 29 (char 28)"),
        (b"[" + ITEM + b",]", "Expecting value: line 1 column 30 (char 29)"),
        (b"[" + ITEM + b" " + ITEM + b"]", "Expecting ',' delimiter: line 1 column 30 (char 29)"),
        (b"[]\n[]", "Extra data: line 2 column 1 (char 3)"),
        (b"[" + ITEM + b"]x", "Extra data: line 1 column 30 (char 29)"),
        (b"[1, NaN]", "NaN is not a JSON value"),
    ],
)
async def test_invalid_json_array(body: bytes, mistake: str) -> None:
    async with site() as hub:
        answer = await hub.ask("POST", "/events", body, JSON)
        assert answer.problem()["detail"] == f"the body is not valid JSON: {mistake}"


async def test_numbers_of_lines() -> None:
    async with site() as hub:
        answer = await hub.ask("POST", "/events", b"\n \n" + ITEM + b"\n\r\n  x\n", {"content-type": LINES})
        assert answer.problem()["detail"].startswith("line 5 is not valid JSON: ")
        assert answer.problem()["index"] == 1


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("application/json", b"[" + b",".join([ITEM] * 1000) + b"]"), (LINES, (ITEM + b"\n") * 1000)],
)
async def test_large_bodies_are_parsed_in_slices(content_type: str, body: bytes) -> None:
    """One read of the clock per event, each a millisecond after the other, and slices of five milliseconds."""
    clock = count(step=0.001)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    publication = await parse_publication(content_type, body, Turns(lambda: next(clock)), Limits())
    task.cancel()
    assert len(publication.events) == 1000
    assert turns > 2 * 1000 // 6 - 5  # parsed, then checked


@pytest.mark.parametrize("size", [b"4096", None])
async def test_large_body(size: bytes | None) -> None:
    async with site(max_event_size=100) as hub:
        pieces, sent = [b"x" * 60] * 1000, []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": pieces.pop(), "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [] if size is None else [(b"content-length", size)]
        scope = {"type": "http", "method": "POST", "path": "/events/a", "query_string": b"", "headers": headers}
        await hub.client._app(scope, receive, send)
        assert sent[0]["status"] == 413
        assert len(pieces) == (998 if size is None else 1000)


async def test_half_a_body() -> None:
    async with site() as hub:
        messages: list[dict[str, Any]] = [
            {"type": "http.disconnect"},
            {"type": "http.request", "body": b"half", "more_body": True},
        ]
        sent = []

        async def receive() -> dict[str, Any]:
            return messages.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/events/a", "query_string": b"", "headers": []}
        await hub.client._app(scope, receive, send)
        assert sent[0]["status"] == 400
        assert await hub.stored() == []


@pytest.mark.parametrize("url", ["/events", "/events/a"])
async def test_broker_failure(url: str) -> None:
    async with site() as hub:
        hub.broker.fail("append")
        answer = await hub.ask("POST", url, b'{"topic":"a","data":"x"}', JSON)
        assert answer.status == 503
        assert "scripted failure" in answer.problem()["detail"]


@pytest.mark.parametrize("url", ["/events", "/events/a"])
async def test_publish_while_draining(url: str) -> None:
    async with site() as hub:
        hub.hub.drain()
        answer = await hub.ask("POST", url, b'{"topic":"a","data":"x"}', JSON)
        assert answer.status == 503
        assert "draining" in answer.problem()["detail"]
        assert await hub.stored() == []
