"""``Chat``: one stream out of two hubs; and ``merge``, which makes it one."""

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
from tickertape.demo.chat.attendance import GRACE
from tickertape.demo.chat.rooms import HISTORY, Chat, merge
from tickertape.testing import DEFAULT_TIMEOUT, FakeClock, ScriptedBroker


class House:
    """A chat over a scripted log, and a clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.broker = ScriptedBroker()
        self.moment = Hub(clock=self.clock, retention=Retention(events=50))
        self.chat = Chat(Hub(self.broker), self.moment, now=lambda: 1e9)

    async def say(self, *texts: str, room: str = "lobby") -> list[str]:
        """Let Bo say something."""
        places = [await self.chat.say(room, "Bo", text, text) for text in texts]
        await settle()  # until both hubs have seen it
        return places


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    async with house.chat.running():
        yield house


@asynccontextmanager
async def following(
    house: House, name: str, last_event_id: str | None = None, room: str = "lobby"
) -> AsyncIterator[Any]:
    """Give a function that returns the next event of a stream: its type, data and id."""
    async with aclosing(house.chat.follow(room, name, last_event_id)) as stream:

        async def take(*types: str) -> tuple[str, Any, str | None]:
            while True:
                async with asyncio.timeout(DEFAULT_TIMEOUT):
                    event = await anext(stream)
                if not types or (event.event or "message") in types:
                    return event.event or "message", json.loads(event.data or ""), event.id

        yield take


async def test_the_last_messages_of_a_room_come_on_entry(house: House) -> None:
    await house.say(*map(str, range(HISTORY + 20)))
    await house.say("elsewhere", room="help")
    async with following(house, "Ada") as take:
        kind, data, _ = await take()
        assert (kind, data["names"], data["counts"]) == ("present", ["Ada"], {"lobby": 1, "help": 0, "random": 0})
        came = [await take("message") for _ in range(HISTORY)]
        assert [message["text"] for _, message, _ in came] == [str(number) for number in range(20, HISTORY + 20)]
        assert came[0][1] == {"name": "Bo", "text": "20", "key": "20", "at": 1e9}


async def test_only_messages_move_the_place(house: House) -> None:
    (first,) = await house.say("first")
    async with following(house, "Ada", first) as take:
        assert (await take())[2] == first  # before any message, and when nothing was missed
        house.chat.type("lobby", "Bo")
        assert await take("typing") == ("typing", {"name": "Bo"}, None)
        (second,) = await house.say("second")
        assert (await take("message"))[2] == second
    async with following(house, "Ada", second) as take:
        assert (await take())[2] == second
        (third,) = await house.say("third")
        assert (await take("message"))[1:] == ({"name": "Bo", "text": "third", "key": "third", "at": 1e9}, third)


async def test_what_counted_for_a_moment_is_no_history(house: House) -> None:
    (first,) = await house.say("first")
    house.chat.type("lobby", "Bo")
    await settle()
    for place in (None, first):
        async with following(house, "Ada", place) as take:
            await take("present")
            house.chat.type("lobby", "Cleo")
            assert (await take("typing"))[1] == {"name": "Cleo"}


async def test_a_key_counts_for_its_author(house: House) -> None:
    same = [await house.chat.say("lobby", name, text, "k") for name, text in (("Bo", "a"), ("bo", "b"), ("Ada", "c"))]
    assert same[0] == same[1] != same[2]
    assert [json.loads(record.data)["text"] for record in (await house.broker.read(0, 10)).records] == ["a", "c"]


async def test_who_comes_and_goes_is_told_in_the_room_and_counted_in_all(house: House) -> None:
    async with following(house, "Ada") as ada, following(house, "Cleo", room="help") as cleo:
        await ada("present")
        await cleo("present")
        async with following(house, "Bo") as bo:
            assert (await bo("present"))[1]["names"] == ["Ada", "Bo"]
            assert [(await ada("join"))[1:] for _ in range(2)] == [({"name": "Ada"}, None), ({"name": "Bo"}, None)]
            await house.say("hello")
            assert (await cleo("activity"))[1:] == ({"room": "lobby"}, None)
        house.clock.advance(GRACE + 1)
        assert (await ada("leave"))[1:] == ({"name": "Bo"}, None)
        assert (await ada("count"))[1:] == ({"room": "lobby", "present": 1}, None)


async def test_a_gap_among_messages_is_told(house: House) -> None:
    (last,) = await house.say("old")
    house.broker.reset()
    await house.say("new")
    async with following(house, "Ada", last) as take:
        kind, _, place = await take()
        assert (kind, place) == ("present", None)  # the gap has the place; it is not to be lost
        kind, gap, place = await take("stream:gap")
        assert (gap["reason"], gap["after"], gap["resumed"]) == ("reset", last, place)
        assert (await take("message"))[1]["text"] == "new"


async def test_a_gap_among_moments_is_mended(house: House) -> None:
    async with following(house, "Ada") as take:
        await take()
        while (await take())[0] != "count":
            pass
        signs = [
            house.moment.draft("rooms/lobby/moment", {"name": str(number)}, event="typing") for number in range(99)
        ]
        await house.moment.publish_many(signs)
        assert (await take())[0] == "present"


async def give(*items: str, log: list[str] | None = None) -> AsyncGenerator[ServerSentEvent, None]:
    for item in items:
        if log is not None:
            log.append(item)
        yield ServerSentEvent(item)


async def test_merge_gives_all_of_each_in_its_order_and_is_not_ahead() -> None:
    log: list[str] = []
    async with Hub() as hub, hub.subscribe("t") as quiet:
        letters = give("a", "b", "c", "d", log=log)
        async with aclosing(merge(letters, quiet)) as events:
            assert await anext(events) == (letters, ServerSentEvent("a"))
            await settle()
            assert log == ["a"]  # the next is asked for when this one was taken
            assert [(await anext(events))[1].data for _ in range(2)] == ["b", "c"]
            cursor = await hub.publish("t", "1")
            got = [await anext(events), await anext(events)]
            assert sorted(event.data or "" for _, event in got) == ["1", "d"]
            assert [event.id for source, event in got if source is quiet] == [str(cursor)]


async def test_merge_ends_with_the_first_that_ends_and_leaves_the_others_as_they_are() -> None:
    async with Hub() as hub, hub.subscribe("t") as subscription:
        assert [event.data async for _, event in merge(subscription, give("a"))] == ["a"]
        await hub.publish("t", "still there")
        assert (await anext(subscription)).data == "still there"


async def test_merge_passes_an_error_on() -> None:
    async def broken() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent("a")
        raise LookupError("broken")

    async with Hub() as hub, hub.subscribe("t") as subscription, aclosing(merge(subscription, broken())) as events:
        assert (await anext(events))[1].data == "a"
        with pytest.raises(LookupError, match="broken"):
            await anext(events)
