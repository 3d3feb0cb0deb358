"""The keys of a NATS stream's records, in memory: JetStream itself knows message ids for two minutes only."""

from __future__ import annotations

from itertools import takewhile
from typing import Final, NamedTuple

from .link import Link
from .messages import Message, digest

_SILENCE: Final = 2.0
"""Seconds without an expected message after which reading starts again."""


class _Known(NamedTuple):
    sequence: int
    offset: int


class KeyIndex:
    """The keys of all records up to a sequence.

    It is filled when the first key is published, from the headers of the messages that have keys, and then
    follows the stream as far as each append needs.

    Arguments:
        subject: the subject to which messages with keys are published.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._known: dict[str, _Known] = {}  # in the order of the stream
        self._upto = 0

    def __len__(self) -> int:
        return len(self._known)

    async def read_up_to(self, link: Link, sequence: int) -> None:
        """Add all keys up to a sequence."""
        while self._upto < sequence:
            consumer = link.consume(self._upto + 1, subject=self._subject, headers_only=True)
            async with consumer as (inbox, subscription):
                missing = await link.count(subscription)
                while missing > 0 and (messages := await inbox.take(_SILENCE)):
                    missing -= len(messages)
                    for message in messages:
                        self.add(message)
            if missing <= 0:
                self._upto = max(self._upto, sequence)

    def add(self, message: Message) -> None:
        """Add the keys of the stream's next message with keys."""
        for key, offset in message.keys:
            self._known[key] = _Known(message.sequence, offset)
        self._upto = max(self._upto, message.sequence)

    def append(self, before: int, message: Message) -> None:
        """Add the keys of our own message after the sequence ``before``, if all keys up to that are known."""
        if self._upto >= before:
            self.add(message)

    def find(self, key: str) -> int | None:
        """Return the offset of a key's record."""
        known = self._known.get(digest(key))
        return None if known is None else known.offset

    def forget(self, sequence: int, offset: int) -> None:
        """Forget the keys of messages before ``sequence`` and of records before ``offset``."""
        outdated = takewhile(lambda item: item[1].sequence < sequence or item[1].offset < offset, self._known.items())
        for key, _ in list(outdated):
            del self._known[key]
