"""A hub with a log in SQLite, when the disk is full and when it has space again."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from support.program import Serve, serving

from .accounts import PATIENCE, Stream, ask, history
from .disks import DISKS, tmpfs

MOST = 5000
"""Events of 1 KiB, more than fit on the disks of these tests."""


class Publisher:
    """Publishes numbered events of 1 KiB with keys, and records their cursors."""

    def __init__(self, hub: Serve, client: httpx2.AsyncClient) -> None:
        self.acknowledged: list[str] = []
        self._url = f"{hub.url}events/t"
        self._client = client

    async def publish(self) -> httpx2.Response:
        """Publish the next event; if it was refused, the same one again."""
        number = str(len(self.acknowledged))
        answer = await self._client.post(self._url, content=number.ljust(1000), params={"key": number})
        if answer.status_code == 201:
            self.acknowledged.append(answer.json()["cursor"])
        return answer

    async def publish_until_refused(self) -> httpx2.Response:
        """Publish until an event is refused: even on a full disk, a log has some free pages."""
        for _ in range(MOST):
            answer = await self.publish()
            if answer.status_code != 201:
                return answer
        raise AssertionError(f"the disk had space for {MOST} events")


@pytest.mark.parametrize("kind", DISKS)
async def test_full_disk(kind: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        disk = stack.enter_context(DISKS[kind](tmp_path))
        url = f"sqlite:///{disk.folder}/log.db"
        hub = await stack.enter_async_context(serving("--broker", url, "--heartbeat", "0.5"))
        stream = await stack.enter_async_context(Stream(hub, "topic=t"))
        publisher = Publisher(hub, await stack.enter_async_context(httpx2.AsyncClient(timeout=PATIENCE)))
        assert (await publisher.publish()).status_code == 201
        disk.fill(hub.process.pid)
        refused = await publisher.publish_until_refused()
        assert refused.status_code == 503
        assert refused.headers["content-type"] == "application/problem+json"
        assert f"cannot append to the log {disk.folder}/log.db" in refused.json()["detail"]
        assert "full" in refused.json()["detail"]
        assert "retry-after" in refused.headers
        assert await ask(hub, "health/live") == (200, {"status": "live"})
        await stream.reaches(publisher.acknowledged[-1])
        await stream.beats()
        assert [cursor for cursor, _ in await history(hub)] == publisher.acknowledged
        disk.free(hub.process.pid)
        for _ in range(10):
            assert (await publisher.publish()).status_code == 201
        await stream.reaches(publisher.acknowledged[-1])
        assert stream.cursors == publisher.acknowledged
        assert [int(event.data or "") for event in stream.events] == [*range(len(publisher.acknowledged))]
        assert "Traceback" not in hub.output


async def test_killed_on_a_full_disk(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        disk = stack.enter_context(tmpfs(tmp_path))
        options = ("--broker", f"sqlite:///{disk.folder}/log.db")
        client = await stack.enter_async_context(httpx2.AsyncClient(timeout=PATIENCE))
        hub = await stack.enter_async_context(serving(*options))
        publisher = Publisher(hub, client)
        for _ in range(10):
            assert (await publisher.publish()).status_code == 201
        disk.fill(hub.process.pid)
        await publisher.publish_until_refused()
        hub.process.kill()
        again = await stack.enter_async_context(serving(*options))
        assert [cursor for cursor, _ in await history(again)] == publisher.acknowledged
        async with Stream(again, "topic=t", last_event_id=publisher.acknowledged[4]) as stream:
            await stream.reaches(publisher.acknowledged[-1])
            assert stream.cursors == publisher.acknowledged[5:]
