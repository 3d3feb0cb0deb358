"""``Decoder``, the incremental parser of an event stream.

Strategy
    The event stream algorithm (WHATWG HTML, "Interpreting an event stream") works line by line;
    so does ``_lines`` below, one branch for each of its rules. Most blocks on real wires have one
    shape: one run of ``data`` lines, with an ``id`` and an ``event`` before it or an ``id`` after.
    In whole blocks of that shape one regular expression finds the same fields several times faster;
    all other blocks go to ``_lines``.

Goals
    Linear time for any chunking, even one byte at a time: no byte is examined again when more
    arrive. An event is returned with the very byte that completes it, so a CR ends its
    line at once, and an LF right after it is skipped.

Plan of a feed
    bytes → without BOM, all line ends LF → the rest of an unfinished line → the rest of an unfinished
    block → whole blocks → the start of a block → the start of a line.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Final, NoReturn

from ..errors import EventTooLargeError
from .event import MAX_RETRY, ReceivedEvent, ServerSentEvent, _Fields, _received, _sealed

DEFAULT_MAX_EVENT_SIZE: Final = 1024 * 1024
"""Bytes of one event; a hub's own limit on what it publishes is the same."""

_BOM: Final = b"\xef\xbb\xbf"

# As numbers: `b"\n" in data` first tries to read the left side as one, and takes ten times as long.
_CR: Final = ord("\r")
_LF: Final = ord("\n")

_MAX_RETRY_DIGITS: Final = len(str(MAX_RETRY))

_BLOCK: Final = re.compile(
    r"""
    (?: id: \ ?+ (.++) \n | )
    (?: event: \ ?+ (.*+) \n | )
    (?: id: \ ?+ (.++) \n | )
    data: \ ?+ (.*+ (?: \n data: \ ?+ .*+ )*+ ) \n
    (?: id: \ ?+ (.++) \n | )
    \n
  | ( (?: .++ \n )++ \n?+ | \n )
    """,
    re.VERBOSE,
)
"""One block: an event of the usual shape as its fields, or else the whole of it.

No repeat backtracks, so a line is read a few times at most. An optional part is written as a
choice between it and nothing: in CPython before 3.12.8 and 3.13.1, a possessive repeat of a group
that captures may end in a ``SystemError``.
"""

_REST: Final = re.compile(rb"(?:.++\n)*+\n?+")
"""The rest of a block, including its blank line if that has arrived."""

_NEXT_DATA_LINE: Final = re.compile(r"\ndata: ?")


