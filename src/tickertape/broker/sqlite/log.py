"""The log in an SQLite file: its tables, and what is done to them. Blocking, for one thread at a time.

The row in ``log`` is the log's head. It is read and written in the transaction that appends
(``BEGIN IMMEDIATE``: one writer at a time, of all processes), so that offsets have no holes. Records
that the retention does not keep are deleted in the same transaction, and their pages are used again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, Final

from ...errors import BrokerError
from ...wire import Cursor, Draft
from ..protocol import Retention, TopicFilter
from ..records import LogState, Page, Record, new_epoch
from .connection import SQLiteFile, code

__all__ = ["LogFile"]

_APPLICATION: Final = 0x7469636B
"""``tick``: names the program that a database belongs to, in its header."""

_VERSION: Final = 1
"""Of the tables below."""

_SCHEMA: Final = (
    """CREATE TABLE log (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch TEXT NOT NULL,
        newest INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        boot TEXT
    )""",
    # What trimming and filtering look at stands before the data, which may go on in other pages.
    """CREATE TABLE records (
        offset INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        size INTEGER NOT NULL,
        topic TEXT NOT NULL,
        event TEXT,
        key TEXT,
        data TEXT NOT NULL
    )""",
    "CREATE UNIQUE INDEX record_keys ON records (key) WHERE key IS NOT NULL",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_VERSION}",
)

_ROWS: Final = 25
"""Records inserted by one statement, where there are so many: it costs less than one for each."""

_INSERT: Final = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)"
_INSERT_ROWS: Final = _INSERT + ", (?, ?, ?, ?, ?, ?, ?)" * (_ROWS - 1)

_TRIM: Final = 1000
"""Records deleted at a time: some milliseconds, for which other writers wait."""

_SCAN: Final = 5000
"""Records looked at between two turns of other readers: some milliseconds."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class LogFile(SQLiteFile):
    """Connect to the file and append, read or trim.

    Arguments:
        path: the file; it is made by :meth:`create`.
        retention: how much is kept.
        synchronous: ``"full"`` or ``"normal"``, see :class:`~tickertape.broker.SQLiteBroker`.
        timeout: seconds to wait for other processes' locks.
        now: the clock that ages are measured on, the same in all processes, in seconds.
    """

    def __init__(
        self, path: Path, retention: Retention, synchronous: str, timeout: float, now: Callable[[], float] = time.time
    ) -> None:
        super().__init__(path, synchronous, timeout)
        self._retention = retention
        self._now = now

    # Making it.

    def create(self) -> None:
        """Connect, and make the file and its tables if they are not there."""
        if not self._path.parent.is_dir():
            raise BrokerError(f"expected a directory for the log {self._path}, got {self._path.parent}: there is none")
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                with self._told("open"):
                    self._connect()
                    with self._transaction("DEFERRED") as database:
                        self._is_new(database)  # before anything is changed
                    self._database_now.execute("PRAGMA journal_mode = WAL")
                    self._migrate()
                return
            except BrokerError as error:
                self.close()
                # Who changes the journal's mode, or closes the file as the last one, holds it for a moment
                # in a way that SQLite does not wait for.
                cause = error.__cause__
                if not isinstance(cause, sqlite3.Error) or code(cause) != "SQLITE_BUSY" or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _migrate(self) -> None:
        with self._transaction("IMMEDIATE") as database:
            if self._is_new(database):
                for statement in _SCHEMA:
                    database.execute(statement)
                database.execute("INSERT INTO log VALUES (1, ?, 0, 0, NULL)", (new_epoch(),))
            self._check_boot(database)

    def _is_new(self, database: sqlite3.Connection) -> bool:
        """Tell whether the file holds nothing yet; refuse what is not ours."""
        ((version,),) = database.execute("PRAGMA user_version")
        ((application,),) = database.execute("PRAGMA application_id")
        ((tables,),) = database.execute("SELECT count(*) FROM sqlite_master")
        if not tables and not version:
            return True
        if application != _APPLICATION:
            raise BrokerError(f"expected a log of tickertape in {self._path}, got another program's database")
        if version > _VERSION:
            raise BrokerError(
                f"expected a log of format {_VERSION} in {self._path}, got format {version}: "
                "a newer tickertape has written it"
            )
        return False

    def _check_boot(self, database: sqlite3.Connection) -> None:
        """Begin another epoch if the machine was started again since this log was written to without full sync.

        Its last records may be lost then, and their offsets must not come back under the same epoch.
        """
        epoch, known = self._only(database.execute("SELECT epoch, boot FROM log"))
        with suppress(OSError):
            boot = _BOOT_ID.read_text().strip()
            if known is not None and known != boot:
                epoch, known = new_epoch(), None
            wanted = boot if self._synchronous == "normal" else known
            database.execute(
                "UPDATE log SET epoch = ?, boot = ? WHERE epoch <> ? OR boot IS NOT ?", (epoch, wanted) * 2
            )

    def begin_epoch(self, epoch: str) -> None:
        """Give the log another epoch, if it still has this one; its records are kept."""
        with self._told("change"), self._transaction("IMMEDIATE") as database:
            database.execute("UPDATE log SET epoch = ? WHERE epoch = ?", (new_epoch(), epoch))

    # Appending.

    def append(self, batches: Sequence[Sequence[Draft]]) -> list[list[Cursor]]:
        """Append several batches in one transaction; returns when it is committed."""
        with self._told("append to"):
            self._check_place()
            with self._transaction("IMMEDIATE") as database:
                appending = self._appending(database)
                cursors = [appending.append(drafts) for drafts in batches]
                appending.write()
                self._trim(appending, max(_TRIM, 2 * len(appending.rows)))
            # Replaced while this was written: then it stands in a file that nobody finds.
            self._check_place()
            return cursors

    def trim(self) -> bool:
        """Delete some of what is no longer kept; tell whether there may be more."""
        with self._told("trim"):
            if self._state().oldest == self._first():
                return False
            with self._transaction("IMMEDIATE") as database:
                return self._trim(self._appending(database), _TRIM) == _TRIM

    def _trim(self, log: _Appending, most: int) -> int:
        keep = self._retention
        deadline = self._deadline()
        cut, count = 0, 0
        for offset, at, size in log.database.execute(
            "SELECT offset, at, size FROM records ORDER BY offset LIMIT ?", (most,)
        ):
            if not (
                (keep.events is not None and log.newest - offset >= keep.events)
                or (keep.bytes is not None and log.bytes > keep.bytes)
                or at < deadline
            ):
                break
            cut, count = offset, count + 1
            log.bytes -= size
        if count:
            log.database.execute("DELETE FROM records WHERE offset <= ?", (cut,))
        if count or log.rows:
            log.database.execute("UPDATE log SET newest = ?, bytes = ?", (log.newest, log.bytes))
        return count

    # Reading.

    def state(self) -> LogState:
        """Return the present state of the log."""
        with self._told("read"):
            self._check_place()
            return self._state()

    def page(self, after: int, limit: int, size: int | None = None) -> Page:
        """Return the next records that are kept; at most ``limit``, and of at most ``size`` bytes or one."""
        with self._told("read"), self._transaction("DEFERRED") as database:
            self._check_place()
            state = self._state()
            rows = database.execute(
                "SELECT offset, topic, event, data, size FROM records WHERE offset > ? ORDER BY offset LIMIT ?",
                (max(after, state.oldest - 1), limit),
            )
            records: list[Record] = []
            total = 0
            for *row, each in rows:
                total += each
                if records and size is not None and total > size:
                    break
                records.append(Record(*row))
            return Page(state, records)

    def scan(self, after: int, limit: int, topics: TopicFilter) -> tuple[Page, int | None]:
        """Look at some records for topics that are wanted.

        Returns:
            What was found, and the offset up to which was looked, ``None`` if that is the end of the log.
        """
        with self._told("read"), self._transaction("DEFERRED") as database:
            self._check_place()
            state = self._state()
            seen: dict[str, bool] = {}
            found: list[int] = []
            offset, count = max(after, state.oldest - 1), 0
            rows = database.execute(
                "SELECT offset, topic FROM records WHERE offset > ? ORDER BY offset LIMIT ?", (offset, _SCAN)
            )
            for offset, topic in rows:
                count += 1
                if topic not in seen:
                    seen[topic] = topics(topic)
                if seen[topic]:
                    found.append(offset)
                    if len(found) == limit:
                        break
            query = "SELECT offset, topic, event, data FROM records WHERE offset = ?"
            records = [Record(*database.execute(query, (each,)).fetchone()) for each in found]
            return Page(state, records), offset if count == _SCAN or len(found) == limit else None

    def _state(self) -> LogState:
        deadline = self._deadline()
        rows = self._database_now.execute(
            "SELECT epoch, newest, (SELECT offset FROM records WHERE at >= ? ORDER BY offset LIMIT 1) FROM log",
            (deadline,),
        )
        epoch, newest, first = self._only(rows)
        oldest = newest + 1 if first is None else first
        if self._retention.events is not None:
            oldest = max(oldest, newest - self._retention.events + 1)
        return LogState(epoch, oldest, newest)

    def _appending(self, database: sqlite3.Connection) -> _Appending:
        epoch, newest, size = self._only(database.execute("SELECT epoch, newest, bytes FROM log"))
        return _Appending(database, epoch, newest, size, self._now())

    def _only(self, rows: sqlite3.Cursor) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = rows.fetchone()
        if row is None:
            raise BrokerError(f"expected the head of the log {self._path}, got none: its content is damaged")
        return row

    def _first(self) -> int:
        ((first,),) = self._database_now.execute(
            "SELECT coalesce((SELECT min(offset) FROM records), (SELECT newest + 1 FROM log))"
        )
        return int(first)

    def _deadline(self) -> float:
        return float("-inf") if self._retention.age is None else self._now() - self._retention.age


