"""The access log has no secrets of queries."""

from __future__ import annotations

from support.program import serving
from support.servers import Connection


async def test_access_log() -> None:
    """Requests of streams and others, over both ways into the log."""
    async with serving("--access-log") as program:
        for path in ("/events?topic=a&ticket=geheim1", "/topics?access_token=geheim2"):
            async with await Connection.open(program.port) as connection:
                assert await connection.get(path) == 200
        await program.says("/topics?access_token=*** HTTP/1.1")
        await program.says("/events?topic=a&ticket=*** HTTP/1.1")
        assert "geheim" not in program.output
