"""Both sources against scripted bytes. Every case runs in the asynchronous and in the synchronous shell."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterable
from typing import Any

import pytest

from support.raw_server import Connection, RawServer, Script, answer, stream
from support.sources import Shell, Source, SourceClock, run
from tickertape import EventTooLargeError, ServerSentEvent
from tickertape.client import Closed, Gap, Opened, ReceivedEvent, Reconnecting, State
from tickertape.errors import ClientError, ContentTypeError, GaveUpError, RedirectError, StatusError
from tickertape.timing import Timer

pytestmark = pytest.mark.parametrize("shell", ["async", "sync"])


def bytewise(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def sent_ids(server: RawServer) -> list[bytes | None]:
    """The ``Last-Event-ID`` of each request."""
    return [request.headers.get("last-event-id") for request in server.requests]


# The wire.

WIRE = [
    pytest.param(b"data: a\n\ndata: b\n\n", ["a", "b"], id="lf"),
    pytest.param(b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"], id="crlf"),
    pytest.param(b"data: a\r\rdata: b\r\r", ["a", "b"], id="cr"),
    pytest.param(b"\xef\xbb\xbfdata: a\n\n", ["a"], id="bom"),
    pytest.param(": beat\n\ndata:é\ndata\ndata:  x\n\n".encode(), ["é\n\n x"], id="lines"),
    pytest.param("data: a\u2028b\u0085c\x0bd\n\n".encode(), ["a\u2028b\u0085c\x0bd"], id="unicode breaks"),
    pytest.param(b"event: x\n\nid: 1\n\nretry: 500\n\ndata: a\n\n", ["a"], id="blocks without data"),
    pytest.param(b"data: a\n\ndata: unfinished", ["a"], id="unfinished"),
    pytest.param(b"data: \xff\n\n", ["\ufffd"], id="invalid utf-8"),
    pytest.param(b"", [], id="nothing"),
]


@pytest.mark.parametrize(("data", "expected"), WIRE)
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "identity"])
@pytest.mark.parametrize("split", [bytewise, lambda data: [data] if data else []], ids=["bytewise", "whole"])
def test_the_wire(shell: Shell, data: bytes, expected: list[str], chunked: bool, split: Any) -> None:
    with RawServer(stream(*split(data), chunked=chunked)) as server:
        result = run(shell, server.url)
    assert result.data == expected
    assert len(server.requests) == 2


@pytest.mark.parametrize("end", [b"\r\r", b"\n\n", b"\r\n\r\n"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "identity"])
def test_event_of_open_stream(shell: Shell, end: bytes, chunked: bool) -> None:
    """The second event is sent when the first has arrived, so the first must not wait for another byte."""
    arrived = threading.Event()

    def script(connection: Connection) -> None:
        connection.begin(chunked=chunked)
        send = connection.chunk if chunked else connection.send
        send(b"data: a" + end)
        connection.wait(arrived)
        send(b"data: b" + end)
        connection.hold()

    def each(event: ServerSentEvent, source: Source, clock: SourceClock) -> None:
        arrived.set()
        if event.data == "b":
            source.close()

    with RawServer(script) as server:
        assert run(shell, server.url, each=each).data == ["a", "b"]


@pytest.mark.parametrize("size", [14 * 1024 * 1024, 64 * 1024], ids=["one chunk", "many chunks"])
def test_long_line_under_raised_limit(shell: Shell, size: int) -> None:
    line = b"data: " + b"x" * (14 * 1024 * 1024) + b"\n\n"
    chunks = [line[start : start + size] for start in range(0, len(line), size)]
    with RawServer(stream(*chunks)) as server:
        result = run(shell, server.url, max_event_size=16 * 1024 * 1024)
    assert [len(event.data or "") for event in result.events] == [14 * 1024 * 1024]


@pytest.mark.parametrize("size", [14 * 1024 * 1024, 64 * 1024], ids=["one chunk", "many chunks"])
def test_long_line_over_default_limit(shell: Shell, size: int) -> None:
    line = b"data: " + b"x" * (14 * 1024 * 1024) + b"\n\n"
    chunks = [line[start : start + size] for start in range(0, len(line), size)]
    with RawServer(stream(b"id: 1\ndata: a\n\n", *chunks)) as server:
        result = run(shell, server.url)
    assert result.data == ["a"]
    assert isinstance(result.error, EventTooLargeError)
    assert result.error.limit == 8 * 1024 * 1024
    assert result.last_event_id == "1"


def test_compressed_stream(shell: Shell) -> None:
    arrived = threading.Event()

    def script(connection: Connection) -> None:
        packer = zlib.compressobj(wbits=31)
        connection.begin(chunked=True, more="Content-Encoding: gzip\r\n")
        for data in (b"data: a\n\n", b"data: b\n\n"):
            connection.chunk(packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))
            connection.wait(arrived)
        connection.chunk(b"garbage")
        connection.hold()

    def each(event: ServerSentEvent, source: Source, clock: SourceClock) -> None:
        arrived.set()

    with RawServer(script) as server:
        result = run(shell, server.url, each=each)
    assert result.data == ["a", "b"]
    assert result.reasons[0].startswith("DecodingError")


# Requests.


def test_request_headers(shell: Shell) -> None:
    with RawServer() as server:
        run(shell, f"{server.url}/events?topic=a%2Fb", headers={"X-Who": "é"}, last_event_id="Ω-1")
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("GET", "/events?topic=a%2Fb", b"")
    sent = {name: request.headers[name] for name in ("accept", "cache-control", "last-event-id", "x-who")}
    assert sent == {
        "accept": b"text/event-stream",
        "cache-control": b"no-cache",
        "last-event-id": "Ω-1".encode(),
        "x-who": "é".encode(),
    }


@pytest.mark.parametrize(
    ("options", "body", "content_type"),
    [
        ({"content": b"\x00\xff"}, b"\x00\xff", None),
        ({"content": "é"}, "é".encode(), None),
        ({"json": {"q": "é"}}, '{"q": "é"}'.encode(), b"application/json"),
        ({"json": 1, "headers": {"content-type": "a/b"}}, b"1", b"a/b"),
    ],
)
def test_request_body(shell: Shell, options: dict[str, Any], body: bytes, content_type: bytes | None) -> None:
    with RawServer(stream(b"id: 1\ndata: a\n\n"), answer(503), stream(b"data: b\n\n")) as server:
        result = run(shell, server.url, method="post", reconnect="always", **options)
    assert result.data == ["a", "b"]
    assert [request.method for request in server.requests] == ["POST"] * 4
    assert [request.body for request in server.requests] == [body] * 4
    assert {request.headers.get("content-type") for request in server.requests} == {content_type}
    assert sent_ids(server) == [None, b"1", b"1", b"1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"headers": {"Last-Event-ID": "1"}}, "pass last_event_id= instead"),
        ({"headers": {"X": "a\r\nb: c"}}, "has a CR, LF or NUL"),
        ({"headers": {"X Y": "a"}}, "expected a header name"),
        ({"content": b"", "json": 1}, "pass content or json, not both"),
        ({"last_event_id": "a\nb"}, "expected id without"),
        ({"last_event_id": "x" * 4097}, "at most 4096 bytes, got 4097"),
        ({"retry": -1}, "expected retry"),
        ({"reconnect": "sometimes"}, "expected reconnect"),
    ],
)
def test_invalid_options(shell: Shell, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(shell, "http://127.0.0.1:1", **options)


def test_auth_before_each_attempt(shell: Shell) -> None:
    given: list[Any] = ["one", {"X-Key": "two", "X-Who": "me"}, None]
    with RawServer(stream(b"data: a\n\n"), answer(503)) as server:
        run(shell, server.url, headers={"Authorization": "Basic x"}, auth=lambda: given.pop(0))
    shown = [(request.headers.get("authorization"), request.headers.get("x-key")) for request in server.requests]
    assert shown == [(b"Bearer one", None), (b"Basic x", b"two"), (b"Basic x", None)]


def test_auth_raises_network_error(shell: Shell) -> None:
    errors = [OSError("no route")]

    def auth() -> str:
        if errors:
            raise errors.pop()
        return "one"

    with RawServer() as server:
        result = run(shell, server.url, auth=auth)
    assert result.reasons == ["OSError: no route"]
    assert [request.headers["authorization"] for request in server.requests] == [b"Bearer one"]


@pytest.mark.parametrize("wrong", [7, b"token", ["a"]])
def test_invalid_credentials(shell: Shell, wrong: Any) -> None:
    with RawServer() as server, pytest.raises(TypeError, match="expected auth to return a token, headers or None"):
        run(shell, server.url, auth=lambda: wrong)
    with pytest.raises(ValueError, match="'Authorization' has a CR") as caught:
        run(shell, server.url, auth=lambda: "secret\n")
    assert "secret" not in str(caught.value)


def test_unsupported_scheme(shell: Shell) -> None:
    with pytest.raises(Exception, match="protocol 'ftp://'"):
        run(shell, "ftp://127.0.0.1:1/")


def test_id_unfit_for_header(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    with RawServer(stream(b"id: a\x0bb\ndata: a\n\n"), stream(b"id: \x1f\x7f\ndata: b\n\n")) as server:
        result = run(shell, server.url)
        url = server.url
    assert result.data == ["a", "b"]
    assert sent_ids(server) == [None, None, b"\x1f\x7f"]
    assert ("WARNING", f"{url}: cannot resume: no HTTP header can carry the id 'a\\x0bb'") in names(caplog.records)


# Statuses.


def test_status_204(shell: Shell) -> None:
    with RawServer() as server:
        result = run(shell, server.url)
    assert (result.events, result.error, result.state) == ([], None, State.CLOSED)
    assert result.notices == [Closed(None)]
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_transient_status(shell: Shell, status: int) -> None:
    with RawServer(answer(status, "Retry-After: 7"), stream(b"data: a\n\n")) as server:
        result = run(shell, server.url)
    assert result.data == ["a"]
    assert result.clock.slept[0] == 7


def test_retry_after_date(shell: Shell) -> None:
    with RawServer(
        answer(503, "Date: Tue, 14 Nov 2023 22:13:20 GMT", "Retry-After: Tue, 14 Nov 2023 22:15:00 GMT")
    ) as server:
        assert run(shell, server.url).clock.slept == [100]


@pytest.mark.parametrize("status", [201, 205, 206, 304, 400, 401, 403, 404, 410, 451])
def test_final_status(shell: Shell, status: int) -> None:
    with RawServer(answer(status)) as server:
        result = run(shell, f"{server.url}/events?token=secret")
    assert isinstance(result.error, StatusError)
    assert (result.error.status, result.error.url) == (status, f"{server.url}/events")
    assert len(server.requests) == 1


PROBLEM = b'{"type":"about:blank","title":"Forbidden","detail":"expected a token, got none","status":7}'


@pytest.mark.parametrize(
    ("content_type", "body", "detail"),
    [
        ("application/problem+json", PROBLEM, "Forbidden: expected a token, got none"),
        ("application/problem+json; charset=utf-8", b'{"title":"Forbidden","detail":7}', "Forbidden"),
        ("application/problem+json", b"no json", "no json"),
        ("text/plain", b" go\n away ", "go away"),
        ("text/plain", b"x" * 1_000_000, "x" * 300 + "…"),
        ("text/html", b"<h1>go away</h1>", ""),
        ("text/plain", b"", ""),
    ],
)
def test_error_detail(shell: Shell, content_type: str, body: bytes, detail: str) -> None:
    with RawServer(answer(403, f"Content-Type: {content_type}", body=body)) as server:
        result = run(shell, server.url)
    assert isinstance(result.error, StatusError)
    assert result.error.detail == detail


def test_error_with_stalled_body(shell: Shell) -> None:
    def script(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 10\r\n\r\nhalf")
        connection.hold()

    def before(source: Source, clock: SourceClock) -> None:
        clock.expire = True

    with RawServer(script) as server:
        result = run(shell, server.url, before=before, silence=None)
    assert isinstance(result.error, StatusError)
    assert result.error.detail in ("half", "")


@pytest.mark.parametrize("content_type", ["text/html", "text/plain", "application/json"])
def test_other_content_type(shell: Shell, content_type: str) -> None:
    with RawServer(answer(200, f"Content-Type: {content_type}", body=b"data: a\n\n")) as server:
        result = run(shell, server.url)
    assert isinstance(result.error, ContentTypeError)
    assert result.error.content_type == content_type
    assert result.events == []


def test_content_type_with_parameters(shell: Shell) -> None:
    body = b"data: a\n\n"
    with RawServer(answer(200, "content-type: Text/Event-Stream;charset=UTF-8", body=body)) as server:
        assert run(shell, server.url).data == ["a"]


# Redirects.


@pytest.mark.parametrize(
    ("status", "method", "body"),
    [(301, "GET", b""), (302, "GET", b""), (303, "GET", b""), (307, "POST", b"x"), (308, "POST", b"x")],
)
def test_redirects(shell: Shell, status: int, method: str, body: bytes) -> None:
    redirect = answer(status, "Location: /there")
    scripts = [redirect, stream(b"id: 1\ndata: a\n\n"), redirect, stream(b"data: b\n\n")]
    with RawServer(*scripts) as server:
        result = run(shell, f"{server.url}/here", method="POST", content=b"x", reconnect="always")
        url = server.url
    assert result.data == ["a", "b"]
    seen = [(request.target, request.method, request.body) for request in server.requests]
    assert seen == [("/here", "POST", b"x"), ("/there", method, body)] * 2 + [("/here", "POST", b"x")]
    assert sent_ids(server) == [None, None, b"1", b"1", b"1"]
    assert [notice.url for notice in result.notices if isinstance(notice, Opened)] == [f"{url}/there"] * 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("headers", [[], ["Location:"], ["Location:  "]], ids=["missing", "empty", "blank"])
def test_redirect_without_location(shell: Shell, status: int, headers: list[str]) -> None:
    with RawServer(answer(status, *headers)) as server:
        result = run(shell, server.url)
    assert isinstance(result.error, RedirectError)
    assert len(server.requests) == 1


def test_too_many_redirects(shell: Shell) -> None:
    with RawServer(*[answer(302, "Location: /")] * 30) as server:
        result = run(shell, server.url)
    assert isinstance(result.error, RedirectError)
    assert result.error.redirects == 21
    assert len(server.requests) == 21


def test_credentials_stay_at_origin(shell: Shell) -> None:
    """They are not sent again either when the other origin redirects within itself."""
    with RawServer(answer(302, "Location: /there"), stream(b"data: a\n\n")) as other:
        leave = answer(302, f"Location: {other.url}/here")
        with RawServer(answer(302, "Location: /stay"), leave) as server:
            result = run(shell, server.url, auth=lambda: {"Authorization": "a", "X-Key": "k"}, headers={"X-Who": "me"})
    assert result.data == ["a"]
    seen = [[request.headers.get(name) for name in ("authorization", "x-key", "x-who")] for request in server.requests]
    assert seen == [[b"a", b"k", b"me"]] * 3
    seen = [[request.headers.get(name) for name in ("authorization", "x-key", "x-who")] for request in other.requests]
    assert seen == [[None, None, b"me"]] * 2


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/", "file:///etc/passwd", "javascript:0", "http://a:b/", "x:y"])
def test_redirect_to_other_scheme(shell: Shell, location: str) -> None:
    with RawServer(answer(302, f"Location: {location}")) as server:
        result = run(shell, server.url)
    assert isinstance(result.error, RedirectError)
    assert str(result.error) == f"cannot follow the redirect to {location!r}: it is not an http or https URL"
    assert len(server.requests) == 1


def test_secret_headers_stay_at_origin(shell: Shell) -> None:
    """Headers of the user, too, are withheld from another origin if their name suggests a secret."""
    headers = {"X-API-Key": "k", "Cookie": "a=b", "X-Auth-Token": "t", "Proxy-Authorization": "p", "X-Who": "me"}
    with RawServer(stream(b"data: a\n\n")) as other, RawServer(answer(307, f"Location: {other.url}/here")) as server:
        run(shell, server.url, headers=headers)
    assert {name.lower() for name in headers} <= set(server.requests[0].headers)
    assert {name.lower() for name in headers} & set(other.requests[0].headers) == {"x-who"}


# Lost connections.


def reset(*chunks: bytes) -> Script:
    def script(connection: Connection) -> None:
        connection.begin()
        for chunk in chunks:
            connection.chunk(chunk)
        connection.wait(script.arrived)  # type: ignore[attr-defined]
        connection.reset()

    script.arrived = threading.Event()  # type: ignore[attr-defined]
    return script


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "identity"])
def test_half_event_before_drop(shell: Shell, chunked: bool) -> None:
    first = stream(b"id: 1\ndata: a\n\nid: 2\ndata: half", chunked=chunked, then="drop")
    with RawServer(first, stream(b"\n\ndata: b\n\n")) as server:
        result = run(shell, server.url)
    assert result.data == ["a", "b"]
    assert sent_ids(server) == [None, b"1", b"1"]


def test_reasons_of_drop_and_reset(shell: Shell) -> None:
    broken = reset(b"data: b\n\n")

    def each(event: ServerSentEvent, source: Source, clock: SourceClock) -> None:
        if event.data == "b":
            broken.arrived.set()  # type: ignore[attr-defined]

    with RawServer(stream(b"data: a\n\n", then="drop"), broken, Connection.close) as server:
        result = run(shell, server.url, each=each)
    assert result.data == ["a", "b"]
    first, second, third = (notice for notice in result.notices if isinstance(notice, Reconnecting))
    assert first.reason.startswith("RemoteProtocolError: peer closed connection")
    assert second.reason.startswith("ReadError")
    assert third.reason.startswith("RemoteProtocolError: Server disconnected")
    assert [notice.failures for notice in (first, second, third)] == [0, 0, 1]


def test_no_server(shell: Shell) -> None:
    with RawServer() as server:
        url = server.url
    result = run(shell, url, max_attempts=3)
    assert isinstance(result.error, GaveUpError)
    assert (result.error.attempts, result.clock.slept) == (3, [3, 6])
    assert all(reason.startswith("ConnectError") for reason in result.reasons)


def test_give_up_after(shell: Shell) -> None:
    with RawServer(*[answer(503)] * 9) as server:
        result = run(shell, server.url, give_up_after=20.0)
    assert isinstance(result.error, GaveUpError)
    assert isinstance(result.error.__cause__, StatusError)
    assert result.clock.slept == [3, 6]


@pytest.mark.parametrize(
    ("retry", "seconds"),
    [(b"1500", 1.5), (b"0", 0.5), (b"9" * 30, 300), (b"1_000", 3), (b"-5", 3), (b"", 3), (b"2s", 3)],
)
def test_retry_of_server(shell: Shell, retry: bytes, seconds: float) -> None:
    with RawServer(stream(b"retry: " + retry + b"\ndata: a\n\n"), stream(b"data: b\n\n")) as server:
        assert run(shell, server.url).clock.slept == [seconds, seconds]


def silent(event: ServerSentEvent, source: Source, clock: SourceClock) -> None:
    clock.expire = True

    def wake() -> None:
        clock.expire = False

    clock.on_sleep = wake


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "identity"])
def test_half_open_connection(shell: Shell, chunked: bool) -> None:
    half_open = stream(b"id: 1\ndata: a\n\n", chunked=chunked, then="hold")
    with RawServer(half_open) as server:
        result = run(shell, server.url, each=silent, silence=20.0)
    assert result.data == ["a"]
    assert result.reasons == ["no bytes for 20 s"]
    assert sent_ids(server) == [None, b"1"]
    assert set(result.clock.deadlines) == {20.0}


def test_server_without_response(shell: Shell) -> None:
    def before(source: Source, clock: SourceClock) -> None:
        silent(ServerSentEvent(), source, clock)

    with RawServer(Connection.hold) as server:
        result = run(shell, server.url, before=before)
    assert result.reasons == ["no bytes for 300 s"]


def test_learned_silence(shell: Shell) -> None:
    passed: list[SourceClock] = []

    def script(connection: Connection) -> None:
        connection.begin()
        connection.chunk(b"data: a\n\n")
        connection.wait(arrived)
        connection.chunk(b": beat\n\ndata: b\n\n")
        connection.hold()

    arrived = threading.Event()

    class Slow(list[float]):
        """The deadlines; while the second read waits, twenty seconds go by."""

        def append(self, deadline: float) -> None:
            super().append(deadline)
            if len(self) == 3:
                passed[0].advance(20.0)
                arrived.set()

    def before(source: Source, clock: SourceClock) -> None:
        clock.deadlines = Slow()
        passed.append(clock)

    def each(event: ServerSentEvent, source: Source, clock: SourceClock) -> None:
        if event.data == "b":
            silent(event, source, clock)

    with RawServer(script) as server:
        result = run(shell, server.url, before=before, each=each)
    assert result.clock.deadlines[:3] == [300.0, 300.0, 300.0]
    assert 60.0 in result.clock.deadlines
    assert result.reasons == ["no bytes for 60 s"]


def test_silence_without_deadline(shell: Shell) -> None:
    with RawServer(stream(b"data: a\n\n")) as server:
        assert run(shell, server.url, each=silent, silence=None).data == ["a"]


# The last event id.


def test_commit_with_next_event(shell: Shell) -> None:
    seen = []

    def each(event: ServerSentEvent, source: Source, clock: SourceClock) -> None:
        seen.append((event.id, source.last_event_id))

    with RawServer(stream(b"id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\nid\ndata: d\n\n")) as server:
        result = run(shell, server.url, each=each)
    assert seen == [("1", None), ("1", "1"), ("2", "1"), ("", "2")]
    assert result.last_event_id == ""
    assert sent_ids(server) == [None, None]


def test_non_ascii_id(shell: Shell) -> None:
    with RawServer(stream("id: 日本-Ω 1\ndata: a\n\n".encode())) as server:
        run(shell, server.url)
    assert sent_ids(server) == [None, "日本-Ω 1".encode()]


class ListStore:
    """A store that records every saved id."""

    def __init__(self, stored: str | None = None) -> None:
        self.stored = stored
        self.saved: list[str] = []

    def load(self) -> str | None:
        return self.stored

    def save(self, id: str, /) -> None:
        self.saved.append(id)


def test_crash_in_loop(shell: Shell) -> None:
    store = ListStore("e-7")

    def each(event: ServerSentEvent, source: Source, clock: SourceClock) -> None:
        if event.data == "b":
            raise RuntimeError("crash")

    blocks = stream(b"id: e-8\ndata: a\n\nid: e-9\ndata: b\n\nid: e-10\n\n", then="hold")
    with RawServer(blocks) as server, pytest.raises(RuntimeError, match="crash"):
        run(shell, server.url, each=each, last_event_id=store)
    assert store.saved == ["e-8"]
    assert sent_ids(server) == [b"e-7"]


def test_priming_block(shell: Shell) -> None:
    store = ListStore()
    with RawServer(stream(b"id: e-4\nretry: 2000\n\n")) as server:
        result = run(shell, server.url, last_event_id=store)
    assert sent_ids(server) == [None, b"e-4"]
    assert store.saved == ["e-4"]
    assert result.events == []


def test_id_without_event_waits_its_turn(shell: Shell) -> None:
    seen = []

    def each(event: ServerSentEvent, source: Source, clock: SourceClock) -> None:
        seen.append((event.data, source.last_event_id))

    with RawServer(stream(b"id: e-1\ndata: a\n\nid: e-2\ndata: b\n\nid: e-9\n\n")) as server:
        run(shell, server.url, each=each)
    assert seen == [("a", None), ("b", "e-1")]
    assert sent_ids(server) == [None, b"e-9"]


def test_repeated_events_of_hub(shell: Shell) -> None:
    again = b"id: e-1\ndata: a\n\nid: e-2\ndata: b\n\n"
    resumed = b"id: e-2\nretry: 1000\n\n" + again + b"id: e-3\ndata: c\n\nid: f-1\ndata: d\n\n"
    with RawServer(stream(again), stream(resumed)) as server:
        result = run(shell, server.url)
    assert result.data == ["a", "b", "c", "d"]
    assert result.statistics is not None
    assert result.statistics.duplicates == 2


def test_ids_of_other_servers_are_opaque(shell: Shell) -> None:
    """An id that only looks like a cursor has no order."""
    with RawServer(stream(b"id: user-42\ndata: a\n\n"), stream(b"id: user-7\ndata: b\n\n")) as server:
        result = run(shell, server.url)
    assert result.data == ["a", "b"]
    assert sent_ids(server) == [None, b"user-42", b"user-7"]


def test_long_id(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    """It is neither saved nor sent: servers would answer every later request with 431."""
    store = ListStore()
    long = b"x" * 4097
    first = stream(b"id: 1\ndata: a\n\nid: " + long + b"\ndata: b\n\n")
    with RawServer(first, stream(b"id: " + long + b"\n\n"), stream(b"id: " + b"y" * 4096 + b"\ndata: c\n\n")) as server:
        result = run(shell, server.url, last_event_id=store)
    assert result.data == ["a", "b", "c"]
    assert sent_ids(server) == [None, b"1", b"1", b"y" * 4096]
    assert store.saved == ["1", "y" * 4096]
    assert len([text for level, text in names(caplog.records) if level == "WARNING" and "4097 bytes" in text]) == 1


def test_stored_id_is_checked(shell: Shell) -> None:
    for stored, message in (("a\nb", "expected id without"), ("x" * 4097, "at most 4096 bytes")):
        with RawServer() as server, pytest.raises(ValueError, match=message):
            run(shell, server.url, last_event_id=ListStore(stored))
        assert server.requests == []


# When to reconnect.


ENDS = stream(b"data: a\n\n")
BREAKS = stream(b"data: a\n\n", then="drop")


@pytest.mark.parametrize(
    ("method", "options", "first", "requests"),
    [
        ("GET", {}, ENDS, 2),
        ("PUT", {}, ENDS, 2),
        ("POST", {}, ENDS, 1),
        ("PATCH", {}, ENDS, 1),
        ("POST", {}, BREAKS, 2),
        ("POST", {}, answer(503), 2),
        ("POST", {"reconnect": "always"}, ENDS, 2),
        ("GET", {"reconnect": "errors"}, ENDS, 1),
        ("GET", {"reconnect": "errors"}, BREAKS, 2),
        ("GET", {"reconnect": "never"}, ENDS, 1),
    ],
)
def test_reconnect(shell: Shell, method: str, options: dict[str, Any], first: Script, requests: int) -> None:
    with RawServer(first) as server:
        result = run(shell, server.url, method=method, **options)
    assert len(server.requests) == requests
    assert result.error is None
    assert result.notices[-1] == Closed(None)


@pytest.mark.parametrize("first", [BREAKS, answer(503), Connection.close])
def test_never_reconnect(shell: Shell, first: Script) -> None:
    with RawServer(first) as server:
        result = run(shell, server.url, reconnect="never")
    assert isinstance(result.error, GaveUpError)
    assert result.error.attempts == 1
    assert len(server.requests) == 1


def test_renewed_credentials(shell: Shell) -> None:
    """A refused token is requested again, after the hook that can drop it; a second refusal is final."""
    tokens = ["old"]

    def on_reconnecting(notice: Reconnecting) -> None:
        if isinstance(notice.error, StatusError):
            tokens.append("new")

    scripts = [stream(b"retry: 500\ndata: a\n\n"), answer(401), stream(b"data: b\n\n"), answer(401), answer(401)]
    with RawServer(*scripts) as server:
        result = run(
            shell, server.url, auth=lambda: tokens[-1], on_reconnecting=on_reconnecting, retry=0.01, clock=None
        )
    assert result.data == ["a", "b"]
    assert isinstance(result.error, StatusError)
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == [b"Bearer old", b"Bearer old", b"Bearer new", b"Bearer new", b"Bearer new"]


def test_first_credentials_are_not_renewed(shell: Shell) -> None:
    with RawServer(answer(401)) as server:
        result = run(shell, server.url, auth=lambda: "token")
    assert isinstance(result.error, StatusError)
    assert len(server.requests) == 1


def test_auth_learns_of_a_refusal(shell: Shell) -> None:
    asked = []

    def auth(*, refused: bool) -> str:
        asked.append(refused)
        return f"t{len(asked)}"

    scripts = [stream(b"retry: 500\ndata: a\n\n"), answer(401), stream(b"data: b\n\n"), answer(204)]
    with RawServer(*scripts) as server:
        result = run(shell, server.url, auth=auth)
    assert result.data == ["a", "b"]
    assert asked == [False, False, True, False]
    assert [request.headers["authorization"] for request in server.requests][1:3] == [b"Bearer t2", b"Bearer t3"]


def test_report_of_giving_up(shell: Shell) -> None:
    with RawServer(answer(503), answer(502)) as server:
        result = run(shell, server.url, max_attempts=2)
    error = result.error
    assert isinstance(error, GaveUpError)
    assert isinstance(error.error, StatusError)
    assert (error.attempts, error.status, error.error is error.__cause__) == (2, 502, True)
    assert str(error).startswith("gave up after 2 attempts in ")


# Driven from outside.


@pytest.mark.parametrize(
    ("until", "data"),
    [("[DONE]", ["a"]), (lambda event: event.data == "[DONE]", ["a", "[DONE]"])],
    ids=["mark", "function"],
)
def test_until(shell: Shell, until: Any, data: list[str]) -> None:
    with RawServer(stream(b"data: a\n\ndata: [DONE]\n\ndata: b\n\n", then="hold")) as server:
        result = run(shell, server.url, until=until)
    assert (result.data, result.error, result.state) == (data, None, State.CLOSED)
    assert len(server.requests) == 1


def test_comments(shell: Shell) -> None:
    seen: list[str] = []
    with RawServer(stream(b": one\ndata: a\n\n: two\n\n")) as server:
        run(shell, server.url, on_comment=seen.append, each=lambda event, *_: seen.append(event.data or ""))
    assert seen == ["one", "a", "two"]


def test_received_events(shell: Shell) -> None:
    with RawServer(stream(b"data: a\n\nevent: paid\ndata: b\n\n")) as server:
        result = run(shell, server.url)
    assert [type(event) for event in result.events] == [ReceivedEvent] * 2
    assert [event.type for event in result.events] == ["message", "paid"]


def test_restart_within_the_loop(shell: Shell) -> None:
    def each(event: ServerSentEvent, source: Source, clock: SourceClock) -> None:
        if event.data == "a":
            source.restart()

    scripts = [stream(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", then="hold"), stream(b"id: 2\ndata: b\n\n")]
    with RawServer(*scripts) as server:
        result = run(shell, server.url, each=each)
    assert result.data == ["a", "b"]
    assert sent_ids(server)[:2] == [None, b"1"]
    assert result.reasons[0] == "restart() was called"


def test_restart_from_a_thread(shell: Shell) -> None:
    """The source waits for bytes of a silent stream; the restart comes from another thread."""
    sources: list[Source] = []

    def silent(connection: Connection) -> None:
        connection.begin(chunked=True)
        connection.chunk(b"id: 1\ndata: a\n\n: wait\n\n")
        connection.hold()

    def on_comment(text: str) -> None:
        threads.append(threading.Thread(target=sources[0].restart))
        threads[0].start()

    threads: list[threading.Thread] = []
    with RawServer(silent, stream(b"id: 2\ndata: b\n\n")) as server:
        result = run(shell, server.url, on_comment=on_comment, before=lambda source, clock: sources.append(source))
    threads[0].join()
    assert result.data == ["a", "b"]
    assert sent_ids(server)[:2] == [None, b"1"]


def test_restart_during_the_wait_for_an_attempt(shell: Shell) -> None:
    sources: list[Source] = []
    threads: list[threading.Thread] = []

    class Clock(SourceClock):
        """A clock that is stopped. A wait of a thousand seconds starts a thread that calls ``restart``."""

        def call_at(self, when: float, callback: Any, *args: Any) -> Timer:
            timer = super().call_at(when, callback, *args)
            if when - self.time() == 1000.0:
                threads.append(threading.Thread(target=sources[0].restart))
                threads[-1].start()
            return timer

    with RawServer(answer(503), answer(204)) as server:
        result = run(
            shell,
            server.url,
            before=lambda source, clock: sources.append(source),
            clock=Clock(),
            on_reconnecting=None,
            retry=1000.0,
            max_delay=1000.0,
        )
    for thread in threads:
        thread.join()
    assert len(threads) == 1
    assert (result.error, len(server.requests)) == (None, 2)


# Notices.


def test_notices(shell: Shell) -> None:
    states = []

    def each(event: ServerSentEvent, source: Source, clock: SourceClock) -> None:
        states.append(source.state)

    gap = b'event: stream:gap\ndata: {"reason":"expired","after":"e-1","resumed":"e-5"}\n\n'
    with RawServer(stream(gap + b"id: e-6\ndata: a\n\n")) as server:
        result = run(shell, server.url, each=each, last_event_id="e-1")
    opened, notice, reconnecting, closed = result.notices
    assert isinstance(opened, Opened)
    assert (opened.url, opened.attempt, opened.headers["content-type"]) == (f"{server_url(result)}", 1, STREAM)
    assert isinstance(notice, Gap)
    assert (notice.reason, notice.after, notice.resumed) == ("expired", "e-1", "e-5")
    assert reconnecting == Reconnecting("the stream ended", 3.0, 0, None)
    assert closed == Closed(None)
    assert states == [State.OPEN]
    assert result.data == ["a"]
    assert result.statistics == (2, 1, 1, 1, 0, 1, 0)


STREAM = "text/event-stream"


def server_url(result: Any) -> str:
    return next(notice.url for notice in result.notices if isinstance(notice, Opened))


def test_yield_gaps(shell: Shell) -> None:
    gap = b'id: e-5\nevent: stream:gap\ndata: {"reason":"expired","after":"e-1","resumed":"e-5"}\n\n'
    with RawServer(stream(gap + b"id: e-6\ndata: a\n\n")) as server:
        result = run(shell, server.url, yield_gaps=True, last_event_id="e-1")
    first, second = result.events
    assert isinstance(first, Gap)
    assert second == ServerSentEvent("a", id="e-6")


def test_stream_error(shell: Shell) -> None:
    broken = stream(b'id: 1\ndata: a\n\nevent: stream:error\ndata: {"title":"oh"}\n\ndata: b\n\n', then="hold")
    with RawServer(broken, stream(b"id: 2\ndata: c\n\n")) as server:
        result = run(shell, server.url)
    assert result.data == ["a", "c"]
    assert result.reasons[0] == 'the stream failed on the server: {"title":"oh"}'
    assert sent_ids(server) == [None, b"1", b"2"]


def test_closed_with_error(shell: Shell) -> None:
    with RawServer(answer(404)) as server:
        result = run(shell, server.url)
    assert result.notices == [Closed(result.error)]
    assert isinstance(result.error, ClientError)


def test_hook_raises(shell: Shell) -> None:
    def hook(notice: Opened) -> None:
        raise RuntimeError("hooked")

    with RawServer(stream(then="hold")) as server, pytest.raises(RuntimeError, match="hooked"):
        run(shell, server.url, on_open=hook)


def test_close_in_hook(shell: Shell) -> None:
    sources: list[Source] = []

    def before(source: Source, clock: SourceClock) -> None:
        sources.append(source)

    def hook(notice: Reconnecting) -> None:
        sources[0].close()

    with RawServer(stream(b"data: a\n\n")) as server:
        result = run(shell, server.url, before=before, on_reconnecting=hook)
    assert result.data == ["a"]
    assert result.state is State.CLOSED
    assert result.notices[-1] == Closed(None)
    assert len(server.requests) == 1


def test_close_before_loop(shell: Shell) -> None:
    def before(source: Source, clock: SourceClock) -> None:
        source.close()
        source.close()

    with RawServer() as server:
        result = run(shell, server.url, before=before)
    assert server.requests == []
    assert result.notices == [Closed(None)]


def test_close_in_loop(shell: Shell) -> None:
    def each(event: ServerSentEvent, source: Source, clock: SourceClock) -> None:
        source.close()

    with RawServer(stream(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", then="hold")) as server:
        result = run(shell, server.url, each=each)
    assert result.data == ["a"]
    assert result.last_event_id == "1"


def test_repr(shell: Shell) -> None:
    shown = []

    def each(event: ServerSentEvent, source: Source, clock: SourceClock) -> None:
        shown.append(repr(source))

    with RawServer(stream(b"id: 1\ndata: a\n\ndata: b\n\n")) as server:
        url = server.url.replace("//", "//me:secret@")
        run(shell, f"{url}/events?token=secret", each=each)
        name = "EventSource" if shell == "async" else "SyncEventSource"
        expected = f"<{name} {server.url}/events open last_event_id='1' events=2>"
    assert shown[1] == expected
    body = json.dumps(shown)
    assert "secret" not in body


def names(records: Iterable[Any]) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in records if record.name == "tickertape.client"]


def test_log(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    gap = b'event: stream:gap\ndata: {"reason":"expired","after":"e-1","resumed":"e-5"}\n\n'
    with RawServer(stream(gap + b"data: payload\n\n"), answer(503), answer(410)) as server:
        run(shell, f"{server.url}/?token=secret")
        url = f"{server.url}/"
    assert names(caplog.records) == [
        ("INFO", f"{url} is open"),
        ("WARNING", f"{url} has a gap (expired) after e-1"),
        ("INFO", f"{url}: the stream ended; next attempt in 3.0 s"),
        ("WARNING", f"{url}: status 503; next attempt in 3.0 s"),
        ("ERROR", f"{url} is closed: expected status 200 from {url}, got 410"),
    ]


GARBAGE = "x" * 60_000


@pytest.mark.parametrize(
    "script",
    [
        stream(f'event: stream:error\ndata: {{"title":"{GARBAGE}"}}\n\n'.encode()),
        stream(f'event: stream:gap\ndata: {{"reason":"{GARBAGE}","after":"{GARBAGE}"}}\n\n'.encode()),
        stream(b"id: " + b"\v" * 4000 + b"\ndata: a\n\n"),
        answer(403, "Content-Type: application/problem+json", body=f'{{"title":"{GARBAGE[:9000]}"}}'.encode()),
        answer(200, f"Content-Type: {GARBAGE}"),
        answer(302, f"Location: ftp://{GARBAGE}/"),
        lambda connection: connection.send(f"{GARBAGE}\r\n\r\n".encode()),
    ],
    ids=["error", "gap", "id", "problem", "content type", "redirect", "no HTTP"],
)
def test_log_is_short(shell: Shell, script: Script, caplog: pytest.LogCaptureFixture) -> None:
    """A server cannot fill the log."""
    caplog.set_level("INFO", "tickertape")
    with RawServer(script) as server:
        run(shell, server.url)
    assert max(len(text) for _, text in names(caplog.records)) < 1000
