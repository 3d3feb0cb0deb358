"""The end of streams whose right has ended, and the access control of a hub."""

from __future__ import annotations

import time
from typing import Any

import pytest

from support.hub import HubClient, settle
from tickertape import Hub
from tickertape.errors import ForbiddenError, UnauthorizedError
from tickertape.hub import Grant
from tickertape.testing import FakeClock, ScriptedBroker

WAYS = pytest.mark.parametrize("direct", [False, True], ids=["portable", "direct"])

READER = Grant(user="alice", subscribe=("a/**",))


def half() -> float:
    return 0.5


def expired_of(client: HubClient) -> list[Any]:
    client.read()
    return [event.json()["reason"] for event in client.events if event.event == "stream:expired"]


@WAYS
async def test_until(direct: bool) -> None:
    """At its end a stream gets a notice without an id, and ends properly."""
    clock = FakeClock()
    async with Hub(clock=clock) as hub:
        grant = Grant(user="alice", subscribe=("a/**",), until=time.time() + 60)
        client = HubClient(hub, "a/*", direct=direct, grant=grant)
        await settle()
        await hub.publish("a/1", "x")
        await settle()
        clock.advance(58)
        await settle()
        client.read()
        assert not client.ended
        place = client.last_event_id
        clock.advance(3)
        await settle()
        assert expired_of(client) == ["expired"]
        assert client.complete
        assert client.last_event_id == place == f"{hub.epoch}-1"
        assert client.body.count(b"retry: ") == 2
        assert hub.statistics().disconnects == {"expired": 1}
        await client.close()


@WAYS
async def test_until_has_passed(direct: bool) -> None:
    clock = FakeClock()
    async with Hub(clock=clock) as hub:
        client = HubClient(hub, "a", direct=direct, grant=Grant(subscribe=("a",), until=1.0))
        await settle()
        clock.advance(0.3)
        await settle()
        assert expired_of(client) == ["expired"]
        await client.close()


@WAYS
async def test_max_age(direct: bool) -> None:
    clock = FakeClock()
    async with Hub(clock=clock, max_age=100, random=half) as hub:
        client = HubClient(hub, "a", direct=direct)
        await settle()
        clock.advance(89)
        await settle()
        assert not client.ended
        clock.advance(2)
        await settle()
        assert expired_of(client) == []
        assert client.complete
        assert hub.statistics().disconnects == {"max_age": 1}
        await client.close()


@WAYS
@pytest.mark.parametrize("named", ["grant", "user"])
async def test_disconnect(direct: bool, named: str) -> None:
    """The streams of a user end on every hub of the log, and those of others stay."""
    broker = ScriptedBroker()
    async with Hub(broker) as here, Hub(broker) as there:
        options = {"grant": READER} if named == "grant" else {"user": "alice"}
        clients = [HubClient(hub, "a/*", direct=direct, **options) for hub in (here, there)]
        other = HubClient(here, "a/*", direct=direct, grant=Grant(user="bob", subscribe=("a/**",)))
        await settle()
        await here.disconnect(user="alice")
        await settle()
        assert [expired_of(client) for client in clients] == [["revoked"], ["revoked"]]
        assert expired_of(other) == []
        assert not other.ended
        assert there.statistics().disconnects == {"revoked": 1}
        for client in (*clients, other):
            await client.close()


async def test_disconnect_in_process() -> None:
    async with Hub() as hub, hub.subscribe("a", user=7) as subscription:
        await hub.disconnect(user=7)
        assert [event async for event in subscription] == []
        assert subscription.reason == "revoked"
        with pytest.raises(ValueError, match="a str or an int"):
            await hub.disconnect(user=True)


@WAYS
@pytest.mark.parametrize(
    ("grant", "status"),
    [(READER, 200), (Grant(subscribe=("b",)), 403), (Grant(subscribe=("b",), anonymous=True), 401)],
)
@pytest.mark.parametrize("given", [True, False])
async def test_response(direct: bool, grant: Grant, status: int, given: bool) -> None:
    """The grant of the request, given or found by the hub, must cover all patterns."""
    asked: list[Any] = []

    async def access(request: Any) -> Grant:
        asked.append(request)
        return Grant() if given else grant

    async with Hub(access=access) as hub:
        client = HubClient(hub, "a/*", "a/1", direct=direct, grant=grant if given else None)
        await settle()
        client.read()
        assert client.status == status
        assert len(asked) == (not given)
        if status != 200:
            assert client.headers["content-type"] == "application/problem+json"
            assert client.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
            assert hub.subscribers() == 0
        else:
            assert [info.user for info in hub.presence] == ["alice"]
        await client.close()


async def test_refused_credential() -> None:
    async def access(request: Any) -> Grant:
        raise UnauthorizedError("log in first")

    async with Hub(access=access) as hub:
        client = HubClient(hub, "a")
        await settle()
        client.read()
        assert client.status == 401
        with pytest.raises(UnauthorizedError):
            await anext(hub.stream("a"))
        await client.close()


async def test_stream() -> None:
    clock = FakeClock()
    async with Hub(clock=clock) as hub:
        with pytest.raises(ForbiddenError):
            await anext(hub.stream("b", grant=READER))
        stream = hub.stream("a/1", grant=Grant(subscribe=("a/**",), until=time.time() + 5))
        chunks = [await anext(stream)]
        clock.advance(6)
        chunks += [chunk async for chunk in stream]
        assert chunks[-1].startswith(b'event: stream:expired\ndata: {"reason": "expired"}\n\nretry: ') or (
            chunks[-1].startswith(b'event: stream:expired\ndata: {"reason":"expired"}\n\nretry: ')
        )


async def test_expiries_are_bounded() -> None:
    """Times of streams that have ended are dropped."""
    async with Hub() as hub:
        for _ in range(3_000):
            async with hub.subscribe("a") as subscription:
                hub.limit_age(subscription.subscription, time.time() + 3600)
        assert len(hub.delivery._expiries) < 1_100
