"""``RemoteBroker``, the base of brokers on a server: deadlines, fencing, group commit, and tails that reconnect."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeVar

from ..errors import BrokerError, LogResetError, LogTrimmedError
from ..timing import backoff, sleep
from ..wire import Cursor, Draft
from .grouping import DEFAULT_GROUP, GroupCommit
from .protocol import TopicFilter
from .records import LogState, Page, Record, contiguous
from .retention import DEFAULT_RETENTION, Lanes, Retention

logger = logging.getLogger("tickertape.broker")

T = TypeVar("T")

DEFAULT_CONNECT_TIMEOUT: Final = 3.0
"""Seconds for a connection with its authentication. A server in the same network takes milliseconds."""

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds for a request: longer than any fsync on a busy disk, shorter than a publisher's patience."""

_FIRST_PAUSE: Final = 0.1
"""Seconds until a tail that lost its server reconnects: a restart takes about as long."""

_LONGEST_PAUSE: Final = 5.0
"""The longest pause between attempts, in seconds. Subscribers wait no longer after the server has returned."""

_ATTEMPTS: Final = 3
"""Attempts to append to a log that was reset: one for the old epoch, one for the new, one for a race with others."""

_NOTHING_SEEN: Final = Cursor("none", 0)
"""The newest record that was shown, until there is one. No log has this epoch."""

_SCAN: Final = 1000
"""Records read at once if only some of their topics are wanted."""


def is_lossless(options: Mapping[str, str]) -> bool:
    """Return True if the options of a URL promise that no failover loses records.

    Raises:
        BrokerError: the option has another value.
    """
    failover = options.get("failover", "")
    if failover not in ("", "lossless"):
        raise BrokerError(f"expected the option failover to be 'lossless', got {failover!r}")
    return bool(failover)


