"""``Decoder``, the incremental parser of an event stream.

Strategy
    The event stream algorithm (WHATWG HTML, "Interpreting an event stream") works line by line;
    so does ``_line`` below, one branch for each of its rules. Most blocks on real wires have one
    shape, ``id``, ``event``, one line of ``data``; for runs of such blocks one regular expression
    finds the same fields several times faster. Whatever it does not recognise goes to ``_line``.

Goals
    Linear time whatever the chunking, one byte at a time included. An event is given with the very
    byte that completes it, so a CR ends its line at once and an LF right after it is skipped.

Plan of a feed
    bytes → without BOM, all line ends LF → whole lines (the rest is kept) → blocks → events.
"""

from __future__ import annotations

import re
import sys
from typing import Final, NoReturn

from ..errors import EventTooLargeError
from .event import ServerSentEvent, _Fields, _sealed

__all__ = ["DEFAULT_MAX_EVENT_SIZE", "Decoder"]

DEFAULT_MAX_EVENT_SIZE: Final = 1024 * 1024
"""Bytes of one event; a hub's own limit on what it publishes is the same."""

_BOM: Final = b"\xef\xbb\xbf"

_FIELDS: Final = (b"data", b"event", b"id", b"retry")
_LONGEST_FIELD: Final = 5

_SHORT_LINE: Final = 256
"""Mean bytes of a line up to which the expression is faster: it walks a line, ``split`` leaps."""

_BLOCK: Final = re.compile(
    r"(?:id: ?+(.++)\n)?+"
    r"(?:event: ?+(.*+)\n)?+"
    r"data: ?+(.*+)\n\n"
    r"|((?:.++\n)*+\n)"
)
"""One block: ``id``, ``event`` and ``data`` of the usual kind, or else the whole of it."""


