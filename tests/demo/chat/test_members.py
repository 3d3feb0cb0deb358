"""``Members``: people join and leave, regardless of the number of their connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tickertape import Hub
from tickertape.demo.chat.rooms import LEAVE_DELAY, Members, presence_of
from tickertape.testing import FakeClock


class Streams:
    """Streams of a hub, opened and closed by name, and the reported changes."""

    def __init__(self, hub: Hub, clock: FakeClock) -> None:
        self.changes: list[tuple[str, str]] = []
        self.members = Members(hub, lambda member, change: self.changes.append((member.name, change)))
        self.clock = clock
        self._hub = hub
        self._streams: dict[str, list[AsyncExitStack]] = {}

    async def open(self, name: str, room: str = "lobby") -> None:
        stack = AsyncExitStack()
        await stack.enter_async_context(self._hub.subscribe(presence_of(room), user=name))
        self._streams.setdefault(name, []).append(stack)

    async def close(self, name: str) -> None:
        await self._streams[name].pop().aclose()


@pytest.fixture
async def streams() -> AsyncIterator[Streams]:
    clock = FakeClock()
    async with Hub(clock=clock) as hub:
        yield Streams(hub, clock)


async def test_join_and_leave(streams: Streams) -> None:
    await streams.open("Ada")
    await streams.open("Bo")
    assert streams.members.names("lobby") == ["Ada", "Bo"]
    await streams.close("Ada")
    streams.clock.advance(LEAVE_DELAY - 0.5)
    assert streams.changes == [("Ada", "join"), ("Bo", "join")]
    assert streams.members.names("lobby") == ["Ada", "Bo"]
    assert repr(streams.members) == "<Members 2 present, 1 of them disconnected>"
    streams.clock.advance(1)
    assert streams.changes[2:] == [("Ada", "leave")]
    assert streams.members.names("lobby") == ["Bo"]


async def test_two_tabs_are_one_member(streams: Streams) -> None:
    await streams.open("Ada")
    await streams.open("Ada")
    assert streams.members.names("lobby") == ["Ada"]
    await streams.close("Ada")
    streams.clock.advance(2 * LEAVE_DELAY)
    assert streams.changes == [("Ada", "join")]
    await streams.close("Ada")
    streams.clock.advance(2 * LEAVE_DELAY)
    assert streams.changes == [("Ada", "join"), ("Ada", "leave")]


async def test_reconnect_is_no_leave(streams: Streams) -> None:
    await streams.open("Ada")
    for _ in range(3):
        await streams.close("Ada")
        streams.clock.advance(LEAVE_DELAY - 1)
        await streams.open("Ada")
    streams.clock.advance(2 * LEAVE_DELAY)
    assert streams.changes == [("Ada", "join")]


async def test_rooms_are_separate(streams: Streams) -> None:
    await streams.open("Ada", "help")
    await streams.open("Bo")
    await streams.open("Ada")
    assert [streams.members.names(room) for room in ("lobby", "help", "random")] == [["Bo", "Ada"], ["Ada"], []]


async def test_who_is_no_member(streams: Streams) -> None:
    """Without a name, or without the topic of the presence, a reader is in no room."""
    hub = streams.members._hub
    async with hub.subscribe(presence_of("lobby")), hub.subscribe("chat/**", user="Ada"):
        assert streams.members.names("lobby") == []


async def test_shutdown_is_no_leave(streams: Streams) -> None:
    await streams.open("Ada")
    await streams.open("Bo")
    await streams.close("Ada")
    streams.members.close()
    await streams.close("Bo")
    streams.clock.advance(2 * LEAVE_DELAY)
    assert streams.changes == [("Ada", "join"), ("Bo", "join")]
