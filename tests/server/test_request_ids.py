"""Ids of requests: in the answer, in problems and in the log, whichever way a request takes."""

from __future__ import annotations

import json
import re

import pytest

from support.http import site
from support.program import serving
from support.servers import Connection
from tickertape.hub import Grant
from tickertape.server.request_ids import choose_id

MADE = re.compile(r"[0-9a-f]{16}")


@pytest.mark.parametrize(
    "value",
    [
        b"a",
        b"7",
        b"x" * 128,
        b"f47ac10b-58cc-4372-a567-0e02b2c3d479",
        b"Root=1-67891233-abcdef012345678912345678",
        b"aGVsbG8+Lw==",
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        b"user@host/4:1_2.3",
    ],
)
def test_kept(value: bytes) -> None:
    assert choose_id([value]) == value.decode()


@pytest.mark.parametrize(
    "given",
    [
        [],
        [b""],
        [b"x" * 129],
        [b"a b"],
        [b"a\tb"],
        [b'a"b'],
        [b"a\\b"],
        [b"a,b"],
        [b"a;b"],
        [b"<b>"],
        [b"a%0a"],
        [b"\x1b[31m"],
        ["é".encode()],
        [b"a\n"],
        [b"a", b"b"],
        [b"a", b"a"],
    ],
)
def test_replaced(given: list[bytes]) -> None:
    made = [choose_id(given), choose_id(given)]
    assert all(map(MADE.fullmatch, made))
    assert made[0] != made[1]


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("GET", "/health/live", 200),
        ("GET", "/static/hub.js", 200),
        ("POST", "/events/a", 201),
        ("GET", "/events", 400),
        ("GET", "/events?topic=%ff", 400),
        ("GET", "/nowhere", 404),
        ("PUT", "/events", 405),
        ("GET", "/runs/none", 404),
    ],
)
async def test_answers(method: str, url: str, status: int) -> None:
    async with site() as at:
        answer = await at.ask(method, url, headers={"x-request-id": "mine"})
        assert (answer.status, answer.headers["x-request-id"]) == (status, "mine")
        if status >= 400:
            assert answer.problem()["request"] == "mine"
        answer = await at.ask(method, url)
        assert MADE.fullmatch(answer.headers["x-request-id"])


async def test_draining() -> None:
    """The problem of a response of the hub, which knows nothing of the server."""
    async with site() as at:
        at.hub.drain()
        answer = await at.ask("GET", "/events?topic=a", headers={"x-request-id": "mine"})
        assert (answer.status, answer.problem()["request"]) == (503, "mine")


async def fail(request: object) -> Grant:
    raise ZeroDivisionError


async def test_bug() -> None:
    """The traceback in the log has the id that the client gets."""
    async with site() as at:
        at.hub.access = fail
        answer = await at.ask("GET", "/history?topic=a", headers={"x-request-id": "mine"})
        assert (answer.status, answer.problem()["request"]) == (500, "mine")
        with pytest.raises(ZeroDivisionError) as raised:
            await at.call("GET", "/history", b"topic=a", [(b"x-request-id", b"mine")])
        assert raised.value.__notes__ == ["request mine"]


async def test_none_between_requests() -> None:
    """A problem outside of the server has no id of a former request."""
    async with site() as at:
        first = await at.ask("GET", "/nowhere")
        second = await at.ask("GET", "/nowhere")
        assert first.problem()["request"] != second.problem()["request"]


STREAMS = [
    pytest.param("/events?topic=a", "Accept: */*\r\n", id="direct"),
    pytest.param("/events?topic=a", "Content-Length: 0\r\n", id="taken over"),
    pytest.param("/runs/r?after=0", "", id="portable"),
]


@pytest.mark.parametrize(("url", "headers"), STREAMS)
@pytest.mark.parametrize("given", ["mine", ""])
async def test_streams_in_the_log(url: str, headers: str, given: str) -> None:
    async with serving("--access-log") as program:
        async with await Connection.open(program.port) as connection:
            await connection.get("/runs/r", method="POST", headers="Content-Length: 0\r\n")
        async with await Connection.open(program.port) as connection:
            more = f"X-Request-ID: {given}\r\n" if given else ""
            assert await connection.get(url, headers=headers + more) == 200
            own = connection.headers["x-request-id"]
            await connection.piece()
        assert own == given or (not given and MADE.fullmatch(own))
        await program.says("client_closed")
        path = re.escape(url)
        for line in (r"stream \d+ opened: \S+", rf'"GET {path} HTTP/1\.1" 200', r"stream \d+ closed: .* bytes"):
            assert re.search(rf"INFO .*{line}, request {own}$", program.output, re.MULTILINE), program.output


@pytest.mark.parametrize(("url", "headers"), STREAMS[:2])
async def test_streams_in_the_log_as_json(url: str, headers: str) -> None:
    async with serving("--log-format", "json", "--access-log") as program:
        async with await Connection.open(program.port) as connection:
            assert await connection.get(url, headers=headers + "X-Request-ID: mine\r\n") == 200
            await connection.piece()
        await program.says("client_closed")
        await program.end()
        lines = [json.loads(line) for line in program.output.splitlines() if line.startswith("{")]
    found = [line["logger"] for line in lines if line.get("request") == "mine"]
    assert sorted(found) == ["tickertape.hub.streams", "tickertape.hub.streams", "uvicorn.access"]


async def test_two_requests_of_a_connection() -> None:
    async with serving("--access-log") as program, await Connection.open(program.port) as connection:
        found = []
        for path in ("/health/live", "/nowhere"):
            await connection.get(path)
            await connection.rest()
            found.append(connection.headers["x-request-id"])
            await program.says(f"request {found[-1]}")
        assert found[0] != found[1]
