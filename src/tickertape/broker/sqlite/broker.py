"""``SQLiteBroker``, the log in an SQLite file: for all processes of one machine, without a server."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from ...errors import BrokerError, LogResetError, LogTrimmedError
from ...wire import Cursor, Draft
from ..grouping import GroupCommit
from ..protocol import TopicFilter
from ..records import OTHERS, LogState, Page, Record, contiguous
from ..retention import DEFAULT_RETENTION, Lanes, Retention
from ..urls import choice, read_options, seconds
from .log import LogFile, file_identity

T = TypeVar("T")

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds to wait for locks of other processes: they write for milliseconds, a backup for a second or two."""

_NOTHING_SEEN: Final = Cursor("none", 0)
"""Stands for the newest known record until there is one."""

_GROUP: Final = 1000
"""Drafts stored in one transaction: a few milliseconds, in which writers of other processes wait."""

_TAIL_PAGE: Final = 1000
"""Records that a tail reads at a time."""

_TAIL_BYTES: Final = 1024 * 1024
"""Bytes that a tail reads at a time, so that large events do not fill the memory."""

_OFFERED: Final = 5 * _TAIL_PAGE
"""Records of this broker that wait for a tail's reader; if there are more, it reads them from the file."""

_OFFERED_CHARACTERS: Final = 4 * _TAIL_BYTES
"""Characters of data in them."""

_LOOK: Final = 0.008
"""Seconds between two looks for appends of other processes, while there are tails: so they are seen within 10 ms."""

_TICK: Final = 0.1
"""Seconds for which the time of a file may stay the same while it is written to; on Linux 0.01 at most."""

_LOOKS: Final = 20
"""Looks of which one asks SQLite even if nothing seems to have changed."""

_TRIM_PAUSE: Final = 0.02
"""Seconds between two steps of trimming while nothing is appended."""

_TRIM_IDLE: Final = (0.05, 10.0)
"""Least and most seconds between two looks for records that have become too old."""