class RemoteBroker(ABC):
    """A log on a server that may be unreachable for a while, or return with fewer records than it had.

    A driver implements the primitives below. They raise nothing but ``BrokerError`` and its subclasses.

    An epoch is fenced (another one begins if records may be lost) in ``open``, in ``append`` and when a tail
    checks its log, never by ``state`` and ``read``. A fence compares the log with the newest record that was
    shown *before* its request was sent: appends acknowledged during the request are no sign of a loss.

    Arguments:
        retention: the limits of the log.
        timeout: seconds for one request to the server, connecting included.
        random: returns a number from 0 to 1, for the jitter of reconnects.
        group: the greatest number of drafts stored together.
    """

    def __init__(
        self,
        *,
        retention: Retention = DEFAULT_RETENTION,
        timeout: float = DEFAULT_TIMEOUT,
        random: Callable[[], float] = random.random,
        group: int = DEFAULT_GROUP,
    ) -> None:
        self._lane_of = Lanes(retention)
        self._timeout = timeout
        self._random = random
        self._group = GroupCommit(self._commit, group)
        self._seen = _NOTHING_SEEN  # the newest record that this process has shown to anyone
        self._closed = False
        self._failing = False  # the last request failed
        self._recovered = asyncio.Event()  # a request succeeded again, or the broker is closed

    # What a driver implements.

    @abstractmethod
    async def _fence(self, seen: Cursor) -> LogState:
        """Connect, create the log if there is none, and begin a new epoch if records may be lost.

        Arguments:
            seen: the newest record that was shown. If the log has its epoch and ends before it, records are lost.
        """

    @abstractmethod
    async def _state(self) -> LogState:
        """Return the state of the log with one request that changes nothing.

        Raises:
            LogResetError: there is no log.
        """

    @abstractmethod
    async def _page(self, after: int, limit: int) -> Page:
        """Return records and the state of the log at one moment, with one request that changes nothing.

        Raises:
            LogResetError: there is no log.
        """

    @abstractmethod
    async def _store(self, epoch: str, drafts: Sequence[Draft]) -> list[int] | None:
        """Append all drafts or none, and return their offsets; ``None`` if the epoch or its server is another one."""

    @abstractmethod
    def _follow(self, epoch: str, after: int) -> AsyncGenerator[list[Record], None]:
        """Yield appended records over a dedicated connection, and ``[]`` when the caller should check the log."""

    async def _abandon(self) -> None:  # noqa: B027 - most drivers close the connection of a cancelled request
        """Drop the connection after a request that was not answered in time."""

    @abstractmethod
    async def _release(self) -> None:
        """Close all connections."""

    @abstractmethod
    def _where(self) -> str:
        """Return the name of the server, without credentials."""

    # The protocol.

    async def open(self) -> LogState:
        self._check_open()
        return await self._check_log()

    async def state(self) -> LogState:
        self._check_open()
        state = await self._request(self._state())
        self._show(state.epoch, state.newest)
        return state

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        self._check_open()
        return await self._group.append(tuple(drafts)) if drafts else []

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        self._check_open()
        if topics is None:
            page = await self._request(self._page(after, limit))
        else:
            page = await self._scan(after, limit, topics)
        self._show(page.state.epoch, page.state.newest)
        return page

    async def _scan(self, after: int, limit: int, topics: TopicFilter) -> Page:
        """Read pages until enough records have one of the topics, or the log ends."""
        found: list[Record] = []
        epoch: str | None = None
        while True:
            state, records = await self._request(self._page(after, _SCAN))
            if epoch is not None and state.epoch != epoch:
                raise epoch_changed(epoch, state.epoch)
            epoch = state.epoch
            found += (record for record in records if topics(record.topic))
            if len(found) >= limit or len(records) < _SCAN:
                return Page(state, found[:limit])
            after = records[-1].offset

    def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        return self._tail(after.epoch, after.offset)

    async def close(self) -> None:
        self._closed = True
        self._recovered.set()
        await self._group.close()
        await self._release()

    # Requests.

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerError("broker is closed")

    async def _request(self, request: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Wait for a request to the server, by default for the broker's timeout."""
        timeout = self._timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(timeout):
                result = await request
        except BrokerError:
            self._failing = True
            raise
        except TimeoutError:
            self._failing = True
            await self._abandon()
            raise BrokerError(f"no answer from {self._where()} within {timeout:g} s") from None
        if self._failing:
            self._failing = False
            self._recovered.set()
        return result

    def _show(self, epoch: str, offset: int) -> None:
        """Note that records up to an offset are shown to someone."""
        if epoch != self._seen.epoch or offset > self._seen.offset:
            self._seen = Cursor(epoch, offset)

    async def _check_log(self) -> LogState:
        state = await self._request(self._fence(self._seen))
        self._show(state.epoch, state.newest)
        return state

    # Appending.

    async def _commit(self, drafts: Sequence[Draft]) -> list[Cursor]:
        return await self._request(self._append(drafts))

    async def _append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        for _ in range(_ATTEMPTS):
            epoch = self._seen.epoch
            offsets = await self._store(epoch, drafts)
            if offsets is not None:
                self._show(epoch, max(offsets))
                return [Cursor(epoch, offset) for offset in offsets]
            # The log was wiped, or another server answers: the drafts are appended to the next epoch.
            state = await self._fence(self._seen)
            self._show(state.epoch, state.newest)
        raise BrokerError(f"the log at {self._where()} was reset {_ATTEMPTS} times while appending; giving up")

    # Following.

    async def _tail(self, epoch: str, after: int) -> AsyncIterator[list[Record]]:
        failures = 0
        while not self._closed:
            try:
                await self._check_tail(epoch, after)
                async with aclosing(self._follow(epoch, after)) as batches:
                    async for records in batches:
                        failures = 0
                        if not records:
                            await self._check_tail(epoch, after)
                            continue
                        if records[0].offset != after + 1:
                            raise LogTrimmedError(after, records[0].offset)
                        following, records = records, contiguous(records)
                        after = records[-1].offset
                        self._show(epoch, after)
                        yield records
                        if len(records) < len(following):
                            raise LogTrimmedError(after, following[len(records)].offset)
            except (LogResetError, LogTrimmedError):
                raise
            except BrokerError as error:
                failures += 1
                if not self._closed:
                    pause = backoff(failures, self._random, first=_FIRST_PAUSE, cap=_LONGEST_PAUSE)
                    logger.warning("tail stopped after offset %d, retrying in %.1f s: %s", after, pause, error)
                    # A publisher or a health check may find earlier that the server is back.
                    self._recovered.clear()
                    await sleep(asyncio.get_running_loop(), pause, self._recovered)

    async def _check_tail(self, epoch: str, after: int) -> None:
        """Raise if the records after the cursor of a tail are lost or no longer kept."""
        state = await self._check_log()
        if state.epoch != epoch:
            raise epoch_changed(epoch, state.epoch)
        if after + 1 < state.oldest:
            raise LogTrimmedError(after, state.oldest)


def epoch_changed(expected: str, epoch: str | None) -> LogResetError:
    """Return the error for a log that has another epoch than expected, or is gone."""
    return LogResetError(f"the log has epoch {epoch} instead of {expected}: it was wiped or has lost records")
