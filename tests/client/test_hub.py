"""Both sources against our own hub, which is killed and restarted under load again and again."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from support.command import HubProgram, hub_program
from support.servers import until
from tickertape.client import EventSource, Gap, Publisher, State, SyncEventSource

KILLS = 12
"""For each of the two shells."""


class Handler:
    """A subscriber's handler. It records how often each event came, and gaps."""

    def __init__(self) -> None:
        self.seen: Counter[str | None] = Counter()
        self.order: list[str | None] = []
        self.gaps: list[Gap] = []

    def __call__(self, data: str | None) -> None:
        self.seen[data] += 1
        self.order.append(data)


class AsyncShell:
    def __init__(self, url: str, handler: Handler) -> None:
        self.source = EventSource(url, on_gap=handler.gaps.append, max_delay=0.5)
        self.task = asyncio.create_task(self._run(handler))

    async def _run(self, handler: Handler) -> None:
        async with self.source:
            async for event in self.source:
                handler(event.data)

    async def end(self) -> None:
        self.source.close()
        await self.task


class SyncShell:
    def __init__(self, url: str, handler: Handler) -> None:
        self.source = SyncEventSource(url, on_gap=handler.gaps.append, max_delay=0.5)
        self.task = asyncio.create_task(asyncio.to_thread(self._run, handler))

    def _run(self, handler: Handler) -> None:
        with self.source:
            for event in self.source:
                handler(event.data)

    async def end(self) -> None:
        self.source.close()
        await self.task


async def publish(hub: HubProgram, name: str, acknowledged: list[str], stopped: asyncio.Event) -> None:
    """Publish events one after the other. Events that the hub acknowledged must not be lost."""
    async with Publisher(hub.url, max_attempts=None, max_delay=0.5) as publisher:
        number = 0
        while not stopped.is_set():
            data = f"{name}{number}"
            await publisher.publish("load/1", data)
            acknowledged.append(data)
            number += 1


@pytest.mark.parametrize(("shell", "seed"), [(AsyncShell, 1), (SyncShell, 2)])
async def test_exactly_once_while_hub_restarts(shell: type[AsyncShell | SyncShell], seed: int, tmp_path: Path) -> None:
    """The hub is killed after a random number of acknowledged events, mostly during a publication."""
    rng = random.Random(seed)
    handler, acknowledged, stopped = Handler(), list[str](), asyncio.Event()
    with hub_program(broker=f"sqlite:///{tmp_path / 'log.db'}") as hub:
        subscriber = shell(f"{hub.url}/events?topic=load/*", handler)
        await until(lambda: subscriber.source.statistics().connections > 0, lambda: "a connection")
        publishers = [asyncio.create_task(publish(hub, name, acknowledged, stopped)) for name in "ab"]
        for _ in range(KILLS):
            goal = len(acknowledged) + rng.randint(1, 120)
            await until(
                lambda goal=goal: len(acknowledged) >= goal and subscriber.source.state is State.OPEN,  # type: ignore[misc]
                lambda: "more acknowledged events, and a subscriber",
            )
            hub.kill()
            await asyncio.to_thread(hub.start)
        stopped.set()
        await asyncio.gather(*publishers)
        await until(
            lambda: len(handler.seen) >= len(acknowledged),
            lambda: f"all events, got none of {set(acknowledged) - set(handler.seen)}",
        )
        await subscriber.end()
    assert handler.seen == Counter(acknowledged)
    assert handler.gaps == []
    for name in "ab":
        assert [data for data in handler.order if data and data[0] == name] == [
            data for data in acknowledged if data[0] == name
        ]
    assert subscriber.source.statistics().connections > KILLS // 2


@pytest.mark.parametrize("shell", [AsyncShell, SyncShell])
async def test_gap_after_lost_log(shell: type[AsyncShell | SyncShell]) -> None:
    handler = Handler()
    with hub_program() as hub:
        subscriber = shell(f"{hub.url}/events?topic=load/*", handler)
        await until(lambda: subscriber.source.statistics().connections > 0, lambda: "a connection")
        async with Publisher(hub.url) as publisher:
            await publisher.publish("load/1", "before")
            await until(lambda: handler.seen["before"] == 1, lambda: "the first event")
            hub.kill()
            await asyncio.to_thread(hub.start)
            await publisher.publish("load/1", "after")
            await until(lambda: handler.seen["after"] == 1, lambda: "the second event")
        await subscriber.end()
    assert handler.seen == Counter(["before", "after"])
    assert [gap.reason for gap in handler.gaps] == ["reset"]
