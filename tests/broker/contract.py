"""The contract of a log, as checks that any broker can be held to, from here or from elsewhere.

A check is an asynchronous function of a :class:`Log`. It uses nothing of a test framework; run it in
whichever you have::

    @pytest.mark.parametrize("check", applicable(TRAITS), ids=lambda check: check.__name__)
    async def test_contract(check: Check) -> None:
        await check(MyLog())        # a log of its own for each check: no records, no keys

What a broker cannot do it says in its :class:`Traits`. A trait never makes a check pass over what it
cannot do: another check stands in its place, which asks for the clear refusal.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias, cast

from tickertape.broker import DEFAULT_RETENTION, Broker, Cursor, Draft, Record, Retention
from tickertape.errors import BrokerError, LogResetError, LogTrimmedError

__all__ = ["CHECKS", "Check", "Log", "Traits", "applicable", "collect", "tailing"]

PATIENCE: Final = 20.0
"""Seconds until what must come is given up: none of it takes one, on a machine that is not busy."""

_PUBLISHER: Final = Path(__file__).with_name("publisher.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a broker can do, and how far it goes beyond what the contract asks for.

    Attributes:
        shared: a log has a URL, outlives its brokers, and takes several of them at once.
        max_data: the greatest number of bytes of one event's data; ``None`` for no limit below 16 MiB.
        nul: text may contain U+0000; otherwise it is refused.
        spare: how many records may be kept, for a while, beyond the limit of records.
        keys_linger: keys may be known longer than their records are kept.
    """

    shared: bool = True
    max_data: int | None = None
    nul: bool = True
    spare: int = 0
    keys_linger: bool = False


class Log(Protocol):
    """One log in some store, for one check; no other check sees its records or its keys."""

    @property
    def traits(self) -> Traits:
        """What the broker can do."""

    @property
    def url(self) -> str:
        """The URL that :func:`tickertape.broker.create_broker` finds the log by, from any process."""

    def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
        """Return another broker on the log, not open yet."""

    async def wipe(self) -> None:
        """Destroy the log, as an operator's mistake would, while brokers may be open on it."""


Check: TypeAlias = Callable[[Log], Awaitable[None]]

CHECKS: Final[list[Check]] = []
"""All checks."""

_NEEDS: Final[dict[Check, Callable[[Traits], bool]]] = {}


def applicable(traits: Traits) -> list[Check]:
    """Return the checks for brokers with these traits."""
    return [check for check in CHECKS if check not in _NEEDS or _NEEDS[check](traits)]


def _check(check: Check) -> Check:
    CHECKS.append(check)
    return check


def _check_if(needs: Callable[[Traits], bool]) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        _NEEDS[check] = needs
        return _check(check)

    return register


# What checks are made of.


@asynccontextmanager
async def _opened(log: Log, retention: Retention = DEFAULT_RETENTION) -> AsyncIterator[Broker]:
    broker = log.broker(retention)
    try:
        async with asyncio.timeout(PATIENCE):
            await broker.open()
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def tailing(broker: Broker, after: int) -> AsyncIterator[AsyncGenerator[list[Record], None]]:
    """Give a tail, and close it."""
    tail = cast(AsyncGenerator[list[Record], None], broker.tail(after))
    try:
        yield tail
    finally:
        await tail.aclose()


async def collect(tail: AsyncIterator[list[Record]], count: int) -> list[Record]:
    """Return what a tail gives until it is ``count`` records; it may not give an empty list."""
    found: list[Record] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            records = await anext(tail)
            assert records, "expected a tail that gives records, got an empty list"
            found += records
    return found


async def _tailed(broker: Broker, after: int, count: int) -> list[Record]:
    async with tailing(broker, after) as tail:
        return await collect(tail, count)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what a broker does by and by."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - another process may be what changes it
            await asyncio.sleep(0.01)


def _drafts(count: int, *, topic: str = "numbers", size: int = 0) -> list[Draft]:
    return [Draft(topic, f"{number}".ljust(size, ".")) for number in range(1, count + 1)]


