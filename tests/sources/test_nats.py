"""Messages of a real NATS server: JetStream's appear once and are acknowledged when stored; others while it listens."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import urlsplit

import nats
import pytest
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError

from broker.nats_logs import SERVER, nats_absent
from broker.private_servers import forwarded, require
from sources.reading import PATIENCE, reading
from support.hub import settle
from tickertape.errors import BrokerError
from tickertape.hub import Feed, Hub
from tickertape.sources import NatsMessage, nats_subject, subjects
from tickertape.testing import FakeClock, ScriptedBroker


class Place:
    """Subjects under a unique name, and the stream that holds them, if there is one.

    Attributes:
        name: of the stream, and the first token of its subjects.
    """

    def __init__(self, client: Any) -> None:
        self.name = f"test-{secrets.token_hex(6)}"
        self.client = client
        self.jetstream = client.jetstream()

    @property
    def subject(self) -> str:
        return f"{self.name}.*"

    async def make(self, **options: Any) -> None:
        await self.jetstream.add_stream(name=self.name, subjects=[f"{self.name}.>"], **options)

    async def remove(self) -> None:
        with suppress(NotFoundError):
            await self.jetstream.delete_stream(self.name)

    async def store(self, *texts: str) -> None:
        for text in texts:
            await self.jetstream.publish(f"{self.name}.a", text.encode())

    async def publish(self, *texts: str) -> None:
        for text in texts:
            await self.client.publish(f"{self.name}.a", text.encode())
        await self.client.flush()

    async def pending(self) -> tuple[int, int]:
        """Return the number of messages delivered but not acknowledged, and of those not delivered yet."""
        info = await self.jetstream.consumer_info(self.name, "hub")
        return info.num_ack_pending, info.num_pending

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                if await condition():
                    return
                await asyncio.sleep(0.02)

    def feed(self, hub: Hub, url: str = SERVER, **options: Any) -> Feed:
        source = nats_subject(url, self.subject, durable="hub", **options)
        return hub.feed("t", source, key="key", data=lambda message: message.data)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    require(nats_absent())
    client = await nats.connect(SERVER)
    place = Place(client)
    try:
        yield place
    finally:
        await place.remove()
        await client.close()


def quick_hub() -> Hub:
    """Return a hub whose feeds retry after the shortest pause."""
    return Hub(random=lambda: 1.0)


async def data_of(hub: Hub) -> list[str]:
    records, _ = await hub.history("t", limit=10_000)
    return [record.data for _, record in records]


# JetStream.


async def test_stream(place: Place) -> None:
    await place.make()
    await place.store("kept")
    headers = {"Nats-Msg-Id": "mine", "kind": "x"}
    await place.jetstream.publish(f"{place.name}.b", b"with headers", headers=headers)
    await place.jetstream.publish(f"{place.name}.other.subject", b"not asked for")
    source = nats_subject(SERVER, place.subject, durable="hub")
    assert repr(source) == f"<NatsSubject '{place.name}.*' durable='hub'>"
    async with reading(source, batches=True) as found:
        first, second = await found.get(), await found.get()
        assert first[:4] == (f"{place.name}.a", b"kept", {}, 1)
        assert (second.data, dict(second.headers), second.sequence) == (b"with headers", headers, 2)
        await place.store("new")
        third = await found.get()
        assert (third.data, third.sequence) == (b"new", 4)
        assert isinstance(third, NatsMessage)
        keys = [message.key or "" for message in (first, second, third)]
        assert [key.rpartition("-")[2] for key in keys] == ["1", "2", "4"]
        assert len({key.rpartition("-")[0] for key in keys}) == 1


async def test_acknowledged_when_stored(place: Place) -> None:
    await place.make()
    await place.store("a", "b")
    broker = ScriptedBroker()
    async with Hub(broker) as hub:
        broker.hold("append")
        place.feed(hub)

        async def delivered() -> bool:
            with suppress(NotFoundError):
                return await place.pending() == (2, 0)
            return False

        async def acknowledged() -> bool:
            return await place.pending() == (0, 0)

        await place.until(delivered)
        assert (broker.calls["append"], await data_of(hub)) == (1, [])
        broker.release()
        await place.until(acknowledged)
        assert await data_of(hub) == ["a", "b"]


async def test_unacknowledged_messages_appear_once(place: Place) -> None:
    await place.make()
    config = ConsumerConfig(
        durable_name="hub", filter_subject=place.subject, ack_policy=AckPolicy.EXPLICIT, ack_wait=0.3
    )
    await place.jetstream.add_consumer(place.name, config)  # one that is there already is taken as it is
    await place.store("a", "b", "c")

    class Killed(ScriptedBroker):
        """A log whose hub dies when it has stored."""

        async def append(self, drafts: Any) -> Any:
            cursors = await super().append(drafts)
            if self.calls["append"] == 1:
                await asyncio.Event().wait()
            return cursors

    broker = Killed()
    async with Hub(broker) as first, first.subscribe("t") as subscription:
        place.feed(first)
        async with asyncio.timeout(PATIENCE):
            assert [(await anext(subscription)).data for _ in range(3)] == ["a", "b", "c"]
        assert (await place.pending())[0] == 3
        async with Hub(broker) as second:
            feed = place.feed(second)
            await place.store("d")

            async def acknowledged() -> bool:
                return await place.pending() == (0, 0)

            await place.until(acknowledged)
            assert await data_of(second) == ["a", "b", "c", "d"]
            assert feed.statistics().published >= 4


async def test_connection_is_cut(place: Place) -> None:
    await place.make()
    parts = urlsplit(SERVER)
    async with forwarded(parts.port or 4222) as forwarder, quick_hub() as hub, hub.subscribe("t") as subscription:
        feed = place.feed(hub, f"nats://127.0.0.1:{forwarder.port}")
        texts = [f"{number}" for number in range(900)]
        seen: list[str] = []
        async with asyncio.timeout(PATIENCE):
            for start in range(0, 900, 300):
                await place.store(*texts[start : start + 300])
                while len(seen) < start + 300:
                    seen.append((await anext(subscription)).data or "")
                if start < 600:
                    forwarder.move(0)
                    forwarder.move(parts.port or 4222)
        assert seen == texts
        assert feed.statistics().restarts >= 2


async def test_request_expires(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "_EXPIRES", 0.05)
    await place.make()
    async with reading(nats_subject(SERVER, place.subject, durable="hub"), batches=True) as found:
        for text in ("a", "b", "c"):
            await asyncio.sleep(0.15)  # as many requests as there is time for
            await place.store(text)
            assert (await found.get()).data == text.encode()


async def test_deleted_consumer(place: Place) -> None:
    await place.make()
    await place.store("a")
    async with reading(nats_subject(SERVER, place.subject, durable="hub"), batches=True) as found:
        assert (await found.get()).data == b"a"
        await place.jetstream.delete_consumer(place.name, "hub")
        error = await found.get()
        assert isinstance(error, BrokerError)
        assert f"lost the consumer 'hub' of stream '{place.name}': 409" in str(error)


async def test_shared_durable(place: Place) -> None:
    await place.make()
    broker = ScriptedBroker()
    async with Hub(broker) as one, Hub(broker) as two, one.subscribe("t") as subscription:
        feeds = [place.feed(hub) for hub in (one, two)]
        texts = [f"{number}" for number in range(500)]
        await place.store(*texts)
        async with asyncio.timeout(PATIENCE):
            seen = [(await anext(subscription)).data for _ in texts]
        assert sorted(seen, key=lambda text: int(text or "")) == texts
        assert sum(feed.statistics().published for feed in feeds) == 500


async def test_created_stream(place: Place) -> None:
    source = nats_subject(SERVER, place.subject, durable="hub", stream=place.name)
    async with reading(source, batches=True) as found:

        async def made() -> bool:
            with suppress(NotFoundError):
                return bool(await place.jetstream.consumer_info(place.name, "hub"))
            return False

        await place.until(made)
        await place.store("x")
        assert (await found.get()).data == b"x"
    config = (await place.jetstream.stream_info(place.name)).config
    assert (config.subjects, config.max_bytes) == ([place.subject], 1 << 30)


async def test_keys_of_recreated_stream(place: Place) -> None:
    async with quick_hub() as hub, hub.subscribe("t") as subscription:
        await place.make()
        await place.store("old")
        feed = place.feed(hub)
        async with asyncio.timeout(PATIENCE):
            assert (await anext(subscription)).data == "old"
            await place.remove()
            await asyncio.sleep(0.2)  # NATS 2.9 continues to delete after it has confirmed the deletion
            await place.make()
            await place.store("new")
            assert (await anext(subscription)).data == "new"
        assert feed.statistics().restarts >= 1


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (None, "no stream of NATS at {1} holds '{0}': create one, or pass stream="),
        ({"filter_subject": "{}.b"}, "expected the consumer 'hub' of stream '{2}' to pull and acknowledge '{0}'"),
        ({"ack_policy": "none"}, "expected the consumer 'hub' of stream '{2}' to pull and acknowledge '{0}'"),
        ({"deliver_subject": "somewhere"}, "expected the consumer 'hub' of stream '{2}' to pull and acknowledge '{0}'"),
    ],
)
async def test_unsuitable_streams_and_consumers(made: dict[str, str] | None, sentence: str, place: Place) -> None:
    if made is not None:
        await place.make()
        usual = {"durable_name": "hub", "filter_subject": place.subject, "ack_policy": "explicit"}
        fields: dict[str, Any] = {name: value.format(place.name) for name, value in {**usual, **made}.items()}
        await place.jetstream.add_consumer(place.name, ConsumerConfig(**fields))
    async with reading(nats_subject(SERVER, place.subject, durable="hub"), batches=True) as found:
        error = await found.get()
        assert isinstance(error, BrokerError)
        assert sentence.format(place.subject, urlsplit(SERVER).netloc, place.name) in str(error)


# Without JetStream.


async def heard(place: Place, found: asyncio.Queue[Any]) -> None:
    """Publish until the source listens."""
    while not found.qsize():
        await place.publish("first")
        await asyncio.sleep(0.02)


async def test_subject(place: Place) -> None:
    async with reading(nats_subject(SERVER, place.subject), batches=True) as found:
        await heard(place, found)
        await place.publish(*map(str, range(300)))
        await place.client.publish(f"{place.name}.b", b"x", headers={"Nats-Msg-Id": "mine"})
        messages: list[NatsMessage] = []
        while not messages or messages[-1].data != b"x":
            messages.append(await found.get())
        numbered = [message for message in messages[:-1] if message.data != b"first"]
        assert [message.data for message in numbered] == [str(number).encode() for number in range(300)]
        assert numbered[0] == NatsMessage(f"{place.name}.a", b"0", {}, None, None)
        assert messages[-1] == (f"{place.name}.b", b"x", {"Nats-Msg-Id": "mine"}, None, "mine")


async def test_reconnect(place: Place) -> None:
    port = urlsplit(SERVER).port or 4222
    clock = FakeClock()
    async with forwarded(port) as forwarder, Hub(clock=clock) as hub:
        source = nats_subject(f"nats://127.0.0.1:{forwarder.port}", place.subject)
        feed = hub.feed("t", source, key=None, data=lambda message: message.data)

        async def stored(text: str) -> None:
            async def is_there() -> bool:
                await place.publish(text)
                clock.advance(1)
                await settle()
                return text in await data_of(hub)

            await place.until(is_there)

        await stored("before")
        forwarder.move(0)
        await place.publish("lost")
        forwarder.move(port)
        await stored("after")
        assert "lost" not in await data_of(hub)
        assert "lost the connection to NATS at" in (feed.statistics().last_error or "")


async def test_queue(place: Place) -> None:
    source = nats_subject(SERVER, place.subject, queue="hubs")
    async with reading(source, batches=True) as one, reading(source, batches=True) as two:
        while not (one.qsize() and two.qsize()):
            await place.publish(*["first"] * 10)
            await asyncio.sleep(0.02)
        await place.publish(*map(str, range(200)))
        seen: list[str] = []
        while len(seen) < 200:
            for found in (one, two):
                while found.qsize():
                    seen += [text for text in [found.get_nowait().data.decode()] if text != "first"]
            await asyncio.sleep(0.01)
        assert sorted(seen, key=int) == [str(number) for number in range(200)]


async def test_dropped_messages(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    batches = aiter(nats_subject(SERVER, place.subject))
    async with aclosing(batches), asyncio.timeout(PATIENCE):
        first = asyncio.ensure_future(anext(batches))
        while not first.done():
            await place.publish("first")
            await asyncio.sleep(0.02)
        for _ in range(50):  # not read: more than the source holds
            await place.publish(*map(str, range(100)))
            await settle()
        seen: list[bytes] = []
        while b"end" not in seen:
            await place.publish("end")
            seen += [message.data for message in await anext(batches)]
        lost = [record.args[0] for record in caplog.records if isinstance(record.args, tuple) and record.args]
        assert f"messages of {place.subject}: they came too fast" in caplog.text
        counted = len([data for data in seen if data.isdigit()]) + sum(map(int, map(str, lost)))
        assert 5000 <= counted <= 5005, "of the words before and after them some may be lost too"
        assert len(seen) > 1000


@pytest.mark.parametrize(
    ("url", "fields", "error", "sentence"),
    [
        ("nats://", {}, BrokerError, "expected a URL such as nats://host:4222, got one without a host"),
        ("nats://h/stream", {}, BrokerError, "expected a URL such as nats://host:4222, got one with the path 'stream'"),
        ("nats://h?x=1", {}, BrokerError, "expected an option of nats"),
        (SERVER, {"subject": ""}, ValueError, "expected a subject of tokens between dots, got ''"),
        (SERVER, {"subject": "a b"}, ValueError, "expected a subject of tokens"),
        (SERVER, {"subject": "a..b"}, ValueError, "expected a subject of tokens"),
        (
            SERVER,
            {"durable": "a.b"},
            ValueError,
            "expected durable to be a name of letters, digits, - and _, got 'a.b'",
        ),
        (SERVER, {"stream": "s"}, ValueError, "stream= needs a durable name: durable="),
        (SERVER, {"durable": "d", "queue": "q"}, ValueError, "pass durable= or queue=, not both"),
    ],
)
def test_invalid_arguments(url: str, fields: dict[str, str], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        nats_subject(url, **{"subject": "a", **fields})


async def test_unreachable_server() -> None:
    async with reading(nats_subject("nats://secret@127.0.0.1:1", "a"), batches=True) as found:
        error = await found.get()
        assert isinstance(error, BrokerError)
        assert "cannot connect to NATS at 127.0.0.1:1" in str(error)
