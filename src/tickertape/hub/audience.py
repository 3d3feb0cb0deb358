"""Subscribers with the same patterns, and the fast way to write to those who are live."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Final, NamedTuple

from .topics import Patterns

if TYPE_CHECKING:
    from .direct import DirectSubscriber
    from .subscription import Subscription

__all__ = ["Audience", "Pace", "frame"]

_SPREAD: Final = 3.0
"""Seconds over which the heartbeats of an audience are spread; over half of their interval, if that is less."""


class Pace(NamedTuple):
    """How a fan-out shares the loop with others.

    Attributes:
        writes: between two looks at the time: a third of a millisecond.
        seconds: for which it may hold the loop before others have their turn.
    """

    writes: int = 64
    seconds: float = 0.004


def frame(chunk: bytes) -> bytes:
    """Return a chunk of an HTTP/1.1 chunked body (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(chunk), chunk)


class Audience:
    """Hold the subscribers that share a set of patterns.

    Those who are live and direct are a list of file descriptors in the order in which they
    connected, which is the order of their sockets in the kernel's memory: any other costs a quarter
    more. They have no state of their own; whoever leaves the list gets a cursor written down. A
    place in the list is not given up while a fan-out runs over it, only marked empty.

    Attributes:
        members: number of subscribers, live or not.
        last_write: when live direct subscribers were last written to, in seconds.
    """

    __slots__ = (
        "_beaten",
        "_beats",
        "_descriptors",
        "_empty",
        "_live",
        "last_write",
        "members",
        "patterns",
        "waiters",
    )

    def __init__(self, patterns: Patterns, now: float) -> None:
        self.patterns = patterns
        self.members = 0
        self.last_write = now
        self._beaten = now  # when heartbeats were last looked after
        self.waiters: dict[Subscription, None] = {}  # a set that keeps its order
        self._descriptors: list[int] = []
        self._live: list[DirectSubscriber | None] = []
        self._beats: list[float] = []  # when each was written to last, by a heartbeat or before it was live
        self._empty = 0

    def __repr__(self) -> str:
        return f"<Audience {self.patterns} members={self.members} live={self.live}>"

    @property
    def live(self) -> int:
        """Number of direct subscribers that are live."""
        return len(self._live) - self._empty

    def join(self, member: DirectSubscriber, now: float) -> None:
        """Put a subscriber whose cursor is the head at the end of the list."""
        member.place = len(self._live)
        self._live.append(member)
        self._descriptors.append(member.descriptor)
        self._beats.append(now)

    def leave(self, member: DirectSubscriber) -> None:
        """Take a live subscriber from the list, at once: its descriptor may soon be another's."""
        self._live[member.place] = None
        self._descriptors[member.place] = -1
        self._empty += 1
        member.place = -1

    def leave_all(self) -> list[DirectSubscriber]:
        """Take every live subscriber from the list and return them."""
        members = [member for member in self._live if member is not None]
        for member in members:
            member.place = -1
        self._live, self._descriptors, self._beats, self._empty = [], [], [], 0
        return members

    def compact(self) -> None:
        """Close the empty places; not while a fan-out runs."""
        if not self._empty:
            return
        kept = [(member, beat) for member, beat in zip(self._live, self._beats, strict=True) if member is not None]
        self._live = [member for member, _ in kept]
        self._descriptors = [member.descriptor for member, _ in kept]
        self._beats = [beat for _, beat in kept]
        self._empty = 0
        for place, (member, _) in enumerate(kept):
            member.place = place

    def write(self, chunk: bytes, upto: int, now: float, pace: Pace) -> Iterator[None]:
        """Write ``chunk`` to all who are live; gives way when its share of the loop's time is used.

        Arguments:
            chunk: whole blocks.
            upto: the offset up to which a subscriber is served once it has the chunk.
            now: the present moment, in seconds.
            pace: when to give way.
        """
        self.last_write = now
        framed = frame(chunk)
        size = len(framed)
        write = os.write
        until = perf_counter() + pace.seconds
        for start in range(0, len(self._descriptors), pace.writes):
            for place, descriptor in enumerate(self._descriptors[start : start + pace.writes], start):
                try:
                    written = write(descriptor, framed)
                except BlockingIOError:
                    written = 0
                except OSError:
                    written = -1
                if written != size:
                    self._stall(place, framed, written, upto)
            if perf_counter() > until:
                yield
                until = perf_counter() + pace.seconds

    def _stall(self, place: int, framed: bytes, written: int, upto: int) -> None:
        member = self._live[place]
        if member is None:
            return
        self.leave(member)
        if written < 0:
            member.abort()
        else:
            member.stall(framed, written, upto)

    def beat(self, heartbeat: bytes, now: float, interval: float) -> None:
        """Write a heartbeat to live subscribers that were silent for ``interval`` seconds.

        All of an audience fall silent with one event. At each call only a part of them is written to,
        which spreads this heartbeat, and so all later ones: as large a part as it takes to reach the last of
        them before the first falls silent again.
        """
        elapsed, self._beaten = now - self._beaten, now
        if now - self.last_write < interval:
            return
        spread = min(_SPREAD, interval / 2)
        quota = math.ceil(len(self._live) * min(1.0, elapsed / spread)) or 1
        framed = frame(heartbeat)
        for place, last in enumerate(self._beats):
            member = self._live[place]
            if member is None or now - last < interval:
                continue
            self._beats[place] = now
            try:
                written = os.write(member.descriptor, framed)
            except BlockingIOError:
                written = 0
            except OSError:
                written = -1
            if written != len(framed):
                self._stall(place, framed, written, member.position)
            quota -= 1
            if quota == 0:
                return

    def wake(self, position: int) -> None:
        """Let those who wait look again: nothing of theirs stood in the log up to ``position``."""
        waiters, self.waiters = self.waiters, {}
        for waiter in waiters:
            waiter.cursor = max(waiter.cursor, position)
            waiter.wake()