def _offsets(found: Sequence[Record] | Sequence[Cursor]) -> list[int]:
    return [each.offset for each in found]


def _whole(found: list[Record]) -> None:
    assert _offsets(found) == list(range(found[0].offset, found[0].offset + len(found)))


async def _refused(broker: Broker, drafts: list[Draft], kind: type[BrokerError] = BrokerError) -> BrokerError:
    try:
        async with asyncio.timeout(PATIENCE):
            cursors = await broker.append(drafts)
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, got cursors {cursors}")


async def _raised(tail: AsyncIterator[list[Record]], kind: type[BrokerError]) -> BrokerError:
    try:
        async with asyncio.timeout(PATIENCE):
            records = await anext(tail)
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, got {records}")


# Appending.


@_check
async def a_new_log_is_empty(log: Log) -> None:
    async with _opened(log) as broker:
        state = await broker.open()
        assert (state.oldest, state.newest) == (1, 0)
        assert Cursor.parse(str(Cursor(state.epoch, 0))) == Cursor(state.epoch, 0)
        assert await broker.read(0, 10) == []


@_check
async def appended_records_come_back_in_order(log: Log) -> None:
    drafts = [Draft("a", "1"), Draft("b/c", "2", "type"), Draft("a", "3", None, "key")]
    async with _opened(log) as broker:
        epoch = (await broker.open()).epoch
        assert await broker.append(drafts[:1]) == [Cursor(epoch, 1)]
        assert await broker.append(drafts[1:]) == [Cursor(epoch, 2), Cursor(epoch, 3)]
        expected = [Record(1, "a", None, "1"), Record(2, "b/c", "type", "2"), Record(3, "a", None, "3")]
        assert await broker.read(0, 10) == expected
        assert await _tailed(broker, 0, 3) == expected


@_check
async def opening_again_tells_the_present_state(log: Log) -> None:
    async with _opened(log) as broker:
        first = await broker.open()
        await broker.append(_drafts(3))
        again = await broker.open()
        assert (again.epoch, again.oldest, again.newest) == (first.epoch, 1, 3)


@_check
async def appending_nothing_changes_nothing(log: Log) -> None:
    async with _opened(log) as broker:
        assert await broker.append([]) == []
        assert (await broker.open()).newest == 0


@_check
async def concurrent_batches_are_never_mixed(log: Log) -> None:
    async with _opened(log) as broker:
        batches = [[Draft(f"batch/{batch}", f"{number}") for number in range(batch % 5 + 1)] for batch in range(40)]
        appended = await asyncio.gather(*(broker.append(batch) for batch in batches))
        records = await broker.read(0, 1000)
        assert _offsets(records) == list(range(1, sum(map(len, batches)) + 1))
        for batch, cursors in zip(batches, appended, strict=True):
            first = cursors[0].offset
            assert _offsets(cursors) == list(range(first, first + len(batch)))
            stored = records[first - 1 : first - 1 + len(batch)]
            assert [Draft(record.topic, record.data) for record in stored] == batch


@_check
async def a_batch_of_a_thousand_is_one_append(log: Log) -> None:
    async with _opened(log) as broker:
        cursors = await broker.append(_drafts(1000))
        assert _offsets(cursors) == list(range(1, 1001))
        assert [record.data for record in await broker.read(0, 2000)] == [f"{number}" for number in range(1, 1001)]


@_check
async def a_cancelled_append_happened_or_not(log: Log) -> None:
    async with _opened(log) as broker:
        tasks = [asyncio.create_task(broker.append([Draft(f"{n}", "a"), Draft(f"{n}", "b")])) for n in range(30)]
        await tasks[0]
        for task in tasks[::3]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        records = await broker.read(0, 1000)
        _whole(records)
        by_topic: dict[str, list[str]] = {}
        for record in records:
            by_topic.setdefault(record.topic, []).append(record.data)
        assert all(data == ["a", "b"] for data in by_topic.values())
        kept = [f"{number}" for number, result in enumerate(results) if not isinstance(result, BaseException)]
        assert set(kept) <= by_topic.keys()
        assert len(await broker.append(_drafts(1))) == 1


