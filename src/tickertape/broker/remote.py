"""What the logs on a server have in common: deadlines, group commit, and tails that come back."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final, TypeVar

from ..errors import BrokerError, LogResetError, LogTrimmedError
from ..timing import backoff
from ..wire import Cursor, Draft
from .grouping import DEFAULT_GROUP, GroupCommit
from .protocol import DEFAULT_RETENTION, Retention, TopicFilter
from .records import LogState, Page, Record

__all__ = ["DEFAULT_CONNECT_TIMEOUT", "DEFAULT_TIMEOUT", "RemoteBroker", "promises_lossless"]

logger = logging.getLogger("tickertape.broker")

T = TypeVar("T")

DEFAULT_CONNECT_TIMEOUT: Final = 3.0
"""Seconds for a connection, credentials included: a server in the same network takes milliseconds."""

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds for an answer: longer than any fsync on a busy disk, shorter than a publisher's patience."""

_FIRST_PAUSE: Final = 0.1
"""Seconds until a tail that lost its server connects again: a server that restarts is away for about as long."""

_LONGEST_PAUSE: Final = 5.0
"""Seconds between attempts at most: what subscribers wait at most after their server has come back."""

_ATTEMPTS: Final = 3
"""Times that an append is tried on a log whose life has just changed: twice, and once for a race with others."""

_NOTHING_SEEN: Final = Cursor("none", 0)
"""Stands for the newest record that this process has seen until there is one."""

_PAGE: Final = 1000
"""Records read at a time when only some of their topics are wanted."""


def promises_lossless(options: Mapping[str, str]) -> bool:
    """Return whether a URL's options promise that no failover loses records.

    Raises:
        BrokerError: they say something else.
    """
    failover = options.get("failover", "")
    if failover not in ("", "lossless"):
        raise BrokerError(f"expected failover=lossless or nothing of the kind, got failover={failover!r}")
    return bool(failover)


