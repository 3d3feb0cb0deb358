"""The program ``tickertape demo`` with a client that receives notifications."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from support.command import SCRIPT
from support.servers import Connection, Service
from tickertape import Decoder

__all__ = ["Demo", "running"]


class Demo(Service):
    """The program and one client, which resumes after each restart.

    Attributes:
        titles: the titles received, in order.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(SCRIPT, "demo", "--port", "{port}", "--data", str(folder), *options)
        self._cookie = ""
        self._cursor = ""
        self.titles: list[str] = []

    async def request(self, path: str, body: object = None) -> Any:
        """Send a request and return the answer's JSON."""
        async with await Connection.open(self.port) as connection:
            if body is None:
                await connection.get(path, headers=f"Cookie: {self._cookie}\r\n")
            else:
                content = json.dumps(body)
                fields = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n{content}"
                await connection.get(path, method="POST", headers=fields.removesuffix("\r\n"))
                self._cookie = connection.headers.get("set-cookie", "").partition(";")[0] or self._cookie
            return json.loads(await connection.rest())

    async def sign_in(self, name: str) -> None:
        await self.request("/session", {"name": name})
        self._cursor = (await self.request("/notifications/inbox"))["cursor"]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[AsyncIterator[None]]:
        """Resume after the last notification, and yield an iterator with one item per notification."""
        async with await Connection.open(self.port) as connection:
            headers = f"Cookie: {self._cookie}\r\nLast-Event-ID: {self._cursor}\r\n"
            assert await connection.get("/notifications/events", headers=headers) == 200
            yield self._received(connection)

    async def _received(self, connection: Connection) -> AsyncIterator[None]:
        decoder = Decoder()
        while piece := await connection.piece():
            for event in decoder.feed(piece):
                assert event.event == "notification", event
                self.titles.append(event.json()["title"])
                self._cursor = event.id or ""
                yield


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Demo]:
    demo = Demo(folder, *options)
    try:
        demo.start()
        yield demo
    finally:
        demo.kill()
