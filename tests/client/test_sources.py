"""Both sources against scripted bytes: every case runs in the asynchronous and in the synchronous shell."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterable
from typing import Any

import pytest

from support.raw_server import Connection, RawServer, Script, answer, stream
from support.sources import FakeClock, Shell, Source, run
from tickertape import EventTooLargeError, ServerSentEvent
from tickertape.client import Closed, Gap, Opened, Reconnecting, State
from tickertape.errors import ClientError, ContentTypeError, GaveUpError, RedirectError, StatusError

pytestmark = pytest.mark.parametrize("shell", ["async", "sync"])


def bytewise(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def places(server: RawServer) -> list[bytes | None]:
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
def test_an_event_is_given_while_the_stream_stays_open(shell: Shell, end: bytes, chunked: bool) -> None:
    """The second event is only sent when the first has arrived: no byte behind it may be waited for."""
    arrived = threading.Event()

    def script(connection: Connection) -> None:
        connection.begin(chunked=chunked)
        send = connection.chunk if chunked else connection.send
        send(b"data: a" + end)
        connection.wait(arrived)
        send(b"data: b" + end)
        connection.hold()

    def each(event: ServerSentEvent, source: Source, clock: FakeClock) -> None:
        arrived.set()
        if event.data == "b":
            source.close()

    with RawServer(script) as server:
        assert run(shell, server.url, each=each).data == ["a", "b"]


@pytest.mark.parametrize("size", [14 * 1024 * 1024, 64 * 1024], ids=["one chunk", "many chunks"])
def test_a_line_of_14_mb_with_the_limit_raised(shell: Shell, size: int) -> None:
    line = b"data: " + b"x" * (14 * 1024 * 1024) + b"\n\n"
    chunks = [line[start : start + size] for start in range(0, len(line), size)]
    with RawServer(stream(*chunks)) as server:
        result = run(shell, server.url, max_event_size=16 * 1024 * 1024)
    assert [len(event.data or "") for event in result.events] == [14 * 1024 * 1024]


@pytest.mark.parametrize("size", [14 * 1024 * 1024, 64 * 1024], ids=["one chunk", "many chunks"])
def test_a_line_of_14_mb_is_refused_by_default(shell: Shell, size: int) -> None:
    line = b"data: " + b"x" * (14 * 1024 * 1024) + b"\n\n"
    chunks = [line[start : start + size] for start in range(0, len(line), size)]
    with RawServer(stream(b"id: 1\ndata: a\n\n", *chunks)) as server:
        result = run(shell, server.url)
    assert result.data == ["a"]
    assert isinstance(result.error, EventTooLargeError)
    assert result.error.limit == 8 * 1024 * 1024
    assert result.place == "1"


def test_a_compressed_stream_is_given_event_by_event(shell: Shell) -> None:
    arrived = threading.Event()

    def script(connection: Connection) -> None:
        packer = zlib.compressobj(wbits=31)
        connection.begin(chunked=True, more="Content-Encoding: gzip\r\n")
        for data in (b"data: a\n\n", b"data: b\n\n"):
            connection.chunk(packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))
            connection.wait(arrived)
        connection.chunk(b"garbage")
        connection.hold()

    def each(event: ServerSentEvent, source: Source, clock: FakeClock) -> None:
        arrived.set()

    with RawServer(script) as server:
        result = run(shell, server.url, each=each)
    assert result.data == ["a", "b"]
    assert result.reasons[0].startswith("DecodingError")


# Requests.


def test_what_a_request_says(shell: Shell) -> None:
    with RawServer() as server:
        run(shell, f"{server.url}/events?topic=a%2Fb", headers={"X-Who": "é"}, last_event_id="Ω-1")
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("GET", "/events?topic=a%2Fb", b"")
    said = {name: request.headers[name] for name in ("accept", "cache-control", "last-event-id", "x-who")}
    assert said == {
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
def test_a_body_is_sent_again_with_each_attempt(
    shell: Shell, options: dict[str, Any], body: bytes, content_type: bytes | None
) -> None:
    with RawServer(stream(b"id: 1\ndata: a\n\n"), answer(503), stream(b"data: b\n\n")) as server:
        result = run(shell, server.url, method="post", **options)
    assert result.data == ["a", "b"]
    assert [request.method for request in server.requests] == ["POST"] * 4
    assert [request.body for request in server.requests] == [body] * 4
    assert {request.headers.get("content-type") for request in server.requests} == {content_type}
    assert places(server) == [None, b"1", b"1", b"1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"headers": {"Last-Event-ID": "1"}}, "expected the place as last_event_id="),
        ({"headers": {"X": "a\r\nb: c"}}, "without CR, LF and NUL"),
        ({"headers": {"X Y": "a"}}, "expected a header name"),
        ({"content": b"", "json": 1}, "expected content or json"),
        ({"last_event_id": "a\nb"}, "expected id without"),
        ({"retry": -1}, "expected retry"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_once(shell: Shell, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(shell, "http://127.0.0.1:1", **options)


def test_fresh_credentials_are_asked_for_with_each_attempt(shell: Shell) -> None:
    given: list[Any] = ["one", {"X-Key": "two", "X-Who": "me"}, None]
    with RawServer(stream(b"data: a\n\n"), answer(503)) as server:
        run(shell, server.url, headers={"Authorization": "Basic x"}, auth=lambda: given.pop(0))
    shown = [(request.headers.get("authorization"), request.headers.get("x-key")) for request in server.requests]
    assert shown == [(b"Bearer one", None), (b"Basic x", b"two"), (b"Basic x", None)]


def test_credentials_that_the_network_withholds_are_a_failed_attempt(shell: Shell) -> None:
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
def test_other_credentials_are_a_mistake(shell: Shell, wrong: Any) -> None:
    with RawServer() as server, pytest.raises(TypeError, match="expected auth to give a token, headers or None"):
        run(shell, server.url, auth=lambda: wrong)
    with pytest.raises(ValueError, match="'Authorization' without CR") as caught:
        run(shell, server.url, auth=lambda: "secret\n")
    assert "secret" not in str(caught.value)


def test_another_scheme_is_a_mistake(shell: Shell) -> None:
    with pytest.raises(Exception, match="protocol 'ftp://'"):
        run(shell, "ftp://127.0.0.1:1/")


def test_a_place_that_no_header_can_carry_is_told(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    with RawServer(stream(b"id: a\x0bb\ndata: a\n\n"), stream(b"id: \x1f\x7f\ndata: b\n\n")) as server:
        result = run(shell, server.url)
        url = server.url
    assert result.data == ["a", "b"]
    assert places(server) == [None, None, b"\x1f\x7f"]
    assert ("WARNING", f"{url} starts anew: no header can carry the place 'a\\x0bb'") in names(caplog.records)


# Statuses.


def test_status_204_ends_it(shell: Shell) -> None:
    with RawServer() as server:
        result = run(shell, server.url)
    assert (result.events, result.error, result.state) == ([], None, State.CLOSED)
    assert result.notices == [Closed(None)]
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(shell: Shell, status: int) -> None:
    with RawServer(answer(status, "Retry-After: 7"), stream(b"data: a\n\n")) as server:
        result = run(shell, server.url)
    assert result.data == ["a"]
    assert result.clock.slept[0] == 7


def test_retry_after_may_be_a_date(shell: Shell) -> None:
    with RawServer(answer(503, "Retry-After: Tue, 14 Nov 2023 22:15:00 GMT")) as server:
        assert run(shell, server.url).clock.slept == [100]


@pytest.mark.parametrize("status", [201, 205, 206, 304, 400, 401, 403, 404, 410, 451])
def test_what_will_not_pass_is_an_error(shell: Shell, status: int) -> None:
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
def test_an_error_says_what_the_server_said(shell: Shell, content_type: str, body: bytes, detail: str) -> None:
    with RawServer(answer(403, f"Content-Type: {content_type}", body=body)) as server:
        result = run(shell, server.url)
    assert isinstance(result.error, StatusError)
    assert result.error.detail == detail


def test_an_error_whose_body_does_not_come_is_an_error_all_the_same(shell: Shell) -> None:
    def script(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 10\r\n\r\nhalf")
        connection.hold()

    def before(source: Source, clock: FakeClock) -> None:
        clock.expire = True

    with RawServer(script) as server:
        result = run(shell, server.url, before=before, silence=None)
    assert isinstance(result.error, StatusError)
    assert result.error.detail in ("half", "")


@pytest.mark.parametrize("content_type", ["text/html", "text/plain", "application/json"])
def test_another_content_type_is_an_error(shell: Shell, content_type: str) -> None:
    with RawServer(answer(200, f"Content-Type: {content_type}", body=b"data: a\n\n")) as server:
        result = run(shell, server.url)
    assert isinstance(result.error, ContentTypeError)
    assert result.error.content_type == content_type
    assert result.events == []


def test_a_content_type_with_parameters(shell: Shell) -> None:
    body = b"data: a\n\n"
    with RawServer(answer(200, "content-type: Text/Event-Stream;charset=UTF-8", body=body)) as server:
        assert run(shell, server.url).data == ["a"]


# Redirects.


@pytest.mark.parametrize(
    ("status", "method", "body"),
    [(301, "GET", b""), (302, "GET", b""), (303, "GET", b""), (307, "POST", b"x"), (308, "POST", b"x")],
)
def test_redirects_are_followed_anew_with_each_attempt(shell: Shell, status: int, method: str, body: bytes) -> None:
    redirect = answer(status, "Location: /there")
    scripts = [redirect, stream(b"id: 1\ndata: a\n\n"), redirect, stream(b"data: b\n\n")]
    with RawServer(*scripts) as server:
        result = run(shell, f"{server.url}/here", method="POST", content=b"x")
        url = server.url
    assert result.data == ["a", "b"]
    seen = [(request.target, request.method, request.body) for request in server.requests]
    assert seen == [("/here", "POST", b"x"), ("/there", method, body)] * 2 + [("/here", "POST", b"x")]
    assert places(server) == [None, None, b"1", b"1", b"1"]
    assert [notice.url for notice in result.notices if isinstance(notice, Opened)] == [f"{url}/there"] * 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("headers", [[], ["Location:"], ["Location:  "]], ids=["missing", "empty", "blank"])
def test_a_redirect_to_nowhere_is_an_error(shell: Shell, status: int, headers: list[str]) -> None:
    with RawServer(answer(status, *headers)) as server:
        result = run(shell, server.url)
    assert isinstance(result.error, RedirectError)
    assert len(server.requests) == 1


def test_too_many_redirects_are_an_error(shell: Shell) -> None:
    with RawServer(*[answer(302, "Location: /")] * 30) as server:
        result = run(shell, server.url)
    assert isinstance(result.error, RedirectError)
    assert result.error.redirects == 21
    assert len(server.requests) == 21


def test_credentials_do_not_leave_the_origin(shell: Shell) -> None:
    """Nor do they come back when the other origin redirects within itself."""
    with RawServer(answer(302, "Location: /there"), stream(b"data: a\n\n")) as other:
        leave = answer(302, f"Location: {other.url}/here")
        with RawServer(answer(302, "Location: /stay"), leave) as server:
            result = run(shell, server.url, auth=lambda: {"Authorization": "a", "X-Key": "k"}, headers={"X-Who": "me"})
    assert result.data == ["a"]
    seen = [[request.headers.get(name) for name in ("authorization", "x-key", "x-who")] for request in server.requests]
    assert seen == [[b"a", b"k", b"me"]] * 3
    seen = [[request.headers.get(name) for name in ("authorization", "x-key", "x-who")] for request in other.requests]
    assert seen == [[None, None, b"me"]] * 2


# Losing the connection.


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
def test_half_an_event_before_a_drop_is_dropped(shell: Shell, chunked: bool) -> None:
    first = stream(b"id: 1\ndata: a\n\nid: 2\ndata: half", chunked=chunked, then="drop")
    with RawServer(first, stream(b"\n\ndata: b\n\n")) as server:
        result = run(shell, server.url)
    assert result.data == ["a", "b"]
    assert places(server) == [None, b"1", b"1"]


def test_a_drop_and_a_reset_are_told_with_their_reason(shell: Shell) -> None:
    broken = reset(b"data: b\n\n")

    def each(event: ServerSentEvent, source: Source, clock: FakeClock) -> None:
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


def test_a_server_that_is_not_there_is_tried_again(shell: Shell) -> None:
    with RawServer() as server:
        url = server.url
    result = run(shell, url, max_attempts=3)
    assert isinstance(result.error, GaveUpError)
    assert (result.error.attempts, result.clock.slept) == (3, [3, 6])
    assert all(reason.startswith("ConnectError") for reason in result.reasons)


def test_giving_up_after_a_time(shell: Shell) -> None:
    with RawServer(*[answer(503)] * 9) as server:
        result = run(shell, server.url, give_up_after=20.0)
    assert isinstance(result.error, GaveUpError)
    assert isinstance(result.error.__cause__, StatusError)
    assert result.clock.slept == [3, 6]


@pytest.mark.parametrize(
    ("retry", "seconds"),
    [(b"1500", 1.5), (b"0", 0.5), (b"9" * 30, 300), (b"1_000", 3), (b"-5", 3), (b"", 3), (b"2s", 3)],
)
def test_the_reconnection_time_of_the_server(shell: Shell, retry: bytes, seconds: float) -> None:
    with RawServer(stream(b"retry: " + retry + b"\ndata: a\n\n"), stream(b"data: b\n\n")) as server:
        assert run(shell, server.url).clock.slept == [seconds, seconds]


def silent(event: ServerSentEvent, source: Source, clock: FakeClock) -> None:
    clock.expire = True

    def wake() -> None:
        clock.expire = False

    clock.on_sleep = wake


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "identity"])
def test_a_half_open_connection_is_noticed(shell: Shell, chunked: bool) -> None:
    half_open = stream(b"id: 1\ndata: a\n\n", chunked=chunked, then="hold")
    with RawServer(half_open) as server:
        result = run(shell, server.url, each=silent, silence=20.0)
    assert result.data == ["a"]
    assert result.reasons == ["silence for 20 s"]
    assert places(server) == [None, b"1"]
    assert set(result.clock.deadlines) == {20.0}


def test_a_server_that_never_answers_is_noticed(shell: Shell) -> None:
    def before(source: Source, clock: FakeClock) -> None:
        silent(ServerSentEvent(), source, clock)

    with RawServer(Connection.hold) as server:
        result = run(shell, server.url, before=before)
    assert result.reasons == ["silence for 300 s"]


def test_the_deadline_for_silence_is_learned_from_heartbeats(shell: Shell) -> None:
    passed: list[FakeClock] = []

    def script(connection: Connection) -> None:
        connection.begin()
        connection.chunk(b"data: a\n\n")
        connection.wait(arrived)
        connection.chunk(b": beat\n\ndata: b\n\n")
        connection.hold()

    arrived = threading.Event()

    class Slow(list[float | None]):
        """The deadlines; while the second read waits, twenty seconds go by."""

        def append(self, deadline: float | None) -> None:
            super().append(deadline)
            if len(self) == 3:
                passed[0].time += 20.0
                arrived.set()

    def before(source: Source, clock: FakeClock) -> None:
        clock.deadlines = Slow()
        passed.append(clock)

    def each(event: ServerSentEvent, source: Source, clock: FakeClock) -> None:
        if event.data == "b":
            silent(event, source, clock)

    with RawServer(script) as server:
        result = run(shell, server.url, before=before, each=each)
    assert result.clock.deadlines[:3] == [300.0, 300.0, 300.0]
    assert 60.0 in result.clock.deadlines
    assert result.reasons == ["silence for 60 s"]


def test_without_a_deadline_silence_is_endured(shell: Shell) -> None:
    with RawServer(stream(b"data: a\n\n")) as server:
        assert run(shell, server.url, each=silent, silence=None).data == ["a"]


# The place.


def test_the_id_of_an_event_is_committed_when_the_next_is_asked_for(shell: Shell) -> None:
    seen = []

    def each(event: ServerSentEvent, source: Source, clock: FakeClock) -> None:
        seen.append((event.id, source.last_event_id))

    with RawServer(stream(b"id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\nid\ndata: d\n\n")) as server:
        result = run(shell, server.url, each=each)
    assert seen == [("1", None), ("1", "1"), ("2", "1"), ("", "2")]
    assert result.place == ""
    assert places(server) == [None, None]


def test_ids_may_be_of_any_script(shell: Shell) -> None:
    with RawServer(stream("id: 日本-Ω 1\ndata: a\n\n".encode())) as server:
        run(shell, server.url)
    assert places(server) == [None, "日本-Ω 1".encode()]


class ListStore:
    """A store that keeps all that was saved."""

    def __init__(self, place: str | None = None) -> None:
        self.place = place
        self.saved: list[str] = []

    def load(self) -> str | None:
        return self.place

    def save(self, id: str, /) -> None:
        self.saved.append(id)


def test_a_crash_in_the_loop_leaves_the_place_before_the_event(shell: Shell) -> None:
    store = ListStore("e-7")

    def each(event: ServerSentEvent, source: Source, clock: FakeClock) -> None:
        if event.data == "b":
            raise RuntimeError("crash")

    blocks = stream(b"id: e-8\ndata: a\n\nid: e-9\ndata: b\n\nid: e-10\n\n", then="hold")
    with RawServer(blocks) as server, pytest.raises(RuntimeError, match="crash"):
        run(shell, server.url, each=each, last_event_id=store)
    assert store.saved == ["e-8"]
    assert places(server) == [b"e-7"]


def test_priming_is_a_place_to_come_back_to(shell: Shell) -> None:
    store = ListStore()
    with RawServer(stream(b"id: e-4\nretry: 2000\n\n")) as server:
        result = run(shell, server.url, last_event_id=store)
    assert places(server) == [None, b"e-4"]
    assert store.saved == ["e-4"]
    assert result.events == []


def test_an_id_without_an_event_does_not_overtake_events_that_are_not_delivered(shell: Shell) -> None:
    seen = []

    def each(event: ServerSentEvent, source: Source, clock: FakeClock) -> None:
        seen.append((event.data, source.last_event_id))

    with RawServer(stream(b"id: e-1\ndata: a\n\nid: e-2\ndata: b\n\nid: e-9\n\n")) as server:
        run(shell, server.url, each=each)
    assert seen == [("a", None), ("b", "e-1")]
    assert places(server) == [None, b"e-9"]


def test_what_a_resumed_stream_repeats_is_dropped(shell: Shell) -> None:
    again = b"id: e-1\ndata: a\n\nid: e-2\ndata: b\n\n"
    with RawServer(stream(again), stream(again + b"id: e-3\ndata: c\n\nid: f-1\ndata: d\n\n")) as server:
        result = run(shell, server.url)
    assert result.data == ["a", "b", "c", "d"]
    assert result.statistics is not None
    assert result.statistics.duplicates == 2


# What is told.


def test_the_life_of_a_source_is_told(shell: Shell) -> None:
    states = []

    def each(event: ServerSentEvent, source: Source, clock: FakeClock) -> None:
        states.append(source.state)

    gap = b'event: stream:gap\ndata: {"reason":"expired","after":"e-1","resumed":"e-5"}\n\n'
    with RawServer(stream(gap + b"id: e-6\ndata: a\n\n")) as server:
        result = run(shell, server.url, each=each, last_event_id="e-1")
    opened, told, reconnecting, closed = result.notices
    assert isinstance(opened, Opened)
    assert (opened.url, opened.attempt, opened.headers["content-type"]) == (f"{server_url(result)}", 1, STREAM)
    assert isinstance(told, Gap)
    assert (told.reason, told.after, told.resumed) == ("expired", "e-1", "e-5")
    assert reconnecting == Reconnecting("the stream ended", 3.0, 0, None)
    assert closed == Closed(None)
    assert states == [State.OPEN]
    assert result.data == ["a"]
    assert result.statistics == (2, 1, 1, 1, 0, 1, 0)


STREAM = "text/event-stream"


def server_url(result: Any) -> str:
    return next(notice.url for notice in result.notices if isinstance(notice, Opened))


def test_gaps_may_be_given_among_the_events(shell: Shell) -> None:
    gap = b'id: e-5\nevent: stream:gap\ndata: {"reason":"expired","after":"e-1","resumed":"e-5"}\n\n'
    with RawServer(stream(gap + b"id: e-6\ndata: a\n\n")) as server:
        result = run(shell, server.url, yield_gaps=True, last_event_id="e-1")
    first, second = result.events
    assert isinstance(first, Gap)
    assert second == ServerSentEvent("a", id="e-6")


def test_an_error_of_the_stream_is_a_failed_connection(shell: Shell) -> None:
    broken = stream(b'id: 1\ndata: a\n\nevent: stream:error\ndata: {"title":"oh"}\n\ndata: b\n\n', then="hold")
    with RawServer(broken, stream(b"id: 2\ndata: c\n\n")) as server:
        result = run(shell, server.url)
    assert result.data == ["a", "c"]
    assert result.reasons[0] == 'expected events, got stream:error: {"title":"oh"}'
    assert places(server) == [None, b"1", b"2"]


def test_errors_are_told_too(shell: Shell) -> None:
    with RawServer(answer(404)) as server:
        result = run(shell, server.url)
    assert result.notices == [Closed(result.error)]
    assert isinstance(result.error, ClientError)


def test_what_a_hook_raises_the_iteration_raises(shell: Shell) -> None:
    def hook(notice: Opened) -> None:
        raise RuntimeError("hooked")

    with RawServer(stream(then="hold")) as server, pytest.raises(RuntimeError, match="hooked"):
        run(shell, server.url, on_open=hook)


def test_it_can_be_closed_from_a_hook(shell: Shell) -> None:
    sources: list[Source] = []

    def before(source: Source, clock: FakeClock) -> None:
        sources.append(source)

    def hook(notice: Reconnecting) -> None:
        sources[0].close()

    with RawServer(stream(b"data: a\n\n")) as server:
        result = run(shell, server.url, before=before, on_reconnecting=hook)
    assert result.data == ["a"]
    assert result.state is State.CLOSED
    assert result.notices[-1] == Closed(None)
    assert len(server.requests) == 1


def test_closing_before_the_loop_makes_no_request(shell: Shell) -> None:
    def before(source: Source, clock: FakeClock) -> None:
        source.close()
        source.close()

    with RawServer() as server:
        result = run(shell, server.url, before=before)
    assert server.requests == []
    assert result.notices == [Closed(None)]


def test_closing_in_the_loop_commits_the_event_of_that_turn(shell: Shell) -> None:
    def each(event: ServerSentEvent, source: Source, clock: FakeClock) -> None:
        source.close()

    with RawServer(stream(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", then="hold")) as server:
        result = run(shell, server.url, each=each)
    assert result.data == ["a"]
    assert result.place == "1"


def test_a_repr_shows_the_state_and_no_secrets(shell: Shell) -> None:
    shown = []

    def each(event: ServerSentEvent, source: Source, clock: FakeClock) -> None:
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


def test_what_happens_is_logged(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
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
