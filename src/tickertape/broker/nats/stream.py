"""A JetStream stream used as a log: its configuration, its epoch, and its extent."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from ...errors import BrokerError
from ..records import LogState, new_epoch
from ..retention import Retention
from .index import Index
from .link import Link

_SUBJECT: Final = re.compile(r"tickertape\.[A-Za-z0-9_-]+\.([0-9A-Za-z_]{1,64})\.\*")
_BASE: Final = re.compile(r"begins after message (\d+)")

_FIXED: Final[dict[str, tuple[object, ...]]] = {
    "retention": ("limits",),
    "discard": ("old",),
    "deny_delete": (False, None),
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
        records: its records.
    """

    info: StreamInfo
    state: LogState
    purged: bool
    records: Index


class NatsStream:
    """Interpret a stream as a log.

    Arguments:
        name: the stream's name.
        retention: the limits of the log.
        storage: ``"file"`` or ``"memory"``.
        replicas: the number of servers that store it.

    Attributes:
        index: the records of the current epoch, as far as they were read.
    """

    def __init__(self, name: str, retention: Retention, storage: str, replicas: int) -> None:
        self.name = name
        self.index = Index(retention, "")
        self._retention = retention
        self._adjusted = False
        self._config = StreamConfig(
            name=name,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            storage=StorageType(storage),
            num_replicas=replicas,
            max_msgs=-1,
            max_bytes=_most_bytes(retention),
        )

    # Configuration and epoch.

    async def create(self, link: Link) -> None:
        """Create the stream, with its first epoch."""
        await link.create(self._config.evolve(**self._epoch_settings(new_epoch(), 0)))

    def subject(self, epoch: str, kind: str) -> str:
        """Return the subject of ``"records"`` or ``"marks"``."""
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

    async def adjust(self, link: Link, info: StreamInfo) -> None:
        """Set our limits on the stream, once."""
        limits = {"max_msgs": self._config.max_msgs, "max_bytes": self._config.max_bytes}
        if not self._adjusted and any(getattr(info.config, name) != limit for name, limit in limits.items()):
            await link.update(info.config.evolve(**limits))
        self._adjusted = True

    async def survey(self, link: Link) -> Extent | None:
        """Return the extent of the log, or ``None`` if there is no stream.

        Raises:
            BrokerError: the stream is not a log, or cannot be read.
        """
        info = await link.info()
        if info is None:
            return None
        epoch, state = self.read_epoch(info), info.state
        if epoch != self.index.epoch or state.last_seq < self.index.upto:
            self.index = Index(self._retention, epoch)
        index = self.index
        if not state.messages:
            base = _BASE.search(info.config.description or "")
            begun = base is not None and int(base[1]) == state.last_seq
            if begun:
                index.upto = state.last_seq
            return Extent(info, LogState(epoch, 1, 0), not begun, index)
        index.lose_before(state.first_seq)
        await index.catch_up(link, state.last_seq)
        return Extent(info, index.state(), False, index)


def _most_bytes(retention: Retention) -> int:
    """Return the limit of bytes of the stream; the log itself keeps half of them."""
    limits = [retention.bytes, *(limits.bytes for _, limits in retention.rules)]
    return -1 if None in limits else 2 * sum(limit for limit in limits if limit is not None)