class Decoder:
    """Decode an event stream from chunks of bytes.

    Arguments:
        max_event_size: bytes that one event may take (its lines, or one comment; line ends not
            counted); ``None`` for no limit.
        comments: return comments too, each as ``ServerSentEvent(None, comment=...)``. All else are
            :class:`ReceivedEvent`.

    Follows WHATWG HTML, "Parsing an event stream" and "Interpreting an event stream".
    """

    def __init__(self, *, max_event_size: int | None = DEFAULT_MAX_EVENT_SIZE, comments: bool = False) -> None:
        if max_event_size is not None and max_event_size <= 0:
            raise ValueError(f"expected max_event_size to be a positive int or None, got {max_event_size!r}")
        self.max_event_size = max_event_size
        self.comments = comments

        # State of the stream.
        self._last_event_id: str | None = None
        self._retry: int | None = None
        self._limit = sys.maxsize if max_event_size is None else max_event_size
        self._error: EventTooLargeError | None = None
        self._finished: list[ServerSentEvent] = []

        # State of the bytes not yet split into lines.
        self._special = True  # one of the next three, or an error, needs more than the usual path
        self._bom = b""  # the part of a BOM seen so far
        self._started = False  # a BOM can no longer follow
        self._after_cr = False  # the last byte was a CR: an LF that follows belongs to it
        self._partial = bytearray()  # a line whose end has not arrived

        # State of the current block.
        self._size = 0  # bytes of its lines so far; 0 between blocks
        self._data: list[str] = []
        self._event = ""
        self._id: str | None = None
        self._block_retry: int | None = None

    @property
    def last_event_id(self) -> str | None:
        """The current last event id: that of the last finished block with an id; ``None`` before the first."""
        return self._last_event_id

    @property
    def retry(self) -> int | None:
        """The last reconnection time that the stream sent, in milliseconds; ``None`` before the first.

        At most :data:`MAX_RETRY`: a greater number counts as that.
        """
        return self._retry

    def __repr__(self) -> str:
        held = self._size + len(self._partial)
        return f"<Decoder last_event_id={self._last_event_id!r} retry={self._retry!r} held={held} bytes>"

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Decode the next bytes of the stream and return the events that they complete, in order.

        An event's ``id`` is the last event id when it is dispatched, as a browser's ``lastEventId``. If
        the stream ends within a block, that block is not an event and is never returned.

        Raises:
            EventTooLargeError: an event is over ``max_event_size``. Events that the same bytes
                completed before it are returned first; the next call raises the error, and so does
                every later one.
        """
        if self._special:
            data = self._after_special(data)
        if _CR in data:
            self._after_cr = self._special = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if _LF not in data:
            self._hold(data)
            return []
        try:
            self._take(data)
        except EventTooLargeError:
            if not self._finished:
                raise
        events, self._finished = self._finished, []
        return events

    def _after_special(self, data: bytes) -> bytes:
        """Skip a BOM at the start, and an LF after a CR that ended the last chunk."""
        if self._error is not None:
            raise self._error
        if not self._started:
            data = self._bom + data
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._bom = data
                return b""
            self._started = True
            data = data.removeprefix(_BOM)
        elif self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        self._special = self._after_cr
        return data

    def _hold(self, data: bytes) -> None:
        """Keep the start of a line until its end arrives."""
        self._partial += data
        if self._size + len(self._partial) > self._limit:
            self._refuse(self._partial)

    def _take(self, data: bytes) -> None:
        """Decode bytes that contain at least one end of a line."""
        start = 0
        if self._partial:
            stop = data.find(b"\n")
            line, self._partial = self._partial, bytearray()
            line += data[:stop]
            self._lines([line])
            start = stop + 1
        end = data.rfind(b"\n") + 1
        if self._size and (rest := _REST.match(data, start, end)):
            self._lines(rest[0].splitlines())
            start = rest.end()
        if start < end:
            self._blocks(data[start:end])
        if end < len(data):
            self._hold(data[end:])

    def _blocks(self, lines: bytes) -> None:
        """Decode whole lines, the first of which starts a block."""
        try:
            text = lines.decode()
        except UnicodeDecodeError:
            self._lines(lines.splitlines())
            return
        if "\0" in text or len(lines) > self._limit:
            self._lines(lines.splitlines())
            return
        finished = self._finished
        last_event_id = self._last_event_id
        for early_id, event, id_, data, late_id, other in _BLOCK.findall(text):
            if other:
                self._last_event_id = last_event_id
                self._lines(other.encode().splitlines())
                last_event_id = self._last_event_id
                continue
            if new_id := late_id or id_ or early_id:
                last_event_id = new_id
            # `_received`, written out: a call of it is a fifth of the whole time of an event.
            fields = _Fields()
            fields.data = _NEXT_DATA_LINE.sub("\n", data) if "\n" in data else data
            fields.event = event or None
            fields.id = last_event_id
            fields.retry = fields.comment = None
            fields.__class__ = ReceivedEvent
            finished.append(fields)  # type: ignore[arg-type]
        self._last_event_id = last_event_id

    def _lines(self, lines: Iterable[bytes | bytearray]) -> None:
        """Process lines by the rules of "Interpreting an event stream"."""
        for line in lines:
            if not line:
                self._dispatch()
                continue
            size = self._size + len(line)
            if size > self._limit:
                self._refuse(line)
            text = line.decode("utf-8", "replace")
            field, _, value = text.partition(": ")
            if ":" in field:
                field, _, value = text.partition(":")
            if not field:
                if self.comments:
                    self._finished.append(_sealed(None, comment=value))
                continue
            self._size = size
            if field == "data":
                self._data.append(value)
            elif field == "event":
                self._event = value
            elif field == "id":
                if "\0" not in value:
                    self._id = value
            elif field == "retry" and value.isascii() and value.isdigit():
                # `isdigit` alone takes the digits of every script; `int` alone signs and underscores too.
                self._retry = self._block_retry = _milliseconds(value)

    def _dispatch(self) -> None:
        """Process the blank line: "dispatch the event", and prepare for the next block."""
        if self._id is not None:
            self._last_event_id = self._id
        if self._data:
            data = "\n".join(self._data)
            self._finished.append(_received(data, self._event or None, self._last_event_id, self._block_retry))
            self._data.clear()
        self._size = 0
        self._event = ""
        self._id = None
        self._block_retry = None

    def _refuse(self, line: bytes | bytearray) -> NoReturn:
        self._error = EventTooLargeError(self._size + len(line), self._limit)
        self._special = True
        self._partial = bytearray()
        self._data.clear()
        raise self._error


def _milliseconds(digits: str) -> int:
    """Return a reconnection time, at most ``MAX_RETRY``. ``int`` alone refuses thousands of digits."""
    digits = digits.lstrip("0")
    if len(digits) > _MAX_RETRY_DIGITS:
        return MAX_RETRY
    return min(int(digits or "0"), MAX_RETRY)