class Decoder:
    """Decode an event stream from chunks of bytes.

    Arguments:
        max_event_size: bytes that one event may take (its lines, or one comment; line ends not
            counted); ``None`` for no limit.
        comments: whether to give comments too, each as ``ServerSentEvent(None, comment=...)``.

    Follows WHATWG HTML, "Parsing an event stream" and "Interpreting an event stream".
    """

    def __init__(self, *, max_event_size: int | None = DEFAULT_MAX_EVENT_SIZE, comments: bool = False) -> None:
        if max_event_size is not None and max_event_size <= 0:
            raise ValueError(f"expected max_event_size to be a positive int or None, got {max_event_size!r}")
        self.max_event_size = max_event_size
        self.comments = comments

        # Of the stream.
        self._last_event_id: str | None = None
        self._retry: int | None = None
        self._limit = sys.maxsize if max_event_size is None else max_event_size
        self._error: EventTooLargeError | None = None
        self._finished: list[ServerSentEvent] = []

        # Of the bytes not yet split into lines.
        self._special = True  # one of the next three, or an error, asks for more than the usual way
        self._bom = b""  # the part of a BOM seen so far
        self._started = False  # the place where a BOM may stand is behind us
        self._after_cr = False  # the last byte was a CR: an LF that follows belongs to it
        self._partial = bytearray()  # a line whose end has not come

        # Of the block in progress.
        self._in_block = False
        self._size = 0
        self._data: list[str] = []
        self._event = ""
        self._id: str | None = None
        self._block_retry: int | None = None

    @property
    def last_event_id(self) -> str | None:
        """The id in force: that of the last finished block which had one; ``None`` before the first."""
        return self._last_event_id

    @property
    def retry(self) -> int | None:
        """The reconnection time that the stream has asked for, in milliseconds; ``None`` if it has not."""
        return self._retry

    def __repr__(self) -> str:
        held = self._size + len(self._partial)
        return f"<Decoder last_event_id={self._last_event_id!r} retry={self._retry!r} held={held} bytes>"

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes of the stream and return the events that they complete, in order.

        An event's ``id`` is the last event id in force when it is dispatched, as a browser's
        ``lastEventId``. What is unfinished when the stream ends is not an event and is never given.

        Raises:
            EventTooLargeError: an event is over ``max_event_size``. Events that the same bytes
                completed before it are returned first; the error comes with the next call, and with
                each one after it.
        """
        if self._special:
            data = self._after_special(data)
        if b"\r" in data:
            self._after_cr = self._special = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        try:
            end = data.rfind(b"\n") + 1
            if end:
                rest = data[end:]
                if self._partial:
                    whole = self._partial
                    whole += data[:end]
                    self._partial = bytearray()
                    self._lines(whole)
                else:
                    self._lines(data[:end])
                data = rest
            if data:
                self._partial += data
                if self._size + len(self._partial) > self._limit:
                    self._refuse(self._partial)
        except EventTooLargeError:
            if not self._finished:
                raise
        if not end:
            return []
        events, self._finished = self._finished, []
        return events

    def _after_special(self, data: bytes) -> bytes:
        """Skip a BOM at the start, and an LF behind a CR that ended the last chunk."""
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

    def _lines(self, whole: bytes | bytearray) -> None:
        """Take whole lines: the rest of the block in progress, whole blocks, the start of another."""
        start = 0
        if self._in_block:
            start = 1 if whole.startswith(b"\n") else whole.find(b"\n\n") + 2
            start = start if start > 1 or whole.startswith(b"\n") else len(whole)
            self._each_line(whole[:start])
        end = whole.rfind(b"\n\n", start) + 2
        if end > 1:
            self._blocks(whole if end - start == len(whole) else whole[start:end])
            start = end
        if start < len(whole):
            self._each_line(whole[start:])

    def _each_line(self, lines: bytes | bytearray) -> None:
        for line in lines.split(b"\n")[:-1]:
            self._line(line)

    def _blocks(self, blocks: bytes | bytearray) -> None:
        """Take whole blocks, the first of which starts here."""
        size = len(blocks)
        if size > self._limit or size > _SHORT_LINE * blocks.count(b"\n"):
            self._each_line(blocks)
            return
        try:
            text = blocks.decode()
        except UnicodeDecodeError:
            self._each_line(blocks)
            return
        finished = self._finished
        last_event_id = self._last_event_id
        for id_, event, data, other in _BLOCK.findall(text):
            if other:
                self._last_event_id = last_event_id
                self._each_line(other.encode())
                last_event_id = self._last_event_id
                continue
            if id_ and "\0" not in id_:
                last_event_id = id_
            # `_sealed`, written out: a call of it is a fifth of the whole time of an event.
            fields = _Fields()
            fields.data = data
            fields.event = event or None
            fields.id = last_event_id
            fields.retry = fields.comment = None
            fields.__class__ = ServerSentEvent
            finished.append(fields)  # type: ignore[arg-type]
        self._last_event_id = last_event_id

    def _line(self, line: bytes | bytearray) -> None:
        """Process one line by the rules of "Interpreting an event stream"."""
        if not line:
            self._dispatch()
            return
        if self._size + len(line) > self._limit:
            self._refuse(line)
        if line.startswith(b":"):
            if self.comments:
                text = line[1:].removeprefix(b" ").decode("utf-8", "replace")
                self._finished.append(_sealed(None, comment=text))
            return
        self._in_block = True
        self._size += len(line)
        colon = line.find(b":", 0, _LONGEST_FIELD + 1)
        field = line[:colon] if colon >= 0 else line
        if field not in _FIELDS:
            return
        # A view: a copy of a value of megabytes costs more than all that is done with it here.
        start = len(field) + 1
        start += line.startswith(b" ", start)
        text = str(memoryview(line)[start:], "utf-8", "replace")
        if field == b"data":
            self._data.append(text)
        elif field == b"event":
            self._event = text
        elif field == b"retry":
            self._set_retry(text)
        elif "\0" not in text:
            self._id = text

    def _set_retry(self, text: str) -> None:
        # `int` takes signs, spaces, underscores and the digits of every script; the rule is ASCII digits.
        if not (text.isascii() and text.isdigit()):
            return
        try:
            self._retry = self._block_retry = int(text)
        except ValueError:  # more digits than Python converts: no time that anyone could wait
            return

    def _dispatch(self) -> None:
        """Process the blank line: "dispatch the event", and make ready for the next block."""
        if self._id is not None:
            self._last_event_id = self._id
        if self._data:
            data = self._data[0] if len(self._data) == 1 else "\n".join(self._data)
            self._finished.append(_sealed(data, self._event or None, self._last_event_id, self._block_retry))
            self._data.clear()
        self._in_block = False
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
