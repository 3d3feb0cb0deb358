"""Feeds: each item of a source appears in the log once, across failures, and nothing is lost silently."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import types
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from support.hub import settle
from tickertape.errors import BrokerError, EventTooLargeError, InvalidEventError, InvalidTopicError
from tickertape.hub import Batch, Feed, FeedState, Hub, field_reader
from tickertape.hub import feeds as feeds_module
from tickertape.hub.feeds import Shape
from tickertape.testing import FakeClock, ScriptedBroker
from tickertape.wire import MAX_KEY_LENGTH, Cursor, Draft


@asynccontextmanager
async def hub_of(broker: ScriptedBroker | None = None, **options: Any) -> AsyncIterator[tuple[Hub, FakeClock]]:
    clock = FakeClock()
    async with Hub(broker or ScriptedBroker(), clock=clock, random=lambda: 0.0, **options) as hub:
        yield hub, clock


async def stored(hub: Hub, topic: str = "**") -> list[tuple[str, str | None, str]]:
    records, _ = await hub.history(topic, limit=10_000)
    return [(record.topic, record.event, record.data) for _, record in records]


async def data_of(hub: Hub) -> list[str]:
    return [data for _, _, data in await stored(hub)]


def items(*given: Any) -> Callable[[], AsyncIterator[Any]]:
    """Return a source that yields these items each time it is read, and then ends."""

    async def source() -> AsyncIterator[Any]:
        for item in given:
            yield item

    return source


class Script:
    """A source that a test controls.

    Attributes:
        acknowledged: items whose ``yield`` has returned.
        read: how often it was iterated.
        closed: how often it was closed.
    """

    def __init__(self, *given: Any) -> None:
        self.given = list(given)
        self.acknowledged: list[Any] = []
        self.read = self.closed = 0
        self.failures: list[Exception] = []
        self.more = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[Any]:
        self.read += 1
        try:
            while True:
                while self.given:
                    yield self.given[0]
                    self.acknowledged.append(self.given.pop(0))
                if self.failures:
                    raise self.failures.pop(0)
                self.more.clear()
                await self.more.wait()
        finally:
            self.closed += 1

    def give(self, *given: Any) -> None:
        self.given += given
        self.more.set()

    def fail(self, *errors: Exception) -> None:
        self.failures += errors
        self.more.set()


# Items become events.

Row = types.SimpleNamespace

SHAPES: list[tuple[dict[str, Any], Any, tuple[str, str | None, str]]] = [
    ({"topic": "t"}, {"id": 1}, ("t", None, '{"id":1}')),
    ({"topic": "t", "event": "kind"}, {"id": 1}, ("t", "kind", '{"id":1}')),
    ({"topic": "t", "event": lambda item: item["kind"]}, {"id": 1, "kind": "a"}, ("t", "a", '{"id":1,"kind":"a"}')),
    ({"topic": "t", "event": lambda item: None}, {"id": 1}, ("t", None, '{"id":1}')),
    ({"topic": lambda item: f"users/{item['id']}", "name": "n"}, {"id": 7}, ("users/7", None, '{"id":7}')),
    ({"topic": "t", "data": lambda item: item.text}, Row(id=1, text="x"), ("t", None, "x")),
    ({"topic": "t", "key": lambda item: item}, "text", ("t", None, "text")),
    ({"topic": "t", "key": None}, "text", ("t", None, "text")),
]


@pytest.mark.parametrize(("arguments", "item", "event"), SHAPES)
async def test_item_becomes_event(arguments: dict[str, Any], item: Any, event: tuple[str, str | None, str]) -> None:
    async with hub_of() as (hub, _):
        feed = hub.feed(arguments.pop("topic"), items(item), **{"key": "id", **arguments})
        await settle()
        assert await stored(hub) == [event]
        assert feed.statistics() == (FeedState.ENDED, 1, 0, 0, 0, None)


def sqlite_row() -> Any:
    with sqlite3.connect(":memory:") as database:
        database.row_factory = sqlite3.Row
        return database.execute("SELECT 5 AS id").fetchone()


@pytest.mark.parametrize("item", [{"id": 5}, types.MappingProxyType({"id": 5}), Row(id=5), sqlite_row()])
def test_field_by_name(item: Any) -> None:
    assert field_reader("id")(item) == 5
    with pytest.raises((KeyError, AttributeError, IndexError)):
        field_reader("other")(item)


def test_field_of_text() -> None:
    with pytest.raises(AttributeError):
        field_reader("id")("text")


def shape(**fields: Any) -> Shape:
    return Shape(**{"name": "n", "topic": "t", "event": None, "key": "id", "data": None, **fields})


def test_keys() -> None:
    assert shape().find_key({"id": 5}) == "n:5"
    assert shape(name="m").find_key({"id": 5}) == "m:5"
    long = [shape().find_key({"id": "x" * 1000 + end}) for end in ("a", "b", "a")]
    assert [len(key) <= MAX_KEY_LENGTH for key in long] == [True] * 3
    assert long[0] == long[2] != long[1]
    assert shape(key=None).find_key("x") != shape(key=None).find_key("x")


# Order.


async def test_next_item_after_storing() -> None:
    broker, source = ScriptedBroker(), Script(1, 2, 3)
    async with hub_of(broker) as (hub, _):
        broker.hold("append")
        hub.feed("t", source, key=str)
        await settle()
        assert (source.acknowledged, await data_of(hub)) == ([], [])
        broker.release()
        await settle()
        assert (source.acknowledged, await data_of(hub)) == ([1, 2, 3], ["1", "2", "3"])


async def test_batch_is_stored_in_parts() -> None:
    class Parts(ScriptedBroker):
        def __init__(self) -> None:
            super().__init__()
            self.parts: list[int] = []

        async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
            self.parts.append(len(drafts))
            return await super().append(drafts)

    broker = Parts()
    async with hub_of(broker) as (hub, _):
        large = [f"{number}" + "x" * 400_000 for number in range(3)]
        given: list[Any] = [Batch(range(10)), Batch(range(100, 1300)), Batch(large), Batch(()), 99]
        feed = hub.feed("t", items(*given), key=lambda item: str(item)[:9])
        await settle()
        assert broker.parts == [10, 500, 500, 200, 1, 1, 1, 1]
        assert await data_of(hub) == [*map(str, [*range(10), *range(100, 1300)]), *large, "99"]
        assert feed.statistics().published == hub.statistics().published == 1214
    assert repr(Batch([1, 2])) == "<Batch of 2>"


async def test_source_that_never_waits() -> None:
    async def source() -> AsyncIterator[int]:
        number = 0
        while True:
            number += 1
            yield number

    async with hub_of() as (hub, _), hub.subscribe("t") as subscription:
        good = hub.feed("t", source, key=str)
        bad = hub.feed("u", source, key="nothing")
        async with asyncio.timeout(10):
            assert [(await anext(subscription)).data for _ in range(100)] == [str(n) for n in range(1, 101)]
        await asyncio.gather(good.stop(), bad.stop())
        assert bad.statistics().skipped > 10


# Failures.


async def test_source_fails(caplog: pytest.LogCaptureFixture) -> None:
    source = Script("a")
    async with hub_of() as (hub, clock):
        feed = hub.feed("t", source, key=str)
        await settle()
        source.fail(*(OSError(f"no. {number}") for number in range(10)))
        pauses = []
        for _ in range(10):
            await settle()
            assert feed.statistics().state == "retrying"
            read, waited = source.read, 0.0
            while source.read == read:
                clock.advance(0.25)
                waited += 0.25
                await settle()
            pauses.append(waited)
        assert pauses == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30], abs=0.5)
        source.give("b")
        await settle()
        assert feed.statistics() == (FeedState.RUNNING, 2, 0, 10, 10, "OSError: no. 9")
        assert hub.statistics().feeds == {"t": feed.statistics()}
        assert (await data_of(hub), source.read, source.closed) == (["a", "b"], 11, 10)
        logged = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert logged[0] == "the source of feed 't' failed, retrying in 0.5 s: OSError: no. 0"
        assert len(logged) == 10
        clock.advance(61)  # long enough to count as the first failure in a row
        source.fail(ValueError("again"))
        await settle()
        assert "retrying in 0.5 s: ValueError: again" in caplog.text


async def test_unacknowledged_items_appear_once() -> None:
    """The source fails after an item is stored and before it records that."""
    rows = list(range(10))
    done: list[int] = []

    async def source() -> AsyncIterator[int]:
        for row in rows[len(done) :]:
            yield row
            if row % 2 == 0 and row not in died:
                died.add(row)
                raise ConnectionError("killed before it saved its position")
            done.append(row)

    died: set[int] = set()
    async with hub_of() as (hub, clock):
        feed = hub.feed("t", source, key=str)
        for _ in range(10):
            await settle()
            clock.advance(31)
        await settle()
        assert await data_of(hub) == [str(row) for row in rows]
        assert feed.statistics()[:5] == (FeedState.ENDED, 15, 0, 5, 5)


async def test_log_fails(caplog: pytest.LogCaptureFixture) -> None:
    broker, source = ScriptedBroker(), Script("a", "b")
    async with hub_of(broker) as (hub, clock):
        broker.fail("append", error=BrokerError("away"))
        feed = hub.feed("t", source, key=str)
        await settle()
        for _ in range(100):
            clock.advance(1)
            await settle(5)
        assert feed.statistics().state == "retrying"
        assert 15 <= broker.calls["append"] <= 25, "expected an attempt every 5 seconds"
        assert "the log of feed 't' failed, retrying in 0.5 s: BrokerError: away" in caplog.text
        broker.recover()
        clock.advance(6)
        await settle()
        assert feed.statistics()[:3] == (FeedState.RUNNING, 2, 0)
        assert (source.read, source.acknowledged, await data_of(hub)) == (1, ["a", "b"], ["a", "b"])


@pytest.mark.parametrize("key", [str, None], ids=["key", "no key"])
async def test_lost_answer(key: Callable[[Any], str] | None) -> None:
    class Forgetful(ScriptedBroker):
        """A log that stores, and then fails to confirm, each second time."""

        async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
            cursors = await super().append(drafts)
            if self.calls["append"] % 2:
                raise BrokerError("the answer was lost")
            return cursors

    async with hub_of(Forgetful()) as (hub, clock):
        feed = hub.feed("t", items("a", Batch("bc"), "d"), key=key)
        for _ in range(10):
            await settle()
            clock.advance(1)
        assert await data_of(hub) == ["a", "b", "c", "d"]
        assert feed.statistics()[:5] == (FeedState.ENDED, 4, 0, 3, 0)


async def test_same_feed_in_two_hubs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    async with Hub(url) as one, Hub(url) as two:
        feeds = [hub.feed("t", items(*range(50)), key=str) for hub in (one, two)]
        running = [task for task in asyncio.all_tasks() if task.get_name() == "tickertape feed t"]
        await asyncio.wait(running, timeout=30)
        assert [feed.statistics()[:2] for feed in feeds] == [(FeedState.ENDED, 50)] * 2
        assert await data_of(one) == [str(number) for number in range(50)]


# Items that can never be published.

POISON: list[tuple[str, dict[str, Any], Any, str]] = [
    ("topic", {"topic": lambda item: "a//b", "name": "f"}, 5, "InvalidTopicError: expected a topic without empty"),
    ("no topic", {"topic": lambda item: None, "name": "f"}, 5, "InvalidTopicError: expected a topic as a str"),
    ("event", {"event": lambda item: "stream:gap"}, 5, "InvalidEventError: event types that start with"),
    ("data", {"data": lambda item: object()}, 5, "JSON"),
    ("size", {"data": lambda item: "x" * 101}, 5, "EventTooLargeError: expected an event of at most 100 bytes"),
    ("function", {"data": lambda item: 1 / 0}, 5, "ZeroDivisionError: division by zero"),
    ("no field", {"key": "id"}, 5, "AttributeError"),
    ("no key", {"key": lambda item: None}, 5, "InvalidEventError: expected a key that is text or a number, got None"),
    ("empty key", {"key": lambda item: ""}, 5, "InvalidEventError: expected a key"),
    ("address", {"key": lambda item: object()}, 5, "InvalidEventError: expected a key"),
]


@pytest.mark.parametrize("on_error", ["skip", "stop"])
@pytest.mark.parametrize(("arguments", "item", "sentence"), [case[1:] for case in POISON], ids=[c[0] for c in POISON])
async def test_unfit_item(
    arguments: dict[str, Any], item: Any, sentence: str, on_error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good: dict[str, Any] = {"topic": "f", "event": None, "key": str, "data": str, "name": "f"}
    options = dict(good)
    for name, value in arguments.items():
        usual = good[name]
        options[name] = _either(value, usual) if callable(value) else value
    if options["key"] == "id":
        options["key"] = _either(field_reader("id"), str)
    async with hub_of(max_event_size=100) as (hub, _):
        source = Script(1, item, 2)
        feed = hub.feed(options.pop("topic"), source, on_error=on_error, **options)
        await settle()
        found = feed.statistics()
        assert sentence in (found.last_error or "")
        assert sentence.partition(":")[0] in caplog.text
        assert ("f:5" in caplog.text) is ("key" not in arguments), "the log line names its key, if it has one"
        if on_error == "skip":
            assert found[:5] == (FeedState.RUNNING, 2, 1, 0, 0)
            assert (await data_of(hub), source.acknowledged) == (["1", "2"], [1, 5, 2])
        else:
            assert found[:5] == (FeedState.FAILED, 1, 0, 1, 0)
            assert (await data_of(hub), source.acknowledged, source.closed) == (["1"], [1], 1)


def _either(bad: Callable[[Any], Any], good: Any) -> Callable[[Any], Any]:
    """Return a function that treats one item badly."""
    return lambda item: bad(item) if item == 5 else good(item) if callable(good) else good


async def test_unfit_item_in_batch() -> None:
    async with hub_of() as (hub, _):
        skipping = hub.feed("t", items(Batch([1, None, 2])), key=lambda item: item + 0)
        stopping = hub.feed("u", items(Batch([1, None, 2]), 3), key=lambda item: item + 0, on_error="stop")
        await settle()
        assert await stored(hub) == [("t", None, "1"), ("t", None, "2")], "all or none"
        assert skipping.statistics()[:3] == (FeedState.ENDED, 2, 1)
        assert stopping.statistics()[:4] == (FeedState.FAILED, 0, 0, 1)


# Start and stop.


async def test_feeds_run_while_hub_is_open() -> None:
    hub = Hub(ScriptedBroker(), clock=FakeClock())
    early, late = Script("a"), Script("b")
    feed = hub.feed("t", early, key=str)
    assert isinstance(feed, Feed)
    assert (repr(feed), feed.name, early.read) == ("<Feed 't' waiting published=0 failures=0>", "t", 0)
    async with hub:
        second = hub.feed("u", late, key=str)
        await settle()
        assert sorted(await data_of(hub)) == ["a", "b"]
        assert feed.statistics().state == second.statistics().state == "running"
    assert feed.statistics().state == second.statistics().state == "stopped"
    assert (early.closed, late.closed) == (1, 1)
    await hub.close()


async def test_stop_and_declare_again() -> None:
    source = Script("a")
    hub = Hub(ScriptedBroker(), clock=FakeClock())
    never = hub.feed("t", source, key=str)
    with pytest.raises(ValueError, match="there is another feed with the name 't'"):
        hub.feed("t", source, key=str)
    await never.stop()
    async with hub:
        await settle()
        assert (never.statistics().state, source.read) == ("stopped", 0)
        feed = hub.feed("t", source, key=str)
        await settle()
        await feed.stop()
        await feed.stop()
        source.give("b")
        await settle()
        assert (feed.statistics().state, source.closed, await data_of(hub)) == ("stopped", 1, ["a"])
        hub.feed("t", source, key=str)
        await settle()
        assert await data_of(hub) == ["a", "b"]


async def test_close_waits_for_replaced_feeds() -> None:
    """A feed that another one of the same name has replaced may still be closing its source."""
    released = asyncio.Event()
    closed: list[str] = []

    async def source() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            await released.wait()
            closed.append("source")

    hub = Hub(ScriptedBroker(), clock=FakeClock())
    async with hub:
        replaced = hub.feed("t", source, key=str)
        await settle()
        replaced.cancel()
        hub.feed("t", items(), key=str)
        closing = asyncio.create_task(hub.close())
        await settle()
        assert not closing.done()
        released.set()
        await closing
        assert closed == ["source"]


async def test_too_large_for_the_log() -> None:
    """A batch that is too large for the log is stored in smaller parts; a single item that is too large is skipped."""

    class Small(ScriptedBroker):
        async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
            size = sum(draft.size for draft in drafts)
            if size > 10:
                raise EventTooLargeError(size, 10)
            return await super().append(drafts)

    async with hub_of(Small()) as (hub, _):
        feed = hub.feed("t", items(Batch(["aaaa", "bbbb", "c" * 11, "dddd", "eeee"]), "f"), key=str)
        await settle()
        assert await data_of(hub) == ["aaaa", "bbbb", "dddd", "eeee", "f"]
        assert feed.statistics()[:5] == (FeedState.ENDED, 5, 1, 0, 0)
        assert "EventTooLargeError" in (feed.statistics().last_error or "")


@pytest.mark.parametrize("trouble", ["source", "log", "held"])
async def test_hub_closes_during_retry(trouble: str) -> None:
    broker, source = ScriptedBroker(), Script("a")
    async with hub_of(broker) as (hub, _):
        if trouble == "source":
            source.fail(OSError("away"))
        elif trouble == "log":
            broker.fail("append")
        else:
            broker.hold("append")
        feed = hub.feed("t", source, key=str)
        await settle()
        async with asyncio.timeout(10):
            await hub.close()
        assert (feed.statistics().state, source.closed) == ("stopped", 1)


async def test_hub_closes_while_feed_runs(caplog: pytest.LogCaptureFixture) -> None:
    async def source() -> AsyncIterator[int]:
        for number in range(1_000_000):
            yield number

    for turns in range(1, 20):
        async with hub_of() as (hub, _):
            feed = hub.feed("t", source, key=str)
            await settle(turns)
        assert feed.statistics()[:1] + feed.statistics()[2:] == (FeedState.STOPPED, 0, 0, 0, None)
    assert caplog.text == ""


async def test_source_stops_its_feed() -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"
        await feed.stop()
        yield "b"

    async with hub_of() as (hub, _):
        feed = hub.feed("t", source, key=str)
        await settle()
        assert feed.statistics().state == "stopped"


async def test_source_turns_cancellation_into_error() -> None:
    async def source() -> AsyncIterator[str]:
        read.append("again")
        try:
            yield "a"
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if len(read) == 1:
                raise OSError("cut off") from None
        yield "b"
        yield "c"

    read: list[str] = []
    async with hub_of() as (hub, _):
        feed = hub.feed("t", source, key=str)
        await settle()
        await feed.stop()
        assert (feed.statistics().state, read) == ("stopped", ["again"])


async def test_source_that_does_not_end(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(feeds_module, "_PATIENCE", 0.01)
    released = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            await released.wait()

    hub = Hub(ScriptedBroker(), clock=FakeClock())
    feed = hub.feed("t", source, key=str)
    async with hub:
        await settle()
    assert "feed 't' was stopped, but its source still runs after 0.01 s" in caplog.text
    assert feed.statistics().state == "stopped"
    released.set()
    await settle()


async def test_source_ignores_cancellation() -> None:
    async def source() -> AsyncIterator[str]:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        yield "too late"

    broker = ScriptedBroker()
    async with hub_of(broker) as (hub, _):
        feed = hub.feed("t", source, key=str)
        await settle()
        broker.fail("append")
        await feed.stop()
        assert (feed.statistics()[:4], broker.calls["append"]) == ((FeedState.STOPPED, 0, 0, 0), 1)


async def test_broken_sources(caplog: pytest.LogCaptureFixture) -> None:
    async def coroutine() -> list[int]:
        return []

    generator = items("a")()

    async def fails() -> AsyncIterator[str]:
        yield "a"
        raise OSError("once")

    failing = fails()
    broken: list[tuple[str, Any, str]] = [
        ("coroutine", coroutine, "expected a function that returns an async iterable, it returned <coroutine"),
        ("list", list, "expected a function that returns an async iterable, it returned []"),
        ("same", lambda: failing, "the source returned the iterator that failed before"),
    ]

    async with hub_of() as (hub, clock):
        for name, source, _ in broken:
            hub.feed(name, source, key=str)
        await settle()
        clock.advance(2)
        await settle()
        for name, _, sentence in broken:
            assert sentence in (hub.statistics().feeds[name].last_error or "")
    with pytest.raises(
        TypeError, match="expected a source that can be iterated several times, as a generator function"
    ):
        Hub().feed("t", generator, key=str)


DECLARATIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"source": [1]}, TypeError, r"expected an async iterable, or a function that returns one, got \[1\]"),
    ({"topic": "a//b"}, InvalidTopicError, "empty segments"),
    ({"topic": "a/*"}, InvalidTopicError, "expected a topic without"),
    ({"event": "stream:x"}, InvalidEventError, "are reserved"),
    ({"topic": lambda item: "t"}, ValueError, "a feed whose topic is a function needs a name"),
    ({"name": ""}, ValueError, "expected a name of 1 to 100 characters, got 0"),
    ({"topic": "x" * 101}, ValueError, "expected a name of 1 to 100 characters, got 101"),
    ({"on_error": "ignore"}, ValueError, "expected on_error to be 'skip' or 'stop', got 'ignore'"),
]


@pytest.mark.parametrize(("fields", "error", "sentence"), DECLARATIONS)
async def test_invalid_declarations(fields: dict[str, Any], error: type[Exception], sentence: str) -> None:
    hub = Hub()
    with pytest.raises(error, match=sentence):
        hub.feed(**{"topic": "t", "source": items(), "key": str, **fields})
    async with hub:
        assert hub.statistics().feeds == {}
