"""``Presence``: current subscribers, and callbacks when they join and leave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.asgi import settle
from tickertape import Hub
from tickertape.asgi import DisconnectReason
from tickertape.hub import DirectOutput, Presence, SubscriberInfo
from tickertape.testing import EventStreamClient, FakeClock


class Recorder:
    """Record the calls of the callbacks."""

    def __init__(self, presence: Presence) -> None:
        self.calls: list[tuple[Any, ...]] = []
        presence.on_join(lambda info: self.calls.append(("join", info.user)))
        presence.on_leave(lambda info, reason: self.calls.append(("leave", info.user, reason)))


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub(clock=FakeClock()) as hub:
        yield hub


async def test_join_and_leave(hub: Hub) -> None:
    recorder = Recorder(hub.presence)
    async with hub.subscribe("t", user="ada") as subscription:
        assert recorder.calls == [("join", "ada")]
        subscription.close()
        subscription.close()
    assert recorder.calls == [("join", "ada"), ("leave", "ada", "client_closed")]


async def test_present_subscribers(hub: Hub) -> None:
    assert (len(hub.presence), list(hub.presence), repr(hub.presence)) == (0, [], "<Presence 0 subscribers>")
    async with hub.subscribe(["b", "a"], user="ada"), hub.subscribe("c") as other:
        ada, anonymous = hub.presence
        assert (ada.topics, ada.user) == (("a", "b"), "ada")
        assert (anonymous.topics, anonymous.user) == (("c",), None)
        assert ada.id != anonymous.id
        assert 1.6e9 < ada.since <= anonymous.since  # the time of day, for people
        for info in hub.presence:  # subscribers may leave during the iteration
            assert isinstance(info, SubscriberInfo)
            other.close()
        assert list(hub.presence) == [ada]


async def test_change_of_topics(hub: Hub) -> None:
    """A change is reported once it holds, and only if the topics are others than before."""
    changes: list[tuple[Any, ...]] = []
    hub.presence.on_change(lambda info: changes.append((info.user, info.topics)))
    async with hub.subscribe("a", user="ada", changeable=True) as subscription:
        assert subscription.id is not None
        await hub.change(subscription.id, add="b")
        await hub.change(subscription.id, add="b")
        await hub.change(subscription.id, remove="a")
        assert changes == [("ada", ("a", "b")), ("ada", ("b",))]
        assert [info.topics for info in hub.presence] == [("b",)]


@pytest.mark.parametrize("reason", list(DisconnectReason))
async def test_first_reason_counts(hub: Hub, reason: DisconnectReason) -> None:
    recorder = Recorder(hub.presence)
    async with hub.subscribe("t") as subscription:
        hub.delivery.end(subscription.subscription, reason)
        hub.delivery.end(subscription.subscription, DisconnectReason.ERROR)
    assert recorder.calls == [("join", None), ("leave", None, reason)]
    assert hub.statistics().disconnects == {reason: 1}


async def test_drain_and_close() -> None:
    clock = FakeClock()
    hub = Hub(clock=clock, drain_window=1.0, random=lambda: 0.0)
    await hub.open()
    recorder = Recorder(hub.presence)
    async with hub.subscribe("t", user="first"):
        hub.drain()
        clock.advance(1)
        assert recorder.calls[1:] == [("leave", "first", "draining")]
    await hub.close()
    other = Hub(clock=FakeClock())
    recorder = Recorder(other.presence)
    await other.open()
    async with other.subscribe("t", user="second"):
        await other.close()
        assert recorder.calls[1:] == [("leave", "second", "draining")]
        assert list(other.presence) == []


async def test_decorators(hub: Hub) -> None:
    calls: list[str] = []

    @hub.presence.on_join
    def joined(info: SubscriberInfo) -> None:
        calls.append("joined")

    @hub.presence.on_leave
    def left(info: SubscriberInfo, reason: DisconnectReason) -> None:
        calls.append("left")

    hub.presence.on_join(lambda info: calls.append("too"))
    async with hub.subscribe("t"):
        pass
    assert calls == ["joined", "too", "left"]
    assert (joined.__name__, left.__name__) == ("joined", "left")


async def test_callback_raises(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    def explode(*args: Any) -> None:
        raise RuntimeError("boom")

    hub.presence.on_join(explode)
    hub.presence.on_change(explode)
    hub.presence.on_leave(explode)
    recorder = Recorder(hub.presence)  # called after those that raise
    async with hub.subscribe("t", changeable=True) as subscription:
        assert subscription.id is not None
        await hub.change(subscription.id, add="other")
        await hub.publish("t", "x")
        await anext(subscription)  # the notice of the change
        assert (await anext(subscription)).data == "x"
    assert [entry[0] for entry in recorder.calls] == ["join", "leave"]
    assert [record.message for record in caplog.records] == ["a presence callback failed"] * 3
    assert caplog.text.count("RuntimeError: boom") == 3
    assert hub.subscribers() == 0


async def test_callback_publishes(hub: Hub) -> None:
    hub.presence.on_leave(lambda info, reason: hub.publish_soon("presence", f"{info.user} left: {reason}"))
    async with hub.subscribe("presence") as watcher:
        async with hub.subscribe("t", user="ada"):
            pass
        assert (await anext(watcher)).data == "ada left: client_closed"


async def test_handover(hub: Hub) -> None:
    """A hand-over replaces the output of a subscription. No subscriber joins or leaves."""
    recorder = Recorder(hub.presence)
    async with hub.subscribe("t", user="ada") as pulled:
        subscription = pulled.subscription
        direct = DirectOutput(hub.delivery, subscription, hub.drain)
        subscription.output = direct
        assert recorder.calls == [("join", "ada")]
        assert list(hub.presence) == [subscription.info]
        assert (hub.subscribers(), hub.subscribers("t")) == (1, 1)
        direct.abort(DisconnectReason.SEND_TIMEOUT)
    assert recorder.calls[1:] == [("leave", "ada", "send_timeout")]
    assert hub.statistics().disconnects == {"send_timeout": 1}
    assert list(hub.presence) == []


async def test_stream_with_user(hub: Hub) -> None:
    recorder = Recorder(hub.presence)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hub.response(scope, "t", user="ada")(scope, receive, send)

    async with EventStreamClient(app).open("/"):
        await settle()
        assert [info.user for info in hub.presence] == ["ada"]
    assert recorder.calls == [("join", "ada"), ("leave", "ada", "client_closed")]


async def test_leave_without_join(hub: Hub) -> None:
    recorder = Recorder(hub.presence)
    async with hub.subscribe("t") as subscription:
        presence = Presence()
        other = Recorder(presence)
        presence.leave(subscription.subscription)
        assert other.calls == []
    assert len(recorder.calls) == 2