class SQLiteBroker:
    """Keep the log in a file that all processes of this machine can use together.

    Arguments:
        path: the file, on a local disk in an existing directory. Locks of network file systems are not reliable.
        retention: the limits of the log. Each append applies them in its own transaction; the limit of age
            is also applied while there are no appends. The file does not shrink: free pages are used again.
        synchronous: with ``"full"``, acknowledged records survive a loss of power. With ``"normal"`` they
            survive any end of the process, and appends are faster on slow disks; but after a restart of the
            machine the log gets a new epoch (on Linux), because its last records may be lost.
        timeout: seconds to wait for locks of other processes.
        now: the clock for ages, in seconds; the same in all processes.

    As a URL: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, with ``?synchronous=`` and ``?timeout=``.

    One thread writes and another reads; the event loop never waits for the disk. Appends that arrive while a
    transaction is committed share the next one, so that ``"full"`` is affordable and the default. Tails get the
    records of this broker from memory. While there are tails, a timer looks for appends of other processes at the
    time and size of SQLite's write-ahead log. A key is known as long as its record is in the file.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        retention: Retention = DEFAULT_RETENTION,
        synchronous: str = "full",
        timeout: float = DEFAULT_TIMEOUT,
        now: Callable[[], float] = time.time,
    ) -> None:
        if synchronous not in ("full", "normal"):
            raise BrokerError(f"expected synchronous to be 'full' or 'normal', got {synchronous!r}")
        if str(path) == ":memory:":
            raise BrokerError("SQLite cannot share a log in memory: use memory:// for a log that ends with its process")
        self._path = Path(path).absolute()
        self._writer = _Worker("writer", LogFile(self._path, retention, synchronous, timeout, now))
        self._reader = _Worker("reader", LogFile(self._path, retention, synchronous, timeout, now))
        self._group = GroupCommit(self._commit, _GROUP)
        self._lane_of = Lanes(retention)
        ages = (limits.age for limits in (retention, *dict(retention.rules).values()))
        self._age = min((age for age in ages if age is not None), default=None)
        self._trimming: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._is_open = False
        self._closing = asyncio.Event()
        self._seen = _NOTHING_SEEN  # the newest record that this broker has returned or stored
        self._tails: set[_Tail] = set()
        self._watch = _Watch(self._path)
        self._looking: asyncio.TimerHandle | asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: str, retention: Retention = DEFAULT_RETENTION) -> SQLiteBroker:
        """Return the broker for a URL.

        Raises:
            BrokerError: the URL has no path, or a host, or an unknown option.
        """
        parts = urlsplit(url)
        path = unquote(parts.path[1:])
        login, at, host = parts.netloc.rpartition("@")
        shown = url.replace(parts.netloc, f"***@{host}") if login and at else url  # of a URL for another broker
        if parts.netloc == ":memory:" or path == ":memory:":
            raise BrokerError(f"SQLite cannot share a log in memory: use memory:// instead of {shown}")
        if parts.netloc or not path:
            raise BrokerError(f"expected sqlite:///relative.db or sqlite:////absolute.db, got {shown!r}")
        options = read_options(url, {"synchronous": choice("full", "normal"), "timeout": seconds})
        return cls(path, retention=retention, **options)

    def __repr__(self) -> str:
        state = "closed" if self._closing.is_set() else f"epoch={self._seen.epoch}" if self._is_open else "new"
        return f"<SQLiteBroker {str(self._path)!r} {state}>"

    async def open(self) -> LogState:
        async with self._opening:
            self._check_closed()
            if not self._is_open:
                try:
                    state = await self._connect()
                except BaseException:
                    await self._stop()
                    raise
                self._is_open = True
                if self._age is not None:
                    self._trimming = asyncio.create_task(self._trim(self._age))
                return state
        return await self.state()

    async def state(self) -> LogState:
        try:
            return self._see_state(await self._read(self._reader.log.state))
        except LogResetError:
            return await self._reopen()

    async def _reopen(self) -> LogState:
        """Open the file that replaced the one that was open."""
        async with self._opening:
            try:  # another caller may have done it
                return self._see_state(await self._read(self._reader.log.state))
            except LogResetError:
                return await self._connect()

    async def _connect(self) -> LogState:
        await self._writer.run(self._writer.log.create, self._seen)
        await self._reader.run(self._reader.log.connect)
        return self._see_state(await self._reader.run(self._reader.log.state))

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        self._check_open()
        return await self._group.append(drafts) if drafts else []

    async def _commit(self, drafts: Sequence[Draft]) -> list[Cursor]:
        cursors, records = await self._writer.run(self._writer.log.append, drafts, self._seen)
        if records:
            epoch = cursors[0].epoch
            self._see(epoch, records[-1].offset)
            for tail in self._tails:
                tail.offer(epoch, records)
        return cursors

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        if topics is None:
            page = await self._read(self._reader.log.page, after, limit)
            self._see_state(page.state)
            return page
        offset, epoch = after, ""
        records: list[Record] = []
        wanted: dict[str, bool] = {}
        while True:
            part = await self._read(self._reader.log.scan, offset, limit - len(records), topics, wanted)
            state, offset = part.state, part.offset
            if epoch not in ("", state.epoch):  # the log was reset during the read
                records, offset, epoch = [], after, ""
                continue
            epoch = state.epoch
            # The page belongs to its last part, so records that were dropped before that are left out.
            records = [record for record in records if self._keeps(state, record)] + part.records
            if part.end or len(records) >= limit:
                return Page(self._see_state(state), records)

    def _keeps(self, state: LogState, record: Record) -> bool:
        marks = dict(state.dropped)
        dropped = max(marks.get(self._lane_of(record.topic), 0), marks.get(record.topic, 0))
        return record.offset >= state.oldest and record.offset > dropped

    async def discard(self, topic: str, upto: int) -> None:
        self._check_open()
        more = self._lane_of(topic) != OTHERS
        while more:
            more = await self._writer.run(self._writer.log.discard, topic, upto)  # appends come in between

    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        self._check_open()
        tail = _Tail(after)
        with self._watching(tail):
            while not self._closing.is_set():
                if tail.take_stale():
                    try:
                        records = await self._read_tail(tail)
                    except BrokerError:
                        if self._closing.is_set():
                            return
                        raise
                else:
                    records = tail.take_offered()
                if records:
                    yield records
                elif not tail.stale:
                    await tail.changed.wait()

    async def _read_tail(self, tail: _Tail) -> list[Record]:
        seen = self._seen  # before the read: a log that ends before it has lost it
        state, records = await self._read(self._reader.log.page, tail.offset, _TAIL_PAGE, _TAIL_BYTES)
        if state.epoch == seen.epoch and state.newest < seen.offset:
            self._check_closed()
            await self._writer.run(self._writer.log.begin_epoch_if_lost, seen)
            raise LogResetError(f"the log {self._path} lost records: it ends at {state.newest}, not at {seen.offset}")
        if state.epoch != tail.epoch:
            raise LogResetError(f"the log {self._path} has the epoch {state.epoch}, not {tail.epoch}")
        if state.newest < tail.offset:
            raise LogResetError(f"the log {self._path} ends at offset {state.newest}, before {tail.offset}")
        first = records[0].offset if records else state.newest + 1
        if first > tail.offset + 1:
            raise LogTrimmedError(tail.offset, first)
        if records:
            records = contiguous(records)
            tail.offset = records[-1].offset
            tail.stale |= tail.offset < state.newest
            self._see(tail.epoch, tail.offset)
        return records

    async def close(self) -> None:
        self._closing.set()
        for tail in self._tails:
            tail.changed.set()
        async with self._opening:
            if self._trimming is not None:
                self._trimming.cancel()
                await asyncio.wait([self._trimming])
            self._stop_looking()
            await self._group.finish()
            await self._stop()

    async def _stop(self) -> None:
        # One after the other: of two connections that close at once, both may think that they are not the last,
        # which moves the write-ahead log into the file.
        await self._reader.stop()
        await self._writer.stop()

    def _check_closed(self) -> None:
        if self._closing.is_set():
            raise BrokerError("broker is closed")

    def _check_open(self) -> None:
        self._check_closed()
        if not self._is_open:
            raise BrokerError("broker is not open")

    async def _read(self, function: Callable[..., T], *arguments: Any) -> T:
        self._check_open()
        return await self._reader.run(function, *arguments)

    def _see(self, epoch: str, offset: int) -> None:
        if epoch != self._seen.epoch or offset > self._seen.offset:
            self._seen = Cursor(epoch, offset)

    def _see_state(self, state: LogState) -> LogState:
        self._see(state.epoch, state.newest)
        return state

    # Trimming by age while there are no appends.

    async def _trim(self, age: float) -> None:
        least, most = _TRIM_IDLE
        idle = min(max(age / 4, least), most)
        more = False
        while True:
            await asyncio.sleep(_TRIM_PAUSE if more else idle)
            try:
                more = await self._writer.run(self._writer.log.trim)
            except BrokerError:
                more = False  # the next append reports it

    # Appends of other processes.

    @contextmanager
    def _watching(self, tail: _Tail) -> Iterator[None]:
        """Look for appends while there is a tail."""
        self._tails.add(tail)
        if self._looking is None:
            self._look_later()
        try:
            yield
        finally:
            self._tails.discard(tail)
            if not self._tails:
                self._stop_looking()

    def _look_later(self) -> None:
        if not self._closing.is_set():
            self._looking = asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _look(self) -> None:
        if self._watch.moved(self._reader.log.identity):
            self._looking = asyncio.get_running_loop().create_task(self._find_appends())
        else:
            self._look_later()

    async def _find_appends(self) -> None:
        try:
            newest = await self._read(self._reader.log.newest)
        except BrokerError:
            newest = None  # the tails read, and report it
        for tail in self._tails:
            tail.compare(newest)
        self._look_later()


class _Worker:
    """A thread, and the connection to the file that it uses."""

    def __init__(self, name: str, log: LogFile) -> None:
        self.log = log
        self._name = name
        self._executor: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the thread."""
        loop = asyncio.get_running_loop()
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, f"tickertape-sqlite-{self._name}")
            # Python waits for the threads of a pool when it exits; they must not wait for a lock then.
            self.log.is_abandoned = loop.is_closed
        return await loop.run_in_executor(self._executor, function, *arguments)

    async def stop(self) -> None:
        """Close the connection, and end the thread."""
        if self._executor is not None:
            await self.run(self.log.close)
            executor, self._executor = self._executor, None
            executor.shutdown()


