"""What a JetStream stream is made of as a log: its configuration, its epoch, its ends, and where an offset is."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final

from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from ...errors import BrokerError, LogResetError
from ..protocol import Retention
from ..records import LogState, new_epoch
from .keys import KeyIndex
from .link import Link
from .messages import Message

__all__ = ["NatsStream"]

_REMEMBERED: Final = 64
"""Messages, without their data, that are asked for once: the ends of the stream, and a bisection's first steps."""

_SUBJECT: Final = re.compile(r"tickertape\.[A-Za-z0-9_-]+\.([0-9A-Za-z_]{1,64})\.\*")
_BASE: Final = re.compile(r"begins behind message (\d+)")

_FIXED: Final[dict[str, tuple[object, ...]]] = {
    "retention": ("limits",),
    "discard": ("old",),
    "deny_delete": (True,),
    "max_age": (0.0, None),  # the last message says where the log is, and must stay
    "max_msgs_per_subject": (-1, 0, None),
}
"""Settings of a stream that a log relies on, and what they may be; a stream that we make has the first."""


class NatsStream:
    """Know a stream as the log that it is; forgets what it knew when the epoch changes.

    Arguments:
        name: the stream's name.
        retention: how much is kept.
        storage: ``"file"`` or ``"memory"``.
        replicas: how many servers keep it.

    Attributes:
        epoch: the life of the log that was seen last.
        keys: the keys of its records.
    """

    def __init__(self, name: str, retention: Retention, storage: str, replicas: int) -> None:
        self.name = name
        self.epoch = ""
        self.keys = KeyIndex("")
        self._retention = retention
        self._adjusted = False
        self._messages: dict[int, Message] = {}  # without their data
        self._made = StreamConfig(
            name=name,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            storage=StorageType(storage),
            num_replicas=replicas,
            max_msgs=-1 if retention.events is None else retention.events,
            max_bytes=-1 if retention.bytes is None else retention.bytes,
            deny_delete=True,  # offsets have no holes
        )

    async def create(self, link: Link) -> None:
        """Make the stream, with its first epoch."""
        await link.create(self._made.evolve(**self._names(new_epoch(), 0)))

    def subject(self, epoch: str, kind: str) -> str:
        """Return where messages with keys (``"keyed"``) or without (``"plain"``) are published."""
        return f"tickertape.{self.name}.{epoch}.{kind}"

    def enter(self, epoch: str) -> None:
        """Forget what is known about another life of the log."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.keys = KeyIndex(self.subject(epoch, "keyed"))
            self._messages = {}

    def _names(self, epoch: str, base: int) -> dict[str, Any]:
        return {
            "subjects": [self.subject(epoch, "*")],
            "description": f"A log of tickertape; it begins behind message {base}",
        }

    def read_epoch(self, info: StreamInfo) -> str:
        """Return the log's epoch.

        Raises:
            BrokerError: the stream is someone else's, or has settings, made by someone else, under which it is no log.
        """
        subjects = info.config.subjects or []
        match = _SUBJECT.fullmatch(subjects[0]) if len(subjects) == 1 else None
        if match is None:
            raise BrokerError(f"expected a stream of tickertape under the name {self.name!r}, got one of {subjects}")
        for name, allowed in _FIXED.items():
            found = getattr(info.config, name)
            if found not in allowed:
                said = f"expected the stream {self.name!r} with the setting {name}={allowed[0]}, got {found}"
                raise BrokerError(f"{said}: change it, or give another name")
        return match[1]

    async def begin_epoch(self, link: Link, info: StreamInfo) -> None:
        """Give a log that has lost records another epoch; what it still has is kept."""
        base = 0 if info.state.messages else info.state.last_seq
        await link.update(info.config.evolve(**self._names(new_epoch(), base)))

    async def adjust(self, link: Link, info: StreamInfo) -> None:
        """Give the stream our limits, once."""
        limits = {"max_msgs": self._made.max_msgs, "max_bytes": self._made.max_bytes}
        if not self._adjusted and any(getattr(info.config, name) != limit for name, limit in limits.items()):
            await link.update(info.config.evolve(**limits))
        self._adjusted = True

    async def survey(self, link: Link, info: StreamInfo, epoch: str) -> LogState | None:
        """Return the log's state: a negative offset if it was emptied, ``None`` if it is to be looked at again."""
        state = info.state
        if not state.messages:
            base = _BASE.search(info.config.description or "")
            began = base is not None and int(base[1]) == state.last_seq
            return LogState(epoch, 1, 0 if began else -1)
        last = await self.message(link, state.last_seq)
        first = await self._first(link, state.first_seq, state.last_seq)
        if last is None or first is None:
            return None
        if self._is_old(first):
            first = await self._remove_old(link, state.first_seq, state.last_seq)
        oldest = last.newest + 1 if first is None or first.part else first.first
        if self._retention.events is not None:
            oldest = max(oldest, last.newest - self._retention.events + 1)
        self.keys.forget(state.first_seq, oldest)
        return LogState(epoch, oldest, last.newest)

    async def _remove_old(self, link: Link, first: int, last: int) -> Message | None:
        """Remove what is too old, but not the last message; return the first one that is not."""
        young = await self._bisect(link, first, last, lambda message: not self._is_old(message))
        upto = last if young is None else young.sequence
        if upto > first:
            await link.purge(upto)
        return None if young is None else await self._first(link, upto, last)

    def _is_old(self, message: Message) -> bool:
        age = self._retention.age
        return age is not None and message.time < time.time() - age

    async def message(self, link: Link, sequence: int) -> Message | None:
        """Return a message without its data, ``None`` if it is not there."""
        seen = self._messages
        known = seen.get(sequence)
        if known is None:
            found = await link.get(sequence)
            if found is None:
                return None
            known = found._replace(data=b"")
            while len(seen) >= _REMEMBERED:
                del seen[next(iter(seen))]
            # Into the memory of the life that was asked about, although another may have begun meanwhile.
            seen[sequence] = known
        return known

    async def _first(self, link: Link, sequence: int, last: int) -> Message | None:
        """Return the first message with which a batch begins, or the last one."""
        message = await self.message(link, sequence)
        while message is not None and message.part and sequence < last:
            sequence += 1
            message = await self.message(link, sequence)
        return message

    async def _bisect(self, link: Link, low: int, last: int, wanted: Callable[[Message], bool]) -> Message | None:
        """Return the first message from which on all are wanted; those that are gone are not."""
        found = None
        high = last + 1
        while low < high:
            middle = (low + high) // 2
            message = await self.message(link, middle)
            if message is not None and wanted(message):
                found, high = message, middle
            else:
                low = middle + 1
        return found

    async def locate(self, link: Link, after: int) -> int:
        """Return the sequence of the message with which the batch of the next record begins."""
        info = await link.info()
        if info is None:
            raise LogResetError(f"expected the stream {self.name!r}, got none: it was deleted")
        first, last = info.state.first_seq, info.state.last_seq
        if not info.state.messages:
            return last + 1
        following = await self._bisect(link, first, last, lambda message: message.first > after + 1)
        sequence = last if following is None else following.sequence - 1
        message = await self.message(link, sequence)
        if message is None:
            return sequence + 1
        if message.complete and message.newest <= after:
            return sequence + 1
        return max(1, sequence - message.part)
