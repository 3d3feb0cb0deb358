"""Two hubs on one log: events of one arrive at the other, even after it was stopped or cut off.

Each also changes the topics of the streams of the other.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from broker.private_servers import Forwarder, forwarded
from support.program import Serve
from tickertape.wire import Cursor, StreamOpen, TopicsChange, compile_patterns

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
async def two_nodes(kind: str, servers: Servers, directory: Path, *, timeout: int = 1) -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        way = None
        if kind == "sqlite":
            urls = [f"sqlite:///{directory}/log.db"] * 2
        else:
            log = stack.enter_context(servers.log(kind))
            way = await stack.enter_async_context(forwarded(log.server.port))
            urls = [log.url, log.url_at(way.port)]
        urls = [url.replace("timeout=1", f"timeout={timeout}") for url in urls]
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


STREAMS = 4
CHANGES = 25
"""Of each stream."""

TOPICS = [f"t/{number}" for number in range(6)]


def offset_of(cursor: str | None) -> int:
    parsed = Cursor.parse(cursor or "")
    assert parsed is not None, cursor
    return parsed.offset


async def change_topics(stream: Stream, other: Serve, rng: random.Random) -> list[tuple[int, frozenset[str]]]:
    """Change the topics of a stream at the other hub. Return the topics, each with the offset after which they hold."""
    await stream.has(1)
    opened = StreamOpen.parse(stream.events[0])
    assert opened is not None, stream.events[0]
    has = frozenset({"always"})
    history = [(offset_of(stream.events[0].id), has)]
    async with httpx2.AsyncClient(timeout=PATIENCE) as client:
        for _ in range(CHANGES):
            pattern = rng.choice([*TOPICS, "t/*"])
            method = "remove" if pattern in has else "add"
            url = f"{other.url}subscriptions/{opened.subscription}"
            answer = await client.patch(url, json={method: [pattern]})
            assert answer.status_code == 200, answer.text
            has ^= {pattern}
            history.append((offset_of(answer.json()["cursor"]), has))
    return history


@KINDS
async def test_ledger_of_changes(kind: str, servers: Servers, tmp_path: Path) -> None:
    """Each stream changes its topics at the other hub, while events are published at both.

    It gets the events of its topics between the offsets of its changes, each once and in order. The stream itself
    contains each change with the offset that the other hub has answered.
    """
    published: list[tuple[int, str, str]] = []
    # No request may fail, however busy the machine is.
    nodes = two_nodes(kind, servers, tmp_path, timeout=10)
    async with nodes as (first, second, _), AsyncExitStack() as stack:
        stopped = asyncio.Event()

        async def keep_publishing(hub: Serve, name: str) -> None:
            rng = random.Random(name)
            while not stopped.is_set():
                topics = [rng.choice([*TOPICS, "always"]) for _ in range(5)]
                events = [{"topic": topic, "data": f"{name} {at}"} for at, topic in enumerate(topics)]
                answer = await client.post(f"{hub.url}events", json=events)
                cursors = answer.json()["cursors"]
                published.extend(
                    (offset_of(cursor), each["topic"], each["data"])
                    for cursor, each in zip(cursors, events, strict=True)
                )

        client = await stack.enter_async_context(httpx2.AsyncClient(timeout=PATIENCE))
        query = "topic=always&subscription=true"
        places = [(first, second), (second, first)] * (STREAMS // 2)
        streams = [await stack.enter_async_context(Stream(hub, query)) for hub, _ in places]
        async with asyncio.TaskGroup() as group:
            for hub, name in ((first, "first"), (second, "second")):
                group.create_task(keep_publishing(hub, name))
            changing = [
                group.create_task(change_topics(stream, other, random.Random(at)))
                for at, (stream, (_, other)) in enumerate(zip(streams, places, strict=True))
            ]
            await asyncio.wait(changing)
            stopped.set()
        published.sort()
        (last,) = await publish(first, "always", "end")
        for stream, changed in zip(streams, changing, strict=True):
            await stream.reaches(last)
            history = changed.result()
            changes = [
                (offset_of(event.id), change) for event in stream.events if (change := TopicsChange.parse(event))
            ]
            assert [(offset, frozenset(change.topics)) for offset, change in changes] == history[1:]
            expected = []
            for (after, has), (upto, _) in zip(history, [*history[1:], (1 << 60, frozenset())], strict=True):
                matches = compile_patterns(tuple(sorted(has)))
                expected += [
                    (offset, data) for offset, topic, data in published if after < offset <= upto and matches(topic)
                ]
            received = [(offset_of(event.id), event.data) for event in stream.events[:-1] if event.event is None]
            assert received == expected
            assert len(expected) > CHANGES
