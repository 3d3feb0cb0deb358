"""Runs on every broker: one producer, any number of readers in several processes, and exactly one end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, Final

import pytest

from broker.private_servers import require
from broker.test_hub import LOGS
from support.hub import settle
from support.runs import Source, read
from tickertape import Hub
from tickertape.broker import MemoryBroker, Retention
from tickertape.errors import InvalidTopicError, RunActiveError, RunEndedError, RunOwnerError
from tickertape.runs import Run, RunEnd, RunEvent, RunInfo, Runs
from tickertape.testing import FakeClock, ScriptedBroker
from tickertape.testing.contract import Log

PATIENCE: Final = 30.0


@pytest.fixture
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    kind, absent = LOGS[request.param]
    require(absent())
    log = kind(tmp_path)
    yield log
    await log.remove()


def nodes(log: Log, stack: AsyncExitStack, count: int = 2) -> list[Any]:
    """Return hubs on one log, as separate processes have them. A log in memory has one process."""
    shared = log.traits.shared
    hubs = [Hub(log.broker()) for _ in range(count if shared else 1)]
    return hubs if shared else hubs * count


async def open_nodes(log: Log, stack: AsyncExitStack, **options: Any) -> list[Runs]:
    hubs = nodes(log, stack)
    for hub in dict.fromkeys(hubs):
        await stack.enter_async_context(hub)
    made = {hub: Runs(hub, **options) for hub in hubs}
    return [made[hub] for hub in hubs]


@pytest.mark.parametrize("log", LOGS, indirect=True)
async def test_readers_everywhere(log: Log) -> None:
    """A reader in another process gets the beginning, what follows, and the end, also when all is over."""
    async with AsyncExitStack() as stack:
        here, there = await open_nodes(log, stack)
        source = Source()
        run = await here.start("chat/1", source, key="a")
        source.give("one", {"two": 2})
        joined = await there.get("chat/1")
        assert joined is not None
        assert joined.id == run.id
        reading = asyncio.create_task(read(joined))
        source.give("three", None)
        expected = ["one", '{"two":2}', "three", "done"]
        assert await reading == expected
        assert await read(run) == expected
        assert (await run.wait()).state == "done"
        assert await there.list_runs() == []


@pytest.mark.parametrize("log", LOGS, indirect=True)
async def test_one_producer(log: Log) -> None:
    """Of many starts with one key, in two processes at once, one starts."""
    async with AsyncExitStack() as stack:
        here, there = await open_nodes(log, stack)
        source = Source()
        starting = [runs.start("chat/1", source, key="a") for runs in (here, there) * 4]
        started = await asyncio.gather(*starting)
        source.give("x", None)
        assert [await read(run) for run in started] == [["x", "done"]] * 8
        assert len({run.id for run in started}) == 1
        assert [run.joined for run in started].count(False) == 1
        assert source.starts == 1
        again = await there.start("chat/1", Source(), key="a")
        assert (again.joined, again.info.state) == (True, "done")


@pytest.mark.parametrize("log", LOGS, indirect=True)
async def test_cancel_from_another_process(log: Log) -> None:
    async with AsyncExitStack() as stack:
        here, there = await open_nodes(log, stack)
        source = Source()
        run = await here.start("chat/1", source)
        source.give("one")
        joined = await there.get("chat/1")
        assert joined is not None
        reading = asyncio.create_task(read(joined))
        async with aclosing(run.events()) as events:
            assert isinstance(await anext(events), RunEvent)
        cancelled = await there.cancel("chat/1")
        assert cancelled is not None
        assert await reading == ["one", "cancelled"]
        assert source.finished.is_set()


@pytest.mark.parametrize("log", [name for name in LOGS if name != "memory"], indirect=True)
async def test_orphans(log: Log) -> None:
    """If the process of a producer dies, readers get one end, also those that come later."""
    clocks = FakeClock(), FakeClock()
    async with AsyncExitStack() as stack:
        dying, living = (Hub(log.broker(), clock=clock) for clock in clocks)
        await stack.enter_async_context(living)
        await dying.open()
        try:
            lost = Runs(dying)
            source = Source()
            run = await lost.start("job", source)
            source.give("one")
            async with aclosing(run.events()) as events:
                await anext(events)
            runs = Runs(living)
            joined = await runs.get("job")
            assert joined is not None
            reading = asyncio.create_task(read(joined))
            async with asyncio.timeout(PATIENCE):
                while not reading.done():  # the clock of the dying process is stopped: it publishes no signs of life
                    clocks[1].advance(1.0)
                    await asyncio.sleep(0.01)
            assert await reading == ["one", "orphaned"]
            assert await read(run) == ["one", "orphaned"]
            async with asyncio.timeout(PATIENCE):
                await source.finished.wait()  # it has seen its end in the log
        finally:
            await dying.close()
        again = await runs.get("job")
        assert again is not None
        assert await read(again) == ["one", "orphaned"]


async def test_closing_a_hub_ends_its_producers() -> None:
    async with Hub() as hub:
        source = Source()
        run = await Runs(hub).start("job", source)
        source.give("one")
        events = run.events()
        await anext(events)
        reading = asyncio.create_task(anext(events))
        await settle()
    assert source.finished.is_set()
    end = await reading
    assert isinstance(end, RunEnd)
    assert (end.state, run.info.state) == ("orphaned", "orphaned")
    await events.aclose()


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub() as hub:
        yield hub


async def test_other_key_while_active(hub: Hub) -> None:
    runs = Runs(hub)
    source = Source()
    await runs.start("chat/1", source, key="a")
    with pytest.raises(RunActiveError, match="'chat/1' is active"):
        await runs.start("chat/1", source, key="b")
    with pytest.raises(RunActiveError):
        await runs.start("chat/1", source)
    source.give(None)
    run = await runs.get("chat/1")
    assert run is not None
    await run.wait()
    later = Source()
    later.give("x", None)
    assert await read(await runs.start("chat/1", later, key="b")) == ["x", "done"]  # the same request, repeated


async def test_refused_start_with_a_tiny_ttl(hub: Hub) -> None:
    """It is refused at once and leaves one record, though it is forgotten as soon as it is stored."""
    runs = Runs(hub)
    run = await runs.open("chat/1", key="a")
    before = await hub.check()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(RunActiveError):
            await runs.open("chat/1", key="b", ttl=5e-324)
    assert (await hub.check()).newest - before.newest <= 1
    await run.end()


async def test_repeated_key_after_many_runs(hub: Hub) -> None:
    """A repeated start joins the active run, and starts another when that is forgotten."""
    runs = Runs(hub)
    for _ in range(3):
        run = await runs.open("chat/1", key="a", ttl=5e-324)
        again = await runs.open("chat/1", key="a", ttl=5e-324)
        assert (again.id, run.joined, again.joined) == (run.id, False, True)
        await run.end()


async def test_replace(hub: Hub) -> None:
    """The old run has ended, and its generator too, when the new one begins."""
    runs = Runs(hub)
    first, second = Source(), Source()
    old = await runs.start("chat/1", first, key="a")
    first.give("one")
    async with aclosing(old.events()) as events:
        await anext(events)
    reading = asyncio.create_task(read(old))
    new = await runs.start("chat/1", second, key="b", replace=True)
    assert first.finished.is_set()
    assert await reading == ["one", "cancelled"]
    assert await runs.cancel("chat/1", run=old.id) == old.info  # a late stop
    second.give("two", None)
    assert await read(new) == ["two", "done"]


async def test_failure(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    run = await Runs(hub).start("chat/1", source)
    source.give("one", ValueError("secret"))
    assert await read(run) == ["one", "error"]
    assert run.info.error == "The run failed."
    assert "secret" in caplog.text
    described = await Runs(hub, on_error=lambda error: f"{type(error).__name__}!").start("chat/2", source)
    source.give(ValueError("secret"))
    assert await read(described) == ["error"]
    assert described.info.error == "ValueError!"


async def test_items_that_cannot_be_made(hub: Hub) -> None:
    def fail() -> AsyncIterator[str]:
        raise ValueError("no model")

    run = await Runs(hub).start("chat/1", fail)
    assert await read(run) == ["error"]


@pytest.mark.parametrize("item", ["x" * 2_000_000, object(), float("nan")])
async def test_item_that_cannot_be_sent(hub: Hub, item: Any) -> None:
    source = Source()
    run = await Runs(hub).start("chat/1", source)
    source.give("one", item)
    assert await read(run) == ["one", "error"]
    assert source.finished.is_set()


async def test_tokens_of_a_turn_share_an_append() -> None:
    broker = ScriptedBroker()
    async with Hub(broker) as hub:
        source = Source()
        runs = Runs(hub)
        run = await runs.start("chat/1", source)
        broker.calls.clear()
        source.give(*(f"{number}" for number in range(200)), None)
        assert len(await read(run)) == 201
        assert broker.calls["append"] <= 4


async def test_log_that_is_away_for_a_while() -> None:
    """Items that were produced in this time are stored afterwards, once."""
    broker = ScriptedBroker()
    async with Hub(broker) as hub:
        runs = Runs(hub)
        source = Source()
        run = await runs.start("chat/1", source)
        reading = asyncio.create_task(read(run))
        broker.fail("append")
        source.give("one", "two", None)
        async with asyncio.timeout(PATIENCE):
            while broker.calls["append"] < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        broker.recover()
        assert await reading == ["one", "two", "done"]


@pytest.mark.parametrize(
    ("leave", "state"), [(True, "cancelled"), (False, "active")], ids=["all have left", "one has stayed"]
)
async def test_cancel_when_readers_have_left(leave: bool, state: str) -> None:
    clock = FakeClock()
    async with Hub(clock=clock) as hub:
        source = Source()
        run = await Runs(hub, on_disconnect="cancel", grace=30).start("chat/1", source)
        source.give("one")
        readers = [run.events(), run.events()]
        for reader in readers:
            await anext(reader)
        for reader in readers[: 2 if leave else 1]:
            await reader.aclose()
        for _ in range(25):
            clock.advance(2.0)
            await asyncio.sleep(0.001)
        if leave:
            assert (await run.wait()).state == "cancelled"
        assert run.info.state == state
        for reader in readers:
            await reader.aclose()


ACCESS: Final[dict[str, Callable[[Runs, Any], Any]]] = {
    "join": lambda runs, who: runs.start("chat/1", Source(), key="a", owner=who),
    "replace": lambda runs, who: runs.start("chat/1", Source(), key="b", owner=who, replace=True),
    "open": lambda runs, who: runs.open("chat/1", key="a", owner=who),
    "cancel": lambda runs, who: runs.cancel("chat/1", owner=who),
}


@pytest.mark.parametrize("action", ACCESS)
@pytest.mark.parametrize(("owner", "others"), [("ann", ["bob", None]), (None, ["bob"])])
async def test_owner(hub: Hub, action: str, owner: str | None, others: list[str | None]) -> None:
    """Only with its owner a run can be joined, replaced and cancelled."""
    runs = Runs(hub)
    run = await runs.start("chat/1", Source(), key="a", owner=owner)
    for other in others:
        with pytest.raises(RunOwnerError):
            await ACCESS[action](runs, other)
    assert run.info.active
    await ACCESS[action](runs, owner)


async def test_start_that_replaces_another_owner(hub: Hub) -> None:
    """A run that has begun since the check is not replaced either."""
    runs = Runs(hub)
    run = await runs.start("chat/1", Source(), owner="ann")
    fields = {"owner": "bob", "node": "other", "nonce": "n", "ttl": 60, "on_disconnect": "continue", "grace": 0}
    await hub.publish("runs/chat/1", {**fields, "replace": True}, event="run:start")
    found = await runs.get("chat/1")
    assert found is not None
    assert (found.id, found.info.active) == (run.id, True)


async def test_cancel_by_the_program(hub: Hub) -> None:
    """Without an owner and a request, nothing is checked."""
    runs = Runs(hub, authorize=lambda request, run: False)
    run = await runs.start("chat/1", Source(), owner="ann")
    await runs.cancel("chat/1")
    assert (await run.wait()).state == "cancelled"


REQUESTS: Final[dict[str, Callable[[Runs, Any], Any]]] = {
    "join": lambda runs, request: runs.start("chat/1", Source(), key="a", request=request),
    "replace": lambda runs, request: runs.start("chat/1", Source(), replace=True, request=request),
    "open": lambda runs, request: runs.open("chat/1", key="a", request=request),
    "cancel": lambda runs, request: runs.cancel("chat/1", request=request),
}


@pytest.mark.parametrize("action", REQUESTS)
async def test_authorize(hub: Hub, action: str) -> None:
    """``authorize`` is asked for a run that exists, and not for one that a request starts."""
    asked: list[tuple[Any, str]] = []

    async def authorize(request: Any, run: RunInfo) -> bool:
        asked.append((request, run.run))
        return bool(request == "ann's")

    runs = Runs(hub, authorize=authorize)
    run = await runs.start("chat/1", Source(), key="a", request="ann's")
    assert asked == []
    with pytest.raises(RunOwnerError):
        await REQUESTS[action](runs, "bob's")
    assert run.info.active
    await REQUESTS[action](runs, "ann's")
    assert asked == [("bob's", run.id), ("ann's", run.id)]


async def test_producer_elsewhere() -> None:
    clock = FakeClock()
    async with Hub(clock=clock) as hub:
        runs = Runs(hub)
        run = await runs.open("build/7", key="a")
        await run.append("one", {"progress": 0.5}, key="1")
        await run.append("one", {"progress": 0.5}, key="1")  # repeated
        await run.end()
        assert await read(run) == ["one", '{"progress":0.5}', "done"]
        assert len(await run.append("one", {"progress": 0.5}, key="1")) == 2  # repeated: it was stored before the end
        for key in (None, "2"):
            with pytest.raises(RunEndedError, match=r"run 'build/7' has ended \(done\)"):
                await run.append("late", key=key)
        silent = await runs.open("build/8")
        for _ in range(12):
            clock.advance(1.0)
            await asyncio.sleep(0.001)
            await silent.keep()
        assert silent.info.active
        reading = asyncio.create_task(read(silent))
        while not reading.done():
            clock.advance(1.0)
            await asyncio.sleep(0.001)
        assert await reading == ["orphaned"]


async def test_continue_after_an_event(hub: Hub) -> None:
    runs = Runs(hub)
    source = Source()
    run = await runs.start("chat/1", source)
    source.give("one", "two", None)
    async with aclosing(run.events()) as events:
        first = await anext(events)
    assert isinstance(first, RunEvent)
    assert await read(run, after=first.id) == ["two", "done"]


async def test_run_that_was_trimmed() -> None:
    """A run that is no longer kept is gone; of one that is kept in part, readers get a gap first."""
    broker = MemoryBroker(retention=Retention(events=10, topics={"run/**": Retention(events=100)}))
    async with Hub(broker, retention=Retention(topics={"run/**": Retention(events=10)})) as hub:
        runs = Runs(hub)
        run = await produced(runs, "chat/1", 90)
        for _ in range(50):
            await hub.publish("other", "x")
        assert (await read(run))[0] == "0", "other events do not push runs out"
        await produced(runs, "chat/2", 50)
        assert (await read(run))[0] == "gap"
        assert (await read(run))[-2:] == ["89", "done"]
        await produced(runs, "chat/3", 100)
        assert await runs.get("chat/1") is None


async def produced(runs: Runs, name: str, count: int) -> Run:
    source = Source()
    run = await runs.start(name, source)
    source.give(*(f"{number}" for number in range(count)), None)
    await run.wait()
    return run


@pytest.mark.parametrize("log", [name for name in LOGS if name != "memory"], indirect=True)
async def test_run_is_removed_after_its_ttl(log: Log) -> None:
    """Its records are removed; those of a longer run of the same name, and all others, stay."""
    async with Hub(log.broker()) as hub:
        runs = Runs(hub)
        for _ in range(5):
            await hub.publish("other", "x")
        short = await runs.start("chat/1", once("a"), ttl=0.1)
        await short.wait()
        long = await runs.start("chat/1", once("b"))
        await long.wait()
        async with asyncio.timeout(PATIENCE):
            while len((await hub.history(["run/**", "runs/**"]))[0]) > 4:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert next(record.data for _, record in (await hub.history("run/**"))[0]) == "b"
        assert await runs.get("chat/1", run=short.id) is None
        assert await read(long) == ["b", "done"]
        assert len((await hub.history("other"))[0]) == 5
        async with hub.subscribe(short.info.topic, last_event_id=short.id) as events:
            first = await anext(events)
            assert (first.event, first.json()["reason"]) == ("stream:gap", "expired")
        async with hub.subscribe([long.info.topic, "other"], last_event_id=long.id) as events:
            assert (await anext(events)).data == "b"


async def once(item: str) -> AsyncIterator[str]:
    yield item


async def test_ttl(hub: Hub) -> None:
    runs = Runs(hub, ttl=0.001)
    source = Source()
    run = await runs.start("chat/1", source)
    source.give(None)
    await run.wait()
    async with asyncio.timeout(PATIENCE):
        while await runs.get("chat/1") is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_wait_for_a_run_that_is_forgotten(hub: Hub) -> None:
    """The result is the end of the run, also after its time."""
    runs = Runs(hub, ttl=0.001)
    source = Source()
    run = await runs.start("chat/1", source)
    source.give(ValueError("secret"))
    async with asyncio.timeout(PATIENCE):
        while run.info.active or await runs.get("chat/1") is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    found = await run.wait()
    assert (found.state, found.error) == ("error", "The run failed.")
    assert found == run.info


async def test_wait_for_a_run_that_the_log_lost() -> None:
    hub = Hub("memory://")
    runs = Runs(hub)
    async with hub:
        run = await runs.open("chat/1")
    async with hub:
        async with asyncio.timeout(PATIENCE):
            assert (await run.wait()).state == "orphaned"


BAD: Final[dict[str, tuple[Callable[[Hub], Any], str]]] = {
    "ttl": (lambda hub: Runs(hub, ttl=0), "ttl"),
    "grace": (lambda hub: Runs(hub, grace=-1), "grace"),
    "on_disconnect": (lambda hub: Runs(hub, on_disconnect="stop"), "on_disconnect"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_options(hub: Hub, name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make(hub)


@pytest.mark.parametrize("name", ["", "a//b", "a/*", "x" * 200])
async def test_bad_names(hub: Hub, name: str) -> None:
    with pytest.raises(InvalidTopicError):
        await Runs(hub).start(name, Source())
