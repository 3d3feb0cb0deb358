"""``Broker``, what a hub asks of a log, and how much of it is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, runtime_checkable

from .records import Cursor, Draft, LogState, Record

__all__ = ["DEFAULT_RETENTION", "Broker", "Retention", "TopicFilter"]

TopicFilter: TypeAlias = Callable[[str], bool]
"""Tells whether a topic is wanted."""


@runtime_checkable
class Broker(Protocol):
    """One totally ordered log that all hubs on it share.

    A broker belongs to one event loop. All methods may be called concurrently between ``open`` and
    ``close``. A call that is cancelled has either happened or not; an append never happens in part.
    """

    async def open(self) -> LogState:
        """Connect, make the log if there is none, and return its present state.

        May be called again at any time: it is also the end-to-end check of a health endpoint.

        Raises:
            BrokerError: the log cannot be reached or read.
        """

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        """Append all drafts, in order and next to each other, or none of them.

        Returns when they are stored as durably as the broker was asked to, one cursor for each.
        A draft whose key the log still knows is not appended; its cursor is that of the first.

        Raises:
            BrokerError: nothing was stored, or (a lost connection) it is not known whether. With a
                key on each draft it is safe to try again.
        """

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> list[Record]:
        """Return the oldest records behind offset ``after`` that are kept, in order.

        Arguments:
            after: an offset; records that are no longer kept are passed over.
            limit: the greatest number of records. Fewer mean that the end of the log was reached.
            topics: which topics to return; ``None`` for all. May be called in another thread.

        Raises:
            BrokerError: the log cannot be read.
        """

    def tail(self, after: int) -> AsyncIterator[list[Record]]:
        """Give what is behind offset ``after``, then what is appended by anyone, in order, for ever.

        A tail that loses its server connects again and goes on from its last offset. Finalised by
        ``aclose()``.

        Raises:
            LogResetError: the log has another epoch than when it was opened, or has lost records
                that this tail has given: ``open`` it again, offsets start over.
            LogTrimmedError: records behind ``after`` are no longer kept.
            BrokerError: a log without a server, which a tail could wait for, cannot be read.
        """

    async def close(self) -> None:
        """Let go of all connections; may be called twice. Waiting calls end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much of a log is kept; the first limit that is reached counts, ``None`` for no limit.

    Attributes:
        events: number of records.
        bytes: bytes of topics, types and data together.
        age: seconds since the append.
    """

    events: int | None = 100_000
    bytes: int | None = 64 * 1024 * 1024
    age: float | None = None


DEFAULT_RETENTION: Final = Retention()
"""What a hub keeps in memory too: several minutes of a busy service, and less memory than its process."""
