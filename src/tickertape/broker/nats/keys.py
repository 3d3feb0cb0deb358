"""The keys of a NATS stream's records, in memory: JetStream itself knows message ids for two minutes only."""

from __future__ import annotations

from typing import Final, NamedTuple

from .link import Feed, Link
from .messages import Message, digest

__all__ = ["KeyIndex"]

_SILENCE: Final = 2.0
"""Seconds without a message, of those that are there, after which reading them is begun again."""


class _Known(NamedTuple):
    sequence: int
    offset: int


class KeyIndex:
    """Know the keys of all records up to a sequence.

    It is filled when the first key is published, from the headers of those messages that have keys,
    and then follows the stream as far as each append needs.

    Arguments:
        subject: where messages with keys are published.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._known: dict[str, _Known] = {}  # in the order of the stream
        self._upto = 0

    def __len__(self) -> int:
        return len(self._known)

    async def reach(self, link: Link, sequence: int) -> None:
        """Take in all keys up to a sequence."""
        while self._upto < sequence:
            async with link.consume(self._upto + 1, subject=self._subject, bodies=False) as feed:
                if await self._take(feed):
                    self._upto = max(self._upto, sequence)

    async def _take(self, feed: Feed[Message]) -> bool:
        """Take in what was there when the feed began; tell whether all of it came."""
        seen = 0
        while seen < feed.waiting:
            messages = await feed.take(_SILENCE)
            if not messages:
                return False
            for message in messages:
                self.add(message)
            seen += len(messages)
        return True

    def add(self, message: Message) -> None:
        """Take in the keys of the stream's next message with keys."""
        for key, offset in message.keys:
            self._known[key] = _Known(message.sequence, offset)
        self._upto = max(self._upto, message.sequence)

    def append(self, before: int, message: Message) -> None:
        """Take in the keys of a message of our own, if all up to ``before``, behind which it stands, are known."""
        if self._upto >= before:
            self.add(message)

    def find(self, key: str) -> int | None:
        """Return the offset of a key's record."""
        known = self._known.get(digest(key))
        return None if known is None else known.offset

    def forget(self, sequence: int, offset: int) -> None:
        """Forget keys whose messages stand before ``sequence`` or whose records before ``offset``."""
        for key, known in list(self._known.items()):
            if known.sequence >= sequence and known.offset >= offset:
                break
            del self._known[key]
