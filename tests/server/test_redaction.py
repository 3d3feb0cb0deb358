"""Secrets in queries: what the access log shows of them."""

from __future__ import annotations

import pytest

from support.program import serving
from support.servers import Connection
from tickertape.server.redaction import redact


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/events?topic=a&ticket=abc", "/events?topic=a&ticket=***"),
        ("/events?access_token=abc&topic=a", "/events?access_token=***&topic=a"),
        ("/events?authorization=abc", "/events?authorization=***"),
        ("/events?%74icket=abc", "/events?%74icket=***"),
        ("/events?api_key=abc&API-KEY=d&password=x", "/events?api_key=***&API-KEY=***&password=***"),
        ("/events/a?key=1&event=e", "/events/a?key=1&event=e"),
        ("/events?ticket", "/events?ticket"),
        ("/ticket=abc", "/ticket=abc"),
        ("/events", "/events"),
        ("/events?", "/events?"),
    ],
)
def test_redact(target: str, shown: str) -> None:
    assert redact(target) == shown


async def test_access_log() -> None:
    """Requests of streams and others, over both ways into the log."""
    async with serving("--access-log") as program:
        for path in ("/events?topic=a&ticket=geheim1", "/topics?access_token=geheim2"):
            async with await Connection.open(program.port) as connection:
                assert await connection.get(path) == 200
        await program.says("/topics?access_token=*** HTTP/1.1")
        await program.says("/events?topic=a&ticket=*** HTTP/1.1")
        assert "geheim" not in program.output
