"""The parts of a log in NATS that the contract does not cover: its URL, its stream, its messages and its keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from tickertape.broker import DEFAULT_RETENTION, LogState, Record, Retention, create_broker, read_nats_url
from tickertape.broker.nats import NatsBroker
from tickertape.broker.nats import broker as broker_module
from tickertape.broker.nats import connection as connection_module
from tickertape.broker.nats import index as index_module
from tickertape.broker.nats import link as link_module
from tickertape.broker.nats.broker import _Reader
from tickertape.broker.nats.index import Index
from tickertape.broker.nats.link import Link
from tickertape.broker.nats.messages import Marks, Message, digest, encode, parse, places_of, records_of, sizes_of
from tickertape.errors import BatchTooLargeError, BrokerError, LogResetError
from tickertape.testing.contract.checks import PATIENCE
from tickertape.testing.contract.steps import collect, tailing
from tickertape.wire import Draft

from .nats_logs import SERVER, NatsLog, nats_absent
from .private_servers import require

MIB = 1024 * 1024


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[NatsLog]:
    require(nats_absent())
    log = NatsLog(tmp_path)
    yield log
    await log.wipe()


@asynccontextmanager
async def opened(
    log: NatsLog, retention: Retention = DEFAULT_RETENTION, options: str = ""
) -> AsyncIterator[NatsBroker]:
    broker = create_broker(log.url + options, retention=retention)
    assert isinstance(broker, NatsBroker)
    try:
        await broker.open()
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def jetstream() -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(SERVER)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def stream_of(log: NatsLog) -> nats.js.api.StreamInfo:
    async with jetstream() as server:
        return await server.stream_info(log.stream)


# URLs.


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nats:///log", "expected a URL such as nats://host:4222, got one without a host"),
        ("nats://localhost/a.b", "expected a stream name of letters, digits, - and _, got 'a.b'"),
        ("nats://localhost/log?replicas=6", "expected replicas to be a number from 1 to 5, got '6'"),
        ("nats://localhost/log?storage=tape", "expected storage to be one of file, memory, got 'tape'"),
        (
            "nats://localhost/log?copies=3",
            "expected an option of nats:// (connect_timeout, creds, replicas, storage, timeout), got 'copies'",
        ),
    ],
)
def test_invalid_urls(url: str, sentence: str) -> None:
    with pytest.raises(BrokerError) as caught:
        create_broker(url)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://one/log", {}),
        ("nats://to%2Fken@one,two/log", {"token": "to/ken"}),
        ("nats://me%40here:p%3Ass@one:4222/log", {"user": "me@here", "password": "p:ss"}),
    ],
)
def test_credentials(url: str, expected: dict[str, str]) -> None:
    assert read_nats_url(url, {}).credentials == expected
    assert read_nats_url(f"{url}?creds=hub.creds", {}).credentials == {**expected, "user_credentials": "hub.creds"}


def test_repr_hides_secrets() -> None:
    assert "hunter2" not in repr(create_broker("nats://me:hunter2@one:4222,two:4222/log"))


@pytest.mark.parametrize("login", ["", "me:hunter2@"])
async def test_unreachable_servers(login: str) -> None:
    broker = create_broker(f"nats://{login}127.0.0.1:1,127.0.0.1:2/log?connect_timeout=1")
    with pytest.raises(BrokerError, match=r"cannot connect to NATS at 127\.0\.0\.1:1,127\.0\.0\.1:2: ") as caught:
        await broker.open()
    assert "('127.0.0.1', 1)" in str(caught.value)
    assert "('127.0.0.1', 2)" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    await broker.close()


# The stream.


async def test_limits_of_the_stream(log: NatsLog) -> None:
    """They leave room for records that wait to be removed: the log itself keeps less."""
    rules = 64 * MIB + 64 * MIB + MIB  # those for runs
    async with opened(log, Retention(events=100, bytes=1000), "?storage=memory"):
        config = (await stream_of(log)).config
        assert (config.max_msgs, config.max_bytes, config.storage) == (-1, 2 * (1000 + rules), "memory")
    async with opened(log, Retention(events=None, bytes=None)):
        config = (await stream_of(log)).config
        assert (config.max_msgs, config.max_bytes, config.storage) == (-1, -1, "memory")


async def test_tail_of_empty_log(log: NatsLog, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(log) as broker, tailing(broker, 0) as tail:
        first = asyncio.create_task(collect(tail, 1))
        await asyncio.sleep(0)
        await broker.append([Draft("t", "x")])
        assert await first == [Record(1, "t", None, "x")]
    assert caplog.messages == []


async def test_foreign_stream(log: NatsLog) -> None:
    async with jetstream() as server:
        await server.add_stream(name=log.stream, subjects=[f"{log.stream}.orders"])
        broker = create_broker(log.url)
        with pytest.raises(BrokerError, match="is not a log of tickertape: its subjects are"):
            await broker.open()
        await broker.close()
        assert (await server.stream_info(log.stream)).config.subjects == [f"{log.stream}.orders"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"retention": "workqueue"}, "retention=limits, got workqueue"),
        ({"discard": "new"}, "discard=old, got new"),
        ({"deny_delete": True}, "deny_delete=False, got True"),
        ({"max_age": 3600.0}, "max_age=0.0, got 3600.0"),
        ({"max_msgs_per_subject": 5}, "max_msgs_per_subject=-1, got 5"),
    ],
)
async def test_unsuitable_settings(log: NatsLog, change: dict[str, Any], sentence: str) -> None:
    async with opened(log) as broker, jetstream() as server:
        config = (await server.stream_info(log.stream)).config
        await server.delete_stream(log.stream)
        await server.add_stream(config.evolve(**change))
        expected = f"expected stream {log.stream!r} to have {sentence}: change the setting, or use another stream"
        for each in (broker, log.broker()):
            with pytest.raises(BrokerError) as caught:
                await each.open()
            assert str(caught.value) == expected
            await each.close()


async def test_foreign_message(log: NatsLog) -> None:
    async with opened(log) as broker, tailing(broker, 0) as tail, jetstream() as server:
        epoch = (await broker.open()).epoch
        await server.publish(f"tickertape.{log.stream}.{epoch}.records", b"hello")
        with pytest.raises(BrokerError, match="message 2 does not hold records of tickertape"):
            await broker.append([Draft("t", "x")])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await anext(tail)


async def test_purged_stream(log: NatsLog) -> None:
    async with opened(log) as broker, tailing(broker, 0) as tail:
        before = await broker.open()
        await broker.append([Draft("t", "1"), Draft("t", "2", key="k")])
        await collect(tail, 2)
        async with jetstream() as server:
            await server.purge_stream(log.stream)
        with pytest.raises(LogResetError):
            async with asyncio.timeout(PATIENCE):
                await anext(tail)
        after = await broker.open()
        assert after.epoch != before.epoch
        assert after[1:3] == (1, 0)
        cursors = await broker.append([Draft("t", "2", key="k")])
        assert [(cursor.epoch, cursor.offset) for cursor in cursors] == [(after.epoch, 1)]
        async with opened(log) as other:
            assert await other.open() == LogState(after.epoch, 1, 1)


async def test_lost_records(log: NatsLog) -> None:
    """A server that lost its last seconds: the stream is created again with its first messages."""
    async with opened(log) as broker:
        before = await broker.open()
        for number in range(5):
            await broker.append([Draft("t", f"{number}")])
        async with jetstream() as server:
            config = (await server.stream_info(log.stream)).config
            kept = [await server.get_msg(log.stream, sequence) for sequence in (1, 2, 3, 4)]  # the first has marks
            await server.delete_stream(log.stream)
            await server.add_stream(config)
            for message in kept:
                await server.publish(message.subject or "", message.data or b"", headers=message.headers)
        after = await broker.open()
        assert after.epoch != before.epoch
        assert after[1:3] == (1, 3)
        assert [record.data for record in (await broker.read(0, 10)).records] == ["0", "1", "2"]
        assert [cursor.offset for cursor in await broker.append([Draft("t", "3")])] == [4]


async def test_deleted_stream(log: NatsLog) -> None:
    """Reading a stream that was deleted creates none; appending begins a new epoch."""
    async with opened(log) as broker, jetstream() as server:
        before = await broker.state()
        await broker.append([Draft("t", "1")])
        await server.delete_stream(log.stream)
        for read in (broker.state, lambda: broker.read(0, 10)):
            with pytest.raises(LogResetError, match="there is no log in the stream"):
                await read()
        with pytest.raises(NotFoundError):
            await server.stream_info(log.stream)
        (cursor,) = await broker.append([Draft("t", "2")])
        assert cursor.epoch != before.epoch
        assert cursor.offset == 1
        assert await broker.state() == LogState(cursor.epoch, 1, 1)


async def test_records_of_next_epoch(log: NatsLog) -> None:
    """A tail never yields records of the next epoch, although their offsets continue its own."""
    async with opened(log) as broker, opened(log) as other, tailing(broker, 0) as tail:
        await broker.append([Draft("t", "old 1")])
        await broker.append([Draft("t", "old 2")])
        assert len(await collect(tail, 2)) == 2
        waiting = asyncio.ensure_future(anext(tail))
        async with jetstream() as server:
            await server.purge_stream(log.stream)
        await other.append([Draft("t", f"new {number}") for number in range(1, 6)])
        with pytest.raises(LogResetError):
            async with asyncio.timeout(PATIENCE):
                await waiting


async def test_slow_reader(log: NatsLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver drops messages that are read too slowly. The tail reads them again."""
    monkeypatch.setattr(connection_module, "_QUEUED", 3)
    monkeypatch.setattr(link_module, "_QUEUED_BYTES", 8000)
    async with opened(log) as broker, tailing(broker, 0) as tail:
        await broker.append([Draft("t", "first")])
        assert len(await collect(tail, 1)) == 1
        for number in range(100):
            await broker.append([Draft("t", f"{number}".ljust(100))])
        records = await collect(tail, 100)
        assert [record.data.rstrip() for record in records] == [str(number) for number in range(100)]
        assert [record.offset for record in records] == list(range(2, 102))


