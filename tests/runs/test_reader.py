"""Readers of our own events of a run, whose connections the hub takes over under uvicorn."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from support.hub import HubClient, settle
from support.runs import Source
from tickertape.broker import MemoryBroker
from tickertape.hub import DirectOutput, Grant, Hub
from tickertape.runs import Run, Runs
from tickertape.testing import FakeClock

WAYS: Final = pytest.mark.parametrize("direct", [False, True], ids=["portable", "direct"])


@asynccontextmanager
async def run_of(broker: Any = "memory://", **options: Any) -> AsyncIterator[tuple[Hub, Run, Source, FakeClock]]:
    clock, source = FakeClock(), Source()
    async with Hub(broker, clock=clock, random=random.Random(1).random) as hub:
        yield hub, await Runs(hub, **options).start("chat/1", source), source, clock
        source.give(None)


def read(hub: Hub, run: Run, *, direct: bool, last: str | None = None, **options: Any) -> HubClient:
    return HubClient(hub, direct=direct, last_event_id=last, make=lambda scope: run.response(scope, **options))


async def follow(client: HubClient) -> list[tuple[str | None, str]]:
    """Return the types and the data of the events that have arrived."""
    return [(event.event, event.data or "") for event in await client.read_all() if event.data]


def end_of(run: Run, state: str) -> tuple[str, str]:
    return ("stream:end", f'{{"reason": "{state}", "run": "{run.id}"}}')


@WAYS
async def test_past_and_live_events_and_the_end(direct: bool) -> None:
    async with run_of() as (hub, run, source, _):
        source.give("one", {"two": 2})
        await settle()
        early = read(hub, run, direct=direct)
        assert await follow(early) == [(None, "one"), (None, '{"two":2}')]
        late = read(hub, run, direct=direct, last=early.last_event_id)
        await settle()
        if direct:
            assert [client.output.place for client in (early, late) if client.output is not None] == [0, 1]
        source.give("three", None)
        for client in (early, late):
            assert await follow(client) == [(None, "three"), end_of(run, "done")]
            assert client.complete
            assert client.ended
            await client.close()
        assert early.body.startswith(f"id: {run.id}\n\n".encode())
        assert early.body.endswith(late.body.partition(b"\n\n")[2])
        assert early.headers.get("connection") == ("close" if direct else None)
        assert hub.statistics().disconnects == {"ended": 2}


async def test_same_bytes() -> None:
    async with run_of() as (hub, run, source, _):
        clients = [read(hub, run, direct=direct) for direct in (False, True)]
        await settle()
        source.give("one", "two\nlines", {"three": 3}, ValueError("secret"))
        for client in clients:
            await client.read_all()
            await client.close()
        assert clients[0].body == clients[1].body
        assert clients[0].events[-1].json()["message"] == "The run failed."


async def test_end_keeps_the_connection_of_a_replay() -> None:
    """A run that has ended is sent at once, so its connection stays with the server."""
    async with run_of() as (hub, run, source, _):
        source.give("one", None)
        await run.wait()
        client = read(hub, run, direct=True)
        assert await follow(client) == [(None, "one"), end_of(run, "done")]
        assert client.output is None
        assert "connection" not in client.headers
        await client.close()


@WAYS
@pytest.mark.parametrize("live", [False, True])
async def test_nothing_follows_the_end(direct: bool, live: bool) -> None:
    """A record that a program stores after the end of a run belongs to no stream."""
    async with run_of() as (hub, run, source, _):
        client = read(hub, run, direct=direct) if live else None
        await settle()
        source.give("one", None)
        if client is None:
            await run.wait()
        drafts = [hub.draft(run.info.topic, "late")]
        await run.wait()
        await hub.publish_many(drafts)
        await settle()
        client = read(hub, run, direct=direct) if client is None else client
        assert await follow(client) == [(None, "one"), end_of(run, "done")]
        assert client.complete
        await client.close()


@WAYS
async def test_stalled_reader(direct: bool) -> None:
    """A reader that stops for a while gets the rest, and then the end, once."""
    texts = [f"{number}:" + "x" * 10_000 for number in range(100)]
    async with run_of() as (hub, run, source, _):
        client = read(hub, run, direct=direct)
        await settle()
        for text in texts:
            source.give(text)
            await settle()
        source.give(None)
        await settle()
        assert await follow(client) == [*((None, text) for text in texts), end_of(run, "done")]
        assert client.complete
        await client.close()


@WAYS
async def test_reset_ends_the_stream(direct: bool) -> None:
    """After the log was replaced, nothing of the run follows: a reader must not wait for it."""
    broker = MemoryBroker()
    async with run_of(broker) as (hub, run, source, _):
        client = read(hub, run, direct=direct)
        source.give("one")
        assert await follow(client) == [(None, "one")]
        broker.reset()
        events = await client.read_all()
        assert [event.event for event in events] == ["stream:gap"]
        assert events[0].json()["reason"] == "reset"
        assert client.ended
        late = read(hub, run, direct=direct)
        assert [event.event for event in await late.read_all()] == ["stream:gap"]
        assert late.ended
        for each in (client, late):
            await each.close()


@WAYS
@pytest.mark.parametrize("ending", ["expired", "revoked"])
async def test_right_ends(direct: bool, ending: str) -> None:
    async with run_of() as (hub, run, source, clock):
        grant = Grant(subscribe=("**", run.info.topic), user="ann", until=time.time() + 60)
        client = read(hub, run, direct=direct, grant=grant)
        source.give("one")
        assert await follow(client) == [(None, "one")]
        if ending == "revoked":
            await hub.disconnect(user="ann")
        else:
            clock.advance(61)
        assert [event.event for event in await client.read_all() if event.data] == ["stream:expired"]
        assert client.ended
        assert hub.statistics().disconnects == {ending: 1}
        await client.close()


@WAYS
async def test_readers_are_counted(direct: bool) -> None:
    """A run is cancelled when the last of its readers has been gone for the time of grace."""
    async with run_of(on_disconnect="cancel", grace=30.0) as (hub, run, source, clock):
        clients = [read(hub, run, direct=direct) for _ in range(2)]
        source.give("one")
        for client in clients:
            assert await follow(client) == [(None, "one")]
        for client in clients:
            clock.advance(40)
            await settle()
            assert run.info.active
            await client.close()
        clock.advance(29)
        await settle()
        assert run.info.active
        clock.advance(2)
        async with asyncio.timeout(10):
            assert (await run.wait()).state == "cancelled"
        assert source.finished.is_set()


async def test_connection_is_taken_over() -> None:
    async with run_of() as (hub, run, _, _):
        client = read(hub, run, direct=True)
        await settle()
        assert isinstance(client.output, DirectOutput)
        assert client.task.done()
        assert hub.statistics().streams["direct"] == 1
        await client.close()
        assert hub.statistics().streams["direct"] == 0
