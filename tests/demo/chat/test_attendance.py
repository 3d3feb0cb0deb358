"""``Attendance``: people come and go, whatever their connections do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tickertape import Hub
from tickertape.demo.chat.attendance import GRACE, Attendance, Seat
from tickertape.testing import FakeClock


class Door:
    """A hub's streams, opened and closed by name, and what was told of them."""

    def __init__(self, hub: Hub, clock: FakeClock) -> None:
        self.told: list[tuple[str, str]] = []
        self.attendance = Attendance(hub, lambda seat, change: self.told.append((seat.name, change)))
        self.clock = clock
        self._hub = hub
        self._streams: dict[str, list[AsyncExitStack]] = {}

    async def open(self, name: str, room: str = "lobby") -> None:
        stack = AsyncExitStack()
        await stack.enter_async_context(self._hub.subscribe("t", user=Seat(room, name)))
        self._streams.setdefault(name, []).append(stack)

    async def close(self, name: str) -> None:
        await self._streams[name].pop().aclose()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    clock = FakeClock()
    async with Hub(clock=clock) as hub:
        yield Door(hub, clock)


async def test_who_comes_is_told_and_who_vanishes_too_after_a_while(door: Door) -> None:
    await door.open("Ada")
    await door.open("Bo")
    assert door.attendance.names("lobby") == ["Ada", "Bo"]
    await door.close("Ada")
    door.clock.advance(GRACE - 0.5)
    assert door.told == [("Ada", "join"), ("Bo", "join")]
    assert door.attendance.names("lobby") == ["Ada", "Bo"]
    assert repr(door.attendance) == "<Attendance 2 present, 1 of them about to leave>"
    door.clock.advance(1)
    assert door.told[2:] == [("Ada", "leave")]
    assert door.attendance.names("lobby") == ["Bo"]


async def test_two_tabs_are_one_person(door: Door) -> None:
    await door.open("Ada")
    await door.open("Ada")
    assert door.attendance.names("lobby") == ["Ada"]
    await door.close("Ada")
    door.clock.advance(2 * GRACE)
    assert door.told == [("Ada", "join")]
    await door.close("Ada")
    door.clock.advance(2 * GRACE)
    assert door.told == [("Ada", "join"), ("Ada", "leave")]


async def test_who_reconnects_soon_has_never_left(door: Door) -> None:
    await door.open("Ada")
    for _ in range(3):
        await door.close("Ada")
        door.clock.advance(GRACE - 1)
        await door.open("Ada")
    door.clock.advance(2 * GRACE)
    assert door.told == [("Ada", "join")]


async def test_rooms_are_apart(door: Door) -> None:
    await door.open("Ada", "help")
    await door.open("Bo")
    await door.open("Ada")
    assert [door.attendance.names(room) for room in ("lobby", "help", "random")] == [["Bo", "Ada"], ["Ada"], []]


async def test_nobody_leaves_by_the_end_of_the_server(door: Door) -> None:
    await door.open("Ada")
    await door.open("Bo")
    await door.close("Ada")
    door.attendance.close()
    await door.close("Bo")
    door.clock.advance(2 * GRACE)
    assert door.told == [("Ada", "join"), ("Bo", "join")]
