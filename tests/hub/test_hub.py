"""``Hub``: publishing, subscribing, history, opening and closing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from support.asgi import settle
from tickertape.broker import LogState, MemoryBroker, Retention
from tickertape.errors import (
    BrokerError,
    EventTooLargeError,
    HubClosedError,
    InvalidEventError,
    InvalidTopicError,
)
from tickertape.hub import Hub, Overflow, OverflowPolicy, PullOutput
from tickertape.hub.log import Start
from tickertape.testing import FakeClock, ScriptedBroker
from tickertape.wire import Cursor, Draft


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
async def hub(broker: ScriptedBroker) -> AsyncIterator[Hub]:
    async with Hub(broker, clock=FakeClock(), max_event_size=100, max_topics=3) as hub:
        yield hub


async def take(subscription: PullOutput, count: int) -> list[str]:
    """Return the data of the next events."""
    async with asyncio.timeout(5):
        return [(await anext(subscription)).data or "" for _ in range(count)]


# Publishing


class Price(BaseModel):
    name: str
    cents: int = 5


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"topic": ""}, InvalidTopicError, "expected a topic of 1 to 255 characters"),
    ({"topic": "a/*"}, InvalidTopicError, r"expected a topic without '\*'"),
    ({"topic": "a//b"}, InvalidTopicError, "expected a topic without empty segments"),
    ({"data": object()}, InvalidEventError, "object cannot be written as JSON"),
    ({"data": float("nan")}, InvalidEventError, "cannot be written as JSON"),
    ({"event": "a\nb"}, InvalidEventError, "event"),
    (
        {"event": "stream:gap"},
        InvalidEventError,
        "event types that start with 'stream:' are reserved, got 'stream:gap'",
    ),
    ({"event": "stream:"}, InvalidEventError, "event types that start with 'stream:' are reserved"),
    ({"key": ""}, InvalidEventError, "expected a key of 1 to 255 characters, got 0"),
    ({"key": "k" * 256}, InvalidEventError, "expected a key of 1 to 255 characters, got 256"),
    ({"data": "x" * 101}, EventTooLargeError, "expected an event of at most 100 bytes, got 101"),
    ({"data": "ü" * 51}, EventTooLargeError, "expected an event of at most 100 bytes, got 102"),
    ({"data": ["x" * 97]}, EventTooLargeError, "expected an event of at most 100 bytes, got 101"),
]


async def by_publish(hub: Hub, **fields: Any) -> Any:
    return await hub.publish(**fields)


async def by_publish_soon(hub: Hub, **fields: Any) -> Any:
    return await hub.publish_soon(**fields)


async def by_publish_sync(hub: Hub, **fields: Any) -> Any:
    return await asyncio.to_thread(lambda: hub.publish_sync(**fields))


async def by_draft(hub: Hub, **fields: Any) -> Any:
    return await hub.publish_many([hub.draft("fine"), hub.draft(**fields)])


@pytest.mark.parametrize("publish", [by_publish, by_publish_soon, by_publish_sync, by_draft])
@pytest.mark.parametrize(("fields", "kind", "sentence"), REFUSED)
async def test_invalid_events(
    hub: Hub,
    broker: ScriptedBroker,
    publish: Callable[..., Any],
    fields: dict[str, Any],
    kind: type[Exception],
    sentence: str,
) -> None:
    """Invalid events are refused before anything is stored, in each way to publish."""
    with pytest.raises(kind, match=sentence):
        await publish(hub, **{"topic": "t", **fields})
    assert broker.calls["append"] == 0
    assert hub.statistics().published == 0


@pytest.mark.parametrize(
    ("draft", "kind"),
    [
        (Draft("t", "x" * 101), EventTooLargeError),
        (Draft("t", "é" * 51), EventTooLargeError),
    ],
)
async def test_handmade_drafts_are_checked(
    hub: Hub, broker: ScriptedBroker, draft: Draft, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await hub.publish_many([hub.draft("t", "good"), draft])
    assert broker.calls["append"] == 0


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("text", "text"),
        ("", ""),
        (None, "null"),
        (b"\xc3\xbc", "ü"),
        (Price(name="a"), '{"name":"a","cents":5}'),
        ({"a": [1, None, True]}, '{"a":[1,null,true]}'),
        ([], "[]"),
        (0, "0"),
        (False, "false"),
        (1.5, "1.5"),
        ("x" * 100, "x" * 100),
        ("ü" * 50, "ü" * 50),
    ],
)
async def test_data_as_text(hub: Hub, broker: ScriptedBroker, data: Any, text: str) -> None:
    cursor = await hub.publish("t", data, event="tick")
    [record] = (await broker.read(0, 10)).records
    assert (record.offset, record.topic, record.event, record.data) == (cursor.offset, "t", "tick", text)


async def test_cursor(hub: Hub, broker: ScriptedBroker) -> None:
    epoch = (await broker.open()).epoch
    assert [await hub.publish("t", number) for number in range(3)] == [Cursor(epoch, place) for place in (1, 2, 3)]


async def test_same_key(hub: Hub, broker: ScriptedBroker) -> None:
    first = await hub.publish("t", "once", key="k")
    assert await hub.publish("t", "twice", key="k") == first
    assert await hub.publish("t", "other", key="l") != first
    assert [record.data for record in (await broker.read(0, 10)).records] == ["once", "other"]


async def test_publish_many(hub: Hub, broker: ScriptedBroker) -> None:
    drafts = [hub.draft("a", 1), hub.draft("b", 2, event="e"), hub.draft("a", 3, key="k")]
    cursors = await hub.publish_many(iter(drafts))
    assert [cursor.offset for cursor in cursors] == [1, 2, 3]
    assert broker.calls["append"] == 1
    assert await hub.publish_many([]) == []
    assert broker.calls["append"] == 1
    assert hub.statistics().published == 3


async def test_failed_batch(hub: Hub, broker: ScriptedBroker) -> None:
    broker.fail("append")
    with pytest.raises(BrokerError, match="scripted failure"):
        await hub.publish_many([hub.draft("a", 1), hub.draft("a", 2)])
    broker.recover()
    assert (await broker.read(0, 10)).records == []
    assert hub.statistics().published == 0


async def test_stored_before_delivered(hub: Hub, broker: ScriptedBroker) -> None:
    broker.hold("append")
    async with hub.subscribe("t") as subscription:
        publishing = asyncio.create_task(hub.publish("t", "x"))
        waiting = asyncio.create_task(take(subscription, 1))
        await settle()
        assert not waiting.done()
        broker.release()
        assert await waiting == ["x"]
        assert (await publishing).offset == 1


async def test_publish_sync(hub: Hub, broker: ScriptedBroker) -> None:
    cursor = await asyncio.to_thread(hub.publish_sync, "t", "x", event="e", key="k")
    assert [(record.offset, record.event, record.data) for record in (await broker.read(0, 10)).records] == [
        (cursor.offset, "e", "x")
    ]


async def test_publish_sync_timeout(hub: Hub, broker: ScriptedBroker) -> None:
    """An event whose thread has stopped waiting is not published later."""
    broker.hold("append")
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(lambda: hub.publish_sync("t", "x", timeout=0.01))
    await settle()
    broker.release()
    await settle()
    assert (await broker.read(0, 10)).records == []


async def test_publish_sync_in_the_loop(hub: Hub, broker: ScriptedBroker) -> None:
    with pytest.raises(HubClosedError, match=r"publish_sync\(\) blocks"):
        hub.publish_sync("t", "x")
    assert broker.calls["append"] == 0


async def test_publish_soon(hub: Hub, broker: ScriptedBroker) -> None:
    tasks = [hub.publish_soon("t", number) for number in range(3)]
    assert broker.calls["append"] == 0
    assert [(await task).offset for task in tasks] == [1, 2, 3]
    assert [record.data for record in (await broker.read(0, 10)).records] == ["0", "1", "2"]


async def test_publish_soon_fails(hub: Hub, broker: ScriptedBroker, caplog: pytest.LogCaptureFixture) -> None:
    broker.fail("append")
    task = hub.publish_soon("t", "x")
    await settle(task.done)
    await settle(turns=2)
    assert "an event was not published: scripted failure" in caplog.text


async def test_publish_soon_cancelled(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    """A cancelled publish_soon() is not logged."""
    hub.publish_soon("t", "x").cancel()
    await settle()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


# Subscribing


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["a"], ["a"]),
        (["a/*"], ["a/b"]),
        (["a/**"], ["a", "a/b", "a/b/c"]),
        (["**"], ["a", "a/b", "b", "a/b/c"]),
        (["b", "a/b"], ["a/b", "b"]),
        (["a", "**", "a/*"], ["a", "a/b", "b", "a/b/c"]),  # each event once
        (["other", "b"], ["b"]),
    ],
)
async def test_patterns(hub: Hub, patterns: list[str], expected: list[str]) -> None:
    await hub.publish("a", "before")
    await settle()  # until the hub has read it from the log
    async with hub.subscribe(patterns) as subscription:
        for topic in ("a", "a/b", "b", "a/b/c"):
            await hub.publish(topic, topic)
        assert await take(subscription, len(expected)) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["5"]),
        ({"last": 0}, ["5"]),
        ({"last": 2}, ["3", "4", "5"]),
        ({"last": 100}, ["1", "2", "3", "4", "5"]),
        ({"after": 0}, ["1", "2", "3", "4", "5"]),
        ({"after": 3, "last": 1}, ["4", "5"]),  # a cursor comes first
        ({"after": 4, "last": 4}, ["5"]),
    ],
)
async def test_start(hub: Hub, options: dict[str, Any], expected: list[str]) -> None:
    cursors = await hub.publish_many([hub.draft("t", number) for number in range(1, 5)])
    await settle()
    after = options.pop("after", None)
    if after is not None:
        options["last_event_id"] = str(Cursor(cursors[0].epoch, after))
    async with hub.subscribe("t", **options) as subscription:
        await hub.publish("t", 5)
        assert await take(subscription, len(expected)) == expected


@pytest.mark.parametrize(
    ("patterns", "options", "kind", "sentence"),
    [
        ([], {}, InvalidTopicError, "a subscription needs at least one topic"),
        (["a*"], {}, InvalidTopicError, "as a whole segment"),
        (["a", "b", "c", "d"], {}, InvalidTopicError, "expected at most 3 topics in a subscription, got 4"),
        (["a"], {"on_overflow": "explode"}, ValueError, "expected on_overflow to be one of"),
    ],
)
async def test_invalid_subscriptions(
    hub: Hub, patterns: list[str], options: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        async with hub.subscribe(patterns, **options):
            pass
    assert hub.subscribers() == 0


@pytest.mark.parametrize("policy", ["disconnect", "skip", "latest"])
async def test_invalid_policy(hub: Hub, policy: Overflow) -> None:
    async with hub.subscribe("a", on_overflow=policy) as subscription:
        assert subscription.subscription.policy == policy


async def test_subscribers_of_a_topic(hub: Hub) -> None:
    async with hub.subscribe("a/*"), hub.subscribe("a/*"), hub.subscribe(["a/b", "**/b"]), hub.subscribe("c"):
        assert hub.subscribers() == 4
        counts = {topic: hub.subscribers(topic) for topic in ("a/b", "a/x", "b", "c", "d")}
        assert counts == {"a/b": 3, "a/x": 2, "b": 1, "c": 1, "d": 0}
        with pytest.raises(InvalidTopicError):
            hub.subscribers("a/*")
        await hub.publish_many([hub.draft("c"), hub.draft("a/x"), hub.draft("d")])
        await settle()
        assert list(hub.topics().items()) == [("a/x", 2), ("c", 1), ("d", 0)]
        assert list(hub.topics(after="a/x").items()) == [("c", 1), ("d", 0)]
        assert list(hub.topics(after="a", limit=2).items()) == [("a/x", 2), ("c", 1)]
    assert hub.subscribers() == hub.subscribers("a/b") == 0


async def test_statistics(hub: Hub) -> None:
    async with hub.subscribe("a") as one, hub.subscribe("**", last_event_id="nonsense") as two:
        await hub.publish("a", "x")
        await hub.publish("b", "y")
        await take(one, 1)
        await take(two, 3)
        found = hub.statistics()
        assert found.window_bytes > 0
        assert (found.subscribers, found.streams, found.topics, found.window_events) == (
            2,
            {"direct": 0, "pull": 2},
            2,
            2,
        )
        assert (found.published, found.opened, found.delivered, found.superseded, found.skipped) == (2, 2, 3, 0, 0)
        assert (found.gaps, found.disconnects, found.feeds) == ({"expired": 0, "reset": 1}, {}, {})
    statistics = hub.statistics()
    assert (statistics.subscribers, statistics.disconnects) == (0, {"client_closed": 2})


# History


@pytest.mark.parametrize(
    ("patterns", "after", "limit", "expected", "gap"),
    [
        (["**"], None, 100, [3, 4, 5, 6], None),
        (["a"], None, 100, [3, 5], None),
        (["**"], None, 2, [3, 4], None),
        (["b"], None, 1, [4], None),
        (["**"], "{epoch}-4", 100, [5, 6], None),
        (["**"], "{epoch}-2", 100, [3, 4, 5, 6], None),  # all later events are kept
        (["**"], "{epoch}-6", 100, [], None),
        (["**"], "{epoch}-1", 100, [3, 4, 5, 6], "expired"),
        (["**"], "{epoch}-0", 1, [3], "expired"),
        (["**"], "{epoch}-7", 100, [3, 4, 5, 6], "reset"),
        (["**"], "other-4", 100, [3, 4, 5, 6], "reset"),
        (["other"], "nonsense", 100, [], "reset"),
        (["**"], "", 100, [3, 4, 5, 6], "reset"),
    ],
)
async def test_history(
    hub: Hub,
    broker: ScriptedBroker,
    patterns: list[str],
    after: str | None,
    limit: int,
    expected: list[int],
    gap: str | None,
) -> None:
    await hub.publish_many([hub.draft("ab"[number % 2], number) for number in range(6)])
    broker.trim(keep=4)
    epoch = (await broker.open()).epoch
    given = None if after is None else after.format(epoch=epoch)
    found, reason = await hub.history(patterns, after=given, limit=limit)
    assert [cursor for cursor, _ in found] == [Cursor(epoch, offset) for offset in expected]
    assert [record.offset for _, record in found] == expected
    assert reason == gap


async def test_newest_events() -> None:
    async with Hub() as hub:
        await hub.publish_many([hub.draft("ab"[number % 2], number) for number in range(7)])
        for topics, last, expected in [("a", 2, "46"), ("b", 9, "135"), ("**", 3, "456"), ("c", 1, "")]:
            found, gap = await hub.history(topics, last=last)
            assert (topics, "".join(record.data for _, record in found), gap) == (topics, expected, None)
        for wrong in (0, -1, True):
            with pytest.raises(ValueError, match="expected last to be an int of at least 1"):
                await hub.history("a", last=wrong)
        for options in ({"after": "a-1"}, {"max_bytes": 1}):
            with pytest.raises(ValueError, match="expected last alone"):
                await hub.history("a", last=1, **options)


class ReplacedOnRead(ScriptedBroker):
    """A log that gets a new epoch just after it was read for the first time."""

    async def read(self, after: int, limit: int, topics: Any = None) -> Any:
        found = await super().read(after, limit, topics)
        if self.calls["read"] == 1:
            self.reset()
            await self.append([Draft("t", "new")])
        return found


async def test_history_of_one_log() -> None:
    broker = ReplacedOnRead()
    async with Hub(broker, clock=FakeClock()) as hub:
        old = await hub.publish("t", "old")
        found, gap = await hub.history("t", after=str(Cursor(old.epoch, 0)))
        assert ([record.data for _, record in found], found[0][0].epoch, gap) == (["old"], old.epoch, None)
        found, gap = await hub.history("t", after=str(old))
        assert ([record.data for _, record in found], gap) == (["new"], "reset")
        assert found[0][0].epoch != old.epoch


@pytest.mark.parametrize(
    ("sizes", "max_bytes", "expected", "reads"),
    [
        ([10] * 100, None, 100, 1),
        ([10] * 100, 1000, 100, 3),  # 16, 32, 52
        ([10] * 100, 55, 5, 1),
        ([100, 1], 50, 1, 1),  # the first is always returned
        ([10] * 20 + [1000] * 80, 500, 20, 2),
        ([1] * 300, 1000, 300, 6),  # 16, 32, 64, 64, 64, 60
    ],
)
async def test_history_in_bytes(sizes: list[int], max_bytes: int | None, expected: int, reads: int) -> None:
    """The steps are small: few of the next events are read for a page, regardless of their size."""
    broker = ScriptedBroker()
    async with Hub(broker, clock=FakeClock()) as hub:
        await hub.publish_many([hub.draft("t", "ä" * (size // 2) + "x" * (size % 2)) for size in sizes])
        before = broker.calls["read"]
        found, _ = await hub.history("t", limit=len(sizes), max_bytes=max_bytes)
        assert (len(found), broker.calls["read"] - before) == (expected, reads)


async def test_history_without_patterns(hub: Hub) -> None:
    with pytest.raises(InvalidTopicError):
        await hub.history(["a", "b", "c", "d"])
    with pytest.raises(InvalidTopicError):
        await hub.history([])


# Opening and closing


async def test_check(hub: Hub, broker: ScriptedBroker) -> None:
    await hub.publish("t")
    state = await hub.check()
    assert isinstance(state, LogState)
    assert (state.oldest, state.newest) == (1, 1)
    broker.fail("state")
    with pytest.raises(BrokerError, match="scripted failure"):
        await hub.check()
    broker.recover()
    assert await hub.check() == state
    hub.drain()
    with pytest.raises(HubClosedError, match="hub is draining"):
        await hub.check()


CALLS: dict[str, Callable[[Hub], Any]] = {
    "publish": lambda hub: hub.publish("t"),
    "publish_many": lambda hub: hub.publish_many([]),
    "publish_soon": lambda hub: hub.publish_soon("t"),
    "publish_sync": lambda hub: hub.publish_sync("t"),
    "subscribe": lambda hub: hub.subscribe("t").__aenter__(),
    "history": lambda hub: hub.history("t"),
    "check": lambda hub: hub.check(),
    "topics": lambda hub: hub.topics(),
    "subscribers": lambda hub: hub.subscribers(),
    "statistics": lambda hub: hub.statistics(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_closed_hub(call: Callable[[Hub], Any]) -> None:
    hub = Hub(clock=FakeClock())
    async with hub:
        pass

    async def result() -> Any:
        found = call(hub)
        return await found if asyncio.iscoroutine(found) else found

    with pytest.raises(HubClosedError, match="hub is closed"):
        await result()


async def test_open_twice() -> None:
    hub = Hub(clock=FakeClock())
    async with hub:
        with pytest.raises(HubClosedError, match="hub is already open"):
            await hub.open()
        assert (await hub.publish("t")).offset == 1  # it is still open
    await hub.close()  # for the second time


async def test_open_without_log(broker: ScriptedBroker) -> None:
    hub = Hub(broker, clock=FakeClock())
    broker.fail("open")
    with pytest.raises(BrokerError):
        await hub.open()
    await hub.close()
    assert len(hub.presence) == 0


async def test_reopen() -> None:
    """A hub with a URL can be opened again, as the tests of an application do."""
    hub = Hub(clock=FakeClock())
    epochs = set()
    for _ in range(3):
        async with hub, hub.subscribe("t") as events:
            await hub.publish("t", "x")
            assert (await anext(events)).data == "x"
            assert not hub.draining
            hub.drain()
            epochs.add(hub.epoch)
        assert not hub.draining
    assert len(epochs) == 3


async def test_reopen_with_broker() -> None:
    """A broker cannot be opened again, so the error states the remedy."""
    hub = Hub(MemoryBroker(), clock=FakeClock())
    async with hub:
        pass
    with pytest.raises(HubClosedError, match="create a new hub, or give it a URL"):
        await hub.open()
    await hub.close()


async def is_usable(hub: Hub) -> bool:
    async with hub.subscribe("t") as events:
        await hub.publish("t", "x")
        return (await anext(events)).data == "x" and not hub.draining


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{directory}/log.db"])
class TestOpenAndCloseAtOnce:
    """Tasks that open and close one hub at the same time do not get in each other's way."""

    @pytest.fixture
    async def hub(self, url: str, tmp_path: Path) -> AsyncIterator[Hub]:
        hub = Hub(url.format(directory=tmp_path))
        yield hub
        await hub.close()

    async def test_open_twice(self, hub: Hub) -> None:
        results = await asyncio.gather(hub.open(), hub.open(), return_exceptions=True)
        assert [type(result) for result in results] == [type(None), HubClosedError]
        assert await is_usable(hub)

    async def test_open_while_closing(self, hub: Hub) -> None:
        await hub.open()
        closing = asyncio.ensure_future(hub.close())
        await asyncio.sleep(0)
        await hub.open()
        assert closing.done()
        assert await is_usable(hub)

    async def test_close_while_opening(self, hub: Hub) -> None:
        opening = asyncio.ensure_future(hub.open())
        await asyncio.sleep(0)
        await hub.close()
        await opening
        assert "closed" in repr(hub)
        await hub.open()
        assert await is_usable(hub)

    async def test_close_twice(self, hub: Hub) -> None:
        """Both calls return when the hub is closed."""
        await hub.open()

        async def close() -> bool:
            await hub.close()
            return hub.draining

        results = await asyncio.gather(close(), close())
        assert list(results) == [False, False]

    async def test_cancelled_close(self, hub: Hub) -> None:
        await hub.open()
        closing = asyncio.ensure_future(hub.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await hub.close()
        assert not hub.draining
        await hub.open()
        assert await is_usable(hub)


@pytest.mark.parametrize("broker_given", ["memory://", MemoryBroker])
async def test_broker_or_url(broker_given: Any) -> None:
    broker = broker_given if isinstance(broker_given, str) else broker_given()
    async with Hub(broker, clock=FakeClock()) as hub, hub.subscribe("t") as subscription:
        await hub.publish("t", "x")
        assert await take(subscription, 1) == ["x"]


async def test_retention() -> None:
    """The retention limits the log that a URL creates, and the window."""
    async with Hub("memory://", retention=Retention(events=3), clock=FakeClock()) as hub:
        await hub.publish_many([hub.draft("t", number) for number in range(10)])
        await settle()
        assert hub.statistics().window_events == 3
        found, _ = await hub.history("t")
        assert [record.data for _, record in found] == ["7", "8", "9"]


async def test_lifespan() -> None:
    hub = Hub(clock=FakeClock())
    async with hub.lifespan(object()):
        await hub.publish("t")
    with pytest.raises(HubClosedError):
        await hub.publish("t")


async def test_repr() -> None:
    hub = Hub(clock=FakeClock())
    assert repr(hub).endswith(" closed>")
    async with hub:
        assert repr(hub).endswith(" open>")
        hub.drain()
        assert repr(hub).endswith(" draining>")
    assert repr(hub).endswith(" closed>")


async def test_close_ends_waiting_reader() -> None:
    hub = Hub(clock=FakeClock())
    await hub.open()
    async with hub.subscribe("t") as one, hub.subscribe("**") as two:
        waiting = [asyncio.ensure_future(anext(subscription, None)) for subscription in (one, two)]
        await settle()
        await hub.close()
        async with asyncio.timeout(5):
            assert await asyncio.gather(*waiting) == [None, None]
        assert (one.reason, two.reason) == ("draining", "draining")


async def test_drain() -> None:
    clock = FakeClock()
    numbers = iter([0.1, 0.9, *([0.5] * 5000)])
    async with Hub(clock=clock, drain_window=10.0, random=lambda: next(numbers)) as hub:
        async with hub.subscribe("t") as early, hub.subscribe("t") as late:
            for _ in range(5000):
                hub.subscribe_at(Start(0), ("many",), OverflowPolicy.DISCONNECT, None)
            assert hub.drain() == 10.0
            assert hub.drain() == 10.0  # a second call changes nothing
            assert hub.draining
            with pytest.raises(HubClosedError, match="draining"):
                async with hub.subscribe("t"):
                    pass
            assert (await hub.publish("t", "last words")).offset == 1
            assert {early.reason, late.reason} == {None}
            clock.advance(1.5)
            assert sorted(map(str, (early.reason, late.reason))) == ["None", "draining"]
            clock.advance(8)
            assert (early.reason, late.reason) == ("draining", "draining")
        assert hub.statistics().disconnects == {"draining": 5002}


@pytest.mark.parametrize(("number", "retry"), [(0.0, 2400), (0.5, 3000), (0.75, 3300)])
async def test_retry_jitter(number: float, retry: int) -> None:
    hub = Hub(retry=3.0, random=lambda: number)
    assert hub.retry_block() == b"retry: %d\n\n" % retry
