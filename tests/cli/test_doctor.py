"""``tickertape doctor``: servers with one fault each, and our own hub, which has none."""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.command import Command, hub_program, run
from support.raw_server import Connection, RawServer, Script, answer, stream
from support.tls import certify
from tickertape.cli.doctor.diagnosis import (
    LONG_LINE,
    NOTICEABLE,
    Arrival,
    Finding,
    Level,
    Observation,
    Resumption,
    diagnose,
)
from tickertape.cli.doctor.probe import negotiated_protocol, probe
from tickertape.client import SyncPublisher

EVENTS = b"retry: 1000\n\nid: e-1\ndata: a\n\nid: e-2\ndata: b\n\n"
HEALTHY = {"content-type": "text/event-stream", "cache-control": "no-store"}


def examine(url: str, *options: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit status, and level and text by subject."""
    status, output, errors = run("doctor", url, "--json", "--seconds", "1", *options)
    assert "Traceback" not in errors
    answer = json.loads(output)
    assert answer["url"] == url.partition("?")[0].rstrip("/") or answer["url"].rstrip("/") == url
    assert all(set(finding) == {"level", "subject", "text", "advice"} for finding in answer["findings"])
    return status, {finding["subject"]: (finding["level"], finding["text"]) for finding in answer["findings"]}


def packed(connection: Connection) -> None:
    connection.begin(more="Content-Encoding: gzip\r\n")
    packer = zlib.compressobj(wbits=31)
    connection.chunk(packer.compress(EVENTS) + packer.flush(zlib.Z_SYNC_FLUSH))
    connection.hold()


def silent(connection: Connection) -> None:
    connection.hold()


def half(connection: Connection) -> None:
    connection.begin()
    connection.chunk(EVENTS + b"data: half")
    connection.reset()


RESUMES = stream(b"id: e-2\ndata: b\n\n", then="hold")

FAULTS = [
    pytest.param([answer(404)], "status", ("fault", "404"), id="404"),
    pytest.param([answer(503)], "status", ("fault", "503"), id="503"),
    pytest.param([answer(503)], "Retry-After", ("info", "not given"), id="no Retry-After"),
    pytest.param([answer(204)], "status", ("fault", "204"), id="204"),
    pytest.param([answer(200, "Content-Type: text/html")], "content type", ("fault", "'text/html'"), id="html"),
    pytest.param(
        [answer(200, "Content-Type: text/event-stream", body=EVENTS)],
        "length",
        ("fault", f"Content-Length: {len(EVENTS)}"),
        id="length",
    ),
    pytest.param([silent], "connection", ("fault", "no answer within 1.0 s"), id="no head"),
    pytest.param([stream(then="hold")], "first byte", ("warning", "no byte within 1.0 s"), id="no byte"),
    pytest.param([half, RESUMES], "connection", ("fault", "broken off: "), id="broken off"),
    pytest.param([stream(EVENTS), RESUMES], "connection", ("warning", "the server ended the stream after"), id="ended"),
    pytest.param([packed, RESUMES], "compression", ("warning", "gzip"), id="gzip"),
    pytest.param(
        [stream(EVENTS, then="hold"), RESUMES], "caching", ("warning", "Cache-Control: not given"), id="cache"
    ),
    pytest.param(
        [stream(b"data: a\n\ndata: b\n\n", then="hold")],
        "ids",
        ("warning", "2 of 2 events have no id"),
        id="no ids",
    ),
    pytest.param(
        [stream(b"id: 1\n\ndata: a\n\ndata: b\n\n", then="hold")],
        "ids",
        ("warning", "1 of 2 events have no id"),
        id="one id",
    ),
    pytest.param([stream(b": hi\n\n", then="hold")], "ids", ("info", "no event arrived in 1 s"), id="no events"),
    pytest.param([stream(b"retry: 0\n\n", then="hold")], "retry", ("warning", "0 ms"), id="retry 0"),
    pytest.param([stream(b": hi\n\n", then="hold")], "retry", ("info", "not given"), id="no retry"),
    pytest.param([stream(b": hi\n\n", then="hold")], "resume", ("info", "not tried"), id="nothing to resume at"),
    pytest.param(
        [stream(EVENTS, then="hold"), stream(EVENTS, then="hold")],
        "resume",
        ("fault", "after e-1 e-1 came first, not e-2"),
        id="starts over",
    ),
    pytest.param(
        [stream(EVENTS, then="hold"), stream(then="hold")],
        "resume",
        ("fault", "after e-1 nothing came, not e-2"),
        id="forgets",
    ),
    pytest.param(
        [stream(EVENTS, then="hold"), RESUMES],
        "resume",
        ("ok", "after e-1 the same event followed"),
        id="resumes",
    ),
    pytest.param(
        [stream(b":\n\n:\n\n:\n\n", then="hold")],
        "buffering",
        ("fault", "3 heartbeats arrived at once"),
        id="delayed",
    ),
    pytest.param([stream(b": hi\n\n", then="hold")], "TLS", ("info", "none, on this machine"), id="plain"),
]


@pytest.mark.parametrize(("scripts", "subject", "expected"), FAULTS)
def test_faults(scripts: list[Script], subject: str, expected: tuple[str, str]) -> None:
    with RawServer(*scripts) as server:
        status, findings = examine(server.url)
    level, text = findings[subject]
    assert level == expected[0]
    assert text.startswith(expected[1])
    assert status == any(level == "fault" for level, _ in findings.values())


def test_no_server() -> None:
    with RawServer() as server:
        url = server.url
    status, findings = examine(url)
    assert status == 1
    assert findings["connection"][0] == "fault"


def test_headers_of_both_requests() -> None:
    with RawServer(stream(EVENTS, then="hold"), RESUMES) as server:
        examine(server.url, "-H", "Authorization: Bearer x")
    first, second = server.requests
    assert [request.headers.get("last-event-id") for request in (first, second)] == [None, b"e-1"]
    assert {request.headers["authorization"] for request in (first, second)} == {b"Bearer x"}


def test_hub_has_no_fault() -> None:
    # With the hub's default retry: the short one of other tests is worth a warning.
    with hub_program("--retry", "3") as hub, SyncPublisher(hub.url) as publisher:
        for number in range(3):
            publisher.publish("a", str(number))
        status, findings = examine(f"{hub.url}/events?topic=a&last=3")
    assert status == 0
    assert [subject for subject, (level, _) in findings.items() if level in ("warning", "fault")] == []
    assert findings["resume"][0] == "ok"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["ftp://localhost:8000"], "expected a URL that starts with http:// or https://"),
        (["http://127.0.0.1", "--seconds", "0"], "--seconds"),
        (["http://127.0.0.1", "-H", "x"], "expected a header as 'Name: value'"),
    ],
)
def test_mistakes(arguments: list[str], message: str) -> None:
    status, output, errors = run("doctor", *arguments)
    assert (status, output) == (2, "")
    assert message in errors


def test_table() -> None:
    env = {"TERM": "xterm-256color", "NO_COLOR": "1"}
    with RawServer(answer(404)) as server, Command("doctor", server.url, terminal=True, env=env) as command:
        lines = list(iter(command.line, ""))
        assert command.end(None) == 1
    assert any("FAULT" in line and "status" in line and "404" in line and "check the path" in line for line in lines)


def test_long_text_is_cut() -> None:
    with RawServer(answer(200, f"Content-Type: {'x' * 60_000}")) as server:
        status, output, _ = run("doctor", server.url, "--seconds", "0.5")
    assert status == 1
    assert output.count("x") < 1000


# Observations that take time, as values.


def seen(*arrivals: Arrival, **more: Any) -> Observation:
    return Observation(
        "http://127.0.0.1/", 200, "HTTP/1.1", headers=HEALTHY, arrivals=list(arrivals), **{"seconds": 60.0, **more}
    )


def beat(seconds: float) -> Arrival:
    return Arrival(seconds, 3, (), 1, whole=True)


def event(seconds: float, *ids: str, whole: bool = True) -> Arrival:
    return Arrival(seconds, 10, ids, 0, whole)


@pytest.mark.parametrize(
    ("observation", "subject", "level", "text"),
    [
        (seen(event(1.0, whole=False), event(1.0 + NOTICEABLE, "1")), "buffering", Level.FAULT, "in two parts, 0.2 s"),
        (seen(event(1.0, whole=False), event(1.1, "1")), "buffering", Level.OK, "at most 1 event at once"),
        (seen(event(1.0, "1", "2"), event(9.0, "3")), "buffering", Level.OK, "at most 2 events at once"),
        (seen(beat(0), beat(15), beat(30.5), beat(45)), "heartbeat", Level.OK, "every 15.5 s or sooner"),
        (seen(beat(0), beat(15)), "heartbeat", Level.OK, "after 15.0 s"),
        (seen(event(1.0, "1")), "heartbeat", Level.WARNING, "none in 59 s of silence"),
        (seen(event(59.0, "1")), "heartbeat", Level.INFO, "none needed in 60 s"),
        (seen(tls="TLSv1.3"), "TLS", Level.OK, "TLSv1.3"),
        (Observation("http://example.org/", 200, "HTTP/2", headers=HEALTHY), "TLS", Level.WARNING, "none"),
        (Observation("http://example.org/", 200, "HTTP/2", headers=HEALTHY), "HTTP", Level.OK, "HTTP/2"),
        (seen(resumption=Resumption("1", "2", "2")), "resume", Level.OK, "after 1 the same event"),
        (
            seen(resumption=Resumption("a" * 30 + "b" * 30, "2")),
            "resume",
            Level.FAULT,
            f"after {'a' * 19}…{'b' * 19} n",
        ),
        (seen(), "HTTP", Level.INFO, "HTTP/1.1, without TLS"),
        (seen(tls="TLSv1.3", alpn="http/1.1"), "HTTP", Level.INFO, "HTTP/1.1"),
        (seen(tls="TLSv1.3", alpn="h2"), "HTTP", Level.OK, "HTTP/2 is offered; this look used HTTP/1.1"),
        (seen(), "Incremental", Level.INFO, "not given"),
        (Observation("http://a/", 200, headers={**HEALTHY, "incremental": "?1"}), "Incremental", Level.OK, "?1"),
        (Observation("http://a/", 429), "status", Level.FAULT, "429"),
        (Observation("http://a/", 200, headers={**HEALTHY, "age": "3"}), "caching", Level.FAULT, "Age: 3"),
        (
            Observation("http://a/", 200, headers={"content-type": "text/event-stream; charset=latin-1"}),
            "content type",
            Level.WARNING,
            "latin-1",
        ),
    ],
)
def test_diagnose(observation: Observation, subject: str, level: Level, text: str) -> None:
    found = [finding for finding in diagnose(observation) if finding.subject == subject]
    assert [finding.level for finding in found][-1] is level
    assert text in found[-1].text


def test_advice() -> None:
    observations: list[Callable[[], Observation]] = [
        lambda: Observation("http://a/"),
        lambda: Observation("http://a/", error="x"),
        lambda: Observation("http://a/", 500),
        lambda: Observation("http://a/", 200),
        lambda: seen(event(1, "1"), ended_after=2.0, retry=0, resumption=Resumption("1", "2")),
    ]
    findings: list[Finding] = [finding for make in observations for finding in diagnose(make())]
    wrong = [finding for finding in findings if finding.level in (Level.WARNING, Level.FAULT)]
    assert len(wrong) > 6
    assert [finding for finding in wrong if not finding.advice] == []


def test_endless_stream() -> None:
    """A stream without pauses, and a server that is still being connected to when the time is over."""
    left = threading.Event()

    def flood(connection: Connection) -> None:
        connection.begin()
        try:
            while True:
                connection.chunk(b"data: x\n\n" * 1000)
        finally:
            left.set()

    with RawServer(flood) as server:
        status, findings = examine(server.url)
        assert left.wait(30.0)
    assert status == 0
    assert findings["ids"][0] == "warning"


def endless(start: bytes, block: bytes) -> Script:
    """Send a start, then the same block without an end."""

    def script(connection: Connection) -> None:
        connection.send(start)
        while True:
            connection.send(block)

    return script


@functools.cache
def bomb() -> bytes:
    """Line breaks that fill two gigabytes, in two megabytes of gzip."""
    packer = zlib.compressobj(9, wbits=31)
    packed = packer.compress(b"\n" * (1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = zlib.compressobj(9, wbits=-15)
    more = again.compress(b"\n" * (1 << 24)) + again.flush(zlib.Z_FULL_FLUSH)
    return packed + more * 127


def compressed_bomb(connection: Connection) -> None:
    connection.begin(chunked=False, more="Content-Encoding: gzip\r\n")
    connection.send(bomb())
    connection.hold()


REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Encoding: gzip\r\n\r\n"


@pytest.mark.parametrize(
    ("scripts", "status"),
    [
        ([compressed_bomb], 200),
        ([endless(REDIRECT % b"/there", b"x" * 65536), stream(EVENTS, then="hold"), RESUMES], 200),
        (
            [lambda connection: connection.send(REDIRECT % b"/there" + bomb()), stream(EVENTS, then="hold"), RESUMES],
            200,
        ),
        ([answer(302, "Location: /")] * 30, 0),
        ([answer(302, "Location: ftp://127.0.0.1/")], 0),
        ([endless(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", b"x" * 65536)], 200),
    ],
    ids=["bomb", "endless redirect", "bomb in redirect", "redirects", "scheme", "endless line"],
)
async def test_probe_is_bounded(scripts: list[Script], status: int) -> None:
    """It keeps to its seconds: it reads no body of a redirect, and decodes in slices."""
    bomb()  # before the time of the probe begins
    with RawServer(*scripts) as server:
        seen = await probe(httpx2.URL(server.url), headers={}, seconds=0.5)
    assert seen.status == status
    assert seen.seconds < 3.0
    assert all(finding.text for finding in diagnose(seen))


def test_redirects_are_followed() -> None:
    """Headers go along within the origin, and not to another one."""
    with RawServer(stream(EVENTS, then="hold"), RESUMES) as other:
        leave = answer(307, f"Location: {other.url}/there")
        with RawServer(answer(302, "Location: /here"), leave, leave) as server:
            _, findings = examine(server.url, "-H", "X-Key: k")
    assert findings["resume"][0] == "ok"
    assert [request.headers.get("x-key") for request in server.requests] == [b"k", b"k", b"k"]
    assert [request.headers.get("x-key") for request in other.requests] == [None, None]


@pytest.mark.parametrize(
    ("size", "level", "text"),
    [
        (2 * 1024 * 1024, "fault", "an event of more than 1048576 bytes"),
        (LONG_LINE + 10, "warning", f"a line of {LONG_LINE + 16} bytes had no end yet"),
    ],
)
def test_endless_line(size: int, level: str, text: str) -> None:
    line = [b"x" * 1000] * (size // 1000) + [b"x" * (size % 1000)]
    with RawServer(stream(EVENTS + b"data: ", *line, then="hold"), RESUMES) as server:
        status, findings = examine(server.url)
    assert findings["size"] == (level, text)
    assert status == (level == "fault")


def test_non_ascii_headers_and_ids() -> None:
    with RawServer(stream("id: é-1\ndata: a\n\nid: é-2\ndata: b\n\n".encode(), then="hold"), RESUMES) as server:
        examine(server.url, "-H", "X-Who: é")
    assert server.requests[1].headers["last-event-id"] == "é-1".encode()
    assert server.requests[1].headers["x-who"] == "é".encode()


async def test_negotiated_protocol(tmp_path: Path) -> None:
    """The server chooses, as it does for browsers; whether this machine can speak HTTP/2 does not matter."""
    certificate = certify(tmp_path)
    for offered, chosen in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], "")):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        if offered:
            context.set_alpn_protocols(offered)
        async with await asyncio.start_server(
            lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context
        ) as server:
            port = server.sockets[0].getsockname()[1]
            assert await negotiated_protocol("127.0.0.1", port) == chosen
    assert await negotiated_protocol("127.0.0.1", port) == ""  # nothing listens any more
