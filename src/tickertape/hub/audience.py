"""Subscribers with the same patterns, and the fast way to write to those that are live."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from time import perf_counter
from typing import Final, Protocol

from ..asgi import frame
from ..broker import Record
from ..wire import MAX_OFFSET, Patterns

STRIDE: Final = 64
"""Writes between two looks at the time: about a third of a millisecond."""

TURN: Final = 0.004
"""Seconds for which a fan-out may block the loop before other tasks run."""

_SPREAD: Final = 3.0
"""Seconds over which the heartbeats of an audience are spread; half of their interval, if that is less."""


class Member(Protocol):
    """A live direct output.

    Attributes:
        descriptor: the file descriptor of its socket.
        place: its index in the audience's list; -1 if it is not live.
    """

    descriptor: int
    place: int

    def stall(self, framed: bytes, written: int, upto: int) -> None:
        """Keep the rest of a chunk of which the peer accepted only ``written`` bytes; ``upto`` is its cursor now."""

    def abort(self) -> None:
        """Drop the connection."""

    def move_to(self, offset: int) -> None:
        """Store the cursor: the member is no longer live."""

    def advance(self) -> None:
        """Write the events between the cursor and the position, then join the live members, or end."""


class Waiter(Protocol):
    """A pull output whose reader waits for the next event."""

    def skip_to(self, offset: int) -> None:
        """Wake up: up to ``offset`` the log has nothing for this reader."""


class Form(Protocol):
    """Blocks of another form than those of topics, for topics whose streams end with a certain record, such as runs.

    The block of a record depends on nothing but the record, so that all readers share it. Subscribers with the same
    object are one audience.
    """

    def encode(self, record: Record, id: str) -> bytes:
        """Return the block of a record. Must not raise: the record can be encoded as an event."""

    def ends(self, record: Record) -> bool:
        """Return whether the streams end after this record."""


class Audience:
    """The subscribers that share a set of patterns and get the same bytes.

    The live direct ones are a list of file descriptors, in the order in which they connected. That is
    the order of their sockets in the kernel's memory; any other costs a quarter more. They have no
    separate state. When a member leaves the list, its cursor is stored in it. While a fan-out runs over
    the list, places in it are only marked empty.

    Attributes:
        envelope: the data goes out with its topic.
        form: the form of their blocks, if it is another one than that of topics.
        end: the offset after which the streams of this form end, as soon as it is known.
        members: the number of subscribers, live or not.
        events, bytes: totals of what went to each of the live direct ones: the difference of two moments is what
            one of them got in between.
        last_write: the time of the last write to the live direct subscribers, in seconds.
        waiters: pull outputs whose readers wait for the next event, in order.
    """

    __slots__ = (
        "_beaten",
        "_beats",
        "_descriptors",
        "_empty",
        "_live",
        "bytes",
        "end",
        "envelope",
        "events",
        "form",
        "last_write",
        "members",
        "patterns",
        "waiters",
    )

    def __init__(self, patterns: Patterns, now: float, envelope: bool = False, form: Form | None = None) -> None:
        self.patterns = patterns
        self.envelope = envelope
        self.form = form
        self.end = MAX_OFFSET
        self.members = 0
        self.events = 0
        self.bytes = 0
        self.last_write = now
        self.waiters: dict[Waiter, None] = {}
        self._beaten = now  # the last time at which heartbeats were due for some
        self._descriptors: list[int] = []
        self._live: list[Member | None] = []
        self._beats: list[float] = []  # the last write to each, by a heartbeat or before it was live
        self._empty = 0

    def __repr__(self) -> str:
        return f"<Audience {self.patterns} members={self.members} live={self.live}>"

    @property
    def live(self) -> int:
        """The number of direct subscribers that are live."""
        return len(self._live) - self._empty

    def join(self, member: Member, now: float) -> None:
        """Append a member whose cursor is the head to the list."""
        member.place = len(self._live)
        self._live.append(member)
        self._descriptors.append(member.descriptor)
        self._beats.append(now)

    def leave(self, member: Member) -> None:
        """Remove a live member from the list at once: its descriptor may soon be reused."""
        self._live[member.place] = None
        self._descriptors[member.place] = -1
        self._empty += 1
        member.place = -1

    def leave_all(self) -> list[Member]:
        """Remove every live member from the list and return them."""
        members = [member for member in self._live if member is not None]
        for member in members:
            member.place = -1
        self._live, self._descriptors, self._beats, self._empty = [], [], [], 0
        return members

    def compact(self) -> None:
        """Close the empty places. Must not be called while a fan-out runs."""
        if not self._empty:
            return
        kept = [(member, beat) for member, beat in zip(self._live, self._beats, strict=True) if member is not None]
        self._live = [member for member, _ in kept]
        self._descriptors = [member.descriptor for member, _ in kept]
        self._beats = [beat for _, beat in kept]
        self._empty = 0
        for place, (member, _) in enumerate(kept):
            member.place = place

    def write(self, chunk: bytes, upto: int, now: float, *, stride: int = STRIDE, turn: float = TURN) -> Iterator[None]:
        """Write ``chunk`` to all live members; yield when the turn is over.

        Arguments:
            chunk: whole blocks.
            upto: the cursor of a member that has the chunk.
            now: the current time, in seconds.
            stride: writes between two looks at the time.
            turn: seconds after which to yield.
        """
        self.last_write = now
        framed = frame(chunk)
        size = len(framed)
        write = os.write
        until = perf_counter() + turn
        for start in range(0, len(self._descriptors), stride):
            for place, descriptor in enumerate(self._descriptors[start : start + stride], start):
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
                until = perf_counter() + turn

    def _stall(self, place: int, framed: bytes, written: int, upto: int) -> None:
        member = self._live[place]
        if member is None:
            return
        self.leave(member)
        if written < 0:
            member.move_to(upto)
            member.abort()
        else:
            member.stall(framed, written, upto)

    def beat(self, heartbeat: bytes, upto: int, now: float, interval: float) -> None:
        """Write a heartbeat to live members that were silent for ``interval`` seconds.

        All members of an audience become silent with one event. Each call writes to only a part of them,
        which spreads this heartbeat, and so all later ones. The part is as large as it takes to reach the
        last of them before the first is silent again.

        Arguments:
            heartbeat: a whole block.
            upto: the cursor of live members.
            now: the current time, in seconds.
            interval: seconds of silence.
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
                self._stall(place, framed, written, upto)
            quota -= 1
            if quota == 0:
                return

    def wake(self, position: int) -> None:
        """Wake all waiters: up to ``position`` the log has nothing for them."""
        waiters, self.waiters = self.waiters, {}
        for waiter in waiters:
            waiter.skip_to(position)
