"""A JetStream stream used as a log: its configuration, its epoch, its extent, and the message of an offset."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from ...errors import BrokerError
from ..records import LogState, new_epoch
from ..retention import Retention
from .keys import KeyIndex
from .link import Link
from .messages import Message

_REMEMBERED: Final = 64
"""Messages, without their data, that are requested once: the ends of the stream, and the first steps of a bisection."""

_ATTEMPTS: Final = 50
"""Times that the ends of a stream are read while it is trimmed all the time."""

_PAUSE: Final = 0.02
"""Seconds between them: a message was trimmed, or (NATS 2.9) cannot be read yet in a new stream."""

_SUBJECT: Final = re.compile(r"tickertape\.[A-Za-z0-9_-]+\.([0-9A-Za-z_]{1,64})\.\*")
_BASE: Final = re.compile(r"begins after message (\d+)")

_FIXED: Final[dict[str, tuple[object, ...]]] = {
    "retention": ("limits",),
    "discard": ("old",),
    "deny_delete": (True,),
    "max_age": (0.0, None),  # the last message holds the newest offset, and must stay
    "max_msgs_per_subject": (-1, 0, None),
}
"""Settings of a stream that a log relies on, and their permitted values. A stream that we create has the first."""


class Extent(NamedTuple):
    """The extent of a log at one moment.

    Attributes:
        info: the stream.
        state: the state of the log.
        purged: True if all messages were removed by someone else.
        first: the sequence of the first message within the limit of age, or of the last message if all are older.
        last: the sequence of the last message.
    """

    info: StreamInfo
    state: LogState
    purged: bool
    first: int
    last: int


class NatsStream:
    """Interpret a stream as a log. What is remembered of it is dropped when the epoch changes.

    Arguments:
        name: the stream's name.
        retention: the limits of the log.
        storage: ``"file"`` or ``"memory"``.
        replicas: the number of servers that store it.

    Attributes:
        epoch: the epoch that was seen last.
        keys: the keys of its records.
    """

    def __init__(self, name: str, retention: Retention, storage: str, replicas: int) -> None:
        self.name = name
        self.epoch = ""
        self.keys = KeyIndex("")
        self._retention = retention
        self._adjusted = False
        self._messages: dict[int, Message] = {}  # without their data
        self._config = StreamConfig(
            name=name,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            storage=StorageType(storage),
            num_replicas=replicas,
            max_msgs=-1 if retention.events is None else retention.events,
            max_bytes=-1 if retention.bytes is None else retention.bytes,
            deny_delete=True,  # offsets have no holes
        )

    # Configuration and epoch.

    async def create(self, link: Link) -> None:
        """Create the stream, with its first epoch."""
        await link.create(self._config.evolve(**self._epoch_settings(new_epoch(), 0)))

    def subject(self, epoch: str, kind: str) -> str:
        """Return the subject of messages with keys (``"keyed"``) or without (``"plain"``)."""
        return f"tickertape.{self.name}.{epoch}.{kind}"

    def _epoch_settings(self, epoch: str, base: int) -> dict[str, Any]:
        return {
            "subjects": [self.subject(epoch, "*")],
            "description": f"A log of tickertape; it begins after message {base}",
        }

    def read_epoch(self, info: StreamInfo) -> str:
        """Return the log's epoch.

        Raises:
            BrokerError: the stream is not a log of tickertape, or someone gave it settings that a log cannot have.
        """
        subjects = info.config.subjects or []
        match = _SUBJECT.fullmatch(subjects[0]) if len(subjects) == 1 else None
        if match is None:
            raise BrokerError(f"stream {self.name!r} is not a log of tickertape: its subjects are {subjects}")
        for name, allowed in _FIXED.items():
            found = getattr(info.config, name)
            if found not in allowed:
                expected = f"expected stream {self.name!r} to have {name}={allowed[0]}, got {found}"
                raise BrokerError(f"{expected}: change the setting, or use another stream")
        return match[1]

    async def begin_epoch(self, link: Link, extent: Extent) -> None:
        """Begin a new epoch of a log that has lost records. It keeps the records that it still has."""
        info = extent.info
        base = 0 if info.state.messages else info.state.last_seq
        await link.update(info.config.evolve(**self._epoch_settings(new_epoch(), base)))

    async def adjust(self, link: Link, extent: Extent) -> None:
        """Set our limits on the stream, once, and remove the messages over the limit of age, but not the last one."""
        config = extent.info.config
        limits = {"max_msgs": self._config.max_msgs, "max_bytes": self._config.max_bytes}
        if not self._adjusted and any(getattr(config, name) != limit for name, limit in limits.items()):
            await link.update(config.evolve(**limits))
        self._adjusted = True
        if self._retention.age is not None and extent.info.state.first_seq < extent.first <= extent.last:
            await link.purge(extent.first)

    # Extent.

    async def survey(self, link: Link) -> Extent | None:
        """Return the extent of the log, or ``None`` if there is no stream.

        Raises:
            BrokerError: the stream is not a log, or cannot be read.
        """
        for _ in range(_ATTEMPTS):
            info = await link.info()
            if info is None:
                return None
            extent = await self._measure(link, info)
            if extent is not None:
                return extent
            await asyncio.sleep(_PAUSE)
        raise BrokerError(f"the ends of stream {self.name!r} could not be read in {_ATTEMPTS} attempts")

    async def _measure(self, link: Link, info: StreamInfo) -> Extent | None:
        """Return the extent of the log, or ``None`` if one of its ends was removed during the call."""
        epoch = self.read_epoch(info)
        if epoch != self.epoch:
            self.epoch = epoch
            self.keys = KeyIndex(self.subject(epoch, "keyed"))
            self._messages = {}
        state = info.state
        if not state.messages:
            base = _BASE.search(info.config.description or "")
            begun = base is not None and int(base[1]) == state.last_seq
            return Extent(info, LogState(epoch, 1, 0), not begun, state.last_seq + 1, state.last_seq)
        last = await self._message(link, state.last_seq)
        first = await self._message(link, state.first_seq)
        if last is None or first is None:
            return None
        if self._is_old(first):
            first = await self._bisect(link, state.first_seq, state.last_seq, lambda message: not self._is_old(message))
        oldest = last.newest + 1 if first is None else first.first
        if self._retention.events is not None:
            oldest = max(oldest, last.newest - self._retention.events + 1)
        self.keys.forget(state.first_seq, oldest)
        self.keys.append(last.sequence - 1, last)
        return Extent(info, LogState(epoch, oldest, last.newest), False, (first or last).sequence, last.sequence)

    def _is_old(self, message: Message) -> bool:
        age = self._retention.age
        return age is not None and message.time < time.time() - age

    # Messages.

    async def locate(self, link: Link, extent: Extent, after: int) -> int:
        """Return the sequence of the message with the record after the offset ``after``."""
        if after >= extent.state.newest:
            return extent.last + 1
        for message in self._messages.values():
            if message.newest == after:
                return message.sequence + 1
        found = await self._bisect(link, extent.first, extent.last, lambda message: message.newest > after)
        return extent.last + 1 if found is None else found.sequence

    def remember(self, messages: Iterable[Message]) -> None:
        """Keep messages without their data, so that they are not requested again."""
        for message in messages:
            while len(self._messages) >= _REMEMBERED:
                del self._messages[next(iter(self._messages))]
            self._messages[message.sequence] = message._replace(data=b"")

    async def _message(self, link: Link, sequence: int) -> Message | None:
        epoch = self.epoch
        found = self._messages.get(sequence) or await link.get(sequence)
        if found is not None and sequence not in self._messages and epoch == self.epoch:
            self.remember([found])
        return found

    async def _bisect(self, link: Link, low: int, last: int, wanted: Callable[[Message], bool]) -> Message | None:
        """Return the first message from which on all are wanted. Messages that were removed are not wanted."""
        found = None
        high = last + 1
        while low < high:
            middle = (low + high) // 2
            message = await self._message(link, middle)
            if message is not None and wanted(message):
                found, high = message, middle
            else:
                low = middle + 1
        return found
