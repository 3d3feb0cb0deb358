"""A hub whose broker's server stops, is killed, or returns with all its data or with none."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Final

import psutil
import pytest

from support.program import Serve, serving

from .accounts import Publisher, Stream, ask, eventually, history, publishing
from .servers import Log, PrivateServer, Servers

WHERE: Final = {"redis": "Redis at ", "redis-durable": "Redis at ", "postgres": "PostgreSQL at ", "nats": "NATS at "}
IN_TIME: Final = 10.0
"""Seconds until a publication is refused, with one second for a request: not minutes."""


def stop(server: PrivateServer) -> None:
    server.signal(signal.SIGSTOP)


def resume(server: PrivateServer) -> None:
    server.signal(signal.SIGCONT)


def kill(server: PrivateServer) -> None:
    server.signal(signal.SIGKILL)


def start(server: PrivateServer) -> None:
    server.start()


async def streams_of(hub: Serve, stack: AsyncExitStack) -> list[Stream]:
    """Open some streams, direct and portable ones."""
    versions = ("1.1", "1.1", "1.1", "1.0")
    return [await stack.enter_async_context(Stream(hub, "topic=t", version=version)) for version in versions]


async def outage(
    hub: Serve,
    log: Log,
    streams: list[Stream],
    publishers: list[Publisher],
    fails: Callable[[PrivateServer], None],
    returns: Callable[[PrivateServer], None],
) -> None:
    """Stop the server, check what its hub answers and does, and start the server again."""
    await asyncio.gather(*(publisher.continues() for publisher in publishers))
    await asyncio.to_thread(fails, log.server)
    await asyncio.gather(*(publisher.is_refused() for publisher in publishers))
    status, problem = await ask(hub, "health/ready")
    assert (status, problem["status"]) == (503, 503)
    assert "expected" in problem["detail"] or WHERE[log.kind] in problem["detail"]
    assert await ask(hub, "health/live") == (200, {"status": "live"})
    await asyncio.gather(*(stream.beats() for stream in streams))
    for publisher in publishers:
        assert WHERE[log.kind] in publisher.refusals[-1].problem["detail"]
        assert all(refusal.seconds < IN_TIME for refusal in publisher.refusals)
    await asyncio.to_thread(returns, log.server)
    await asyncio.gather(*(publisher.continues() for publisher in publishers))


async def is_ready(hub: Serve) -> bool:
    return (await ask(hub, "health/ready"))[0] == 200


@pytest.mark.parametrize(("fails", "returns"), [(stop, resume), (kill, start)], ids=["stopped", "killed"])
@pytest.mark.parametrize("kind", ["redis-durable", "postgres", "nats"])
async def test_outage(
    kind: str, fails: Callable[[PrivateServer], None], returns: Callable[[PrivateServer], None], servers: Servers
) -> None:
    async with AsyncExitStack() as stack:
        log = stack.enter_context(servers.log(kind))
        hub = await stack.enter_async_context(serving("--broker", log.url, "--heartbeat", "0.5"))
        streams = await streams_of(hub, stack)
        async with publishing(hub) as publishers:
            await outage(hub, log, streams, publishers, fails, returns)
        assert await is_ready(hub)
        kept = await history(hub)
        for stream in streams:
            await stream.reaches(kept[-1][0])
            assert [(event.id, event.data) for event in stream.events] == kept
            assert stream.open
        acknowledged = {data: cursor for publisher in publishers for data, cursor in publisher.acknowledged.items()}
        assert {data: cursor for cursor, data in kept} == acknowledged
        assert len(kept) == len(acknowledged), "an event that was refused first is stored twice"
        assert "Traceback" not in hub.output


async def test_server_that_returns_empty(servers: Servers) -> None:
    async with AsyncExitStack() as stack:
        log = stack.enter_context(servers.log("redis"))
        hub = await stack.enter_async_context(serving("--broker", log.url, "--heartbeat", "0.5"))
        streams = await streams_of(hub, stack)
        async with publishing(hub) as publishers:
            await outage(hub, log, streams, publishers, kill, start)
        kept = await history(hub)
        published = {data for publisher in publishers for data in publisher.acknowledged}
        for stream in streams:
            await stream.reaches(kept[-1][0])
            (place,) = [number for number, event in enumerate(stream.events) if event.event == "stream:gap"]
            before, gap = stream.events[:place], stream.events[place].json()
            epoch = kept[0][0].split("-")[0]
            assert gap == {"reason": "reset", "after": before[-1].id, "resumed": f"{epoch}-0"}
            assert [int((event.id or "").split("-")[1]) for event in before] == list(range(1, place + 1))
            assert [(event.id, event.data) for event in stream.events[place + 1 :]] == kept
            assert {event.data for event in stream.events if event.event is None} <= published
            assert stream.open
        assert "Traceback" not in hub.output
        # A client that was away receives the same gap.
        async with Stream(hub, "topic=t", last_event_id=before[0].id) as late:
            await late.reaches(kept[-1][0])
            assert late.events[0].event == "stream:gap"
            assert late.events[0].json()["reason"] == "reset"
            assert [(event.id, event.data) for event in late.events[1:]] == kept


def workers_of(hub: Serve) -> set[int]:
    """Return the processes that serve, without Python's own helper."""
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(hub.process.pid).children()
        return {child.pid for child in children if "spawn_main" in " ".join(child.cmdline())}
    return set()


async def test_worker_that_dies_during_an_outage(servers: Servers) -> None:
    async with AsyncExitStack() as stack:
        log = stack.enter_context(servers.log("redis-durable"))
        hub = await stack.enter_async_context(serving("--broker", log.url, "--workers", "2", "--heartbeat", "0.5"))
        assert hub.output.count("this worker serves") == 2
        streams = await streams_of(hub, stack)
        kill(log.server)
        victim, survivor = sorted(workers_of(hub))
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda: "could not start" in hub.output, lambda: f"a worker that fails, got:\n{hub.output}")
        await asyncio.to_thread(start, log.server)
        await eventually(
            lambda: hub.output.count("this worker serves") == 3, lambda: f"a third worker, got:\n{hub.output}"
        )
        assert survivor in workers_of(hub)
        async with publishing(hub) as publishers:
            await asyncio.gather(*(publisher.continues() for publisher in publishers))
        kept = await history(hub)
        for stream in streams:
            if stream.open:  # those of the dead worker do not reconnect here
                await stream.reaches(kept[-1][0])
                assert [(event.id, event.data) for event in stream.events] == kept
        assert "Traceback" not in hub.output
        assert re.search(r"ERROR \[\d+\] cannot reach Redis at ", hub.output)