class RemoteBroker(ABC):
    """A log on a server that may be away for a while, or come back with less than it had.

    A driver gives five primitives; it raises nothing but ``BrokerError`` and its kinds from them.

    Arguments:
        retention: how much is kept.
        timeout: seconds for an answer of the server.
        random: gives numbers from 0 to 1, for the jitter of reconnects.
        group: drafts that are stored together at most.
    """

    def __init__(
        self,
        *,
        retention: Retention = DEFAULT_RETENTION,
        timeout: float = DEFAULT_TIMEOUT,
        random: Callable[[], float] = random.random,
        group: int = DEFAULT_GROUP,
    ) -> None:
        self._retention = retention
        self._timeout = timeout
        self._random = random
        self._group = GroupCommit(self._commit, group)
        self._current: str | None = None  # the epoch that is appended to
        self._seen = _NOTHING_SEEN  # the newest record that this process has shown to anyone
        self._closing = asyncio.Event()
        self._away = False  # the last that was asked of the server came to nothing
        self._stirred = asyncio.Event()  # it answers again, or nothing more will be asked

    # What a driver gives.

    @abstractmethod
    async def _establish(self, seen: Cursor) -> LogState:
        """Connect, make the log if there is none, begin another epoch if records may be lost."""

    @abstractmethod
    async def _store(self, epoch: str, drafts: Sequence[Draft]) -> list[int] | None:
        """Append all or none to the log of this epoch, on the server that it is bound to; ``None`` if it is no more."""

    @abstractmethod
    async def _page(self, epoch: str, after: int, limit: int) -> list[Record]:
        """Read records; raise ``LogResetError`` if the log has another epoch."""

    @abstractmethod
    def _follow(self, epoch: str, after: int) -> AsyncGenerator[list[Record], None]:
        """Give what is appended, over a connection of its own; nothing (``[]``) when it is time to look around."""

    async def _abandon(self) -> None:  # noqa: B027 - most drivers cut the connection of a cancelled request
        """Give up the connection after a request that was not answered in time."""

    @abstractmethod
    async def _release(self) -> None:
        """Close all connections."""

    # The protocol.

    async def open(self) -> LogState:
        self._check_open()
        return await self.state()

    async def state(self) -> LogState:
        self._check_open()
        state = await self._in_time(self._state(), "reading the state of the log")
        self._current = state.epoch
        return state

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        self._check_open()
        batch = tuple(drafts)
        for draft in batch:
            self._check_draft(draft)
        return await self._in_time(self._group.append(batch), "appending") if batch else []

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        state = await self.state()
        found: list[Record] = []
        size = limit if topics is None else _PAGE
        while len(found) < limit:
            records = await self._in_time(self._page(state.epoch, after, size), "reading")
            found += (record for record in records if topics is None or topics(record.topic))
            if len(records) < size:
                break
            after = records[-1].offset
        newest = max(state.newest, found[-1].offset if found else 0)
        return Page(state._replace(newest=newest), found[:limit])

    def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        return self._tail(after.epoch, after.offset)

    async def close(self) -> None:
        self._closing.set()
        self._stirred.set()
        await self._group.close()
        await self._release()

    # How it is done.

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise BrokerError("broker is closed")

    def _check_draft(self, draft: Draft) -> None:  # noqa: B027 - most drivers take any text
        """Raise ``BrokerError`` for what the server would refuse, before it spoils what others append."""

    async def _in_time(self, work: Coroutine[Any, Any, T], what: str, seconds: float | None = None) -> T:
        """Do a piece of work within ``seconds``, by default the broker's timeout."""
        seconds = self._timeout if seconds is None else seconds
        try:
            async with asyncio.timeout(seconds):
                done = await work
        except BrokerError:
            self._away = True
            raise
        except TimeoutError:
            self._away = True
            await self._abandon()
            said = f"expected an answer of {self._where()} within {seconds:g} s, got none while {what}"
            raise BrokerError(said) from None
        if self._away:
            self._away = False
            self._stirred.set()
        return done

    @abstractmethod
    def _where(self) -> str:
        """Name the server, without credentials."""

    async def _state(self) -> LogState:
        state = await self._establish(self._seen)
        self._see(state.epoch, state.newest)
        return state

    def _see(self, epoch: str, offset: int) -> None:
        if epoch != self._seen.epoch or offset > self._seen.offset:
            self._seen = Cursor(epoch, offset)

    async def _commit(self, drafts: Sequence[Draft]) -> list[Cursor]:
        return await self._in_time(self._append(drafts), "appending")

    async def _append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        for _ in range(_ATTEMPTS):
            if self._current is None:
                self._current = (await self._state()).epoch
            epoch = self._current
            offsets = await self._store(epoch, drafts)
            if offsets is not None:
                self._see(epoch, max(offsets))
                return [Cursor(epoch, offset) for offset in offsets]
            # The log was wiped, or its server is another one: what is published goes into its next life.
            self._current = None
        raise BrokerError(f"expected a log that stays itself for a moment, got another one {_ATTEMPTS} times in a row")

    async def _tail(self, epoch: str, after: int) -> AsyncIterator[list[Record]]:
        failures = 0
        while not self._closing.is_set():
            try:
                await self._look_around(epoch, after)
                async with aclosing(self._follow(epoch, after)) as batches:
                    async for records in batches:
                        failures = 0
                        if not records:
                            await self._look_around(epoch, after)
                            continue
                        if records[0].offset != after + 1:
                            raise LogTrimmedError(after, records[0].offset)
                        after = records[-1].offset
                        self._see(epoch, after)
                        yield records
            except (LogResetError, LogTrimmedError):
                raise
            except BrokerError as error:
                failures += 1
                if not self._closing.is_set():
                    pause = backoff(failures, self._random, first=_FIRST_PAUSE, cap=_LONGEST_PAUSE)
                    logger.warning("lost the log behind offset %d, again in %.1f s: %s", after, pause, error)
                    await self._rest(pause)

    async def _rest(self, seconds: float) -> None:
        """Wait, but no longer than until a publisher or a health check finds that the server is back."""
        self._stirred.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stirred.wait(), seconds)

    async def _look_around(self, epoch: str, after: int) -> None:
        """Raise if the log is no longer what a tail follows."""
        state = await self._in_time(self._state(), "looking after the log")
        if state.epoch != epoch:
            raise LogResetError(f"expected the log {epoch}, got {state.epoch}: it was wiped, or may have lost records")
        if after + 1 < state.oldest:
            raise LogTrimmedError(after, state.oldest)
