"""``Broker``, the interface of a log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

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


@runtime_checkable
class DiscardingBroker(Protocol):
    """A broker that can remove the records of one topic before its limits do."""

    async def discard(self, topic: str, upto: int) -> None:
        """Remove the records of a topic up to an offset. Does nothing if they are gone.

        A topic without a separate rule keeps its records: only rules may leave holes in a log. A reader of the
        topic whose cursor is older gets a gap; the readers of other topics do not.

        Arguments:
            topic: the topic.
            upto: the offset of the newest record to remove.

        Raises:
            BrokerError: the log cannot be reached. The records may be removed or not.
        """
