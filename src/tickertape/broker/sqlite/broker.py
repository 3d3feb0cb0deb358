"""The log in an SQLite file: for all processes of one machine, without a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from ...errors import BrokerError, LogResetError, LogTrimmedError
from ...wire import Cursor, Draft
from ..protocol import DEFAULT_RETENTION, Retention, TopicFilter
from ..records import LogState, Page, Record
from ..urls import choice, read_options, seconds
from .log import LogFile
from .threads import Reader, Signal, Writer

__all__ = ["SQLiteBroker"]

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds to wait for other processes' locks: they write for milliseconds, a backup for a second or two."""

_NOTHING_SEEN: Final = Cursor("none", 0)
"""Stands for the newest record that this process has seen until there is one."""

_TAIL_PAGE: Final = 1000
"""Records that a tail reads at a time."""

_TAIL_BYTES: Final = 1024 * 1024
"""Bytes that a tail reads at a time, so that great events do not fill the memory."""


class SQLiteBroker:
    """Keep the log in a file that all processes of this machine share; they need not know each other.

    Arguments:
        path: the file. Its directory must be there, on a local disk: the locks of network file
            systems are not to be trusted.
        retention: how much is kept. It is enforced by whoever appends, in the same transaction; by age
            also while nobody does. The file does not shrink: its free pages are used again.
        synchronous: ``"full"``: what was acknowledged survives a loss of power. ``"normal"``: it
            survives the end of the process, however sudden, and is faster on slow disks; once the
            machine has been started again the log has another epoch (on Linux), since its last records
            may be lost, and clients get a gap.
        timeout: seconds to wait for other processes' locks.
        now: the clock that ages are measured on, the same in all processes, in seconds.

    As a URL: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, with ``?synchronous=`` and
    ``?timeout=``.

    Everything is done on two threads; the event loop never waits for the disk. Appends that come while
    one is written are committed together, which is what makes ``"full"`` affordable and the default.
    The appends of other processes are seen after 8 ms or less, by a look that costs some microseconds
    and is taken only while there are tails. A key is known as long as its record is in the file.
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
            raise BrokerError(f"expected synchronous 'full' or 'normal', got {synchronous!r}")
        self._path = Path(path).absolute()
        self._written = LogFile(self._path, retention, synchronous, timeout, now)
        self._read = LogFile(self._path, retention, synchronous, timeout, now)
        self._idle = None if retention.age is None else retention.age / 4
        self._signal = Signal()
        self._threads: tuple[Writer, Reader] | None = None
        self._opening = asyncio.Lock()
        self._epoch = ""
        self._seen = _NOTHING_SEEN  # the newest record that this process has shown to anyone
        self._closing = asyncio.Event()

    @classmethod
    def from_url(cls, url: str, retention: Retention = DEFAULT_RETENTION) -> SQLiteBroker:
        """Return the broker that a URL names.

        Raises:
            BrokerError: the URL has no path, or a host, or an unknown option.
        """
        parts = urlsplit(url)
        path = unquote(parts.path[1:])
        if parts.netloc or not path:
            raise BrokerError(f"expected sqlite:///relative.db or sqlite:////absolute.db, got {url!r}")
        options = read_options(url, {"synchronous": choice("full", "normal"), "timeout": seconds})
        return cls(path, retention=retention, **options)

    def __repr__(self) -> str:
        state = "closed" if self._closing.is_set() else "new" if self._threads is None else f"epoch={self._epoch}"
        return f"<SQLiteBroker {str(self._path)!r} {state}>"

    async def open(self) -> LogState:
        return await self.state()

    async def state(self) -> LogState:
        async with self._opening:
            if self._closing.is_set():
                raise BrokerError("broker is closed")
            seen = self._seen  # before the read: what is appended meanwhile is not lost
            try:
                state = await self._find_state()
            except LogResetError:
                await self._connect()
                state = await self._find_state()
            if state.epoch == seen.epoch and state.newest < seen.offset:
                # An older copy took the place of the file: offsets after it must not be used again.
                await self._started()[0].call(self._written.begin_epoch, state.epoch)
                state = await self._find_state()
            self._epoch = state.epoch
            self._see(state.epoch, state.newest)
            return state

    def _see(self, epoch: str, offset: int) -> None:
        if epoch != self._seen.epoch or offset > self._seen.offset:
            self._seen = Cursor(epoch, offset)

    async def _find_state(self) -> LogState:
        if self._threads is None:
            loop = asyncio.get_running_loop()
            self._threads = (
                Writer(loop, self._written, self._signal, self._idle),
                Reader(loop, self._read, self._signal),
            )
            await self._connect()
        return await self._threads[1].call(self._read.state)

    async def _connect(self) -> None:
        writer, reader = self._started()
        try:
            await writer.call(self._written.create)
            await reader.call(self._read.connect)
        except BaseException:
            self._threads = None
            await self._stop(writer, reader)
            raise

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        writer, _ = self._started()
        if not drafts:
            return []
        cursors = await writer.append(list(drafts))
        self._see(cursors[0].epoch, max(cursor.offset for cursor in cursors))
        return cursors

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        _, reader = self._started()
        if topics is None:
            return await reader.call(self._read.page, after, limit)
        records: list[Record] = []
        page, upto = await reader.call(self._read.scan, after, limit, topics)
        while True:
            records += page.records
            if upto is None or len(records) == limit:
                return Page(page.state, records)
            epoch = page.state.epoch
            page, upto = await reader.call(self._read.scan, upto, limit - len(records), topics)
            self._check_epoch(epoch, page.state)

    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        _, reader = self._started()
        epoch, offset = after.epoch, after.offset
        with reader.watching():
            while not self._closing.is_set():
                seen = self._signal.count
                try:
                    state, records = await reader.call(self._read.page, offset, _TAIL_PAGE, _TAIL_BYTES)
                except BrokerError:
                    if self._closing.is_set():
                        return
                    raise
                self._check_epoch(epoch, state)
                if state.newest < offset:
                    raise LogResetError(f"expected a log with offset {offset}, got one whose newest is {state.newest}")
                if offset + 1 < state.oldest:
                    raise LogTrimmedError(offset, state.oldest)
                if records:
                    offset = records[-1].offset
                    self._see(epoch, offset)
                    yield records
                else:
                    await self._signal.wait(seen)

    async def close(self) -> None:
        self._closing.set()
        self._signal.set()
        async with self._opening:
            if self._threads is not None:
                await self._stop(*self._threads)

    async def _stop(self, writer: Writer, reader: Reader) -> None:
        # The last connection that is closed brings all into the one file; two at once may both think they are not.
        await reader.stop()
        await writer.stop()

    def _started(self) -> tuple[Writer, Reader]:
        if self._closing.is_set():
            raise BrokerError("broker is closed")
        if self._threads is None:
            raise BrokerError("broker is not open")
        return self._threads

    def _check_epoch(self, epoch: str, state: LogState) -> None:
        if state.epoch != epoch:
            raise LogResetError(f"expected epoch {epoch} in the log {self._path}, got {state.epoch}")
