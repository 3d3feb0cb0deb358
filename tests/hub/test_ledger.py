"""Every event of every client is accounted for: delivered, or declared by a gap. There is no third outcome.

Clients of both ways of delivery join, stall, leave and resume at random while events are published
and the log fails, loses records or is reset. The events that each client reads are compared with a
ledger of all published events. The name of a failed test has its seed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.hub import HubClient, settle
from support.ledger import Account, Ledger, Published
from tickertape.broker import Retention
from tickertape.hub import Hub
from tickertape.testing import FakeClock, ScriptedBroker
from tickertape.wire import Cursor

TOPICS = ("a", "a/1", "a/2", "a/1/x", "b/1", "b/2", "b/2/y", "c")
AUDIENCES = (("a/**",), ("*/1",), ("**",), ("c",), ("a/1", "b/1"), ("b/*", "c"), ("**/x", "a"), ("other",))


class Reader:
    """A client that reconnects to the stream of its account until the test ends."""

    def __init__(self, world: World, account: Account) -> None:
        self.world = world
        self.account = account
        self.client: HubClient | None = None
        self.stalled = False
        self.cursor: str | None = None

    def connect(self) -> None:
        world, rng = self.world, self.world.rng
        by_header = self.cursor is not None and rng.random() < 0.6
        query = {}
        if self.cursor is not None and not by_header:
            query = {rng.choice(("last_event_id", "lastEventId")): self.cursor}
        self.client = HubClient(
            world.hub,
            *self.account.patterns,
            direct=rng.random() < world.share_direct,
            lazy=rng.random() < 0.5,
            last_event_id=self.cursor if by_header else None,
            query=query,
            on_overflow=self.account.policy,
            last=rng.choice((None, 3, 100)),
        )
        self.opened = False
        self.stalled = False
        world.ledger.subscriptions += 1

    def read(self, limit: int = 1 << 21) -> None:
        client = self.client
        if client is None:
            return
        received = client.received
        events = client.read(limit)
        self.world.received += client.received - received
        if not self.opened and client.last_event_id is not None:
            self.opened = True
            if not events:
                self.account.open(client.last_event_id)
            elif events[0].event == "stream:gap":
                self.account.cursor = self.account.cursor or Cursor.parse(events[0].json()["after"])
            else:
                self.account.open(self.world.first_cursor(client))
        for event in events:
            if event.comment is None:
                self.account.receive(event)
        if client.last_event_id is not None:
            self.cursor = client.last_event_id

    async def leave(self) -> None:
        if self.client is not None:
            client, self.client = self.client, None
            if self.world.rng.random() < 0.3:
                client.leave(noticed=False)  # the hub finds out by its next write
                await settle(3)
            await client.close()


class World:
    """A hub and its log, with the steps of the test."""

    def __init__(self, seed: int, hub: Hub, broker: ScriptedBroker, clock: FakeClock, share_direct: float) -> None:
        self.rng = random.Random(seed)
        self.hub = hub
        self.broker = broker
        self.clock = clock
        self.share_direct = share_direct
        self.ledger = Ledger()
        self.readers: list[Reader] = []
        self.number = 0
        self.received = 0

    def first_cursor(self, client: HubClient) -> str:
        """Return the cursor in the first block of a stream, of which more was read at once."""
        first = client.body.split(b"\n", 1)[0]
        assert first.startswith(b"id: "), first
        return first[4:].decode()

    async def publish(self, count: int, size: int) -> None:
        drafts = []
        for _ in range(count):
            self.number += 1
            drafts.append(self.hub.draft(self.rng.choice(TOPICS), f"{self.number}:" + "x" * size))
        cursors = await self.hub.publish_many(drafts)
        for draft, cursor in zip(drafts, cursors, strict=True):
            self.ledger.published.setdefault(cursor.epoch, {})[cursor.offset] = Published(draft.topic, draft.data)

    async def step(self, disturbed: bool) -> None:
        rng = self.rng
        choice = rng.random()
        if choice < 0.3:
            await self.publish(rng.choice((1, 1, 2, 5, 30)), rng.choice((0, 10, 100, 2000)))
        elif choice < 0.32:
            await self.publish(rng.choice((3, 60)), rng.choice((3000, 40_000)))
        elif choice < 0.323:
            await self.publish(1, 1024 * 1024 - 20)
        elif choice < 0.36 and disturbed:
            await self.disturb()
        elif choice < 0.40:
            self.clock.advance(rng.choice((0.3, 3.0, 16.0)))
        else:
            await self.move(rng.choice(self.readers))
        for _ in range(rng.choice((0, 0, 1, 2, 5))):
            await asyncio.sleep(0)

    async def disturb(self) -> None:
        disturbed = self.rng.random()
        if disturbed < 0.15:
            await settle(100)  # the last events of an epoch are read, or reset with it
            self.broker.reset()
        elif disturbed < 0.3:
            self.broker.trim(keep=self.rng.choice((0, 3, 50)))
        elif disturbed < 0.5:
            self.broker.hold("tail")
            await self.publish(self.rng.choice((5, 100)), 50)
            self.broker.release("tail")
        elif disturbed < 0.7:
            self.broker.fail("tail")
            await settle(2)
            await self.publish(3, 50)
            self.broker.recover()
            self.clock.advance(1)
        else:
            self.broker.hold("read")
            for _ in range(5):
                await self.move(self.rng.choice(self.readers))
                await asyncio.sleep(0)
            if self.rng.random() < 0.3:
                self.broker.reset()
                await settle(5)
            self.broker.release("read")

    async def move(self, reader: Reader) -> None:
        rng = self.rng
        if reader.client is None or reader.client.ended:
            reader.read()
            await reader.leave()
            reader.connect()
        elif rng.random() < 0.2:
            await reader.leave()
        elif rng.random() < 0.12:
            reader.stalled = not reader.stalled
        elif not reader.stalled:
            reader.read(rng.choice((1, 100, 5000, 1 << 21)))

    async def finish(self) -> None:
        """Make every reader read to the end, with as many reconnects as it needs."""
        self.broker.recover()
        self.broker.release()
        self.clock.advance(20)
        idle = 0
        while idle < 8:
            await settle(5)
            before = self.received
            for reader in self.readers:
                if reader.client is None or reader.client.ended:
                    reader.read()
                    await reader.leave()
                    reader.connect()
                reader.read()
            idle = idle + 1 if before == self.received else 0
        state = await self.broker.open()
        for reader in self.readers:
            reader.account.close(state.epoch, state.newest)


@asynccontextmanager
async def world_of(seed: int, share_direct: float, **options: Any) -> AsyncIterator[World]:
    clock = FakeClock()
    broker = ScriptedBroker(keep=options.pop("keep", None))
    async with Hub(broker, clock=clock, random=random.Random(seed).random, **options) as hub:
        hub.delivery.stride, hub.delivery.turn = 2, 0.0
        world = World(seed, hub, broker, clock, share_direct)
        try:
            yield world
        finally:
            for reader in world.readers:
                await reader.leave()


async def run(world: World, *, readers: int, steps: int, policies: tuple[str, ...], disturbed: bool) -> Ledger:
    for number in range(readers):
        patterns = world.rng.choice(AUDIENCES)
        reader = Reader(world, Account(world.ledger, tuple(sorted(patterns)), policies[number % len(policies)]))
        world.readers.append(reader)
        reader.connect()
    for _ in range(steps):
        await world.step(disturbed)
    await world.finish()
    for reader in world.readers:
        await reader.leave()
    await settle()
    assert world.hub.subscribers() == 0
    return world.ledger


SMALL = {"retention": Retention(events=40, bytes=200_000), "keep": 60}
SHALLOW = {"retention": Retention(events=15), "keep": 2000}
WIDE: dict[str, Any] = {}


CASES = {
    "wide": (WIDE, ("disconnect",), False, 250),
    "shallow": (SHALLOW, ("disconnect", "skip", "latest"), False, 250),
    "small": (SMALL, ("disconnect", "skip"), True, 800),
    "latest": (SMALL, ("latest",), True, 800),
}
"""Limits of the hub and its log, policies, whether the log fails, and the number of steps."""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share_direct", [0.0, 1.0, 0.5], ids=["portable", "direct", "mixed"])
@pytest.mark.parametrize("case", CASES)
async def test_ledger(seed: int, share_direct: float, case: str) -> None:
    options, policies, disturbed, steps = CASES[case]
    async with world_of(seed, share_direct, **options) as world:
        ledger = await run(world, readers=40, steps=steps, policies=policies, disturbed=disturbed)
        disconnects = world.hub.statistics().disconnects
    assert ledger.subscriptions > 60, ledger
    assert ledger.delivered > 1000, ledger
    assert (ledger.declared > 0) == disturbed, ledger
    assert ledger.superseded == 0 or "latest" in policies, ledger
    assert (ledger.gaps["reset"] > 0) == disturbed, ledger
    assert sum(disconnects.values()) == ledger.subscriptions, disconnects