# Keys.


@_check
async def a_key_appends_once(log: Log) -> None:
    async with _opened(log) as broker:
        first = await broker.append([Draft("t", "1", key="k")])
        assert await broker.append([Draft("t", "again", key="k")]) == first
        assert _offsets(await broker.append([Draft("t", "2", key="other")])) == [2]
        assert [record.data for record in await broker.read(0, 10)] == ["1", "2"]


@_check
async def a_key_twice_in_one_batch_appends_once(log: Log) -> None:
    batch = [Draft("t", "1", key="k"), Draft("t", "2"), Draft("t", "again", key="k"), Draft("t", "3", key="l")]
    async with _opened(log) as broker:
        assert _offsets(await broker.append(batch)) == [1, 2, 1, 3]
        assert [record.data for record in await broker.read(0, 10)] == ["1", "2", "3"]


@_check
async def known_keys_within_a_batch_leave_no_holes(log: Log) -> None:
    async with _opened(log) as broker:
        await broker.append([Draft("t", "1", key="k"), Draft("t", "2", key="l")])
        cursors = await broker.append([Draft("t", "3"), Draft("t", "x", key="l"), Draft("t", "4", key="m")])
        assert _offsets(cursors) == [3, 2, 4]
        assert _offsets(await broker.append([Draft("t", "x", key="k"), Draft("t", "x", key="m")])) == [1, 4]
        assert [record.data for record in await broker.read(0, 10)] == ["1", "2", "3", "4"]


@_check
async def keys_are_compared_exactly(log: Log) -> None:
    keys = ["k", "K", "k ", " k", "ключ", "é", "e\u0301", "k/1", "k:1", "k'", 'k"', "k*", "x" * 255]
    async with _opened(log) as broker:
        first = [(await broker.append([Draft("t", key, key=key)]))[0].offset for key in keys]
        assert first == list(range(1, len(keys) + 1))
        assert _offsets(await broker.append([Draft("t", "x", key=key) for key in keys])) == first


@_check
async def concurrent_retries_of_a_key_append_once(log: Log) -> None:
    async with _opened(log) as broker:
        appended = await asyncio.gather(*(broker.append([Draft("t", f"{n % 5}", key=f"{n % 5}")]) for n in range(50)))
        records = await broker.read(0, 100)
        assert sorted(record.data for record in records) == ["0", "1", "2", "3", "4"]
        offset_of = {record.data: record.offset for record in records}
        assert [cursors[0].offset for cursors in appended] == [offset_of[f"{n % 5}"] for n in range(50)]


@_check_if(lambda traits: traits.shared)
async def a_key_appends_once_through_two_brokers(log: Log) -> None:
    async with _opened(log) as one, _opened(log) as two:
        brokers = (one, two)
        appended = await asyncio.gather(
            *(brokers[n % 2].append([Draft("t", "x"), Draft("t", f"{n // 10}", key=f"{n // 10}")]) for n in range(50))
        )
        records = await two.read(0, 200)
        assert _offsets(records) == list(range(1, 56))
        offset_of = {record.data: record.offset for record in records}
        assert [cursors[1].offset for cursors in appended] == [offset_of[f"{n // 10}"] for n in range(50)]


@_check
async def keys_are_known_while_their_records_are_kept_and_then_forgotten(log: Log) -> None:
    kept = 20
    async with _opened(log, Retention(events=kept, bytes=None)) as broker:
        first = (await broker.append([Draft("t", "keyed", key="k")]))[0]
        await broker.append(_drafts(kept - 1))
        assert await broker.append([Draft("t", "again", key="k")]) == [first]
        appended = kept
        for _ in range(200):
            appended = (await broker.append(_drafts(kept)))[-1].offset
            (cursor,) = await broker.append([Draft("t", "again", key="k")])
            if cursor != first:
                break
            assert log.traits.keys_linger or log.traits.spare
        assert cursor == Cursor(first.epoch, appended + 1)


