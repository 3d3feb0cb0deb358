"""The messages of a NATS stream: a batch of records is one message.

The data starts with a line of JSON, ``[[topic, event, length], ...]``, followed by the data of all records.
Lengths count characters. The headers hold the offsets, so a position is found without reading any data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from ...errors import BrokerError
from ...wire import Draft
from ..records import Record

_PLACE: Final = "Tickertape-Place"
"""Header: the offset of the first record, and the number of records."""

_KEYS: Final = "Tickertape-Keys"
"""Header: the digests of the keys, each with the offset of its record."""

_ID: Final = "Nats-Msg-Id"
"""Header: a random name of the message, by which the server recognises it when it is published again."""


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
        data: the records.
    """

    sequence: int
    time: float
    epoch: str
    id: str
    first: int
    total: int
    keys: tuple[tuple[str, int], ...]
    data: bytes

    @property
    def newest(self) -> int:
        """The offset of the last record."""
        return self.first + self.total - 1


def digest(key: str) -> str:
    """Return 128 bits that stand for a key: no two different keys share a digest."""
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def encode(message: Message, drafts: Sequence[Draft]) -> tuple[dict[str, str], bytes]:
    """Return the headers and the data of a message with these records."""
    headers = {_ID: message.id, _PLACE: f"{message.first} {message.total}"}
    if message.keys:
        headers[_KEYS] = ",".join(f"{offset}:{key}" for key, offset in message.keys)
    index = [(draft.topic, draft.event, len(draft.data)) for draft in drafts]
    text = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
    return headers, "".join((text, "\n", *(draft.data for draft in drafts))).encode()


def parse(sequence: int, time: float, subject: str, headers: Mapping[str, str] | None, data: bytes) -> Message:
    """Return the message with these headers.

    Raises:
        BrokerError: the message was not published by a broker of tickertape.
    """
    found = headers or {}
    try:
        epoch = subject.split(".")[2]
        first, total = (int(number) for number in found[_PLACE].split())
        pairs = [pair.partition(":") for pair in found.get(_KEYS, "").split(",") if pair]
        keys = tuple((key, int(offset)) for offset, _, key in pairs)
        return Message(sequence, time, epoch, found.get(_ID, ""), first, total, keys, data)
    except (IndexError, KeyError, ValueError):
        raise BrokerError(f"message {sequence} does not hold records of tickertape: {dict(found)}") from None


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
