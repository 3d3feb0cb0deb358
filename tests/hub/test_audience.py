"""``Audience``: live members are written to in order, in slices, and get heartbeats that are spread."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tickertape.asgi import frame
from tickertape.hub.audience import Audience
from tickertape.wire import HEARTBEAT

WHOLE = 1000.0


class Member:
    """A live subscriber at the end of a pair of sockets."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        for end in (self.ours, self.theirs):
            end.setblocking(False)
        self.descriptor = self.ours.fileno()
        self.place = -1
        self.stalled: list[tuple[int, int]] = []
        self.aborted = 0

    def stall(self, framed: bytes, written: int, upto: int) -> None:
        self.stalled.append((len(framed) - written, upto))

    def abort(self) -> None:
        self.aborted += 1

    def move_to(self, offset: int) -> None:
        self.moved_to = offset

    def advance(self) -> None:
        raise NotImplementedError

    def read(self) -> bytes:
        try:
            return self.theirs.recv(1 << 20)
        except BlockingIOError:
            return b""

    def fill(self) -> None:
        try:
            while True:
                os.write(self.descriptor, b"x" * 65536)
        except BlockingIOError:
            pass


class Crowd:
    def __init__(self, count: int) -> None:
        self.audience = Audience(("t",), 0.0)
        self.members = [Member() for _ in range(count)]
        for member in self.members:
            self.audience.join(member, 0.0)

    def write(self, chunk: bytes, turn: float = WHOLE) -> int:
        """Write a chunk to all, two members between checks of the time; return the number of yields."""
        return len(list(self.audience.write(chunk, 9, 1.0, stride=2, turn=turn)))

    def leave(self, place: int) -> None:
        self.audience.leave(self.members[place])

    def read(self) -> list[bytes]:
        return [member.read() for member in self.members]


@pytest.fixture
def crowds() -> Iterator[Any]:
    made: list[Crowd] = []

    def make(count: int) -> Crowd:
        made.append(Crowd(count))
        return made[-1]

    yield make
    for crowd in made:
        for member in crowd.members:
            member.ours.close()
            member.theirs.close()


def test_chunk_framing() -> None:
    assert frame(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


def test_write_to_live_members(crowds: Any) -> None:
    crowd = crowds(5)
    crowd.leave(1)
    crowd.leave(4)
    assert crowd.audience.live == 3
    crowd.write(b"one")
    framed = frame(b"one")
    assert crowd.read() == [framed, b"", framed, framed, b""]
    crowd.audience.compact()
    assert [member.place for member in crowd.members] == [0, -1, 1, 2, -1]  # in the order in which they joined
    crowd.write(b"two")
    assert [bool(data) for data in crowd.read()] == [True, False, True, True, False]


@pytest.mark.parametrize(("count", "slices"), [(0, 0), (1, 1), (2, 1), (3, 2), (10, 5)])
def test_long_fan_out_yields(crowds: Any, count: int, slices: int) -> None:
    crowd = crowds(count)
    assert crowd.write(b"x", turn=0.0) == slices
    assert crowd.write(b"x", WHOLE) == 0


def test_leave_during_fan_out(crowds: Any) -> None:
    """A member that leaves between two slices is not written to."""
    crowd = crowds(6)
    running = crowd.audience.write(b"x", 9, 1.0, stride=2, turn=0.0)
    next(running)
    crowd.leave(0)
    crowd.leave(4)
    assert list(running) == [None, None]
    assert [bool(data) for data in crowd.read()] == [True, True, True, True, False, True]


def test_partial_write(crowds: Any) -> None:
    """A member whose socket does not accept the whole chunk leaves the list and keeps the rest."""
    crowd = crowds(3)
    crowd.members[1].fill()
    crowd.write(b"x" * 10)
    assert crowd.members[1].stalled == [(len(frame(b"x" * 10)), 9)]
    assert (crowd.members[1].place, crowd.audience.live) == (-1, 2)
    crowd.write(b"x" * 4_000_000)  # more than any socket takes at once
    assert [member.stalled[-1][0] > 0 for member in crowd.members] == [True] * 3
    assert crowd.audience.live == 0


def test_closed_peer(crowds: Any) -> None:
    """A member whose peer is closed is dropped; the others get the chunk."""
    crowd = crowds(3)
    crowd.members[1].theirs.close()
    crowd.write(b"x")
    assert [member.aborted for member in crowd.members] == [0, 1, 0]
    assert crowd.audience.live == 2
    assert crowd.members[0].read() == crowd.members[2].read() == frame(b"x")


def test_leave_all(crowds: Any) -> None:
    crowd = crowds(3)
    crowd.leave(0)
    assert crowd.audience.leave_all() == crowd.members[1:]
    assert (crowd.audience.live, [member.place for member in crowd.members]) == (0, [-1] * 3)


def test_heartbeats_are_spread(crowds: Any) -> None:
    crowd = crowds(120)
    beats: list[int] = []
    for quarter in range(1, 4 * 60 + 1):
        crowd.audience.beat(HEARTBEAT, 7, quarter / 4, 15.0)
        beats.append(sum(data == frame(HEARTBEAT) for data in crowd.read()))
    assert beats[: 4 * 15 - 1] == [0] * (4 * 15 - 1)
    assert max(beats) <= 11  # a twelfth of the members at a time
    assert sum(beats) == 120 * 3 + beats[-1]  # one for each in fifteen seconds, and the first of the fourth period


@pytest.mark.parametrize("interval", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("turn", [0.25, 0.4])
def test_heartbeats_reach_all_members(crowds: Any, interval: float, turn: float) -> None:
    crowd = crowds(7)
    beats = [0] * 7
    for number in range(1, 101):
        crowd.audience.beat(HEARTBEAT, 7, number * turn, interval)
        beats = [count + bool(data) for count, data in zip(beats, crowd.read(), strict=True)]
    assert min(beats) >= 100 * turn / (2 * interval) - 1
    assert max(beats) <= 100 * turn / interval


def test_write_postpones_heartbeat(crowds: Any) -> None:
    crowd = crowds(3)
    list(crowd.audience.write(b"x", 9, 14.0, turn=WHOLE))
    crowd.read()
    crowd.audience.beat(HEARTBEAT, 7, 28.0, 15.0)
    assert crowd.read() == [b""] * 3
    crowd.audience.beat(HEARTBEAT, 7, 29.0, 15.0)
    assert any(crowd.read())


def test_heartbeat_to_closed_and_stalled_peers(crowds: Any) -> None:
    crowd = crowds(2)
    crowd.members[0].theirs.close()
    crowd.members[1].fill()
    for call in range(3):
        crowd.audience.beat(HEARTBEAT, 7, 20.0 + call, 15.0)
    assert crowd.members[0].aborted == 1
    assert crowd.members[1].stalled == [(len(frame(HEARTBEAT)), 7)]
    assert crowd.audience.live == 0