# Reading.


@_check
async def pages_are_read_by_cursor(log: Log) -> None:
    async with _opened(log) as broker:
        await broker.append(_drafts(25))
        pages, after = list[list[int]](), 0
        while page := await broker.read(after, 10):
            pages.append(_offsets(page))
            after = page[-1].offset
        assert pages == [list(range(1, 11)), list(range(11, 21)), list(range(21, 26))]
        assert _offsets(await broker.read(24, 10)) == [25]
        assert await broker.read(25, 10) == await broker.read(99, 10) == []


@_check
async def fewer_than_the_limit_mean_the_end_also_with_a_filter(log: Log) -> None:
    async with _opened(log) as broker:
        for _ in range(4):
            await broker.append(_drafts(700, topic="often"))
            await broker.append([Draft("rare", "here")])
        found = await broker.read(0, 3, lambda topic: topic == "rare")
        assert _offsets(found) == [701, 1402, 2103]
        assert _offsets(await broker.read(2103, 3, lambda topic: topic == "rare")) == [2804]
        assert await broker.read(0, 3, lambda topic: topic == "never") == []
        assert _offsets(await broker.read(700, 2, lambda topic: topic != "rare")) == [702, 703]


# Tails.


@_check
async def a_tail_that_starts_before_any_record_gets_the_first(log: Log) -> None:
    async with _opened(log) as broker, tailing(broker, 0) as tail:
        first = asyncio.create_task(collect(tail, 1))
        await asyncio.sleep(0)
        await broker.append(_drafts(1))
        assert await first == [Record(1, "numbers", None, "1")]


@_check
async def a_tail_goes_on_from_any_offset_without_a_hole(log: Log) -> None:
    async with _opened(log) as broker:
        await broker.append(_drafts(30))
        for after in (0, 1, 17, 29):
            assert _offsets(await _tailed(broker, after, 30 - after)) == list(range(after + 1, 31))


@_check
async def between_a_read_and_a_tail_is_no_hole_while_others_append(log: Log) -> None:
    async with _opened(log) as broker:
        appending = asyncio.create_task(_append_one_by_one(broker, 200))
        history: list[Record] = []
        while len(history) < 50:
            history += await broker.read(history[-1].offset if history else 0, 20)
            await asyncio.sleep(0)
        rest = await _tailed(broker, history[-1].offset, 200 - len(history))
        await appending
        assert _offsets([*history, *rest]) == list(range(1, 201))


async def _append_one_by_one(broker: Broker, count: int) -> None:
    for draft in _drafts(count):
        await broker.append([draft])


@_check
async def all_tails_get_the_same_records(log: Log) -> None:
    async with _opened(log) as broker, tailing(broker, 0) as one, tailing(broker, 0) as two, tailing(broker, 0) as late:
        collecting = [asyncio.create_task(collect(tail, 60)) for tail in (one, two)]
        await asyncio.gather(*(broker.append(_drafts(3)) for _ in range(20)))
        first, second = await asyncio.gather(*collecting)
        assert first == second == await collect(late, 60) == await broker.read(0, 100)
        assert _offsets(first) == list(range(1, 61))


@_check_if(lambda traits: traits.shared)
async def a_tail_gets_what_another_broker_appends(log: Log) -> None:
    async with _opened(log) as writer, _opened(log) as reader, tailing(reader, 0) as tail:
        for number in range(1, 21):
            cursors = await writer.append(_drafts(2))
            assert _offsets(await collect(tail, 2)) == _offsets(cursors) == [2 * number - 1, 2 * number]


@_check
async def a_tail_that_is_cancelled_ends_and_disturbs_no_other(log: Log) -> None:
    async with _opened(log) as broker, tailing(broker, 0) as other:
        async with tailing(broker, 0) as tail:
            await broker.append(_drafts(1))
            await collect(tail, 1)
            waiting = asyncio.create_task(collect(tail, 1))
            await asyncio.sleep(0)
            waiting.cancel()
            assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
        await broker.append(_drafts(1))
        assert _offsets(await collect(other, 2)) == [1, 2]
        assert _offsets(await _tailed(broker, 1, 1)) == [2]


