"""``Chat``: one stream from two hubs; and ``merge``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from support.asgi import settle
from tickertape import Hub, ServerSentEvent
from tickertape.broker import Retention
from tickertape.demo.chat.rooms import HISTORY, LEAVE_DELAY, Chat, merge
from tickertape.testing import DEFAULT_TIMEOUT, FakeClock, ScriptedBroker


class Rooms:
    """A chat over a scripted log, with a fake clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.broker = ScriptedBroker()
        self.ephemeral = Hub(clock=self.clock, retention=Retention(events=50))
        self.chat = Chat(Hub(self.broker), self.ephemeral, now=lambda: 1e9)

    async def post(self, *texts: str, room: str = "lobby") -> list[str]:
        """Post messages of Bo."""
        ids = [await self.chat.post(room, "Bo", text, text) for text in texts]
        await settle()  # both hubs deliver the events
        return ids


@pytest.fixture
async def rooms() -> AsyncIterator[Rooms]:
    rooms = Rooms()
    async with rooms.chat.running():
        yield rooms


@asynccontextmanager
async def following(
    rooms: Rooms, name: str, last_event_id: str | None = None, room: str = "lobby"
) -> AsyncIterator[Any]:
    """Follow a room. Yield a function that returns the type, the data and the id of the next event."""
    async with aclosing(rooms.chat.follow(room, name, last_event_id)) as stream:

        async def take(*types: str) -> tuple[str, Any, str | None]:
            while True:
                async with asyncio.timeout(DEFAULT_TIMEOUT):
                    event = await anext(stream)
                if event.data is not None and (not types or (event.event or "message") in types):
                    return event.event or "message", json.loads(event.data or ""), event.id

        yield take


async def test_history_on_entry(rooms: Rooms) -> None:
    await rooms.post(*map(str, range(HISTORY + 20)))
    await rooms.post("elsewhere", room="help")
    async with following(rooms, "Ada") as take:
        kind, data, _ = await take()
        assert (kind, data["names"], data["counts"]) == ("present", ["Ada"], {"lobby": 1, "help": 0, "random": 0})
        came = [await take("message") for _ in range(HISTORY)]
        assert [message["text"] for _, message, _ in came] == [str(number) for number in range(20, HISTORY + 20)]
        assert came[0][1] == {"name": "Bo", "text": "20", "key": "20", "at": 1e9}


async def test_only_messages_have_ids(rooms: Rooms) -> None:
    (first,) = await rooms.post("first")
    # The stream begins with a position even if no message was missed.
    async with aclosing(rooms.chat.follow("lobby", "Ada", first)) as stream:
        assert await anext(stream) == ServerSentEvent(id=first)
    async with following(rooms, "Ada", first) as take:
        assert (await take())[::2] == ("present", None)
        rooms.chat.notify_typing("lobby", "Bo")
        assert await take("typing") == ("typing", {"name": "Bo"}, None)
        (second,) = await rooms.post("second")
        assert (await take("message"))[2] == second
    async with following(rooms, "Ada", second) as take:
        await take("present")
        (third,) = await rooms.post("third")
        assert (await take("message"))[1:] == ({"name": "Bo", "text": "third", "key": "third", "at": 1e9}, third)


async def test_ephemeral_events_are_not_replayed(rooms: Rooms) -> None:
    (first,) = await rooms.post("first")
    rooms.chat.notify_typing("lobby", "Bo")
    await settle()
    for last_event_id in (None, first):
        async with following(rooms, "Ada", last_event_id) as take:
            await take("present")
            rooms.chat.notify_typing("lobby", "Cleo")
            assert (await take("typing"))[1] == {"name": "Cleo"}


async def test_keys_belong_to_the_author(rooms: Rooms) -> None:
    same = [await rooms.chat.post("lobby", name, text, "k") for name, text in (("Bo", "a"), ("bo", "b"), ("Ada", "c"))]
    assert same[0] == same[1] != same[2]
    assert [json.loads(record.data)["text"] for record in (await rooms.broker.read(0, 10)).records] == ["a", "c"]


async def test_presence_events(rooms: Rooms) -> None:
    async with following(rooms, "Ada") as ada, following(rooms, "Cleo", room="help") as cleo:
        await ada("present")
        await cleo("present")
        async with following(rooms, "Bo") as bo:
            assert (await bo("present"))[1]["names"] == ["Ada", "Bo"]
            assert [(await ada("join"))[1:] for _ in range(2)] == [({"name": "Ada"}, None), ({"name": "Bo"}, None)]
            await rooms.post("hello")
            assert (await cleo("activity"))[1:] == ({"room": "lobby"}, None)
        rooms.clock.advance(LEAVE_DELAY + 1)
        assert (await ada("leave"))[1:] == ({"name": "Bo"}, None)
        assert (await ada("count"))[1:] == ({"room": "lobby", "present": 1}, None)


async def test_gap_in_messages(rooms: Rooms) -> None:
    (last,) = await rooms.post("old")
    rooms.broker.reset()
    await rooms.post("new")
    async with following(rooms, "Ada", last) as take:
        kind, _, event_id = await take()
        assert (kind, event_id) == ("present", None)  # the gap notice has the id
        kind, gap, event_id = await take("stream:gap")
        assert (gap["reason"], gap["after"], gap["resumed"]) == ("reset", last, event_id)
        assert (await take("message"))[1]["text"] == "new"


async def test_gap_in_ephemeral_events(rooms: Rooms) -> None:
    async with following(rooms, "Ada") as take:
        await take()
        while (await take())[0] != "count":
            pass
        events = [
            rooms.ephemeral.draft("rooms/lobby/ephemeral", {"name": str(number)}, event="typing")
            for number in range(99)
        ]
        await rooms.ephemeral.publish_many(events)
        assert (await take())[0] == "present"


async def items_of(*items: str, log: list[str] | None = None) -> AsyncGenerator[ServerSentEvent, None]:
    for item in items:
        if log is not None:
            log.append(item)
        yield ServerSentEvent(item)


async def test_merge_keeps_order_and_does_not_read_ahead() -> None:
    log: list[str] = []
    async with Hub() as hub, hub.subscribe("t") as quiet:
        letters = items_of("a", "b", "c", "d", log=log)
        async with aclosing(merge(letters, quiet)) as events:
            assert await anext(events) == (letters, ServerSentEvent("a"))
            await settle()
            assert log == ["a"]  # the next item is requested only now
            assert [(await anext(events))[1].data for _ in range(2)] == ["b", "c"]
            cursor = await hub.publish("t", "1")
            got = [await anext(events), await anext(events)]
            assert sorted(event.data or "" for _, event in got) == ["1", "d"]
            assert [event.id for source, event in got if source is quiet] == [str(cursor)]


async def test_merge_ends_with_first_source() -> None:
    async with Hub() as hub, hub.subscribe("t") as subscription:
        assert [event.data async for _, event in merge(subscription, items_of("a"))] == ["a"]
        await hub.publish("t", "still there")
        assert (await anext(subscription)).data == "still there"


async def test_merge_propagates_errors() -> None:
    async def broken() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent("a")
        raise LookupError("broken")

    async with Hub() as hub, hub.subscribe("t") as subscription, aclosing(merge(subscription, broken())) as events:
        assert (await anext(events))[1].data == "a"
        with pytest.raises(LookupError, match="broken"):
            await anext(events)