class _Appending:
    """The log's head within a transaction, and the rows that are to be written."""

    def __init__(self, database: sqlite3.Connection, epoch: str, newest: int, size: int, now: float) -> None:
        self.database = database
        self.epoch = epoch
        self.newest = newest
        self.bytes = size
        self.rows: list[tuple[int, float, int, str, str | None, str | None, str]] = []
        self._now = now
        self._keys: dict[str, int] = {}

    def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        offsets = []
        for draft in drafts:
            key = draft.key
            if key is not None:
                known = self._known(key)
                if known is not None:
                    offsets.append(known)
                    continue
                self._keys[key] = self.newest + 1
            self.newest += 1
            size = len(draft.topic) + len(draft.event or "") + draft.size
            self.bytes += size
            self.rows.append((self.newest, self._now, size, draft.topic, draft.event, key, draft.data))
            offsets.append(self.newest)
        return [Cursor(self.epoch, offset) for offset in offsets]

    def _known(self, key: str) -> int | None:
        if key in self._keys:
            return self._keys[key]
        row = self.database.execute("SELECT offset FROM records WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def write(self) -> None:
        several = len(self.rows) - len(self.rows) % _ROWS
        for start in range(0, several, _ROWS):
            self.database.execute(_INSERT_ROWS, [*chain.from_iterable(self.rows[start : start + _ROWS])])
        self.database.executemany(_INSERT, self.rows[several:])