@_check
async def closing_ends_waiting_tails(log: Log) -> None:
    async with _opened(log) as broker, tailing(broker, 0) as tail:
        await broker.append(_drafts(2))
        await collect(tail, 2)
        waiting = asyncio.create_task(_rest(tail))
        await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            await broker.close()
            assert await waiting == []


async def _rest(tail: AsyncIterator[list[Record]]) -> list[Record]:
    return [record async for records in tail for record in records]


@_check
async def a_closed_broker_refuses_and_may_be_closed_again(log: Log) -> None:
    async with _opened(log) as broker:
        await broker.append(_drafts(1))
        await broker.close()
        await broker.close()
        await _refused(broker, _drafts(1))
        results = await asyncio.gather(broker.read(0, 1), broker.open(), return_exceptions=True)
        assert [type(result) for result in results] == [BrokerError, BrokerError]


@_check
async def closing_what_was_never_opened_does_nothing(log: Log) -> None:
    await log.broker().close()


# Retention.


@_check
async def no_more_records_are_kept_than_asked_for(log: Log) -> None:
    limit = 50
    async with _opened(log, Retention(events=limit, bytes=None)) as broker:
        for _ in range(12):
            await broker.append(_drafts(25))
        state = await broker.open()
        assert state.newest == 300
        assert limit <= state.newest - state.oldest + 1 <= limit + log.traits.spare
        assert _offsets(await broker.read(0, 1000)) == list(range(state.oldest, 301))


@_check
async def no_more_bytes_are_kept_than_asked_for(log: Log) -> None:
    size, limit = 1024, 64 * 1024
    async with _opened(log, Retention(events=None, bytes=limit)) as broker:
        for _ in range(30):
            await broker.append(_drafts(10, size=size))

        async def bounded() -> bool:
            state = await broker.open()
            return (state.newest - state.oldest + 1) * size <= limit + log.traits.spare * size

        await _until(bounded)
        state = await broker.open()
        assert state.newest == 300
        # Stores may count their own overhead too, and drop whole batches; but they keep a good part.
        assert (state.newest - state.oldest + 1) * size >= limit / 2
        assert _offsets(await broker.read(0, 1000)) == list(range(state.oldest, 301))


@_check
async def records_are_dropped_when_they_are_old(log: Log) -> None:
    async with _opened(log, Retention(events=None, bytes=None, age=0.5)) as broker:
        await broker.append(_drafts(5))

        async def forgotten() -> bool:
            return (await broker.open()).oldest == 6

        await _until(forgotten)
        assert await broker.read(0, 10) == []
        assert _offsets(await broker.append(_drafts(1))) == [6]


@_check
async def reading_behind_trimmed_records_passes_over_them(log: Log) -> None:
    async with _opened(log, Retention(events=10, bytes=None)) as broker:
        await _trim(broker)
        state = await broker.open()
        found = await broker.read(0, 5)
        assert _offsets(found) == list(range(state.oldest, state.oldest + 5))


@_check
async def a_tail_behind_trimmed_records_says_so(log: Log) -> None:
    async with _opened(log, Retention(events=10, bytes=None)) as broker:
        await _trim(broker)
        oldest = (await broker.open()).oldest
        async with tailing(broker, 0) as tail:
            error = await _raised(tail, LogTrimmedError)
            assert isinstance(error, LogTrimmedError)
            assert error.after == 0
            assert 1 < error.oldest <= oldest
        newest = (await broker.open()).newest
        assert _offsets(await _tailed(broker, oldest - 1, newest - oldest + 1)) == list(range(oldest, newest + 1))


async def _trim(broker: Broker) -> None:
    """Append until the first record is dropped."""

    async def trimmed() -> bool:
        await broker.append(_drafts(20))
        return (await broker.open()).oldest > 1

    await _until(trimmed)


