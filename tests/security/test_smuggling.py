"""Requests that a proxy and the server could understand differently, and what a request smuggled in one would do."""

from __future__ import annotations

import asyncio
import json
from typing import Final, NamedTuple

from support.program import serving
from support.servers import PATIENCE, Connection

HOST: Final = b"Host: localhost\r\n"
INNER: Final = b"POST /events/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"


class Case(NamedTuple):
    """Bytes up to the request that is smuggled, and the statuses of the answers, with that of the smuggled request."""

    sent: bytes
    statuses: tuple[int, ...] = (400,)


def post(
    headers: bytes, body: bytes = b"", *, line: bytes = b"POST /events/a HTTP/1.1\r\n", host: bytes = HOST
) -> bytes:
    return line + host + headers + b"\r\n" + body


CASES: Final = {
    "Content-Length and Transfer-Encoding": Case(post(b"Content-Length: 5\r\n" + CHUNKED, b"0\r\n\r\n")),
    "Transfer-Encoding and Content-Length": Case(post(CHUNKED + b"Content-Length: 5\r\n", b"0\r\n\r\n")),
    "two lengths": Case(post(b"Content-Length: 1\r\nContent-Length: 5\r\n", b"x")),
    "the same length twice": Case(post(b"Content-Length: 1\r\nContent-Length: 1\r\n", b"x")),
    "list of lengths": Case(post(b"Content-Length: 1, 1\r\n", b"x")),
    "length with a sign": Case(post(b"Content-Length: +1\r\n", b"x")),
    "hexadecimal length": Case(post(b"Content-Length: 0x1\r\n", b"x")),
    "length of 65 bits": Case(post(b"Content-Length: 18446744073709551617\r\n", b"x")),
    "unknown coding": Case(post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n")),
    "coding after chunked": Case(post(CHUNKED + b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n")),
    "tabulator before the coding": Case(post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n")),
    "space before the colon": Case(post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n")),
    "lines that end in LF": Case(b"POST /events/a HTTP/1.1\nHost: localhost\nContent-Length: 1\n\nx"),
    "LF in a header": Case(post(b"X: a\n" + CHUNKED, b"0\r\n\r\n")),
    "CR in a header": Case(post(b"X: a\r" + CHUNKED, b"0\r\n\r\n")),
    "NUL in a header": Case(post(b"X: \0\r\nContent-Length: 1\r\n", b"x")),
    "folded header": Case(post(b"X: a\r\n " + CHUNKED, b"0\r\n\r\n")),
    "folded coding": Case(post(b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 1\r\n", b"x")),
    "chunks that end in LF": Case(post(CHUNKED, b"1\nx\n0\n\n")),
    "chunk extension with LF": Case(post(CHUNKED, b"1;a\nb\r\nx\r\n0\r\n\r\n")),
    "chunk size of 65 bits": Case(post(CHUNKED, b"10000000000000001\r\nx\r\n0\r\n\r\n")),
    "chunk size with a sign": Case(post(CHUNKED, b"+1\r\nx\r\n0\r\n\r\n")),
    "chunk longer than its size": Case(post(CHUNKED, b"1\r\nxy\r\n0\r\n\r\n")),
    # The end of these is not in doubt: the next bytes are the next request, also for a proxy.
    "chunk extension": Case(post(CHUNKED, b"1;a=b\r\nx\r\n0\r\n\r\n"), (201, 201)),
    "two hosts": Case(post(HOST + b"Content-Length: 1\r\n", b"x"), (400, 201)),
    "no host": Case(post(b"Content-Length: 1\r\n", b"x", host=b""), (400, 201)),
    # The inner request is the body of the outer one.
    "GET with a body": Case(
        post(b"Content-Length: %d\r\n" % len(INNER), line=b"GET /health/live HTTP/1.1\r\n"), (200,)
    ),
    "upgrade to HTTP/2": Case(
        post(b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n" % len(INNER)), (201,)
    ),
}


async def answers(port: int, sent: bytes) -> tuple[int, ...]:
    """Return the statuses of all answers until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        writer.write(sent)
        async with asyncio.timeout(PATIENCE):
            while piece := await reader.read(65536):
                received += piece
    except ConnectionError:
        pass  # it was reset: the server did not read everything
    finally:
        writer.transport.abort()
    return tuple(int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:])


async def test_smuggling() -> None:
    """An ambiguous request is refused, and the connection is closed before the next one."""
    async with serving("--broker=memory://", "--keep-alive=0.3") as server:
        found = {name: await answers(server.port, case.sent + INNER) for name, case in CASES.items()}
        assert found == {name: case.statuses for name, case in CASES.items()}
        async with await Connection.open(server.port) as connection:
            assert await connection.get("/history?topic=smuggled") == 200
            stored = json.loads(await connection.rest())["events"]
        assert len(stored) == sum(len(case.statuses) > 1 for case in CASES.values())
        assert "Traceback" not in server.output
