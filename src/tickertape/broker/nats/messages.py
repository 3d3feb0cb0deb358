"""The messages of a NATS stream: a batch of records, or marks of removed ones.

The data of a batch start with a line of JSON, ``[[topic, event, length], ...]``, followed by the data of all records.
Lengths count characters. The headers hold the offsets, and all that the retention needs, so an index of the stream is
made without reading the data. Marks have no data, and no offsets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from ...errors import BrokerError
from ...wire import Draft
from ..records import OTHERS, Record

_PLACE: Final = "Tickertape-Place"
"""Header: the offset of the first record, and the number of records."""

_DETAILS: Final = "Tickertape-Details"
"""Header: what the index of the stream needs, as a list in JSON: the bytes that each record counts for; for each rule,
the topics of its records, each with their places in the batch; the digests of keys, each with the offset of its record;
the marks. If it is too long, it is the first line of the data, and the header is ``"data"``."""

_MAX_DETAILS: Final = 32 * 1024
"""Bytes of details in a header: a server takes 64 KiB of headers."""

_ID: Final = "Nats-Msg-Id"
"""Header: a random name of the message, by which the server recognises it when it is published again."""

_MESSAGE_BYTES: Final = 250
"""Bytes that the headers of a message take in the stream, shared by its records."""

_RECORD_BYTES: Final = 20
"""Bytes that a record takes beside its text."""


Places: TypeAlias = dict[str, dict[str, list[int]]]
"""For each rule, the topics of its records, each with their places in the message."""


class Marks(NamedTuple):
    """Marks of records that are no longer kept.

    Attributes:
        whole: True if these are all marks of the log.
        lanes: for each rule and all others, the offsets up to which their records were trimmed and dropped.
        discarded: discarded topics, each with an offset.
    """

    whole: bool
    lanes: dict[str, tuple[int, int]]
    discarded: dict[str, int]


class Message(NamedTuple):
    """A message of the stream.

    Attributes:
        sequence: its number in the stream.
        time: seconds of the server's clock when it was stored.
        epoch: the epoch under which it was published.
        id: its random name.
        first: the offset of the first record.
        total: the number of records.
        keys: the digests of keys, each with the offset of its record.
        sizes: the bytes that each record counts for.
        lanes: for each rule, the topics of its records, each with their places in the message.
        marks: marks, in a message without records.
        data: the records.
        partial: True if it was read without data, and has its details there.
    """

    sequence: int
    time: float
    epoch: str
    id: str
    first: int
    total: int
    keys: tuple[tuple[str, int], ...] = ()
    sizes: Sequence[int] = ()
    lanes: Places = {}  # noqa: RUF012 - never changed
    marks: Marks | None = None
    data: bytes = b""
    partial: bool = False

    @property
    def newest(self) -> int:
        """The offset of the last record, or of the record before a message without any."""
        return self.first + self.total - 1


def sizes_of(drafts: Sequence[Draft]) -> list[int]:
    """Return the bytes that records count for that are stored together: of the stream, headers included."""
    share = _RECORD_BYTES + _MESSAGE_BYTES // max(1, len(drafts))
    return [share + len(draft.topic) + len(draft.event or "") + draft.size for draft in drafts]


def places_of(drafts: Sequence[Draft], lane_of: Callable[[str], str]) -> Places:
    """Return the places of the records that have a rule."""
    lanes: Places = {}
    for place, draft in enumerate(drafts):
        lane = lane_of(draft.topic)
        if lane != OTHERS:
            lanes.setdefault(lane, {}).setdefault(draft.topic, []).append(place)
    return lanes


def digest(key: str) -> str:
    """Return 128 bits that stand for a key: no two different keys share a digest."""
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def encode(message: Message, drafts: Sequence[Draft]) -> tuple[dict[str, str], bytes]:
    """Return the headers and the data of a message with these records."""
    details = json.dumps((message.sizes, message.lanes, message.keys, message.marks), separators=(",", ":"))
    headers = {_ID: message.id, _PLACE: f"{message.first} {message.total}", _DETAILS: details}
    parts = []
    if len(details) > _MAX_DETAILS:
        headers[_DETAILS] = "data"
        parts += [details, "\n"]
    if drafts:
        index = [(draft.topic, draft.event, len(draft.data)) for draft in drafts]
        text = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
        parts += [text, "\n", *(draft.data for draft in drafts)]
    return headers, "".join(parts).encode()


def parse(sequence: int, time: float, subject: str, headers: Mapping[str, str] | None, data: bytes) -> Message:
    """Return the message with these headers.

    Raises:
        BrokerError: the message was not published by a broker of tickertape.
    """
    found = headers or {}
    try:
        epoch = subject.split(".")[2]
        first, total = (int(number) for number in found[_PLACE].split())
        message = Message(sequence, time, epoch, found.get(_ID, ""), first, total)
        details: str | bytes = found[_DETAILS]
        if details == "data":
            if not data:
                return message._replace(partial=True)
            details, _, data = data.partition(b"\n")
        sizes, lanes, pairs, marks = json.loads(details)
        sizes = [int(size) for size in sizes]
        keys = tuple((str(key), int(offset)) for key, offset in pairs)
        places = [place for topics in lanes.values() for found in topics.values() for place in found]
        if len(sizes) != total or not set(range(total)).issuperset(places) or (marks is None) is not (total > 0):
            raise ValueError
        marks = None if marks is None else _parse_marks(marks)
        return message._replace(keys=keys, sizes=sizes, lanes=lanes, marks=marks, data=data)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise BrokerError(f"message {sequence} does not hold records of tickertape: {dict(found)}") from None


def _parse_marks(found: Any) -> Marks:
    whole, lanes, discarded = found
    return Marks(
        bool(whole),
        {name: (int(trimmed), int(dropped)) for name, (trimmed, dropped) in lanes.items()},
        {topic: int(offset) for topic, offset in discarded.items()},
    )


def records_of(message: Message) -> list[Record]:
    """Return the records of a message.

    Raises:
        BrokerError: the data are not those of a broker of tickertape.
    """
    try:
        line, _, rest = message.data.partition(b"\n")
        text = rest.decode()
        records = []
        start = 0
        for offset, (topic, event, length) in enumerate(json.loads(line), message.first):
            records.append(Record(offset, topic, event, text[start : start + length]))
            start += length
    except (TypeError, ValueError):
        records = []
    if len(records) != message.total:
        raise BrokerError(f"message {message.sequence} does not hold the {message.total} records that it announces")
    return records