# Another life.


@_check_if(lambda traits: not traits.shared)
async def a_log_that_is_not_shared_has_another_epoch_each_time(log: Log) -> None:
    async with _opened(log) as one, _opened(log) as two:
        assert (await one.open()).epoch != (await two.open()).epoch


@_check_if(lambda traits: traits.shared)
async def a_log_outlives_its_brokers(log: Log) -> None:
    async with _opened(log) as broker:
        before = await broker.open()
        cursors = await broker.append([*_drafts(4), Draft("t", "keyed", key="k")])
    async with _opened(log) as broker:
        assert await broker.open() == (before.epoch, 1, 5)
        assert [record.data for record in await broker.read(0, 10)] == ["1", "2", "3", "4", "keyed"]
        assert await broker.append([Draft("t", "again", key="k"), *_drafts(1)]) == [
            cursors[-1],
            Cursor(before.epoch, 6),
        ]


@_check_if(lambda traits: traits.shared)
async def brokers_that_make_a_log_at_once_make_one(log: Log) -> None:
    brokers = [log.broker() for _ in range(6)]
    try:
        async with asyncio.timeout(PATIENCE):
            states = await asyncio.gather(*(broker.open() for broker in brokers))
        assert len({state.epoch for state in states}) == 1
        appended = await asyncio.gather(*(broker.append(_drafts(1)) for broker in brokers))
        assert sorted(cursors[0].offset for cursors in appended) == [1, 2, 3, 4, 5, 6]
    finally:
        await asyncio.gather(*(broker.close() for broker in brokers))


@_check_if(lambda traits: traits.shared)
async def a_wiped_log_is_another_log(log: Log) -> None:
    async with _opened(log) as broker:
        before = await broker.open()
        await broker.append(_drafts(3))
        async with tailing(broker, 3) as tail:
            waiting = asyncio.create_task(_raised(tail, LogResetError))
            await asyncio.sleep(0)
            await log.wipe()
            async with _opened(log) as other:
                await other.append([Draft("t", "another life")])
                await waiting
                after = await broker.open()
                assert after.epoch != before.epoch
                assert after == await other.open()
                assert await broker.append(_drafts(1)) == [Cursor(after.epoch, after.newest + 1)]
                assert len(await _tailed(broker, after.oldest - 1, 2)) == 2


@_check_if(lambda traits: traits.shared)
async def nothing_is_acknowledged_under_the_epoch_of_a_wiped_log(log: Log) -> None:
    async with _opened(log) as broker:
        before = await broker.open()
        await broker.append(_drafts(3))
        await log.wipe()
        async with _opened(log) as other:
            after = await other.open()
            try:
                cursors = await broker.append(_drafts(1))
            except BrokerError:
                cursors = []
            assert after.epoch != before.epoch
            assert all(cursor.epoch == after.epoch for cursor in cursors)
            assert [cursor.offset for cursor in cursors] == _offsets(await other.read(0, 10))


# What an event may carry.


@_check
async def all_text_comes_back_as_it_was(log: Log) -> None:
    texts = ["", " ", "\n", "a\r\nb\rc\n", "äöü ß € 你好 😀", "\u2028\u0085\ufeff", "'\"\\;--%s{}$1", "\t\x01\x7f"]
    drafts = [Draft(f"topic/{number}", text, event=text[:1].strip() or None) for number, text in enumerate(texts)]
    async with _opened(log) as broker:
        await broker.append(drafts)
        records = await broker.read(0, 100)
        assert [(record.topic, record.data, record.event) for record in records] == [draft[:3] for draft in drafts]
        assert await _tailed(broker, 0, len(texts)) == records


@_check
async def no_event_type_is_another_than_an_empty_one(log: Log) -> None:
    async with _opened(log) as broker:
        await broker.append([Draft("t", "", None), Draft("t", "", ""), Draft("тема/ü", "", "тип")])
        assert [record[1:3] for record in await broker.read(0, 3)] == [("t", None), ("t", ""), ("тема/ü", "тип")]