async def test_slow_server(log: NatsLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page waits for records that are slow to arrive, as long as the request may take."""
    async with opened(log) as broker:
        await broker.append([Draft("t", f"{number}") for number in range(10)])
        monkeypatch.setattr(broker_module, "_LOOK", 0.0)  # each look for records finds none yet
        page = await broker.read(0, 10)
        assert [record.data for record in page.records] == [f"{number}" for number in range(10)]


# Messages.


@pytest.mark.parametrize(
    "drafts",
    [
        [Draft("t", "x" * MIB)],
        [Draft("t", "x" * (MIB // 2)), Draft("t", "y" * (MIB // 2))],
        [Draft("t", "x", key=f"{number}") for number in range(30_000)],
    ],
    ids=["event", "batch", "keys"],
)
async def test_batch_over_max_payload(log: NatsLog, drafts: list[Draft]) -> None:
    """It is refused as a whole, with the limit, and spoils nothing that others append at the same time."""
    async with opened(log) as broker:
        results = await asyncio.gather(
            broker.append([Draft("t", "before")]),
            broker.append([Draft("t", "small"), *drafts]),
            *(broker.append([Draft("t", f"{number}")]) for number in range(10)),
            return_exceptions=True,
        )
        error = results.pop(1)
        assert isinstance(error, BatchTooLargeError)
        assert error.size > error.limit == MIB
        assert "(max_payload of NATS at " in str(error)
        assert [result for result in results if isinstance(result, BaseException)] == []
        data = [record.data for record in (await broker.read(0, 100)).records]
        assert sorted(data) == sorted(["before", *map(str, range(10))])


async def test_large_appends_at_once(log: NatsLog) -> None:
    """Appends that each fit into a message are not put together into a group that does not."""
    async with opened(log) as broker, tailing(broker, 0) as tail:
        texts = ["€" * (MIB // 4), "\n" * (MIB // 2), '"' * (MIB - 2000)]
        await asyncio.gather(*(broker.append([Draft("t", text)]) for text in texts * 3))
        assert sorted(record.data for record in await collect(tail, 9)) == sorted(texts * 3)


RECORDS = [Record(7, "t", "e", "é" * 2000), Record(8, 'u"', None, "\0\n"), Record(9, "v", "", "")]


def test_message_round_trip() -> None:
    drafts = [Draft(topic, data, event=event) for _, topic, event, data in RECORDS]
    sizes, places = sizes_of(drafts), places_of(drafts, {'u"': 'u"*', "t": "", "v": ""}.__getitem__)
    assert (sizes[1], places) == (107, {'u"*': {'u"': [1]}})
    message = Message(11, 1.5, "epoch", "name", 7, 3, ((digest("é"), 7), (digest("\0"), 8)), sizes, places)
    headers, data = encode(message, drafts)
    message = message._replace(data=data)
    assert parse(11, 1.5, "tickertape.log.epoch.records", headers, data) == message
    assert message.newest == 9
    assert records_of(message) == RECORDS


def test_long_details_are_data() -> None:
    """A server limits the headers. Without data, the message says that it is only a part."""
    drafts = [Draft(f"t/{number}".ljust(200, "-"), "x" * number) for number in range(200)]
    message = Message(11, 1.5, "epoch", "name", 7, 200, (), sizes_of(drafts), places_of(drafts, lambda topic: "t/*"))
    headers, data = encode(message, drafts)
    assert headers["Tickertape-Details"] == "data"
    found = parse(11, 1.5, "tickertape.log.epoch.records", headers, data)
    assert (found.lanes, found.partial) == (message.lanes, False)
    assert [record.data for record in records_of(found)] == [draft.data for draft in drafts]
    assert parse(11, 1.5, "tickertape.log.epoch.records", headers, b"").partial


def test_marks_round_trip() -> None:
    marks = Marks(True, {"": (1, 2), "тема/*": (3, 4)}, {'a"': 5})
    message = Message(11, 1.5, "epoch", "name", 7, 0, sizes=[], marks=marks)
    headers, data = encode(message, ())
    assert all(value.isascii() for value in headers.values())
    assert parse(11, 1.5, "tickertape.log.epoch.marks", headers, data) == message
    assert message.newest == 6


DETAILS = {"Tickertape-Place": "7 2", "Tickertape-Details": "[[1,1],{},[],null]"}
GOOD = parse(11, 1.5, "tickertape.log.epoch.records", DETAILS, b'[["t",null,1],["t",null,1]]\nab')


@pytest.mark.parametrize(
    ("subject", "headers"),
    [
        ("tickertape", DETAILS),
        ("tickertape.log.epoch.records", None),
        ("tickertape.log.epoch.records", {**DETAILS, "Tickertape-Place": "7"}),
        ("tickertape.log.epoch.records", {**DETAILS, "Tickertape-Place": "7 0"}),
        ("tickertape.log.epoch.records", {**DETAILS, "Tickertape-Details": "[[1],{},[],null]"}),
        ("tickertape.log.epoch.records", {**DETAILS, "Tickertape-Details": '[[1,1],{"a/*":{"a/b":[2]}},[],null]'}),
        ("tickertape.log.epoch.records", {**DETAILS, "Tickertape-Details": '[[1,1],["a"],[],null]'}),
        ("tickertape.log.epoch.records", {**DETAILS, "Tickertape-Details": '[[1,1],{},[["k","x"]],null]'}),
        ("tickertape.log.epoch.records", {**DETAILS, "Tickertape-Details": "[[1,1],{},[],[true,{}]]"}),
    ],
)
def test_foreign_headers(subject: str, headers: dict[str, str] | None) -> None:
    with pytest.raises(BrokerError, match="message 11 does not hold records of tickertape"):
        parse(11, 1.5, subject, headers, b"")


@pytest.mark.parametrize("data", [b"", b"[]\n", b"\xff\n", b'[["t",null,1]]\na', b'[["t",null,1],["t",null]]\nab'])
def test_foreign_data(data: bytes) -> None:
    assert [record.data for record in records_of(GOOD)] == ["a", "b"]
    with pytest.raises(BrokerError, match="message 11 does not hold the 2 records that it announces"):
        records_of(GOOD._replace(data=data))


def message_of(first: int, total: int) -> Message:
    drafts = [Draft("t", f"{offset}") for offset in range(first, first + total)]
    message = Message(first, 0.0, "epoch", "name", first, total, sizes=sizes_of(drafts))
    return message._replace(data=encode(message, drafts)[1])


@pytest.mark.parametrize(
    ("messages", "after", "newest", "backlog", "expected"),
    [
        ([], 0, 0, [], []),
        ([(1, 2), (3, 1)], 0, 0, [], [1, 2, 3]),
        ([(1, 2), (3, 2)], 1, 2, [2], [2, 3, 4]),
        ([(1, 2), (3, 2)], 4, 4, [], []),
        ([(1, 2), (1, 2), (3, 1)], 0, 2, [1, 2], [1, 2, 3]),
        ([(3, 2)], 2, 4, [3, 4], [3, 4]),
        ([(1, 3), (4, 1)], 0, 3, [2], [2, 4]),
        ([(2, 2), (6, 1), (7, 1)], 0, 6, [2, 6], [2, 6, 7]),
        ([(2, 1), (9, 1)], 0, 8, [2], [2, 9]),
        ([(3, 2)], 1, 1, [], None),
        ([(3, 1)], 0, 3, [2, 3], None),
        ([(1, 1), (3, 1)], 0, 2, [1, 2], None),
        ([(1, 1), (5, 1)], 0, 3, [1, 3], None),
    ],
    ids=[
        "none",
        "all",
        "inside",
        "old",
        "again",
        "backlog",
        "dropped",
        "holes",
        "hole at the end",
        "hole",
        "missing",
        "missing later",
        "missing at the end",
    ],
)
def test_reader(
    messages: list[tuple[int, int]], after: int, newest: int, backlog: list[int], expected: list[int] | None
) -> None:
    reader = _Reader(after, newest, backlog)
    found = [message_of(*message) for message in messages]
    if expected is None:
        with pytest.raises(BrokerError, match="are gone: they were read too slowly"):
            reader.records_of(found)
    else:
        assert [record.offset for record in reader.records_of(found)] == expected


# Keys.


async def test_keys_of_earlier_brokers(log: NatsLog) -> None:
    drafts = [Draft("t", f"{number}", key=f"{number}") for number in range(600)]
    async with opened(log) as broker:
        await broker.append(drafts[:300])
        await asyncio.gather(*(broker.append([draft]) for draft in drafts[300:]))
        async with jetstream() as server:
            config = (await server.stream_info(log.stream)).config
            await server.update_stream(config.evolve(duplicate_window=0.1))
    async with opened(log) as later:
        again = await later.append(drafts)
        assert [cursor.offset for cursor in again] == list(range(1, 601))
        assert (await later.open()).newest == 600


# Removed messages.

JOBS = Retention(events=20, bytes=None, topics={"job/*": Retention(bytes=None)})


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove messages as soon as five are of no use."""
    monkeypatch.setattr(index_module, "_SPARE_MESSAGES", 5)


async def test_stream_shrinks(log: NatsLog, eager: None) -> None:
    """Messages without use are removed, also between others; what readers see does not change, for new brokers too."""
    async with opened(log, JOBS) as broker, opened(log, JOBS) as other:
        await broker.append([Draft("job/0", "first", key="k")])
        for number in range(1, 41):
            await broker.append([Draft(f"job/{number % 4}", f"{number}")])
            await broker.append([Draft("quiet", f"{number}")])
        for topic in ("job/1", "job/2", "job/3"):
            await other.discard(topic, 81)
        await until_at_most(log, 20 + 11 + 10)
        pages = [await each.read(0, 1000) for each in (broker, other)]
        async with opened(log, JOBS) as third:
            pages.append(await third.read(0, 1000))
            assert [cursor.offset for cursor in await third.append([Draft("job/0", "again", key="k")])] == [1]
    assert pages[0] == pages[1] == pages[2]
    state, records = pages[0]
    assert [record.offset for record in records if record.topic == "quiet"] == list(range(43, 82, 2))
    assert [record.offset for record in records if record.topic != "quiet"] == [1, *range(8, 82, 8)]
    assert (state.oldest, state.newest) == (1, 81)
    losses = {"job/0": 0, "job/1": 74, "job/2": 76, "job/3": 78, "quiet": 41}
    assert {topic: state.lost_upto(0, (topic,)) for topic in losses} == losses


async def until_at_most(log: NatsLog, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await stream_of(log)).state.messages > count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_tail_beside_removals(log: NatsLog, eager: None) -> None:
    """A tail at the head yields every record, whatever is removed before it."""
    async with opened(log, JOBS) as broker, opened(log, JOBS) as other, tailing(other, 0) as tail:
        reading = asyncio.create_task(collect(tail, 300))
        for number in range(150):
            await broker.append([Draft(f"job/{number}", "x"), Draft("quiet", "x")])
            await other.discard(f"job/{number - 10}", 2 * number)
        assert [record.offset for record in await reading] == list(range(1, 301))
        await until_at_most(log, 40)


async def test_messages_removed_by_hand(log: NatsLog, caplog: pytest.LogCaptureFixture) -> None:
    """Their records count as dropped, and all others are read."""
    async with opened(log, JOBS) as broker:
        for number in range(1, 11):
            await broker.append([Draft(f"job/{number}", f"{number}")])
        async with jetstream() as server:
            await server.purge_stream(log.stream, seq=5)
            await server.delete_msg(log.stream, 8)
        found = await broker.read(0, 100)
        assert [record.offset for record in found.records] == [4, 5, 6, 8, 9, 10]
        assert (found.state.oldest, found.state.newest) == (4, 10)
        assert found.state.lost_upto(5, ("job/7",)) == 7
        assert "1 records are missing in stream" in caplog.text
        assert [cursor.offset for cursor in await broker.append([Draft("quiet", "x")])] == [11]


async def test_long_log_is_opened(log: NatsLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening may take several requests, as long as each of them reads more headers."""
    async with opened(log) as broker:
        for _ in range(1500):
            await broker.append([Draft("t", "x")])
    catch_up, attempts = Index.catch_up, list[int]()

    async def interrupted(index: Index, link: Link, sequence: int) -> None:
        attempts.append(index.upto)
        await catch_up(index, link, min(sequence, index.upto + 100))
        if index.upto < sequence:
            raise BrokerError("no answer in time")

    monkeypatch.setattr(Index, "catch_up", interrupted)
    async with opened(log) as later:
        assert len(attempts) > 1
        assert (await later.state()).newest == 1500
        monkeypatch.setattr(Index, "catch_up", refuse)
        with pytest.raises(BrokerError, match="never"):
            await later.open()


async def refuse(index: Index, link: Link, sequence: int) -> None:
    raise BrokerError("never")


async def test_marks_fit_into_a_message(log: NatsLog) -> None:
    """If the names of discarded topics are long, the oldest marks become those of their rule."""
    topics = [f"job/{number}-".ljust(255, "é") for number in range(400)]
    async with opened(log, JOBS) as broker:
        for start in range(0, 400, 100):
            await broker.append([Draft(topic, "x") for topic in topics[start : start + 100]])
        for topic in topics:
            await broker.discard(topic, 400)
        await broker.append([Draft("quiet", "x") for _ in range(60)])
    async with opened(log, JOBS) as broker:
        state = await broker.state()
        assert all(state.lost_upto(0, (topic,)) > number for number, topic in enumerate(topics))
