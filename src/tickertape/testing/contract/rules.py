"""Checks of the retention of some topics, and of topics that are discarded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from ...broker import Broker, DiscardingBroker, LogState, Record, Retention
from ...errors import LogTrimmedError
from ...wire import Cursor, Draft, check_patterns, compile_patterns
from .checks import RULES, SHARED, Log, check_if, patiently
from .steps import collect, drafts_of, offsets, opened, raised, tailing, until

_SHARED_RULES = RULES.and_(SHARED)

_LOG = 40
_RULE = 10
_LIMITS = Retention(events=_LOG, bytes=None, topics={"busy/**": Retention(events=_RULE, bytes=None)})


async def _records(broker: Broker, patterns: str, after: int = 0) -> list[Record]:
    return (await broker.read(after, 10_000, compile_patterns(check_patterns(patterns)))).records


def _lost(state: LogState, after: int, patterns: str) -> bool:
    return state.lost_upto(after, check_patterns(patterns)) > after


def _mixed(count: int) -> list[Draft]:
    """Return as many drafts of a busy topic as of another one, in turns."""
    return [Draft(topic, f"{number}") for number in range(1, count + 1) for topic in ("busy/a", "quiet")]


async def _append_each(broker: Broker, drafts: Iterable[Draft]) -> list[Cursor]:
    return [cursor for draft in drafts for cursor in await broker.append([draft])]


def _kept(records: list[Record], log: Log, limit: int) -> bool:
    return limit <= len(records) <= limit + log.traits.spare


# Limits of a rule.


@check_if(RULES)
async def rule_by_events(log: Log) -> None:
    async with opened(log, _LIMITS) as broker:
        await _append_each(broker, _mixed(30))
        busy = await _records(broker, "busy/**")
        assert _kept(busy, log, _RULE)
        assert [record.data for record in busy[-_RULE:]] == [f"{number}" for number in range(21, 31)]
        assert [record.data for record in await _records(broker, "quiet")] == [f"{number}" for number in range(1, 31)]


@check_if(RULES)
async def rule_by_bytes(log: Log) -> None:
    size, limit = 1024, 32 * 1024
    rules = Retention(events=None, bytes=None, topics={"busy/*": Retention(events=None, bytes=limit)})
    async with opened(log, rules) as broker:
        for _ in range(20):
            await broker.append(drafts_of(5, topic="busy/a", size=size))
            await broker.append(drafts_of(1, topic="quiet"))
        busy = await _records(broker, "busy/a")
        assert limit / 2 <= len(busy) * size <= limit + log.traits.spare * size
        assert offsets(await _records(broker, "quiet")) == list(range(6, 121, 6))


@check_if(RULES)
async def rule_by_age(log: Log) -> None:
    rules = Retention(bytes=None, topics={"busy/**": Retention(age=0.5)})
    async with opened(log, rules) as broker:
        await _append_each(broker, _mixed(5))

        async def forgotten() -> bool:
            return not await _records(broker, "busy/**")

        await until(forgotten)
        assert len(await _records(broker, "**")) == 5
        state = await broker.state()
        assert (state.oldest, state.newest) == (2, 10)
        assert _lost(state, 0, "busy/a")
        assert not _lost(state, 9, "busy/a")
        assert not _lost(state, 1, "quiet")
        assert offsets(await broker.append([Draft("busy/a", "new")])) == [11]


@check_if(RULES)
async def busy_topic_pushes_nothing_out(log: Log) -> None:
    async with opened(log, _LIMITS) as broker:
        await broker.append(drafts_of(5, topic="quiet"))
        for _ in range(40):
            await broker.append(drafts_of(10, topic="busy/a"))
        assert offsets(await _records(broker, "quiet")) == [1, 2, 3, 4, 5]
        assert (await broker.state()).oldest == 1


@check_if(RULES)
async def log_does_not_push_a_rule_out(log: Log) -> None:
    async with opened(log, _LIMITS) as broker:
        await broker.append(drafts_of(5, topic="busy/a"))
        for _ in range(20):
            await broker.append(drafts_of(10, topic="quiet"))
        state = await broker.state()
        assert offsets(await _records(broker, "busy/a")) == [1, 2, 3, 4, 5]
        assert _kept(await _records(broker, "quiet"), log, _LOG)
        assert state.oldest == 1
        assert _lost(state, 5, "quiet")
        assert not _lost(state, 0, "busy/a")


@check_if(RULES)
async def first_rule_counts(log: Log) -> None:
    small, large = Retention(events=2, bytes=None), Retention(events=6, bytes=None)
    async with opened(log, Retention(bytes=None, topics=[("a/b", small), ("a/**", large)])) as broker:
        await _append_each(broker, [Draft(topic, f"{number}") for number in range(10) for topic in ("a/b", "a/c")])
        assert _kept(await _records(broker, "a/b"), log, 2)
        assert _kept(await _records(broker, "a/c"), log, 6)


# Gaps.


@check_if(RULES)
async def only_readers_of_the_rule_lose(log: Log) -> None:
    async with opened(log, _LIMITS) as broker:
        assert (await broker.state()).dropped == ()
        await _append_each(broker, _mixed(30))
        page = await broker.read(20, 1000, compile_patterns(("quiet",)))
        assert offsets(page.records) == list(range(22, 61, 2))
        for state in (page.state, await broker.state()):
            for reader, lost in {"busy/a": True, "busy/**": True, "*/a": True, "**": True, "quiet": False}.items():
                assert _lost(state, 20, reader) is lost, reader
                assert not _lost(state, 59, reader), reader


@check_if(RULES)
async def pages_skip_holes(log: Log) -> None:
    async with opened(log, _LIMITS) as broker:
        await _append_each(broker, _mixed(30))
        whole = (await broker.read(0, 1000)).records
        assert offsets(whole) == sorted(offsets(whole))
        assert len(whole) < whole[-1].offset - whole[0].offset + 1
        pages, after = list[Record](), 0
        while records := (await broker.read(after, 7)).records:
            pages += records
            after = records[-1].offset
        assert pages == whole
        state, records = await broker.read(0, 3)
        assert records[0].offset == state.oldest


@check_if(RULES)
async def tail_before_a_hole_is_refused(log: Log) -> None:
    """A tail yields each record or fails: it never passes over dropped ones."""
    async with opened(log, _LIMITS) as broker:
        await _append_each(broker, _mixed(30))
        async with tailing(broker, 1) as tail:
            found, error = await _until_trimmed(tail)
            assert offsets(found) == [2]
            assert (error.after, error.oldest) == (2, 4)
        async with tailing(broker, 60) as tail:
            collecting = asyncio.create_task(collect(tail, 4))
            await _append_each(broker, _mixed(2))
            assert offsets(await collecting) == [61, 62, 63, 64]


async def _until_trimmed(tail: AsyncIterator[list[Record]]) -> tuple[list[Record], LogTrimmedError]:
    found: list[Record] = []
    try:
        async with patiently():
            async for records in tail:
                found += records
    except LogTrimmedError as error:
        return found, error
    raise AssertionError("expected LogTrimmedError, but the tail ended")


# Restarts, several brokers, keys.


@check_if(_SHARED_RULES)
async def rules_survive_a_restart(log: Log) -> None:
    async with opened(log, _LIMITS) as broker:
        await _append_each(broker, _mixed(30))
        before = await broker.read(0, 1000)
    async with opened(log, _LIMITS) as broker:
        assert await broker.read(0, 1000) == before
        assert _lost(await broker.state(), 20, "busy/a")
        assert not _lost(await broker.state(), 20, "quiet")
        await _append_each(broker, _mixed(5))
        assert _kept(await _records(broker, "busy/a"), log, _RULE)


@check_if(_SHARED_RULES)
async def rules_of_two_brokers(log: Log) -> None:
    async with opened(log, _LIMITS) as one, opened(log, _LIMITS) as two:
        brokers = (one, two)
        for number, draft in enumerate(_mixed(30)):
            await brokers[number // 2 % 2].append([draft])
        for broker in brokers:
            assert _kept(await _records(broker, "busy/a"), log, _RULE)
            assert len(await _records(broker, "quiet")) == 30
        assert (await one.state()) == (await two.state())


@check_if(_SHARED_RULES)
async def removed_rule(log: Log) -> None:
    """The records of a rule that there is no more stay readable, and limited."""
    async with opened(log, _LIMITS) as broker:
        await _append_each(broker, _mixed(20))
        before = await broker.read(0, 1000)
    async with opened(log, Retention(events=_LOG, bytes=None)) as broker:
        after = await broker.read(0, 1000)
        assert after.records == before.records
        assert _lost(after.state, 10, "busy/a")
        await broker.append(drafts_of(10, topic="busy/a"))
        assert len(await _records(broker, "busy/a")) >= _RULE + 10


@check_if(RULES)
async def keys_of_a_rule(log: Log) -> None:
    async with opened(log, _LIMITS) as broker:
        (first,) = await broker.append([Draft("busy/a", "1", key="k")])
        (other,) = await broker.append([Draft("quiet", "1", key="l")])
        assert await broker.append([Draft("quiet", "2", key="k"), Draft("busy/a", "2", key="l")]) == [first, other]
        await _append_each(broker, drafts_of(60, topic="busy/a"))
        assert await broker.append([Draft("quiet", "2", key="l")]) == [other]
        if not log.traits.keys_linger and not log.traits.spare:
            (again,) = await broker.append([Draft("busy/a", "again", key="k")])
            assert again.offset == 63


@check_if(RULES)
async def lowered_rule(log: Log) -> None:
    """A log far over its limits shrinks step by step, whatever is appended."""
    if log.traits.shared:
        large = Retention(bytes=None, topics={"busy/**": Retention(bytes=None)})
        async with opened(log, large) as broker:
            for _ in range(4):
                await broker.append(drafts_of(500, topic="busy/a"))
    async with opened(log, _LIMITS) as broker:

        async def small() -> bool:
            await broker.append(drafts_of(10, topic="busy/a"))
            return _kept(await _records(broker, "busy/a"), log, _RULE)

        await until(small)


# Topics that are discarded.


async def _discard(broker: Broker, topic: str, upto: int) -> None:
    assert isinstance(broker, DiscardingBroker)
    await broker.discard(topic, upto)


@check_if(RULES)
async def discarded_topic(log: Log) -> None:
    async with opened(log, Retention(bytes=None, topics={"job/**": Retention()})) as broker:
        await _append_each(broker, [Draft(f"job/{number % 2}", f"{number}", key=f"{number}") for number in range(10)])
        await broker.append(drafts_of(3, topic="quiet"))
        await _discard(broker, "job/0", 7)
        await _discard(broker, "job/0", 7)
        await _discard(broker, "job/unknown", 13)
        assert offsets(await _records(broker, "job/0")) == [9]
        assert offsets(await _records(broker, "job/1")) == [2, 4, 6, 8, 10]
        state = await broker.state()
        assert (state.oldest, state.newest) == (2, 13)
        for reader, after, lost in (("job/0", 3, True), ("job/0", 7, False), ("job/**", 2, True), ("job/1", 2, False)):
            assert _lost(state, after, reader) is lost, (reader, after)
        assert not _lost(state, 1, "quiet")
        assert offsets(await broker.append([Draft("job/1", "x", key="1"), Draft("quiet", "y")])) == [2, 14]


@check_if(RULES)
async def discarding_needs_a_rule(log: Log) -> None:
    async with opened(log) as broker:
        await broker.append(drafts_of(3))
        before = await broker.read(0, 10)
        await _discard(broker, "numbers", 3)
        assert await broker.read(0, 10) == before


@check_if(_SHARED_RULES)
async def discarded_topic_after_a_restart(log: Log) -> None:
    rules = Retention(bytes=None, topics={"job/**": Retention()})
    async with opened(log, rules) as broker, opened(log, rules) as other:
        await _append_each(broker, [Draft(f"job/{number % 2}", f"{number}") for number in range(10)])
        await _discard(other, "job/0", 5)
        found = await broker.read(0, 100)
        assert offsets(found.records) == [2, 4, 6, 7, 8, 9, 10]
        assert _lost(found.state, 2, "job/0")
    async with opened(log, rules) as broker:
        assert await broker.read(0, 100) == found
        assert offsets(await broker.append(drafts_of(1, topic="job/0"))) == [11]


@check_if(RULES)
async def discarding_is_bounded(log: Log) -> None:
    """The marks of discarded topics do not grow without end, and none is forgotten."""
    count = 1_100
    async with opened(log, Retention(bytes=None, topics={"job/*": Retention()})) as broker:
        await broker.append(drafts_of(1, topic="quiet"))
        await broker.append([Draft(f"job/{number}", "x") for number in range(count)])
        await broker.append(drafts_of(1, topic="job/last"))
        for start in range(0, count, 50):
            await asyncio.gather(*(_discard(broker, f"job/{n}", n + 2) for n in range(start, start + 50)))
        state = await broker.state()
        assert len(state.dropped) <= 1_050
        assert all(_lost(state, 1, f"job/{number}") for number in range(count))
        assert not _lost(state, 1, "quiet")
        assert not _lost(state, count + 1, "job/**")


@check_if(RULES)
async def tail_before_discarded_records(log: Log) -> None:
    async with opened(log, Retention(bytes=None, topics={"job/*": Retention()})) as broker:
        await broker.append([*drafts_of(1), *drafts_of(2, topic="job/1"), *drafts_of(1)])
        await _discard(broker, "job/1", 3)
        async with tailing(broker, 1) as tail:
            error = await raised(tail, LogTrimmedError)
            assert isinstance(error, LogTrimmedError)
            assert (error.after, error.oldest) == (1, 4)
        async with tailing(broker, 3) as tail:
            assert offsets(await collect(tail, 1)) == [4]