@_check_if(lambda traits: traits.max_data is None)
async def an_event_of_a_mebibyte_is_kept(log: Log) -> None:
    data = "é" * (1024 * 1024 // 2)
    async with _opened(log) as broker:
        await broker.append([Draft("t", data), Draft("t", "small"), Draft("t", data)])
        assert [record.data == data for record in await broker.read(0, 3)] == [True, False, True]
        assert [record.data == data for record in await _tailed(broker, 0, 3)] == [True, False, True]


@_check_if(lambda traits: traits.max_data is not None)
async def an_event_over_the_limit_is_refused_with_its_whole_batch(log: Log) -> None:
    limit = log.traits.max_data or 0
    async with _opened(log) as broker:
        await broker.append([Draft("t", "x" * limit)])
        error = await _refused(broker, [Draft("t", "small"), Draft("t", "x" * (limit * 2))])
        assert "expected" in str(error)
        assert (await broker.open()).newest == 1
        assert _offsets(await broker.append(_drafts(1))) == [2]


@_check_if(lambda traits: traits.nul)
async def text_with_nul_is_kept(log: Log) -> None:
    async with _opened(log) as broker:
        await broker.append([Draft("t", "a\0b", "c\0d", "k\0"), Draft("t", "other", None, "k")])
        assert [record[1:] for record in await broker.read(0, 3)] == [("t", "c\0d", "a\0b"), ("t", None, "other")]


@_check_if(lambda traits: not traits.nul)
async def text_with_nul_is_refused_with_its_whole_batch(log: Log) -> None:
    async with _opened(log) as broker:
        for draft in (Draft("t", "a\0b"), Draft("t", "a", "b\0c"), Draft("t", "a", None, "k\0")):
            error = await _refused(broker, [Draft("t", "fine"), draft])
            assert "U+0000" in str(error)
        assert (await broker.open()).newest == 0


@_check
async def lone_surrogates_harm_nobody(log: Log) -> None:
    """Text that UTF-8 has no bytes for, as JSON may carry it, is kept or becomes U+FFFD, as on the wire."""
    async with _opened(log) as broker:
        bad, fine = await asyncio.gather(broker.append([Draft("t", "a\ud800b")]), broker.append([Draft("t", "fine")]))
        records = {record.offset: record.data for record in await broker.read(0, 10)}
        assert records[bad[0].offset] in ("a\ud800b", "a\ufffdb")
        assert records[fine[0].offset] == "fine"


# Several processes.


@_check_if(lambda traits: traits.shared)
async def two_processes_with_many_publishers_make_one_order(log: Log) -> None:
    publishers, batches = 16, 8
    async with _opened(log) as broker, tailing(broker, 0) as tail:
        programs = [await _start_publisher(log.url, name, publishers, batches) for name in ("one", "two")]
        total = 2 * publishers * batches * 2
        records = await collect(tail, total)
        outputs = [(await program.communicate())[0] for program in programs]
    assert [program.returncode for program in programs] == [0, 0]
    assert _offsets(records) == list(range(1, total + 1))
    acknowledged = [entry for output in outputs for entry in json.loads(output)]
    assert sorted(offset for offset, _ in acknowledged) == list(range(1, total + 1))
    assert {record.offset: record.data for record in records} == dict(acknowledged)
    _each_publisher_in_its_own_order(records)


def _each_publisher_in_its_own_order(records: list[Record]) -> None:
    counts: dict[str, int] = {}
    for record in records:
        assert int(record.data.rpartition(" ")[2]) == counts.get(record.topic, 0)
        counts[record.topic] = counts.get(record.topic, 0) + 1


async def _start_publisher(url: str, name: str, publishers: int, batches: int) -> asyncio.subprocess.Process:
    arguments = (url, name, f"{publishers}", f"{batches}")
    return await asyncio.create_subprocess_exec(
        sys.executable, str(_PUBLISHER), *arguments, stdout=asyncio.subprocess.PIPE
    )
