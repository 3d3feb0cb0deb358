"""The end of a topic: readers get every event, then ``stream:end``, and their streams are closed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.hub import HubClient, settle
from tickertape.broker import Retention
from tickertape.errors import InvalidEventError, InvalidTopicError
from tickertape.hub import Hub, HubEvent
from tickertape.testing import FakeClock, ScriptedBroker
from tickertape.wire import Cursor, End, Gap

WAYS = pytest.mark.parametrize("direct", [False, True], ids=["portable", "direct"])


@asynccontextmanager
async def hub_of(broker: str | ScriptedBroker = "memory://", **options: Any) -> AsyncIterator[Hub]:
    async with Hub(broker, clock=FakeClock(), random=random.Random(1).random, **options) as hub:
        yield hub


async def read(client: HubClient) -> list[tuple[str, str]]:
    """Return the types and the data, or the reasons, of the events that have arrived."""
    events = await client.read_all()
    return [(event.event or "", (End.parse(event) and event.json()["reason"]) or event.data or "") for event in events]


END = ("stream:end", "ended")


@WAYS
@pytest.mark.parametrize("lazy", [False, True])
async def test_end_of_a_live_stream(direct: bool, lazy: bool) -> None:
    async with hub_of() as hub:
        client = HubClient(hub, "job", direct=direct, lazy=lazy)
        await settle()
        await hub.publish("job", "1")
        cursor = await hub.end("job", reason="done")
        assert await read(client) == [("", "1"), ("stream:end", "done")]
        assert client.complete
        assert client.ended
        assert client.last_event_id == str(cursor)
        assert client.events[-1].json() == {"topic": "job", "reason": "done"}
        assert hub.statistics().disconnects == {"ended": 1}
        assert hub.subscribers() == 0
        await client.close()


@WAYS
async def test_end_reported_to_on_disconnect(direct: bool) -> None:
    reasons: list[str] = []
    async with hub_of() as hub:
        client = HubClient(hub, "job", direct=direct, on_disconnect=reasons.append)
        await settle()
        await hub.end("job")
        assert await read(client) == [END]
        await client.close()
    assert reasons == ["ended"]


@WAYS
async def test_reconnect_after_the_end(direct: bool) -> None:
    async with hub_of() as hub:
        first = await hub.publish("job", "1")
        end = await hub.end("job")
        await hub.publish("other", "x")
        after = await hub.publish("other", "y")
        for last_event_id, status in ((first, 200), (end, 204), (after, 204), (None, 204)):
            at = None if last_event_id is None else str(last_event_id)
            client = HubClient(hub, "job", direct=direct, last_event_id=at, headers={"X-A": "b"})
            events = await read(client)
            assert (client.status, events) == (status, [END] if status == 200 else [])
            assert client.headers["x-a"] == "b"
            assert ("content-type" in client.headers) == (status == 200)
            assert client.ended
            await client.close()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_204_concludes_the_response(method: str) -> None:
    """Background tasks and the callback run also if there is no stream."""
    calls: list[str] = []

    async def background() -> None:
        calls.append("background")

    async with hub_of() as hub:
        await hub.end("job")
        await settle()
        client = HubClient(hub, "job", method=method, background=background, on_disconnect=calls.append)
        await settle()
        assert client.status == 204
        await client.close()
    assert calls == ["ended", "background"]


@WAYS
@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (None, None),
        (1, [("", "2"), END]),
        (5, [("", "1"), ("", "2"), END]),
        ("all", [("", "1"), ("", "2"), END]),
    ],
)
async def test_last_events_before_the_end(direct: bool, last: Any, expected: list[Any] | None) -> None:
    """The end does not count as an event."""
    async with hub_of() as hub:
        for data in "12":
            await hub.publish("job", data)
        await hub.end("job")
        client = HubClient(hub, "job", direct=direct, last=last)
        assert await read(client) == (expected or [])
        assert client.status == (204 if expected is None else 200)
        await client.close()


@WAYS
@pytest.mark.parametrize(
    ("topics", "expected", "ended"),
    [
        (("a",), [END], True),
        (("a", "b"), [("stream:topic-end", "ended"), ("", "b1"), END], True),
        (("a", "c"), [("stream:topic-end", "ended"), ("", "c1")], False),
        (("*",), [("stream:topic-end", "ended"), ("", "b1"), ("stream:topic-end", "ended"), ("", "c1")], False),
        (("c",), [("", "c1")], False),
    ],
)
async def test_streams_with_several_topics(direct: bool, topics: tuple[str, ...], expected: Any, ended: bool) -> None:
    """A stream ends when all its topics have; one with a wildcard does not end."""
    async with hub_of() as hub:
        live = HubClient(hub, *topics, direct=direct)
        await settle()
        start = await hub.publish("start", "x")
        for topic, data in (("a", None), ("b", "b1"), ("b", None), ("c", "c1")):
            await (hub.end(topic) if data is None else hub.publish(topic, data))
            await settle()
        late = HubClient(hub, *topics, direct=direct, last_event_id=str(start))
        for client in (live, late):
            events = await read(client)
            assert [each for each in events if each[1] != "x"] == expected
            assert client.ended == ended
            await client.close()


@WAYS
async def test_envelope_and_map_leave_the_end(direct: bool) -> None:
    async with hub_of() as hub:
        clients = [
            HubClient(hub, "job", direct=direct, envelope="topic"),
            HubClient(hub, "job", direct=direct, filter=lambda event: False, map=lambda event: 1 / 0),
        ]
        await settle()
        await hub.end("job")
        for client in clients:
            assert await read(client) == [END]
            assert client.events[-1].json() == {"topic": "job", "reason": "ended"}
            await client.close()


async def test_end_is_idempotent() -> None:
    async with hub_of() as hub:
        await hub.publish("job", "1")
        cursors = {await hub.end("job"), await hub.end("job", reason="again")}
        cursors |= set(await asyncio.gather(hub.end("job"), hub.end("job")))
        assert len(cursors) == 1
        assert (await hub.check()).newest == 2


async def test_simultaneous_ends_are_one() -> None:
    async with hub_of() as hub:
        await hub.publish("job", "1")
        cursors = await asyncio.gather(*(hub.end("job") for _ in range(5)))
        assert len(set(cursors)) == 1


@WAYS
async def test_publish_opens_the_topic_again(direct: bool) -> None:
    async with hub_of() as hub:
        end = await hub.end("job")
        await hub.publish("job", "again")
        await settle()
        client = HubClient(hub, "job", direct=direct, last_event_id=str(end))
        assert await read(client) == [("", "again")]
        assert not client.ended
        earlier = HubClient(hub, "job", direct=direct, last="all")
        assert await read(earlier) == [("stream:topic-end", "ended"), ("", "again")]
        second = await hub.end("job", reason="second")
        assert second != end
        for each in (client, earlier):
            assert await read(each) == [("stream:end", "second")]
            await each.close()


async def test_end_after_an_event_of_another_hub(tmp_path: Path) -> None:
    """An event that another process has stored before counts, even if this one has not seen it yet."""
    url = f"sqlite:///{tmp_path}/log.db"
    async with Hub(url) as here, Hub(url) as there:
        await here.end("job")
        await there.publish("job", "again")
        end = await here.end("job")
        assert end.offset == 3
        assert await there.end("job") == end


async def test_iteration_ends(tmp_path: Path) -> None:
    async with hub_of() as hub:
        async with hub.subscribe(["a", "b"]) as output:
            await hub.publish("a", "1")
            await hub.end("a", reason="first")
            await hub.end("b", reason="second")
            items = [item async for item in output]
            assert output.reason == "ended"
        event, first, second = items
        assert isinstance(event, HubEvent)
        assert isinstance(first, End)
        assert isinstance(second, End)
        assert (first.topic, first.reason, first.final) == ("a", "first", False)
        assert (second.topic, second.reason, second.final) == ("b", "second", True)
        async with hub.subscribe("a") as output:
            assert [item async for item in output] == []
            assert output.reason == "ended"


async def test_stream_of_bytes() -> None:
    async with hub_of() as hub:
        start = await hub.publish("job", "1")
        end = await hub.end("job")
        chunks = [chunk async for chunk in hub.stream("job", last_event_id=str(start))]
        assert b"event: stream:end" in chunks[-1]
        assert [chunk async for chunk in hub.stream("job", last_event_id=str(end))] == []


@pytest.mark.parametrize(
    ("topic", "reason", "error"),
    [
        ("a/*", "x", InvalidTopicError),
        ("", "x", InvalidTopicError),
        ("a", "", InvalidEventError),
        ("a", "x" * 201, InvalidEventError),
        ("a", None, InvalidEventError),
    ],
)
async def test_invalid_end(topic: str, reason: Any, error: type[Exception]) -> None:
    async with hub_of() as hub:
        with pytest.raises(error):
            await hub.end(topic, reason=reason)
        assert (await hub.check()).newest == 0


async def test_end_survives_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    async with Hub(url) as hub:
        start = await hub.publish("job", "1")
        end = await hub.end("job")
    async with Hub(url) as hub:
        early, late = (HubClient(hub, "job", last_event_id=str(at)) for at in (start, end))
        await asyncio.wait([early.task, late.task], timeout=10)
        assert (early.status, late.status) == (200, 204)
        assert await read(early) == [END]
        assert await hub.end("job") == end


@WAYS
async def test_slow_reader_gets_all_before_the_end(direct: bool) -> None:
    """A stream that is behind is closed when its peer has everything, and not before."""
    async with hub_of() as hub:
        client = HubClient(hub, "job", direct=direct)
        await settle()
        sent = [f"{number}:" + "x" * 3000 for number in range(200)]
        for data in sent:
            await hub.publish("job", data)
        await hub.end("job")
        await settle(200)
        assert not client.ended
        assert hub.subscribers() == 1
        assert await read(client) == [*(("", data) for data in sent), END]
        assert client.complete
        await client.close()


@WAYS
async def test_end_with_on_overflow_latest(direct: bool) -> None:
    """The end does not supersede the last event of its topic."""
    async with hub_of(retention=Retention(events=40)) as hub:
        client = HubClient(hub, "job", direct=direct, on_overflow="latest")
        await settle()
        for number in range(300):
            await hub.publish("job", f"{number}:" + "x" * 3000)
            await settle(2)
        await hub.end("job")
        events = await read(client)
        assert events[-1] == END
        assert events[-2][1].startswith("299:")
        assert len(events) < 200
        await client.close()


@WAYS
async def test_skip_does_not_skip_the_end(direct: bool) -> None:
    async with hub_of(ScriptedBroker(keep=20), retention=Retention(events=20)) as hub:
        client = HubClient(hub, "job", direct=direct, on_overflow="skip")
        await settle()
        for number in range(300):
            await hub.publish("job", f"{number}:" + "x" * 3000)
            await settle(2)
        await hub.end("job")
        events = await client.read_all()
        assert [event.event for event in events[-2:]] == ["stream:gap", "stream:end"]
        assert client.ended
        await client.close()


@WAYS
async def test_end_that_is_no_longer_kept(direct: bool) -> None:
    """A reader from before gets a gap. Its stream is closed all the same."""
    broker = ScriptedBroker()
    async with hub_of(broker, retention=Retention(events=5)) as hub:
        start = await hub.publish("job", "1")
        await hub.end("job")
        for number in range(10):
            await hub.publish("other", str(number))
        await settle()
        broker.trim(keep=3)
        client = HubClient(hub, "job", direct=direct, last_event_id=str(start))
        (gap,) = await client.read_all()
        assert Gap.parse(gap) is not None
        assert client.ended
        again = HubClient(hub, "job", direct=direct, last_event_id=client.last_event_id)
        await settle()
        assert again.status == 204
        for each in (client, again):
            await each.close()


async def test_remembered_ends_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickertape.hub.window._MAX_ENDED", 3)
    async with hub_of() as hub:
        ends = [await hub.end(topic) for topic in "abcd"]
        await settle()
        assert hub.delivery.window.ended == dict(zip("bcd", [end.offset for end in ends[1:]], strict=True))


async def test_end_when_the_log_was_reset() -> None:
    broker = ScriptedBroker()
    async with hub_of(broker) as hub:
        await hub.end("job")
        await settle()
        broker.reset()
        await settle(100)
        client = HubClient(hub, "job")
        await settle()
        assert client.status == 200
        assert isinstance(await hub.end("job"), Cursor)
        assert (await read(client))[-1] == END
        await client.close()


class Reader:
    """A client that leaves and resumes at random until its stream has ended."""

    def __init__(self, hub: Hub, topics: tuple[str, ...], rng: random.Random, share_direct: float) -> None:
        self.hub, self.topics, self.rng, self.share_direct = hub, topics, rng, share_direct
        self.cursor: str | None = None
        self.events: list[tuple[str, str, str]] = []
        self.client: HubClient | None = None
        self.over = False
        self.connections = 0

    async def move(self, limit: int = 1 << 20) -> None:
        if self.over:
            return
        if self.client is None:
            direct = self.rng.random() < self.share_direct
            options: dict[str, Any] = {} if self.cursor else {"last": "all"}
            self.client = HubClient(
                self.hub,
                *self.topics,
                direct=direct,
                lazy=self.rng.random() < 0.5,
                last_event_id=self.cursor,
                **options,
            )
            self.connections += 1
            return
        for event in self.client.read(limit):
            if event.comment is None:
                self.events.append((event.id or "", event.event or "", event.data or ""))
        self.cursor = self.client.last_event_id or self.cursor
        if self.client.status == 204:
            self.over = True
        if self.over or self.client.ended or self.rng.random() < 0.1:
            client, self.client = self.client, None
            await client.close()


@pytest.mark.parametrize("share_direct", [0.0, 1.0, 0.5], ids=["portable", "direct", "mixed"])
@pytest.mark.parametrize("seed", range(3))
async def test_ledger_of_ends(seed: int, share_direct: float) -> None:
    """Each reader gets each event of its topics once, in order, then the end, and no second one."""
    rng = random.Random(seed)
    topics = ("a", "b", "c")
    async with hub_of() as hub:
        hub.delivery.stride, hub.delivery.turn = 2, 0.0
        subscriptions = [(topic,) for topic in topics] + [("a", "b"), topics]
        readers = [Reader(hub, rng.choice(subscriptions), rng, share_direct) for _ in range(40)]
        published: list[tuple[str, str, str]] = []
        left = list(topics)
        for step in range(1500):
            if step % 10 == 0 and step < 900:
                topic, data = rng.choice(left), f"{step}:" + "x" * rng.choice((1, 2000, 20_000))
                published.append((str(await hub.publish(topic, data)), topic, data))
            if step in (300, 600, 900):
                topic = left.pop()
                published.append((str(await hub.end(topic)), topic, ""))
            await rng.choice(readers).move(rng.choice((100, 5000, 1 << 20)))
            await asyncio.sleep(0)
        for _ in range(400):
            for reader in readers:
                await reader.move()
            await settle(3)
        for reader in readers:
            wanted = [each for each in published if each[1] in reader.topics]
            final = [each[0] for each in wanted if not each[2]][-1]
            assert reader.over
            assert [each[0] for each in reader.events] == [each[0] for each in wanted], reader.topics
            assert [each[0] for each in reader.events if each[1] == "stream:end"] == [final]
            assert reader.events[-1][1] == "stream:end"
        assert sum(reader.connections for reader in readers) > 100
        assert sum(len(reader.events) for reader in readers) > 500
