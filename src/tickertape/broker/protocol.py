"""``Broker``, the interface of a log, and ``Retention``, the limits of what it keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, runtime_checkable

from ..wire import Cursor, Draft
from .records import LogState, Page, Record

TopicFilter: TypeAlias = Callable[[str], bool]
"""Returns True for the topics to read. It is called once per topic or record, perhaps in another thread."""


@runtime_checkable
class Broker(Protocol):
    """One totally ordered log that all hubs on it share.

    A broker belongs to one event loop. All methods may be called concurrently between ``open`` and
    ``close``. If a call is cancelled, it has either taken effect or not; an append never happens in part.

    Epochs protect readers from lost records. If the log is wiped, or a failover or a restored backup may have
    lost records, it gets a new epoch before anything is appended to it, so an offset is never reused under one epoch.
    """

    async def open(self) -> LogState:
        """Connect, create the log if there is none, and check it. Called once, before anything else.

        Raises:
            BrokerError: the log cannot be reached, created or read.
        """

    async def state(self) -> LogState:
        """Ask the store for the current state of the log; the end-to-end check of a health endpoint.

        May be called at any time, and changes nothing; but if the log was removed, it creates a new one, as
        ``open`` does.

        Raises:
            BrokerError: the log cannot be reached or read.
        """

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        """Append all drafts, in order and next to each other, or none of them.

        Drafts are valid: they were checked when they were built. Returns one cursor for each draft as
        soon as they are stored as durably as the broker was asked to. If the log still knows the key of a
        draft, the draft is not appended, and its cursor is that of the first.

        Raises:
            BatchTooLargeError: the store cannot take so much at once. Nothing was stored.
            BrokerError: nothing was stored, or (after a lost connection) the result is unknown. If every
                draft has a key, you can safely append them again.
        """

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        """Return the oldest kept records after the offset ``after``, in order, and the state of the log.

        Both belong to one moment of the log: the records have the epoch of the state.

        Arguments:
            after: an offset; records that are no longer kept are skipped.
            limit: the greatest number of records. Fewer mean that the end of the log was reached.
            topics: the topics to return; ``None`` for all.

        Raises:
            BrokerError: the log cannot be read.
        """

    def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        """Yield the records after a cursor, then everything that anyone appends, in order, without end.

        If the connection to the server is lost, the tail reconnects and continues after its last offset.
        Finalise it with ``aclose()``.

        Raises:
            LogResetError: the log has another epoch than the cursor, or it has lost records that this
                tail yielded. Ask for its ``state`` and start again.
            LogTrimmedError: records after the cursor are no longer kept.
            BrokerError: a log without a server, for which a tail could wait, cannot be read.
        """

    async def close(self) -> None:
        """Close all connections; may be called twice. Waiting calls end. A closed broker is not opened again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The limits of what a log keeps. The first limit that is reached counts; ``None`` for no limit.

    Attributes:
        events: number of records, at least 1.
        bytes: bytes of topics, types and data together, at least 1.
        age: seconds since the append, greater than 0.

    Raises:
        ValueError: a limit is out of its range.
    """

    events: int | None = 100_000
    bytes: int | None = 64 * 1024 * 1024
    age: float | None = None

    def __post_init__(self) -> None:
        for name in ("events", "bytes"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"expected {name} to be an int of at least 1, or None, got {value!r}")
        age: object = self.age
        if age is not None and (isinstance(age, bool) or not isinstance(age, (int, float)) or not age > 0):
            raise ValueError(f"expected age to be a number of seconds greater than 0, or None, got {age!r}")


DEFAULT_RETENTION: Final = Retention()
"""Also the limits of a hub's memory: several minutes of a busy service, and less memory than its process needs."""
