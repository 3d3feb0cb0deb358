"""Two hubs on one log: events of one arrive at the other, even after it was stopped or cut off."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from broker.private_servers import Forwarder, forwarded
from support.program import Serve

from .accounts import PATIENCE, Stream, ask, history
from .servers import Servers

KINDS = pytest.mark.parametrize("kind", ["sqlite", "redis", "postgres", "nats"])
MANY = 3000
"""Events that a hub misses: more than the tail of any broker reads at once."""


class Nodes(NamedTuple):
    """Two hubs on one log. If the log is on a server, the second hub connects through a proxy that can be cut."""

    first: Serve
    second: Serve
    way: Forwarder | None


@asynccontextmanager
async def two_nodes(kind: str, servers: Servers, directory: Path) -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        way = None
        if kind == "sqlite":
            urls = [f"sqlite:///{directory}/log.db"] * 2
        else:
            log = stack.enter_context(servers.log(kind))
            way = await stack.enter_async_context(forwarded(log.server.port))
            urls = [log.url, log.url_at(way.port)]
        programs = [Serve("--broker", url, "--heartbeat", "0.5") for url in urls]
        for program in programs:
            stack.callback(program.close)
        for program in programs:
            await program.ready()
        yield Nodes(programs[0], programs[1], way)


async def publish(hub: Serve, topic: str, *data: str) -> list[str]:
    """Publish events in batches, and return their cursors."""
    async with httpx2.AsyncClient(timeout=PATIENCE) as client:
        cursors: list[str] = []
        for start in range(0, len(data), 500):
            events = [{"topic": topic, "data": each} for each in data[start : start + 500]]
            answer = await client.post(f"{hub.url}events", json=events)
            assert answer.status_code == 201, answer.text
            cursors += answer.json()["cursors"]
        return cursors


@KINDS
async def test_receive_and_resume_on_the_other(kind: str, servers: Servers, tmp_path: Path) -> None:
    async with two_nodes(kind, servers, tmp_path) as (first, second, _):
        async with Stream(first, "topic=t") as here, Stream(second, "topic=t") as there, Stream(second, "topic=*"):
            cursors = await publish(first, "t", "1", "2")
            cursors += await publish(second, "t", "3", "4")
            for stream in (here, there):
                await stream.reaches(cursors[-1])
                assert [(event.id, event.data) for event in stream.events] == list(zip(cursors, "1234", strict=True))
            for hub, audiences in (
                (first, {"t": 1}),
                (second, {"t": 1, "*": 1}),
            ):  # each hub counts its own subscribers
                _, answer = await ask(hub, "subscribers")
                assert {"".join(each["topics"]): each["subscribers"] for each in answer["audiences"]} == audiences
                assert answer["subscribers"] == len(audiences)
                assert (await ask(hub, "topics"))[1]["topics"] == [{"topic": "t", "subscribers": len(audiences)}]
        cursors += await publish(first, "t", "5", "6")
        for hub in (second, first):
            async with Stream(hub, "topic=t", last_event_id=cursors[2]) as resumed:
                await resumed.reaches(cursors[-1])
                assert [event.data for event in resumed.events] == ["4", "5", "6"]
        assert await history(first) == await history(second) == list(zip(cursors, "123456", strict=True))


def stop(nodes: Nodes) -> Callable[[], None]:
    """Stop the second hub; return a function that lets it continue."""
    nodes.second.process.send_signal(signal.SIGSTOP)
    return lambda: nodes.second.process.send_signal(signal.SIGCONT)


def cut(nodes: Nodes) -> Callable[[], None]:
    """Cut the second hub off its log; return a function that connects it again."""
    assert nodes.way is not None
    way, port = nodes.way, nodes.way.target
    way.move(0)
    return lambda: way.move(port)


@KINDS
async def test_catch_up(kind: str, servers: Servers, tmp_path: Path) -> None:
    async with two_nodes(kind, servers, tmp_path) as nodes, AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(Stream(nodes.second, "topic=t", version=version))
            for version in ("1.1", "1.1", "1.0")
        ]
        cursors: list[str] = []
        for away in (stop, cut) if nodes.way is not None else (stop,):
            cursors += await publish(nodes.first, "t", str(len(cursors)))
            for stream in streams:
                await stream.reaches(cursors[-1])
            restore = away(nodes)
            known = len(cursors)
            cursors += await publish(nodes.first, "t", *map(str, range(known, known + MANY)))
            assert all(len(stream.events) == known for stream in streams)
            restore()
            for stream in streams:
                await stream.reaches(cursors[-1])
        expected = [(cursor, str(number)) for number, cursor in enumerate(cursors)]
        for stream in streams:
            assert stream.open
            assert [(event.id, event.data) for event in stream.events] == expected
        assert await history(nodes.second) == expected
        assert "Traceback" not in nodes.second.output
