"""Topics, subscribers and statistics: of one worker, of several, with access control and without."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from support.access import ADMIN, bearer, protect
from support.asgi import settle
from support.http import JSON, site
from support.program import serving
from support.servers import START, Connection
from tickertape.client import Publisher
from tickertape.hub import Grant
from tickertape.testing import EventStream, FakeClock
from tickertape.wire import ReceivedEvent


async def test_topics_and_subscribers() -> None:
    async with (
        site() as hub,
        hub.client.open("/events?topic=a/*"),
        hub.client.open("/events?topic=a/*"),
        hub.client.open("/events?topic=b&topic=a/1") as third,
    ):
        await hub.post([{"topic": "a/1", "data": "x"}, {"topic": "a/2", "data": "x"}])
        await third.next_event()
        answer = (await hub.ask("GET", "/topics")).json()
        assert answer["topics"] == [{"topic": "a/1", "subscribers": 3}, {"topic": "a/2", "subscribers": 2}]
        all_audiences = [{"topics": ["a/*"], "subscribers": 2}, {"topics": ["a/1", "b"], "subscribers": 1}]
        for query, audiences in (("", all_audiences), ("?limit=1", all_audiences[:1])):
            assert (await hub.ask("GET", f"/subscribers{query}")).json() == {
                "node": answer["node"],
                "subscribers": 3,
                "audience_count": 2,
                "audiences": audiences,
                "user_count": 0,
                "users": [],
            }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [f"t{number:03}" for number in range(100)]),
        ("?limit=2", ["t000", "t001"]),
        ("?limit=2&after=t001", ["t002", "t003"]),
        ("?after=t099x", [f"t{number}" for number in range(100, 120)]),
        ("?after=t119", []),
        ("?after=", [f"t{number:03}" for number in range(100)]),
        ("?limit=1000", [f"t{number:03}" for number in range(120)]),
        ("?search=99", ["t099"]),
        ("?search=11&after=t111&limit=2", ["t112", "t113"]),
        ("?search=T0", []),
    ],
)
async def test_pages_of_topics(query: str, expected: list[str]) -> None:
    async with site() as hub, hub.client.open("/events?topic=t000") as stream:
        await hub.post([{"topic": f"t{number:03}", "data": "x"} for number in reversed(range(120))])
        await stream.next_event()
        answer = await hub.ask("GET", f"/topics{query}")
        assert [entry["topic"] for entry in answer.json()["topics"]] == expected


async def test_node_names() -> None:
    async with site() as one, site() as other:
        names = [(await hub.ask("GET", "/subscribers")).json()["node"] for hub in (one, other)]
        assert len(set(names)) == 2
        assert all(names)


@pytest.mark.parametrize("path", ["/topics", "/subscribers"])
async def test_long_search(path: str) -> None:
    async with site() as hub:
        assert (await hub.ask("GET", f"{path}?search={'x' * 201}")).status == 400


USERS = {
    "ann": Grant(user="ann", subscribe=("**",)),
    "bob": Grant(user="bob", subscribe=("**",)),
    "admin": ADMIN,
}


@pytest.mark.parametrize(
    ("search", "audiences", "users"),
    [
        ("", {"a": 2, "b": 1}, {"ann": 2, "bob": 1}),
        ("a", {"a": 2, "b": 1}, {"ann": 2, "bob": 1}),
        ("ann", {"a": 1, "b": 1}, {"ann": 2}),
        ("bo", {"a": 1}, {"bob": 1}),
        ("c", {}, {}),
    ],
)
async def test_users(search: str, audiences: dict[str, int], users: dict[str, int]) -> None:
    async with site() as hub:
        protect(hub.hub, USERS)
        async with (
            hub.client.open("/events?topic=a", headers=bearer("ann")),
            hub.client.open("/events?topic=b", headers=bearer("ann")),
            hub.client.open("/events?topic=a", headers=bearer("bob")),
        ):
            found = (await hub.ask("GET", f"/subscribers?search={search}", headers=bearer("admin"))).json()
        assert {entry["topics"][0]: entry["subscribers"] for entry in found["audiences"]} == audiences
        assert {entry["user"]: entry["subscribers"] for entry in found["users"]} == users
        assert found["subscribers"] == sum(audiences.values())


async def test_all_workers() -> None:
    """Whichever worker is asked, and whichever serves the streams."""
    async with serving("--workers", "3") as program:
        streams = [await Connection.open(program.port) for _ in range(12)]
        for number, stream in enumerate(streams):
            assert await stream.get(f"/events?topic=a&topic=t{number % 2}") == 200
        async with Publisher(program.url) as publisher:
            await publisher.publish("a", "x")
        for stream in streams:
            while not (await stream.event()).data:
                pass
        answers = []
        for _ in range(4):
            async with await Connection.open(program.port) as connection:
                headers = "Connection: close\r\n"
                assert await connection.get("/subscribers", headers=headers) == 200
                subscribers = json.loads(await connection.rest())
            async with await Connection.open(program.port) as connection:
                assert await connection.get("/topics", headers=headers) == 200
                answers.append((subscribers, json.loads(await connection.rest())))
        assert all(answer == answers[0] for answer in answers)
        subscribers, topics = answers[0]
        assert subscribers["subscribers"] == 12
        assert {tuple(each["topics"]): each["subscribers"] for each in subscribers["audiences"]} == {
            ("a", "t0"): 6,
            ("a", "t1"): 6,
        }
        assert topics["topics"] == [{"topic": "a", "subscribers": 12}]
        for stream in streams:
            await stream.close()


# Statistics


async def next_event(stream: EventStream, clock: FakeClock) -> ReceivedEvent:
    """Advance the clock until the next event."""
    reading = asyncio.ensure_future(stream.next_event())
    while not reading.done():
        clock.advance(1)
        await settle(reading.done)
    return await reading


async def next_samples(stream: EventStream, clock: FakeClock) -> Any:
    event = await next_event(stream, clock)
    assert event.type == "samples"
    return event.json()


async def test_statistics() -> None:
    clock = FakeClock()
    async with site(clock=clock) as hub, hub.client.open("/events?topic=a") as reader:
        async with hub.client.open("/statistics") as stream:
            assert (await next_samples(stream, clock))[-1]["rates"]["published"] == 0
            await hub.post([{"topic": "a", "data": "x"}] * 3)
            await reader.next_event()
            (sample,) = await next_samples(stream, clock)
            assert sample["rates"]["published"] == sample["rates"]["delivered"] > 0
            assert sample["streams"] == {"pull": 2}
            assert sample["workers"] == 1
            event = await next_event(stream, clock)
            assert event.json()[0]["rates"]["published"] == 0
        headers = {"last-event-id": event.id or ""}
        async with hub.client.open("/statistics") as stream, hub.client.open("/statistics", headers=headers) as rest:
            assert len(await next_samples(stream, clock)) >= 3
            assert len(await next_samples(rest, clock)) == 1


async def test_statistics_of_all_workers() -> None:
    async with serving("--workers", "2") as program, Publisher(program.url) as publisher:
        async with await Connection.open(program.port) as reader, await Connection.open(program.port) as stream:
            assert await reader.get("/events?topic=a") == 200
            assert await stream.get("/statistics") == 200
            published = 0.0
            async with asyncio.timeout(START):
                while not published:
                    await publisher.publish("a", "x")
                    event = await stream.event()
                    if event.event == "samples":
                        (*_, sample) = json.loads(event.data or "")
                        published = sample["rates"]["published"]
            assert (sample["workers"], sum(sample["streams"].values())) == (2, 2)
            assert await program.end() < START
            assert await stream.rest()  # a clean end
            assert stream.complete
        assert "Traceback" not in program.output


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_statistics_end_with_the_right(end: str) -> None:
    clock = FakeClock()
    async with site(clock=clock) as hub:
        until = time.time() + 5 if end == "expired" else None
        protect(hub.hub, {"boss": Grant(user="boss", admin=True, until=until), "admin": ADMIN})
        async with hub.client.open("/statistics", headers=bearer("boss")) as stream:
            await next_samples(stream, clock)
            if end == "expired":
                clock.advance(10)
            else:
                await hub.ask("POST", "/revocations", b'{"user":"boss"}', JSON | bearer("admin"))
            while (event := await stream.next_event()).type == "samples":
                pass
            assert (event.type, event.json()["reason"]) == ("stream:expired", end)
