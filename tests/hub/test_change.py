"""The topics of an open stream change at a cursor: nothing is lost, and nothing is repeated."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.hub import HubClient, settle
from tickertape import ServerSentEvent
from tickertape.broker import Broker, MemoryBroker, Retention
from tickertape.errors import (
    ForbiddenError,
    InvalidTopicError,
    SubscriptionBusyError,
    SubscriptionNotFoundError,
    UnauthorizedError,
)
from tickertape.hub import EVERYTHING, Grant, Hub, HubEvent
from tickertape.testing import FakeClock, ScriptedBroker
from tickertape.wire import Cursor, End, Gap, StreamOpen, TopicsChange, compile_patterns

WAYS = pytest.mark.parametrize("direct", [False, True], ids=["portable", "direct"])


@asynccontextmanager
async def hub_of(broker: str | Broker = "memory://", **options: Any) -> AsyncIterator[Hub]:
    async with Hub(broker, clock=FakeClock(), random=random.Random(1).random, **options) as hub:
        yield hub


async def id_of(client: HubClient) -> str:
    """Read the beginning of a stream, and return the id of its subscription."""
    while not client.events:
        await settle(3)
        client.read()
    opened = next(notice for event in client.events if (notice := StreamOpen.parse(event)) is not None)
    return opened.subscription


def shown(event: ServerSentEvent) -> Any:
    """Return the data of an event, or the fields of a notice."""
    change = TopicsChange.parse(event)
    if change is not None:
        return change.topics if not change.ended else (change.topics, change.ended)
    return event.event.removeprefix("stream:") if event.event else event.data


async def read(client: HubClient) -> list[Any]:
    return [shown(event) for event in await client.read_all() if event.event != "stream:open"]


@WAYS
async def test_id_on_request(direct: bool) -> None:
    async with hub_of() as hub:
        clients = [HubClient(hub, "b", "a", direct=direct, changeable=changeable) for changeable in (True, True, False)]
        await settle()
        first, second, without = [await client.read_all() for client in clients]
        assert without == []
        opened = StreamOpen.parse(first[0])
        assert opened is not None
        assert opened.topics == ("a", "b")
        assert len(opened.subscription) == 24
        assert first != second
        blocks = clients[0].body.split(b"\n\n")
        assert [block.split(b":")[0] for block in blocks] == [b"id", b"event", b""]
        for client in clients:
            await client.close()


@WAYS
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("topics", "change", "after", "expected"),
    [
        (["a"], {"add": "b"}, ("a", "b"), ["a2", "b2"]),
        (["a"], {"add": ["b", "c"]}, ("a", "b", "c"), ["a2", "b2", "c2"]),
        (["a", "b"], {"remove": "a"}, ("b",), ["b2"]),
        (["a"], {"add": ["b"], "remove": ["a"]}, ("b",), ["b2"]),
        (["a"], {"add": ["a"], "remove": ["a"]}, ("a",), ["a2"]),
        (["a"], {"add": "a"}, ("a",), ["a2"]),
        (["a"], {"remove": "b"}, ("a",), ["a2"]),
        (["a"], {}, ("a",), ["a2"]),
        (["a"], {"add": "*"}, ("*", "a"), ["a2", "b2", "c2"]),
        (["*"], {"add": "c", "remove": "*"}, ("c",), ["c2"]),
    ],
)
async def test_change(
    direct: bool, lazy: bool, topics: list[str], change: Any, after: tuple[str, ...], expected: list[str]
) -> None:
    async with hub_of() as hub:
        client = HubClient(hub, *topics, direct=direct, lazy=lazy, changeable=True)
        own_id = await id_of(client)
        for topic in "abc":
            last = await hub.publish(topic, f"{topic}1")
        before = await read(client)
        cursor = await hub.change(own_id, **change)
        assert cursor == last
        for topic in "abc":
            await hub.publish(topic, f"{topic}2")
        events = await read(client)
        assert (before, events) == (
            [f"{each}1" for each in "abc" if topics == ["*"] or each in topics],
            [after, *expected],
        )
        notice = next(event for event in client.events if event.event == "stream:topics")
        assert notice.id == str(cursor)
        assert [info.topics for info in hub.presence] == [after]
        assert hub.subscribers() == 1
        assert {topic: hub.subscribers(topic) for topic in "abc"} == {
            topic: int(compile_patterns(after)(topic)) for topic in "abc"
        }
        assert hub.statistics().changed == 1
        await client.close()
        await settle()
        assert hub.subscribers("a") == 0


@WAYS
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"remove": "a"}, InvalidTopicError, "at least one topic"),
        ({"add": ["b", "c", "d"]}, InvalidTopicError, "at most 3 topics in a subscription, got 4"),
        ({"add": "a//b"}, InvalidTopicError, "empty"),
        ({"remove": "*a"}, InvalidTopicError, "whole segment"),
        ({"last": -1}, ValueError, "from 0 to 1000, got -1"),
        ({"last": 1001}, ValueError, "from 0 to 1000, got 1001"),
        ({"last": True}, ValueError, "from 0 to 1000, got True"),
        ({"add": "b", "grant": Grant(user="eve", subscribe=("*",))}, SubscriptionNotFoundError, "no open stream"),
        ({"add": "b", "grant": Grant(subscribe=("*",))}, SubscriptionNotFoundError, "no open stream"),
        ({"add": "b", "grant": Grant(user="ann", subscribe=("c",))}, ForbiddenError, "subscribe to 'b'"),
        ({"add": "b", "grant": Grant(anonymous=True)}, UnauthorizedError, "credential"),
    ],
)
async def test_refused(direct: bool, change: Any, error: type[Exception], message: str) -> None:
    async with hub_of(max_topics=3) as hub:
        client = HubClient(hub, "a", direct=direct, changeable=True, user="ann")
        own_id = await id_of(client)
        with pytest.raises(error, match=message):
            await hub.change(own_id, **change)
        await hub.publish("a", "1")
        assert await read(client) == ["1"]
        assert hub.statistics().changed == 0
        for grant in (None, EVERYTHING, Grant(user="ann", subscribe=("b",))):
            await hub.change(own_id, add="b", grant=grant)
            assert await read(client) == [("a", "b")]
        await client.close()


@WAYS
async def test_unknown_id(direct: bool) -> None:
    async with hub_of() as hub:
        client = HubClient(hub, "a", direct=direct, changeable=True)
        own_id = await id_of(client)
        await client.close()
        await settle()
        for unknown in (own_id, "1", "", "ü\ud800"):
            with pytest.raises(SubscriptionNotFoundError):
                await hub.change(unknown, add="b")


@WAYS
@pytest.mark.parametrize(
    ("topics", "add", "last", "expected"),
    [
        (["a"], ["b"], 0, []),
        (["a"], ["b"], 1, ["b3"]),
        (["a"], ["b"], 9, ["b1", "b2", "b3"]),
        (["a"], ["b", "c"], 2, ["b3", "c3"]),
        (["a"], ["*"], 4, ["c2", "b3", "c3"]),
        (["a"], ["a"], 5, []),
        (["a"], ["none"], 5, []),
        (["*"], ["b"], 5, []),
    ],
)
@pytest.mark.parametrize("window", ["whole", "short"])
async def test_past_events(
    direct: bool, window: str, topics: list[str], add: list[str], last: int, expected: Any
) -> None:
    """They have no ids, and those that the stream has had are left out. The end of a topic is no event."""
    retention = Retention(events=2) if window == "short" else Retention(events=100)
    broker = MemoryBroker(retention=Retention(events=100))
    async with hub_of(broker, retention=retention) as hub:
        client = HubClient(hub, *topics, direct=direct, changeable=True)
        own_id = await id_of(client)
        for number in "123":
            for topic in "abc":
                await hub.publish(topic, f"{topic}{number}")
        await hub.end("other")
        await read(client)
        position = client.last_event_id
        cursor = await hub.change(own_id, add=add, last=last)
        events = await client.read_all()
        assert [shown(event) for event in events[:-1]] == expected
        assert {event.id for event in events[:-1]} <= {position}
        assert events[-1].id == str(cursor)
        assert client.body.count(b"id: ") == len(client.events) - len(expected)
        await hub.publish(add[0].replace("*", "b"), "live")
        assert await read(client) == ["live"]
        await client.close()


@WAYS
async def test_past_events_have_a_limit(direct: bool) -> None:
    """The newest 256 KiB, and at least one event."""
    async with hub_of() as hub:
        for number in range(10):
            await hub.publish("big", str(number) * 60_000)
        await hub.publish("huge", "x" * 500_000)
        client = HubClient(hub, "a", direct=direct, changeable=True)
        own_id = await id_of(client)
        await hub.change(own_id, add="big", last=10)
        assert [data[0] for data in await read(client)] == ["6", "7", "8", "9", "a"]
        await hub.change(own_id, add="huge", last=10)
        assert [len(data) for data in await read(client)] == [500_000, 3]
        await client.close()


@WAYS
@pytest.mark.parametrize("filtered", [False, True])
async def test_envelope_filter_and_map(direct: bool, filtered: bool) -> None:
    options: dict[str, Any] = {"envelope": "topic"}
    if filtered:
        options |= {"filter": lambda event: event.data != "no", "map": lambda event: event.data * 2}
    async with hub_of() as hub:
        client = HubClient(hub, "a", direct=direct, changeable=True, **options)
        own_id = await id_of(client)
        await hub.publish("b", "no")
        await hub.publish("b", "past")
        await hub.change(own_id, add="b", last=5)
        await hub.publish("b", "live")
        events = [event for event in await client.read_all() if event.event is None]
        past, live = ("pastpast", "livelive") if filtered else ("past", "live")
        expected = [{"topic": "b", "data": data} for data in ([past, live] if filtered else ["no", past, live])]
        assert [event.json() for event in events] == expected
        await client.close()


@WAYS
async def test_change_of_a_stalled_stream(direct: bool) -> None:
    """It takes effect where the stream is: events of added topics follow from there, and none is sent twice."""
    async with hub_of() as hub:
        client = HubClient(hub, "a", direct=direct, lazy=True, changeable=True)
        own_id = await id_of(client)
        for number in range(60):
            last = await hub.publish("a" if number % 2 else "b", f"{number}:" + "x" * 20_000)
            await settle(3)
        cursor = await hub.change(own_id, add="b", remove="a")
        assert cursor.offset < last.offset
        events = await client.read_all()
        change = next(at for at, event in enumerate(events) if event.event == "stream:topics")
        numbers = [int((event.data or "").partition(":")[0]) for event in events if event.event is None]
        position = cursor.offset - 1
        assert numbers == [number for number in range(60) if (number <= position) == bool(number % 2)]
        assert events[change].id == str(cursor)
        await client.close()


@WAYS
async def test_too_many_unread_changes(direct: bool) -> None:
    async with hub_of() as hub:
        client = HubClient(hub, "a", direct=direct, lazy=True, changeable=True)
        own_id = await id_of(client)
        for _ in range(30):
            await hub.publish("a", "x" * 20_000)
            await settle(3)
        for number in range(32):
            await hub.change(own_id, add=str(number))
        with pytest.raises(SubscriptionBusyError, match="not read its last changes"):
            await hub.change(own_id, add="more")
        events = await client.read_all()
        notices = [notice for event in events if (notice := TopicsChange.parse(event)) is not None]
        assert len(notices) == 32
        assert len(notices[-1].topics) == 33
        await hub.change(own_id, remove=[str(number) for number in range(32)])
        assert await read(client) == [("a",)]
        await client.close()


@WAYS
async def test_a_gap_and_a_change(direct: bool) -> None:
    """A change waits behind a gap. Its cursor is the one from which the stream continues."""
    broker = ScriptedBroker()
    async with hub_of(broker) as hub:
        client = HubClient(hub, "a", direct=direct, changeable=True)
        own_id = await id_of(client)
        await hub.publish("a", "1")
        await settle()
        broker.reset()
        await settle(100)
        await hub.change(own_id, add="b")
        await hub.publish("b", "2")
        events = await client.read_all()
        assert [shown(event) for event in events if event.event != "stream:open"] == ["1", "gap", ("a", "b"), "2"]
        gap, change = events[-3:-1]
        assert gap.json()["resumed"] == gap.id == change.id
        await client.close()


@WAYS
async def test_while_a_page_is_read(direct: bool) -> None:
    """A page of the old topics is dropped, and read again for the new ones."""
    broker = ScriptedBroker()
    async with hub_of(broker, retention=Retention(events=2)) as hub:
        for number in range(10):
            await hub.publish("ab"[number % 2], str(number))
        await settle()
        broker.hold("read")
        client = HubClient(hub, "a", direct=direct, changeable=True, last_event_id=f"{hub.epoch}-1")
        own_id = await id_of(client)
        await settle()
        cursor = await hub.change(own_id, add="b")
        broker.release("read")
        assert cursor.offset == 1
        assert await read(client) == [("a", "b"), *"123456789"]
        await client.close()


@WAYS
async def test_idle_stream_starts_at_the_head(direct: bool) -> None:
    """Events of the added topic from before the change are no news for it."""
    async with hub_of() as hub:
        client = HubClient(hub, "a", direct=direct, changeable=True)
        own_id = await id_of(client)
        for number in range(50):
            last = await hub.publish("b", str(number))
        await settle()
        assert await hub.change(own_id, add="b") == last
        await hub.publish("b", "new")
        assert await read(client) == [("a", "b"), "new"]
        await client.close()


@WAYS
async def test_topics_that_have_ended(direct: bool) -> None:
    async with hub_of() as hub:
        client = HubClient(hub, "a", direct=direct, changeable=True)
        own_id = await id_of(client)
        await hub.publish("b", "1")
        await hub.end("b")
        await hub.change(own_id, add="b", last=5)
        assert await read(client) == ["1", (("a", "b"), ("b",))]
        await hub.publish("b", "2")
        await hub.end("b")
        assert await read(client) == ["2", "topic-end"]
        await hub.change(own_id, remove="a")
        assert await read(client) == [(("b",), ("b",))]
        assert client.ended
        assert hub.statistics().disconnects == {"ended": 1}
        await client.close()


@WAYS
async def test_resume_with_the_new_topics(direct: bool) -> None:
    """A client that reconnects opens with its new topics, after the last id that it has."""
    async with hub_of() as hub:
        client = HubClient(hub, "a", direct=direct, changeable=True)
        own_id = await id_of(client)
        await hub.publish("b", "0")
        await hub.change(own_id, add="b", remove="a", last=1)
        await read(client)
        await client.close()
        for topic in "ab":
            await hub.publish(topic, topic)
        again = HubClient(hub, "b", direct=direct, last_event_id=client.last_event_id)
        assert await read(again) == ["b"]
        await again.close()


@WAYS
async def test_latest_policy(direct: bool) -> None:
    async with hub_of() as hub:
        client = HubClient(hub, "a", direct=direct, lazy=True, changeable=True, on_overflow="latest")
        own_id = await id_of(client)
        for number in range(40):
            await hub.publish("ab"[number % 2], f"{number}:" + "x" * 20_000)
            await settle(3)
        await hub.change(own_id, add="b")
        numbers = [data.partition(":")[0] for data in await read(client) if isinstance(data, str)]
        assert numbers[-2:] == ["38", "39"]
        assert numbers.count("39") == 1
        await client.close()


async def test_reader_in_this_process() -> None:
    async with hub_of() as hub:
        await hub.publish("b", "past")
        async with hub.subscribe("a", changeable=True) as events, hub.subscribe("a") as other:
            assert other.id is None
            assert events.id is not None
            waiting = asyncio.ensure_future(anext(events))
            await settle()
            cursor = await hub.change(events.id, add="b", last=1)
            await hub.publish("b", "live")
            found = [await waiting, await anext(events), await anext(events)]
            assert [type(event) for event in found] == [HubEvent, TopicsChange, HubEvent]
            assert (found[0].data, found[1].id, found[2].data) == ("past", str(cursor), "live")
            assert events.info.topics == ("a", "b")


async def test_stream_of_bytes() -> None:
    async with hub_of() as hub:
        stream = hub.stream("a", changeable=True)
        opening = await anext(stream)
        opened = StreamOpen.parse(ServerSentEvent(opening.split(b"data: ")[1].decode().strip(), event="stream:open"))
        assert opened is not None
        await hub.change(opened.subscription, add="b")
        assert b'event: stream:topics\ndata: {"topics": ["a", "b"], "ended": []}' in await anext(stream)
        await stream.aclose()


async def test_change_during_a_round() -> None:
    """While events are written to many subscribers, a change of a live one waits for the end of the round."""
    async with hub_of() as hub:
        clients = [HubClient(hub, "a", direct=True, changeable=True) for _ in range(200)]
        ids = [await id_of(client) for client in clients]
        delivery = hub.delivery
        delivery.stride, delivery.turn = 1, 0.0  # a turn for each write
        await hub.publish("a", "1")
        while not delivery.running:
            await settle(1)
        changes = [asyncio.ensure_future(hub.change(each, add="b", remove="a")) for each in ids]
        await asyncio.sleep(0)
        assert delivery.running
        await hub.publish("b", "2")
        await hub.publish("a", "3")
        cursors = await asyncio.gather(*changes)
        for client, cursor in zip(clients, cursors, strict=True):
            events = await read(client)
            assert events in (["1", ("b",), "2"], [("b",), "2"])
            assert (events[0] == "1") == (cursor.offset >= 1)
            await client.close()


# Several processes: hubs on one log.


@asynccontextmanager
async def two_hubs(broker: str | Broker, **options: Any) -> AsyncIterator[tuple[Hub, Hub]]:
    async with Hub(broker, **options) as one, Hub(broker, **options) as other:
        yield one, other


@WAYS
async def test_stream_of_another_process(direct: bool, tmp_path: Path) -> None:
    async with two_hubs(f"sqlite:///{tmp_path / 'log.db'}", max_topics=3) as (here, there):
        client = HubClient(there, "a", direct=direct, changeable=True, user="ann")
        own_id = await id_of(client)
        past = await here.publish("b", "past")
        async with there.subscribe("b", last_event_id=f"{past.epoch}-{past.offset - 1}") as events:
            await anext(events)
        await settle()
        grant = Grant(user="ann", subscribe=("b",), until=time.time() + 60)
        cursor = await here.change(own_id, add="b", last=1, grant=grant)
        await here.publish("b", "live")
        async with asyncio.timeout(5):
            while len(client.events) < 4:
                await asyncio.sleep(0.01)
                client.read()
        assert [shown(event) for event in client.events[1:]] == ["past", ("a", "b"), "live"]
        assert client.events[2].id == str(cursor)
        with pytest.raises(InvalidTopicError, match="at least one"):
            await here.change(own_id, remove=["a", "b"])
        with pytest.raises(InvalidTopicError, match="expected at most 3"):
            await here.change(own_id, add=["c", "d"])
        records = [record for _, record in (await here.history("hub-changes/*"))[0]]
        assert len(records) == 6
        assert not any(own_id in record.data for record in records), "it would let readers of the log change the stream"
        assert {record.topic for _, record in (await here.history("**"))[0]} == {"b"}
        await client.close()


@pytest.mark.parametrize("user", ["eve", None])
async def test_no_process_answers(user: str | None) -> None:
    """The id is unknown, or the stream has another user: the caller does not learn which."""
    broker, clock = MemoryBroker(), FakeClock()
    async with Hub(broker, clock=clock) as here, Hub(broker, clock=FakeClock()) as there:
        client = HubClient(there, "a", changeable=True, user="ann")
        own_id = await id_of(client) if user else "unknown"
        grant = Grant(user=user, subscribe=("b",)) if user else None
        change = asyncio.ensure_future(here.change(own_id, add="b", grant=grant))
        await settle()
        for quarters in range(16):
            assert quarters > 7 or not change.done()
            clock.advance(0.25)
            await settle()
        with pytest.raises(SubscriptionNotFoundError):
            await change
        assert there.statistics().changed == 0
        await client.close()


@WAYS
async def test_end_of_the_right(direct: bool) -> None:
    """A stream ends with the rights of the request that has added topics."""
    clock = FakeClock()
    async with Hub(clock=clock) as hub:
        client = HubClient(hub, "a", direct=direct, changeable=True)
        own_id = await id_of(client)
        await hub.change(own_id, add="b", grant=Grant(subscribe=("b",), until=time.time() + 60))
        for _ in range(59 * 4):
            clock.advance(0.25)
        await settle()
        assert hub.subscribers() == 1
        for _ in range(3 * 4):
            clock.advance(0.25)
        await settle()
        assert hub.statistics().disconnects == {"expired": 1}
        await client.close()


async def test_close_while_waiting() -> None:
    broker = MemoryBroker()
    hub = Hub(broker, clock=FakeClock())
    await hub.open()
    change = asyncio.ensure_future(hub.change("unknown", add="b"))
    await settle(50)
    await hub.close()
    with pytest.raises(Exception, match="closed"):
        await change


@pytest.mark.parametrize(
    "data",
    ["", "[]", "{}", '{"nonce": 1}', '{"nonce": "1", "name": "x", "add": 1, "remove": [], "last": 0, "user": null}'],
)
async def test_foreign_records(data: str) -> None:
    """Records of other programs in the topics of changes are ignored."""
    async with hub_of(MemoryBroker()) as hub:
        for topic in ("requests", "answers"):
            await hub.publish(f"hub-changes/{topic}", data)
        await settle()
        assert (await hub.check()).newest == 2


# The ledger.


@WAYS
@pytest.mark.parametrize(("seed", "shared"), [(0, False), (1, False), (2, True)])
async def test_ledger(direct: bool, seed: int, shared: bool) -> None:
    """Each subscriber gets exactly the events of its topics between the cursors of its changes.

    Subscribers change their topics while events are published, read quickly, slowly or not at all for a while,
    and resume. With two hubs, each changes the streams of the other.
    """
    rng = random.Random(seed)
    broker = MemoryBroker(retention=Retention(events=1_000_000))
    names = [f"t/{number}" for number in range(12)]
    patterns = [*names, "t/*", "**/3", "none"]
    published: list[tuple[int, str, str]] = []
    total = 0

    async with two_hubs(broker) as hubs:

        async def publish() -> None:
            for number in range(600):
                count = rng.choice((1, 1, 2, 8))
                size = rng.choice((1, 10, 300, 3_000))
                drafts = [hubs[0].draft(rng.choice(names), f"{number}.{at}:" + "x" * size) for at in range(count)]
                cursors = await hubs[0].publish_many(drafts)
                published.extend(
                    (cursor.offset, draft.topic, draft.data.partition(":")[0])
                    for draft, cursor in zip(drafts, cursors, strict=True)
                )
                await settle(rng.randrange(4))

        async def live(number: int) -> None:
            nonlocal total
            own = random.Random(1_000 * seed + number)
            at = number % 2
            topics = frozenset(own.sample(patterns, own.randrange(1, 4)))
            client = HubClient(hubs[at], *topics, direct=direct, lazy=own.random() < 0.5, changeable=True)
            own_id = await id_of(client)
            first = int(client.body.partition(b"\n")[0].rpartition(b"-")[2])
            history = [(first, topics)]
            received: list[tuple[int, str]] = []
            wanted: list[frozenset[str]] = []

            taken = 1  # after `stream:open`

            def take() -> None:
                nonlocal taken
                client.read(own.choice((1 << 20, 5_000)))
                for event in client.events[taken:]:
                    cursor = Cursor.parse(event.id or "")
                    assert cursor is not None
                    if (change := TopicsChange.parse(event)) is not None:
                        history.append((cursor.offset, frozenset(change.topics)))
                    elif event.comment is None:
                        assert event.event is None, event
                        received.append((cursor.offset, (event.data or "").partition(":")[0]))
                taken = len(client.events)

            answers = []
            for _ in range(60):
                add = frozenset(own.sample(patterns, own.randrange(3)))
                remove = frozenset(own.sample(sorted(topics | add), own.randrange(2)))
                if not topics - remove | add:
                    continue
                topics = topics - remove | add
                wanted.append(topics)
                asked = hubs[1 - at] if shared and own.random() < 0.5 else hubs[at]
                while True:
                    try:
                        answers.append((await asked.change(own_id, add=add, remove=remove)).offset)
                        break
                    except SubscriptionBusyError:
                        take()
                total += 1
                for _ in range(own.randrange(5)):
                    await asyncio.sleep(0)
                if own.random() < 0.6:
                    take()
            await publishing
            await client.read_all(20)
            take()
            assert [each for _, each in history[1:]] == wanted
            assert [offset for offset, _ in history[1:]] == answers
            expected = []
            for (after, each), (upto, _) in zip(history, [*history[1:], (1 << 60, frozenset[str]())], strict=True):
                matches = compile_patterns(tuple(sorted(each)))
                expected += [
                    (offset, text) for offset, topic, text in published if after < offset <= upto and matches(topic)
                ]
            assert received == expected
            await client.close()

        publishing = asyncio.ensure_future(publish())
        await asyncio.gather(*(live(number) for number in range(40)))
        assert total > 2_000
        assert sum(hub.statistics().changed for hub in hubs) == total


def test_notices() -> None:
    for event, kind in (
        (ServerSentEvent("{}", event="stream:topics"), TopicsChange),
        (ServerSentEvent('{"topics": "a"}', event="stream:topics"), TopicsChange),
        (ServerSentEvent('{"topics": ["a"]}', event="stream:open"), TopicsChange),
        (ServerSentEvent("[]", event="stream:open"), StreamOpen),
        (ServerSentEvent('{"subscription": 1}', event="stream:open"), StreamOpen),
        (ServerSentEvent("x", event="stream:gap"), Gap),
        (ServerSentEvent("x", event="other"), End),
    ):
        assert kind.parse(event) is None
