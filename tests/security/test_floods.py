"""Many different names: topics, patterns, keys, types of events. The memory of the server stays flat."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import httpx2
import psutil
import pytest

from support.program import serving
from support.servers import Connection
from tickertape.access import add_key

MIB: Final = 1024 * 1024

GROWTH: Final = 4 * MIB
"""Bytes by which the second half of a flood may grow the server: an entry of 200 bytes for each name would be more.

Caches of patterns are full after 100,000 of them.
"""

HALF: Final = 25_000
"""Names in half of a flood."""

BATCH: Final = 5_000


class Flood:
    """A server that is flooded, and a client with a key."""

    def __init__(self, client: httpx2.AsyncClient, port: int) -> None:
        self.client = client
        self.port = port

    async def publish(self, first: int, **fields: str) -> None:
        """Publish a batch; ``{}`` in a field is the number of the event."""
        lines = [
            json.dumps({name: text.replace("{}", str(number)) for name, text in fields.items()})
            for number in range(first, first + BATCH)
        ]
        headers = {"content-type": "application/x-ndjson"}
        answer = await self.client.post("/events", content="\n".join(lines), headers=headers)
        assert answer.status_code == 201

    async def topics(self, first: int) -> None:
        """Publish to as many topics as events."""
        await self.publish(first, topic="flood/{}", data="x")

    async def keys(self, first: int) -> None:
        """Publish with as many keys as events."""
        await self.publish(first, topic="flood", data="x", key="key-{}")

    async def types(self, first: int) -> None:
        """Publish as many types of events as events."""
        await self.publish(first, topic="flood", data="x", event="type-{}")

    async def patterns(self, first: int) -> None:
        """Open streams of 100 patterns each, and leave."""
        headers = f"Authorization: {self.client.headers['authorization']}\r\n"
        for start in range(first, first + BATCH, 100):
            query = "&".join(f"topic=flood/{number}/*" for number in range(start, start + 100))
            async with await Connection.open(self.port) as connection:
                assert await connection.get(f"/events?{query}", headers=headers) == 200


FLOODS: Final[dict[str, Callable[[Flood, int], Awaitable[None]]]] = {
    "topics": Flood.topics,
    "keys": Flood.keys,
    "types": Flood.types,
    "patterns": Flood.patterns,
}


@pytest.mark.parametrize("name", FLOODS)
async def test_flood(name: str, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.toml", "flood", admin=True)
    options = ["--broker=memory://", "--retention-events=1000", f"--api-key-file={tmp_path}/keys.toml"]
    async with serving(*options, "--publish-rate=none", "--stream-rate=none") as server:
        headers = {"authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
            flood = Flood(client, server.port)
            process = psutil.Process(server.process.pid)
            sizes = []
            for first in range(0, 2 * HALF, BATCH):
                await FLOODS[name](flood, first)
                sizes.append(process.memory_info().rss)
            grown = sizes[-1] - sizes[len(sizes) // 2 - 1]
            assert grown < GROWTH
            found = (await client.get("/topics?limit=1000")).json()["topics"]
            assert len(found) <= 1000
