"""What the messages of a NATS stream say: how records become messages, and messages records again.

A batch is one message, or, if it is longer than the server takes, several that follow each other
without another between them: *parts*. Only with its last part a batch is there. Parts without it,
which a publisher leaves behind when it fails or when another one comes in between, count for nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from ...errors import BrokerError
from ...wire import Draft
from ..records import Record

__all__ = ["ID", "Assembly", "Message", "digest", "encode", "parse"]

_PLACE: Final = "Tickertape-Place"
"""Header: first offset, number of records, number of this part, number of parts."""

_KEYS: Final = "Tickertape-Keys"
"""Header of a batch's last part: the keys' digests, each with its record's offset."""

ID: Final = "Nats-Msg-Id"
"""Header: the batch's name and the number of this part."""

_ENVELOPE: Final = 512
"""Bytes that a message's other headers take at most."""


class Message(NamedTuple):
    """A message of the stream.

    Attributes:
        sequence: its number in the stream.
        time: when it was stored, in seconds by the server's clock.
        id: the name that its publisher gave to the batch.
        first: the offset of the batch's first record.
        records: how many records the batch has.
        part: number of this part, from 0.
        parts: how many parts the batch has.
        keys: digests of keys with the offsets of their records.
        data: this part of the batch.
    """

    sequence: int
    time: float
    id: str
    first: int
    records: int
    part: int
    parts: int
    keys: tuple[tuple[str, int], ...]
    data: bytes

    @property
    def complete(self) -> bool:
        """Whether the batch is there, with this part."""
        return self.part == self.parts - 1

    @property
    def newest(self) -> int:
        """The log's newest offset when this was its last message."""
        return self.first + self.records - 1 if self.complete else self.first - 1


def digest(key: str) -> str:
    """Return what stands for a key: 128 bits, so that no two keys that differ are taken for one."""
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def encode(name: str, first: int, drafts: Sequence[Draft], limit: int) -> list[tuple[dict[str, str], bytes]]:
    """Return the messages of a batch, headers and data.

    Arguments:
        name: the batch's name.
        first: the offset of the first record.
        drafts: the records.
        limit: bytes of a message that the server takes.

    Raises:
        BrokerError: there are so many keys that they do not fit into a message.
    """
    keys = ",".join(
        f"{offset}:{digest(draft.key)}" for offset, draft in enumerate(drafts, first) if draft.key is not None
    )
    room = limit - _ENVELOPE - len(keys)
    if room < limit // 4:
        raise BrokerError(f"expected a batch whose keys take at most {3 * limit // 4} bytes, got {len(keys)}")
    data = json.dumps(
        [(draft.topic, draft.data, draft.event) for draft in drafts], ensure_ascii=False, separators=(",", ":")
    ).encode()
    chunks = [data[start : start + room] for start in range(0, len(data), room)]
    messages = []
    for part, chunk in enumerate(chunks):
        headers = {ID: f"{name}-{part}", _PLACE: f"{first} {len(drafts)} {part} {len(chunks)}"}
        if keys and part == len(chunks) - 1:
            headers[_KEYS] = keys
        messages.append((headers, chunk))
    return messages


def parse(sequence: int, time: float, headers: Mapping[str, str] | None, data: bytes) -> Message:
    """Return what a message says.

    Raises:
        BrokerError: it was not published by a broker.
    """
    try:
        found = headers or {}
        first, count, part, parts = (int(number) for number in found[_PLACE].split())
        pairs = [pair.partition(":") for pair in found.get(_KEYS, "").split(",") if pair]
        keys = tuple((key, int(offset)) for offset, _, key in pairs)
        return Message(sequence, time, found.get(ID, ""), first, count, part, parts, keys, data)
    except (KeyError, ValueError):
        raise BrokerError(f"expected records of tickertape in message {sequence}, got {dict(headers or {})}") from None


class Assembly:
    """Put the parts of batches together, as they come from the stream in order."""

    def __init__(self) -> None:
        self._parts: list[Message] = []

    def add(self, message: Message) -> list[Record]:
        """Take the next message; return the records of the batch that it completes."""
        if message.part == 0:
            self._parts = []
        elif not self._parts or not _follows(self._parts[-1], message):
            self._parts = []
            return []
        self._parts.append(message)
        if not message.complete:
            return []
        data = b"".join(part.data for part in self._parts)
        self._parts = []
        return [Record(offset, *fields) for offset, fields in enumerate(_reordered(data), message.first)]


def _follows(before: Message, after: Message) -> bool:
    return (before.sequence + 1, before.first, before.part + 1, before.id.rpartition("-")[0]) == (
        after.sequence,
        after.first,
        after.part,
        after.id.rpartition("-")[0],
    )


def _reordered(data: bytes) -> list[tuple[str, str | None, str]]:
    """Return topic, event and data of each record: a draft has them in another order."""
    return [(topic, event, text) for topic, text, event in json.loads(data)]
