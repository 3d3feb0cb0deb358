"""``Inbox``, a queue of the items that one connection has delivered.

The position in the stream moves only when an item is taken. An id without an event waits in the queue after
the events decoded before it, so it cannot overtake an event that a crash may still lose.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ..errors import ClientError, EventTooLargeError, TickertapeError
from ..wire import ERROR_EVENT, Cursor, Decoder, End, Gap, ReceivedEvent, ServerSentEvent, StreamOpen, TopicsChange
from .http import excerpt


class Position(NamedTuple):
    """The stream moved to this id without an event."""

    id: str


class Comment(NamedTuple):
    """A comment, for example a heartbeat."""

    text: str


class Failure(NamedTuple):
    """The rest of the connection is of no use."""

    error: TickertapeError
    final: bool
    """True if another connection would fail in the same way."""


class Fed(NamedTuple):
    """Counts of heartbeats and repeated events in some bytes."""

    heartbeats: int
    duplicates: int


class Inbox:
    """Decode the bytes of one connection, and keep the items until they are taken.

    Arguments:
        max_event_size: bytes that one event may take; ``None`` for no limit.
        comments: keep comments as items.
        resumed_after: the id that was sent as ``Last-Event-ID``, if repeated events must be dropped.

    Ids are opaque, unless the server is known to be a hub: then they are cursors, and their order is known. A hub
    confirms the cursor that it resumes from. It repeats the cursor in a block without data before the first event,
    or sends a gap notice. After that, an event whose cursor has the same epoch and is not after the last one
    delivered is a repetition. Without a confirmation nothing is dropped.

    An event without an id shows the id before it, and is not a repetition.
    """

    def __init__(self, *, max_event_size: int | None, comments: bool = False, resumed_after: str | None = None) -> None:
        self._decoder = Decoder(max_event_size=max_event_size, comments=True)
        self._keeps_comments = comments
        self._items: deque[ReceivedEvent | Comment | Position | Failure] = deque()
        self._last_id: str | None = None
        self._failed = False
        self._heartbeats = 0
        self._duplicates = 0

        # Of a hub.
        self._asked = None if resumed_after is None else Cursor.parse(resumed_after)
        self._awaits_confirmation = self._asked is not None  # until the first event
        self._delivered: Cursor | None = None  # since the confirmation

    @property
    def retry(self) -> int | None:
        """The reconnection time that the server sent on this connection, in milliseconds."""
        return self._decoder.retry

    def feed(self, data: bytes) -> Fed:
        """Decode the next bytes. Items wait in the queue for :meth:`take`."""
        self._heartbeats = self._duplicates = 0
        # A block without data shows only in the state of the decoder, so the first block is decoded line by line.
        for piece in data.splitlines(keepends=True) if self._awaits_confirmation else (data,):
            if not self._failed:
                self._decode(piece)
        return Fed(self._heartbeats, self._duplicates)

    def take(self) -> ReceivedEvent | Comment | Position | Failure | None:
        """Return the next item, ``None`` if there is none."""
        return self._items.popleft() if self._items else None

    def _decode(self, data: bytes) -> None:
        try:
            # Again with no bytes: the error for an event that is too large is raised by the call after the
            # one that returned the events before it.
            while items := self._decoder.feed(data):
                for item in items:
                    self._put(item)
                data = b""
        except EventTooLargeError as error:
            self._fail(error, final=True)
        position = self._decoder.last_event_id
        if position is not None and position != self._last_id and not self._failed:
            self._last_id = position
            self._confirm(position)
            if not self._is_repeated(position):
                self._items.append(Position(position))

    def _confirm(self, id: str) -> None:
        if self._awaits_confirmation and id == str(self._asked):
            self._delivered = self._asked
        self._awaits_confirmation = False

    def _put(self, event: ServerSentEvent) -> None:
        if not isinstance(event, ReceivedEvent):
            self._heartbeats += 1
            if self._keeps_comments and not self._failed:
                self._items.append(Comment(event.comment or ""))
            return
        if self._failed:
            return
        has_own_id, self._last_id = event.id != self._last_id, event.id
        self._awaits_confirmation = False
        if event.event == ERROR_EVENT:
            self._fail(ClientError(f"the stream failed on the server: {excerpt(event.data)}"), final=False)
        elif (gap := Gap.parse(event)) is not None:
            # The events that follow are new, even if their cursors are before the last delivered one: a log
            # that was restored from a backup has lost its end and appends there again.
            self._delivered = None if self._asked is None else Cursor.parse(gap.resumed or gap.id or "")
            self._items.append(gap)
        elif (notice := StreamOpen.parse(event) or TopicsChange.parse(event)) is not None:
            self._items.append(notice)  # of a change at the last event: it has the id of that
        elif has_own_id and self._is_repeated(event.id):
            self._duplicates += 1
        else:
            self._items.append(End.parse(event) or event)
            if self._delivered is not None and (cursor := Cursor.parse(event.id or "")) is not None:
                self._delivered = cursor

    def _is_repeated(self, id: str | None) -> bool:
        """Return True if an id is certainly not after the last event that a hub delivered."""
        if self._delivered is None or id is None or (cursor := Cursor.parse(id)) is None:
            return False
        return cursor.epoch == self._delivered.epoch and cursor.offset <= self._delivered.offset

    def _fail(self, error: TickertapeError, *, final: bool) -> None:
        self._failed = True
        self._items.append(Failure(error, final))
