"""Applications of users in several workers of uvicorn itself, over one log."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from support.servers import START, Connection, Server, free_port


async def publish(port: int) -> int:
    """Publish to the topic; return the number of the worker."""
    async with await Connection.open(port) as connection:
        assert await connection.get("/publish?topic=a", method="POST", headers="Content-Length: 0\r\n") == 200
        return int(json.loads(await connection.rest())["worker"])


@pytest.mark.parametrize("option", ["--http=httptools", "--http=h11"])
async def test_events_reach_all_workers(option: str, tmp_path: Path) -> None:
    port = free_port()
    env = {"LOG": f"sqlite:///{tmp_path}/log.db"}
    server = Server("uvicorn-workers", "support.shared_app:app", f"--port={port}", option, address=port, env=env)
    try:
        server.wait_for(port)
        async with AsyncExitStack() as stack, asyncio.timeout(START):
            subscribers: dict[int, list[Connection]] = {}
            while len(subscribers) < 2:  # the quicker worker accepts a connection
                connection = await stack.enter_async_context(await Connection.open(port))
                assert await connection.get("/events?topic=a") == 200
                subscribers.setdefault(int(connection.headers["x-worker"]), []).append(connection)
            published: list[int] = []
            while {*published} != {*subscribers}:
                published.append(await publish(port))
            for connections in subscribers.values():
                for connection in connections:
                    events = [await connection.event() for _ in published]
                    assert [int(event.data or "") for event in events] == published
                    offsets = [int((event.id or "").split("-")[1]) for event in events]
                    assert offsets == list(range(1, len(published) + 1))
            await server.end(signal.SIGTERM)
            for connections in subscribers.values():
                for connection in connections:
                    await connection.rest()
                    assert connection.complete
        assert server.process.returncode == 0
        assert "Traceback" not in server.output
    finally:
        server.close()
