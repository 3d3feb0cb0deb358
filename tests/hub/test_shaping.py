"""The options of one stream: envelopes, filters, its own times, and the callbacks at its end; both ways of delivery."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest

from support.hub import HubClient, settle
from tickertape import DisconnectReason, Hub, ServerSentEvent
from tickertape.hub import HubEvent
from tickertape.testing import FakeClock
from tickertape.wire import HEARTBEAT

SCOPE: Final[dict[str, Any]] = {"type": "http", "method": "GET", "headers": []}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def hub(clock: FakeClock) -> AsyncIterator[Hub]:
    async with Hub(clock=clock, random=lambda: 0.5, heartbeat=15.0) as hub:
        yield hub


async def publish(hub: Hub) -> None:
    await hub.publish("a/1", {"n": 1}, event="x")
    await hub.publish("a/2", "two\nlines")
    await settle()


@pytest.mark.parametrize("direct", [False, True], ids=["portable", "direct"])
async def test_envelope(hub: Hub, direct: bool) -> None:
    """The topic is beside the data, live and in the missed events; others on the same patterns get the data alone."""
    await publish(hub)
    client = HubClient(hub, "a/*", direct=direct, envelope="topic", last=1)
    plain = HubClient(hub, "a/*", direct=direct, last=1)
    await settle()
    await publish(hub)
    events = [event for event in await client.read_all() if event.data is not None]
    assert (client.output is not None) is direct
    assert [(event.event, json.loads(event.data or "")) for event in events] == [
        (None, {"topic": "a/2", "data": "two\nlines"}),
        ("x", {"topic": "a/1", "data": '{"n":1}'}),
        (None, {"topic": "a/2", "data": "two\nlines"}),
    ]
    others = [event for event in await plain.read_all() if event.data is not None]
    assert [event.data for event in others] == ["two\nlines", '{"n":1}', "two\nlines"]
    assert [event.id for event in others] == [event.id for event in events]
    assert hub.subscribers("a/2") == 2
    for each in (client, plain):
        await each.close()


@pytest.mark.parametrize("direct", [False, True], ids=["portable", "direct"])
async def test_filter_and_map(hub: Hub, direct: bool) -> None:
    """A server that would hand its connection over does not do so."""
    seen: list[HubEvent] = []

    def wanted(event: HubEvent) -> bool:
        seen.append(event)
        return event.topic != "a/2"

    client = HubClient(hub, "a/*", direct=direct, filter=wanted, map=lambda event: {"was": event.json()})
    await settle()
    await publish(hub)
    (event,) = [event for event in await client.read_all() if event.data is not None]
    assert (event.event, event.data) == ("x", '{"was":{"n":1}}')
    assert event.id == seen[0].id
    assert [event.topic for event in seen] == ["a/1", "a/2"]
    assert client.output is None
    await client.close()


async def test_map_to_an_event(hub: Hub) -> None:
    def rename(event: HubEvent) -> ServerSentEvent:
        return ServerSentEvent(event.topic, event="renamed")

    stream = hub.stream("a/*", map=rename, envelope="topic")
    await anext(stream)
    await publish(hub)
    text = (await anext(stream)).decode()
    assert 'event: renamed\ndata: {"topic":"a/1","data":"a/1"}\n' in text
    await stream.aclose()


async def test_filter_that_fails(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    """It ends this stream with an error, and no other."""
    client = HubClient(hub, "a/*", filter=lambda event: 1 / 0)
    other = HubClient(hub, "a/*")
    await settle()
    await publish(hub)
    assert (await client.read_all())[-1].event == "stream:error"
    assert len([event for event in await other.read_all() if event.data]) == 2
    assert hub.subscribers() == 1
    for each in (client, other):
        await each.close()
    assert isinstance(client.task.exception(), ZeroDivisionError)


async def test_heartbeat_while_a_filter_takes_nothing(hub: Hub, clock: FakeClock) -> None:
    """Events that the filter drops do not count as something sent."""
    stream = hub.stream("a/*", heartbeat=5.0, filter=lambda event: False)
    await anext(stream)
    reading = asyncio.ensure_future(anext(stream))
    for _ in range(7):
        await publish(hub)
        clock.advance(1.0)
        await settle()
    assert reading.done()
    assert await reading == HEARTBEAT
    await stream.aclose()


async def test_own_heartbeat_and_retry(hub: Hub, clock: FakeClock) -> None:
    stream = hub.stream("a/*", heartbeat=5.0, retry=60.0)
    assert b"retry: 60000\n" in await anext(stream)
    client = HubClient(hub, "a/*", direct=True, heartbeat=5.0, retry=60.0)
    await settle()
    await client.read_all()
    assert client.output is None
    assert b"retry: 60000\n" in client.body
    for _ in range(7):
        clock.advance(1.0)
        await settle()
    await client.read_all()
    assert HEARTBEAT in client.body
    await stream.aclose()
    await client.close()


@pytest.mark.parametrize("direct", [False, True], ids=["portable", "direct"])
@pytest.mark.parametrize("how", ["leaves", "drains"])
async def test_callbacks_at_the_end(hub: Hub, direct: bool, how: str) -> None:
    """The callback and then the background tasks run once, when the stream is over."""
    calls: list[str] = []

    async def background() -> None:
        calls.append("background")

    client = HubClient(hub, "a/*", direct=direct, on_disconnect=calls.append, background=background)
    await settle()
    await publish(hub)
    assert (client.output is not None) is direct
    assert calls == []
    if how == "leaves":
        client.leave()
    else:
        hub.drain()
    await settle()
    reason = DisconnectReason.CLIENT_CLOSED if how == "leaves" else DisconnectReason.DRAINING
    assert calls == [reason, "background"]
    await client.close()
    await settle()
    assert len(calls) == 2


async def test_callbacks_of_a_head(hub: Hub) -> None:
    calls: list[str] = []

    async def on_disconnect(reason: DisconnectReason) -> None:
        calls.append(reason)

    async def background() -> None:
        calls.append("background")

    client = HubClient(hub, "a/*", method="HEAD", on_disconnect=on_disconnect, background=background)
    await settle()
    assert calls == ["client_closed", "background"]
    await client.close()


async def test_callback_that_fails(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    def fail(reason: DisconnectReason) -> None:
        raise ValueError("callback")

    async def background() -> None:
        raise ValueError("background")

    client = HubClient(hub, "a/*", direct=True, on_disconnect=fail, background=background)
    await settle()
    client.leave()
    await settle()
    assert "on_disconnect failed" in caplog.text
    assert "the background task of a stream failed" in caplog.text
    await client.close()


async def test_everything_kept(hub: Hub) -> None:
    await publish(hub)
    await publish(hub)
    async with hub.subscribe("a/1", last="all") as subscription:
        assert [(await anext(subscription)).topic for _ in range(2)] == ["a/1", "a/1"]


BAD: Final[dict[str, tuple[dict[str, Any], type[Exception], str]]] = {
    "last": ({"last": -1}, ValueError, "expected last to be an int of at least 0, 'all' or None, got -1"),
    "last as text": ({"last": "10"}, ValueError, "expected last to be an int"),
    "last as a bool": ({"last": True}, ValueError, "expected last to be an int"),
    "on_overflow": ({"on_overflow": "drop"}, ValueError, "expected on_overflow to be one of 'disconnect', 'skip'"),
    "envelope": ({"envelope": True}, ValueError, "expected envelope to be 'topic' or None"),
    "heartbeat": ({"heartbeat": 0}, ValueError, "expected heartbeat to be a number of seconds > 0"),
    "retry": ({"retry": -1}, ValueError, "expected retry to be a number of seconds"),
    "filter": ({"filter": "a"}, TypeError, "expected filter to be callable"),
    "map": ({"map": 1}, TypeError, "expected map to be callable"),
}


@pytest.mark.parametrize("name", BAD)
async def test_options_are_checked_at_once(hub: Hub, name: str) -> None:
    options, kind, message = BAD[name]
    calls: list[Callable[[], Any]] = [lambda: hub.response(SCOPE, "a", **options)]
    if name not in ("last", "last as text", "last as a bool"):
        with pytest.raises(kind, match=message):
            await anext(hub.stream("a", **options))
    for call in calls:
        with pytest.raises(kind, match=message):
            call()


async def test_callback_of_the_wrong_type(hub: Hub) -> None:
    with pytest.raises(TypeError, match="expected on_disconnect to be callable"):
        hub.response(SCOPE, "a", on_disconnect="x")  # type: ignore[arg-type]
