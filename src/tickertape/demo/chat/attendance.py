"""Who is in which room: people, where a hub knows connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from ...asgi import DisconnectReason
from ...hub import Hub, SubscriberInfo
from ...timing import Timer

__all__ = ["GRACE", "Attendance", "Change", "Seat"]

GRACE: Final = 5.0
"""Seconds without a stream after which one has left: a reload and a reconnect take less, nobody flickers."""

Change: TypeAlias = Literal["join", "leave"]


class Seat(NamedTuple):
    """Somebody in a room."""

    room: str
    name: str


class Attendance:
    """Tell who comes into a room and who leaves it, once for each person.

    Who has two tabs open is there once. Who reconnects within ``GRACE`` seconds has never left.

    Arguments:
        hub: subscribers have a :class:`Seat` as their ``user``.
        tell: called with a seat and what happened there.
    """

    def __init__(self, hub: Hub, tell: Callable[[Seat, Change], Any]) -> None:
        self._hub = hub
        self._tell = tell
        self._streams: Counter[Seat] = Counter()  # 0 for one who may be about to return
        self._leaving: dict[Seat, Timer] = {}
        self._closed = False
        hub.presence.on_join(self._came)
        hub.presence.on_leave(self._went)

    def __repr__(self) -> str:
        return f"<Attendance {len(self._streams)} present, {len(self._leaving)} of them about to leave>"

    def names(self, room: str) -> list[str]:
        """Return who is in a room, in the order in which they came."""
        return [seat.name for seat in self._streams if seat.room == room]

    def close(self) -> None:
        """Tell nobody any more: the server stops, and nobody leaves by that."""
        self._closed = True
        for timer in self._leaving.values():
            timer.cancel()

    def _came(self, info: SubscriberInfo) -> None:
        seat: Seat = info.user
        is_new = seat not in self._streams
        self._streams[seat] += 1
        timer = self._leaving.pop(seat, None)
        if timer is not None:
            timer.cancel()
        if is_new:
            self._tell(seat, "join")

    def _went(self, info: SubscriberInfo, reason: DisconnectReason) -> None:
        seat: Seat = info.user
        self._streams[seat] -= 1
        if not self._streams[seat] and not self._closed:
            clock = self._hub.clock
            self._leaving[seat] = clock.call_at(clock.time() + GRACE, self._left, seat)

    def _left(self, seat: Seat) -> None:
        del self._leaving[seat], self._streams[seat]
        self._tell(seat, "leave")
