"""What is a NATS log's own: its URL, its stream, batches of several messages, and keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js import JetStreamContext

from tickertape.broker import DEFAULT_RETENTION, Broker, LogState, Record, Retention, create_broker
from tickertape.broker.nats.messages import Assembly, encode, parse
from tickertape.broker.options import nats_credentials
from tickertape.errors import BrokerError, LogResetError
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
async def opened(log: NatsLog, retention: Retention = DEFAULT_RETENTION, options: str = "") -> AsyncIterator[Broker]:
    broker = create_broker(log.url + options, retention=retention)
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
        ("nats:///log", "expected nats://host:4222/stream, got a URL without a host"),
        ("nats://localhost/a.b", "expected a stream name of letters, digits, - and _, got 'a.b'"),
        ("nats://localhost/log?replicas=6", "expected a value of replicas that is a number from 1 to 5, got '6'"),
        ("nats://localhost/log?storage=tape", "expected a value of storage that is one of file, memory, got 'tape'"),
        (
            "nats://localhost/log?copies=3",
            "expected an option of nats:// (connect_timeout, creds, replicas, storage, timeout), got 'copies'",
        ),
    ],
)
def test_url_that_names_none_is_refused(url: str, sentence: str) -> None:
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
def test_credentials_of_a_url_are_decoded(url: str, expected: dict[str, str]) -> None:
    assert nats_credentials(url, {}) == expected
    assert nats_credentials(url, {"creds": "hub.creds"}) == {**expected, "user_credentials": "hub.creds"}


def test_secrets_are_not_shown() -> None:
    assert "hunter2" not in repr(create_broker("nats://me:hunter2@one:4222,two:4222/log"))


@pytest.mark.parametrize("login", ["", "me:hunter2@"])
async def test_server_that_is_not_there_is_named_without_its_secrets(login: str) -> None:
    broker = create_broker(f"nats://{login}127.0.0.1:1,127.0.0.1:2/log?connect_timeout=1")
    with pytest.raises(BrokerError, match="cannot connect to NATS at 127") as caught:
        await broker.open()
    assert "127.0.0.1:1: " in str(caught.value)
    assert "127.0.0.1:2: " in str(caught.value)
    assert "hunter2" not in str(caught.value)
    await broker.close()


# The stream.


async def test_retention_becomes_the_limits_of_the_stream(log: NatsLog) -> None:
    async with opened(log, Retention(events=100, bytes=1000), "?storage=memory"):
        config = (await stream_of(log)).config
        assert (config.max_msgs, config.max_bytes, config.storage) == (100, 1000, "memory")
    async with opened(log, Retention(events=None, bytes=2000)):
        config = (await stream_of(log)).config
        assert (config.max_msgs, config.max_bytes, config.storage) == (-1, 2000, "memory")


async def test_tail_of_an_empty_log_has_nothing_to_complain_of(log: NatsLog, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(log) as broker, tailing(broker, 0) as tail:
        first = asyncio.create_task(collect(tail, 1))
        await asyncio.sleep(0)
        await broker.append([Draft("t", "x")])
        assert await first == [Record(1, "t", None, "x")]
    assert caplog.messages == []


async def test_stream_of_someone_else_is_left_alone(log: NatsLog) -> None:
    async with jetstream() as server:
        await server.add_stream(name=log.stream, subjects=[f"{log.stream}.orders"])
        broker = create_broker(log.url)
        with pytest.raises(BrokerError, match="expected a stream of tickertape under the name"):
            await broker.open()
        await broker.close()
        assert (await server.stream_info(log.stream)).config.subjects == [f"{log.stream}.orders"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"retention": "workqueue"}, "retention=limits, got workqueue"),
        ({"discard": "new"}, "discard=old, got new"),
        ({"deny_delete": False}, "deny_delete=True, got False"),
        ({"max_age": 3600.0}, "max_age=0.0, got 3600.0"),
        ({"max_msgs_per_subject": 5}, "max_msgs_per_subject=-1, got 5"),
    ],
)
async def test_stream_with_settings_that_would_break_the_log_is_refused(
    log: NatsLog, change: dict[str, Any], sentence: str
) -> None:
    async with opened(log) as broker, jetstream() as server:
        config = (await server.stream_info(log.stream)).config
        await server.delete_stream(log.stream)
        await server.add_stream(config.evolve(**change))
        expected = f"expected the stream {log.stream!r} with the setting {sentence}: change it, or give another name"
        for each in (broker, log.broker()):
            with pytest.raises(BrokerError) as caught:
                await each.open()
            assert str(caught.value) == expected
            await each.close()


async def test_message_of_someone_else_is_told(log: NatsLog) -> None:
    async with opened(log) as broker, tailing(broker, 0) as tail, jetstream() as server:
        epoch = (await broker.open()).epoch
        await server.publish(f"tickertape.{log.stream}.{epoch}.plain", b"hello")
        with pytest.raises(BrokerError, match="expected records of tickertape in message 1"):
            await broker.append([Draft("t", "x")])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await anext(tail)


async def test_purged_stream_is_another_log(log: NatsLog) -> None:
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
        assert after[1:] == (1, 0)
        cursors = await broker.append([Draft("t", "2", key="k")])
        assert [(cursor.epoch, cursor.offset) for cursor in cursors] == [(after.epoch, 1)]
        async with opened(log) as other:
            assert await other.open() == LogState(after.epoch, 1, 1)


async def test_log_that_lost_records_is_another_log_with_what_it_still_has(log: NatsLog) -> None:
    """As a server that comes back without its last seconds: the stream is made again with its first messages."""
    async with opened(log) as broker:
        before = await broker.open()
        for number in range(5):
            await broker.append([Draft("t", f"{number}")])
        async with jetstream() as server:
            config = (await server.stream_info(log.stream)).config
            kept = [await server.get_msg(log.stream, sequence) for sequence in (1, 2, 3)]
            await server.delete_stream(log.stream)
            await server.add_stream(config)
            for message in kept:
                await server.publish(message.subject or "", message.data or b"", headers=message.headers)
        after = await broker.open()
        assert after.epoch != before.epoch
        assert after[1:] == (1, 3)
        assert [record.data for record in (await broker.read(0, 10)).records] == ["0", "1", "2"]
        assert [cursor.offset for cursor in await broker.append([Draft("t", "3")])] == [4]


# Batches of several messages.


async def test_batch_that_is_longer_than_a_message_is_whole(log: NatsLog) -> None:
    batch = [Draft("t", f"{number}".ljust(MIB, "."), key=f"{number}") for number in range(3)]
    async with opened(log) as broker, opened(log) as other, tailing(other, 0) as tail:
        await broker.append([Draft("t", "before")])
        assert [cursor.offset for cursor in await broker.append(batch)] == [2, 3, 4]
        await broker.append([Draft("t", "after")])
        expected = ["before", "0", "1", "2", "after"]
        assert [record.data.rstrip(".") for record in await collect(tail, 5)] == expected
        for after in range(5):
            assert [record.data.rstrip(".") for record in (await other.read(after, 10)).records] == expected[after:]
        assert [cursor.offset for cursor in await other.append(batch)] == [2, 3, 4]
        assert (await stream_of(log)).state.messages > 5


async def test_concurrent_long_batches_are_never_mixed(log: NatsLog) -> None:
    async with opened(log) as one, opened(log) as two, tailing(one, 0) as tail:
        appends = [
            broker.append([Draft(name, "x" * MIB), Draft(name, "y" * MIB)])
            for broker, name in ((one, "one"), (two, "two"), (one, "three"), (two, "four"))
        ]
        await asyncio.gather(*appends)
        records = await collect(tail, 8)
        assert [record.offset for record in records] == list(range(1, 9))
        for first, second in zip(records[::2], records[1::2], strict=True):
            assert (first.topic, first.data[0], second.data[0]) == (second.topic, "x", "y")


async def test_batch_that_was_given_up_counts_for_nothing(log: NatsLog) -> None:
    async with opened(log) as broker, tailing(broker, 0) as tail:
        epoch = (await broker.open()).epoch
        await broker.append([Draft("t", "1")])
        parts = encode("given-up", 2, [Draft("t", "x" * 5000, key="k")], 2048)
        async with jetstream() as server:
            for headers, data in parts[:-1]:
                await server.publish(f"tickertape.{log.stream}.{epoch}.plain", data, headers=headers)
        assert (await broker.open()).newest == 1
        assert [cursor.offset for cursor in await broker.append([Draft("t", "2", key="k")])] == [2]
        expected = [Record(1, "t", None, "1"), Record(2, "t", None, "2")]
        assert await collect(tail, 2) == (await broker.read(0, 10)).records == expected
        assert (await broker.read(1, 10)).records == expected[1:]


ENCODED = encode("n", 7, [Draft("t", "é" * 2000, event="e", key="k"), Draft("u", "\0")], 2048)
MESSAGES = [parse(sequence, 0.0, headers, data) for sequence, (headers, data) in enumerate(ENCODED, 11)]
RECORDS = [Record(7, "t", "e", "é" * 2000), Record(8, "u", None, "\0")]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (MESSAGES, RECORDS),
        (MESSAGES[1:], []),
        (MESSAGES[:-1], []),
        (MESSAGES[:1] + MESSAGES[2:], []),
        (MESSAGES[:2] + MESSAGES, RECORDS),
        (MESSAGES[1:] + MESSAGES, RECORDS),
        ([*MESSAGES[:-1], MESSAGES[-1]._replace(id="other-9")], []),
        ([*MESSAGES[:-1], MESSAGES[-1]._replace(sequence=99)], []),
    ],
    ids=["all", "no first", "no last", "a hole", "begun twice", "end of another", "of another", "not next to it"],
)
def test_only_whole_batches_are_put_together(messages: list[object], expected: list[Record]) -> None:
    assert len(MESSAGES) > 2
    assembly = Assembly()
    records = []
    for message in messages:
        records += assembly.add(message)  # type: ignore[arg-type]
    assert records == expected


def test_keys_that_fill_a_message_are_refused() -> None:
    with pytest.raises(BrokerError, match="expected a batch whose keys take at most 1536 bytes"):
        encode("n", 1, [Draft("t", "x", key=f"{number}") for number in range(100)], 2048)


# Keys.


async def test_keys_are_known_to_a_broker_that_comes_later_and_beyond_the_server_memory_of_ids(log: NatsLog) -> None:
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