class _Tail:
    """State of one tail: its position, and the records that were offered to it.

    Attributes:
        epoch: the epoch of its cursor.
        offset: the last offset that it yielded.
        stale: True if the log must be read, because records may be missing from those that were offered.
        changed: set when there is something to yield or to read.
    """

    def __init__(self, after: Cursor) -> None:
        self.epoch = after.epoch
        self.offset = after.offset
        self.stale = True
        self.changed = asyncio.Event()
        self._offered: list[Record] = []
        self._size = 0

    @property
    def _newest(self) -> int:
        return self._offered[-1].offset if self._offered else self.offset

    def offer(self, epoch: str, records: list[Record]) -> None:
        """Take records that this broker has stored. They may overlap with a page that is being read."""
        self._size += sum(len(record.data) for record in records)
        contiguous = not self._offered or records[0].offset == self._newest + 1
        fits = len(self._offered) + len(records) <= _OFFERED and self._size <= _OFFERED_CHARACTERS
        if epoch == self.epoch and contiguous and fits:
            self._offered += records
        else:
            self._drop()
        self.changed.set()

    def compare(self, newest: Cursor | None) -> None:
        """Take the newest cursor of the log; ``None`` if it cannot be read."""
        if newest is None or newest.epoch != self.epoch or newest.offset != self._newest:
            self.stale = True
            self.changed.set()

    def take_stale(self) -> bool:
        """Return True if the log must be read now."""
        stale, self.stale = self.stale, False
        return stale

    def take_offered(self) -> list[Record]:
        """Return the offered records after those that were yielded."""
        self.changed.clear()
        records = [record for record in self._offered if record.offset > self.offset]
        self._offered, self._size = [], 0
        if records and records[0].offset != self.offset + 1:
            self.stale = True
            return []
        if records:
            self.offset = records[-1].offset
        return records

    def _drop(self) -> None:
        self._offered, self._size = [], 0
        self.stale = True


class _Watch:
    """Notice writes to the file by its write-ahead log: its time and size are cheaper to read than the log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._journal = f"{path}-wal"
        self._mark = (0.0, 0)
        self._looks = 0

    def moved(self, identity: tuple[int, int] | None) -> bool:
        """Return True if the file may have been written to since the last call, or is another than ``identity``."""
        mark, self._mark = self._mark, self._find_mark()
        self._looks = (self._looks + 1) % _LOOKS
        return (
            mark != self._mark
            # Writes within one tick of the file system's clock leave the same mark.
            or time.time() - mark[0] < _TICK
            or not self._looks
            or file_identity(self._path) != identity
        )

    def _find_mark(self) -> tuple[float, int]:
        try:
            status = os.stat(self._journal)  # noqa: PTH116 - over a hundred times a second
        except OSError:
            return time.time(), 0
        return status.st_mtime, status.st_size
