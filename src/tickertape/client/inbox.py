"""``Inbox``, what one connection has brought and nobody has taken yet, in order.

A place in the stream is only ever moved by taking: an id that comes without an event waits behind
the events that were decoded before it, so it can not overtake one that a crash may still lose.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple, Self

from ..errors import ClientError, EventTooLargeError, TickertapeError
from ..wire import Decoder, ServerSentEvent

__all__ = ["Failure", "Gap", "Inbox", "Place"]

GAP_EVENT: Final = "stream:gap"
ERROR_EVENT: Final = "stream:error"

_MOST_DIGITS: Final = 19
"""Of an offset: a signed integer of 64 bits has as many."""


class Gap(ServerSentEvent):
    """A notice that events are missing here: the place asked for is not kept any more.

    What is still kept follows it. It is the event that the hub sent, so ``id`` and ``data`` are there too.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, event: ServerSentEvent) -> Self | None:
        """Return the gap that an event of type ``stream:gap`` tells of, ``None`` if it is not one of ours."""
        gap = cls(event.data, event=event.event, id=event.id)
        return gap if gap._text("reason") is not None else None

    @property
    def reason(self) -> str:
        """Why: ``"expired"``, the place is older than what is kept; ``"reset"``, it is of another life of the log."""
        return self._text("reason") or ""

    @property
    def after(self) -> str | None:
        """The cursor after which events are missing; ``None`` if the hub did not say."""
        return self._text("after")

    @property
    def resumed(self) -> str | None:
        """The cursor after which the stream goes on; ``None`` if the hub did not say."""
        return self._text("resumed")

    def _text(self, name: str) -> str | None:
        try:
            notice = self.json()
        except ValueError:
            return None
        value = notice.get(name) if isinstance(notice, dict) else None
        return value if isinstance(value, str) else None

    def __repr__(self) -> str:
        return f"Gap(reason={self.reason!r}, after={self.after!r}, resumed={self.resumed!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _gap, (self.data, self.event, self.id)


def _gap(data: str, event: str, id: str | None) -> Gap:
    return Gap(data, event=event, id=id)


class Place(NamedTuple):
    """The stream has moved to this id without an event."""

    id: str


class Failure(NamedTuple):
    """The connection is of no use after what came before this."""

    error: TickertapeError
    final: bool
    """Whether another connection would meet the same."""


class Fed(NamedTuple):
    """What bytes brought beside items to take."""

    heartbeats: int
    duplicates: int


class Inbox:
    """Decode one connection's bytes and keep what they give until it is taken.

    Arguments:
        max_event_size: bytes that one event may take; ``None`` for no limit.
        resumed_after: the id that was sent as ``Last-Event-ID``, if repeated events are to be dropped.

    A repeated event is one whose own id is a cursor, ``"<epoch>-<offset>"``, of the same epoch as the
    last event delivered and not after it. An event that has no id of its own shows the one before
    it and is not a repetition.

    An id of its own is told from one that a block without data has left by looking at the decoder in
    between. So a resumed stream is decoded line by line at first, until an event is certainly new.
    """

    def __init__(self, *, max_event_size: int | None, resumed_after: str | None = None) -> None:
        self._decoder = Decoder(max_event_size=max_event_size, comments=True)
        self._items: deque[ServerSentEvent | Place | Failure] = deque()
        self._in_force: str | None = None
        self._delivered = _cursor(resumed_after)
        self._line_by_line = self._delivered is not None
        self._failed = False
        self._heartbeats = 0
        self._duplicates = 0

    @property
    def retry(self) -> int | None:
        """The reconnection time that the connection has asked for, in milliseconds."""
        return self._decoder.retry

    def feed(self, data: bytes) -> Fed:
        """Take the next bytes of the connection; what they give waits for :meth:`take`."""
        self._heartbeats = self._duplicates = 0
        for piece in data.splitlines(keepends=True) if self._line_by_line else (data,):
            if not self._failed:
                self._decode(piece)
        return Fed(self._heartbeats, self._duplicates)

    def take(self) -> ServerSentEvent | Place | Failure | None:
        """Return the next item, ``None`` if there is none."""
        return self._items.popleft() if self._items else None

    def _decode(self, data: bytes) -> None:
        try:
            # Once more with nothing: the error of an event that is too large comes with the call
            # after the one that gave the events before it.
            while items := self._decoder.feed(data):
                for item in items:
                    self._put(item)
                data = b""
        except EventTooLargeError as error:
            self._fail(error, final=True)
        place = self._decoder.last_event_id
        if place is not None and place != self._in_force and not self._failed:
            self._in_force = place
            if not self._is_behind(place):
                self._items.append(Place(place))

    def _put(self, event: ServerSentEvent) -> None:
        if event.data is None:
            self._heartbeats += 1
            return
        if self._failed:
            return
        own, self._in_force = event.id != self._in_force, event.id
        if event.event == ERROR_EVENT:
            self._fail(ClientError(f"expected events, got {ERROR_EVENT}: {event.data}"), final=False)
        elif event.event == GAP_EVENT and (gap := Gap.parse(event)):
            # What follows is said to follow this, even if it lies behind what was delivered once: a
            # log that was restored from a backup has lost its end, and starts there again.
            self._delivered = _cursor(gap.resumed or gap.id)
            self._items.append(gap)
        elif own and self._is_behind(event.id):
            self._duplicates += 1
        else:
            self._items.append(event)
            if self._delivered is not None and own:
                self._delivered = _cursor(event.id) or self._delivered
                self._line_by_line = False

    def _is_behind(self, id: str | None) -> bool:
        """Tell whether an id is a cursor of the epoch of the last event delivered, and not after it."""
        if self._delivered is None or (cursor := _cursor(id)) is None:
            return False
        return cursor[0] == self._delivered[0] and cursor[1] <= self._delivered[1]

    def _fail(self, error: TickertapeError, *, final: bool) -> None:
        self._failed = True
        self._items.append(Failure(error, final))


def _cursor(id: str | None) -> tuple[str, int] | None:
    """Read an id as a cursor of ours; ``None`` if it is not one."""
    epoch, _, offset = (id or "").partition("-")
    if not epoch or not (offset.isascii() and offset.isdigit()) or len(offset) > _MOST_DIGITS:
        return None
    return epoch, int(offset)
