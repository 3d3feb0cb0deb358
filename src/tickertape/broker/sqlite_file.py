"""The log in an SQLite file: its tables, and what is done to them. Blocking, for one thread at a time.

The row in ``log`` is the log's head. It is read and written in the transaction that appends
(``BEGIN IMMEDIATE``: one writer at a time, of all processes), so that offsets have no holes. Records
that the retention does not keep are deleted in the same transaction, and their pages are used again.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import BrokerError, LogResetError
from .protocol import Retention, TopicFilter
from .records import Cursor, Draft, LogState, Record, new_epoch

__all__ = ["LogFile", "Page"]

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

_TRIM: Final = 1000
"""Records deleted at a time: some milliseconds, for which other writers wait."""

_SCAN: Final = 5000
"""Records looked at between two turns of other readers: some milliseconds."""

_JOURNAL_LIMIT: Final = 16 * 1024 * 1024
"""Bytes to which the write-ahead log is cut back after a burst."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

_HINTS: Final = {
    "SQLITE_BUSY": "another process holds its lock",
    "SQLITE_CANTOPEN": "it cannot be opened or made: is there such a directory, and may this process write to it?",
    "SQLITE_CORRUPT": "its content is damaged: restore it, or move it away to begin another log",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_IOERR": "the disk fails, or is full",
    "SQLITE_NOTADB": "it is another kind of file, or its content is damaged",
    "SQLITE_PERM": "this process may not write to it",
    "SQLITE_READONLY": "this process may not write to it, or to its directory",
}


class Page(NamedTuple):
    """Records, and the state of the log at the same moment."""

    state: LogState
    records: list[Record]


class LogFile:
    """Connect to the file and append, read or trim.

    Arguments:
        path: the file; it is made by :meth:`create`.
        retention: how much is kept.
        synchronous: ``"full"`` or ``"normal"``, see :class:`~tickertape.broker.sqlite.SQLiteBroker`.
        timeout: seconds to wait for other processes' locks.
        now: the clock that ages are measured on, the same in all processes, in seconds.
    """

    def __init__(
        self, path: Path, retention: Retention, synchronous: str, timeout: float, now: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._retention = retention
        self._synchronous = synchronous
        self._timeout = timeout
        self._now = now
        self._database: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._version = 0

    # Connecting.

    def create(self) -> None:
        """Connect, and make the file and its tables if they are not there."""
        if not self._path.parent.is_dir():
            raise BrokerError(f"expected a directory for the log {self._path}, got {self._path.parent}: there is none")
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                with self._told("open"):
                    self._connect()
                    self._database_now.execute("PRAGMA journal_mode = WAL")
                    self._migrate()
                return
            except BrokerError as error:
                self.close()
                # Who changes the journal's mode, or closes the file as the last one, holds it for a moment
                # in a way that SQLite does not wait for.
                cause = error.__cause__
                if not isinstance(cause, sqlite3.Error) or _code(cause) != "SQLITE_BUSY" or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def connect(self) -> None:
        """Connect to the file that is there."""
        with self._told("open"):
            self._connect()

    def _connect(self) -> None:
        self.close()
        self._database = sqlite3.connect(self._path, timeout=self._timeout, isolation_level=None)
        self._database.execute(f"PRAGMA synchronous = {self._synchronous}")
        self._database.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT}")
        self._identity = self._find()

    def _migrate(self) -> None:
        with self._transaction("IMMEDIATE") as database:
            ((version,),) = database.execute("PRAGMA user_version")
            ((application,),) = database.execute("PRAGMA application_id")
            ((tables,),) = database.execute("SELECT count(*) FROM sqlite_master")
            if not tables and not version:
                for statement in _SCHEMA:
                    database.execute(statement)
                database.execute("INSERT INTO log VALUES (1, ?, 0, 0, NULL)", (new_epoch(),))
            elif application != _APPLICATION:
                raise BrokerError(f"expected a log of tickertape in {self._path}, got another program's database")
            elif version > _VERSION:
                raise BrokerError(
                    f"expected a log of format {_VERSION} in {self._path}, got format {version}: "
                    "a newer tickertape has written it"
                )
            self._check_boot(database)

    def _check_boot(self, database: sqlite3.Connection) -> None:
        """Begin another epoch if the machine was started again since this log was written to without full sync.

        Its last records may be lost then, and their offsets must not come back under the same epoch.
        """
        ((epoch, known),) = database.execute("SELECT epoch, boot FROM log")
        with suppress(OSError):
            boot = _BOOT_ID.read_text().strip()
            if known is not None and known != boot:
                epoch, known = new_epoch(), None
            wanted = boot if self._synchronous == "normal" else known
            database.execute(
                "UPDATE log SET epoch = ?, boot = ? WHERE epoch <> ? OR boot IS NOT ?", (epoch, wanted) * 2
            )

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        if self._database is not None:
            self._database.close()
        self._database = None

    # Appending.

    def append(self, batches: Sequence[Sequence[Draft]]) -> list[list[Cursor]]:
        """Append several batches in one transaction; returns when it is committed."""
        with self._told("append to"):
            self._check_place()
            with self._transaction("IMMEDIATE") as database:
                appending = _Appending(database, self._now())
                cursors = [[appending.append(draft) for draft in drafts] for drafts in batches]
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
                return self._trim(_Appending(database, self._now()), _TRIM) == _TRIM

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

    def changed(self) -> bool:
        """Tell whether another connection, of this process or another, committed since the last call."""
        version = self._version
        ((self._version,),) = self._database_now.execute("PRAGMA data_version")
        return version != self._version

    def moved(self) -> bool:
        """Tell whether there is no longer the file that was connected to."""
        return self._find() != self._identity

    def _state(self) -> LogState:
        deadline = self._deadline()
        rows = self._database_now.execute(
            "SELECT epoch, newest, (SELECT offset FROM records WHERE at >= ? ORDER BY offset LIMIT 1) FROM log",
            (deadline,),
        )
        epoch, newest, first = rows.fetchone()
        oldest = newest + 1 if first is None else first
        if self._retention.events is not None:
            oldest = max(oldest, newest - self._retention.events + 1)
        return LogState(epoch, oldest, newest)

    def _first(self) -> int:
        ((first,),) = self._database_now.execute(
            "SELECT coalesce((SELECT min(offset) FROM records), (SELECT newest + 1 FROM log))"
        )
        return int(first)

    def _deadline(self) -> float:
        return float("-inf") if self._retention.age is None else self._now() - self._retention.age

    # What may go wrong.

    @property
    def _database_now(self) -> sqlite3.Connection:
        if self._database is None:
            raise BrokerError(f"expected an open log {self._path}, got one that could not be opened again")
        return self._database

    def _find(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - some hundred times a second
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _check_place(self) -> None:
        if self.moved():
            raise LogResetError(f"expected the log {self._path} that was opened, got another file or none in its place")

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        database = self._database_now
        database.execute(f"BEGIN {kind}")
        try:
            yield database
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    @contextmanager
    def _told(self, action: str) -> Iterator[None]:
        """Say what SQLite could not do, to whom, and what that means."""
        try:
            yield
        except sqlite3.Error as error:
            hint = _HINTS.get(_code(error))
            if self.moved() and self._identity is not None:
                raise LogResetError(
                    f"cannot {action} the log {self._path}: its file was replaced or removed"
                ) from error
            raise BrokerError(
                f"cannot {action} the log {self._path}: {error}" + (f"; {hint}" if hint else "")
            ) from error


def _code(error: sqlite3.Error) -> str:
    """Return the name of an error without its details: ``SQLITE_IOERR`` of ``SQLITE_IOERR_WRITE``."""
    return "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])


class _Appending:
    """The log's head within a transaction, and the rows that are to be written."""

    def __init__(self, database: sqlite3.Connection, now: float) -> None:
        self.database = database
        self.rows: list[tuple[int, float, int, str, str | None, str | None, str]] = []
        ((self.epoch, self.newest, self.bytes),) = database.execute("SELECT epoch, newest, bytes FROM log")
        self._now = now
        self._keys: dict[str, int] = {}

    def append(self, draft: Draft) -> Cursor:
        if draft.key is not None:
            known = self._known(draft.key)
            if known is not None:
                return Cursor(self.epoch, known)
            self._keys[draft.key] = self.newest + 1
        self.newest += 1
        size = len(draft.topic) + len(draft.event or "") + len(draft.data.encode())
        self.bytes += size
        self.rows.append((self.newest, self._now, size, draft.topic, draft.event, draft.key, draft.data))
        return Cursor(self.epoch, self.newest)

    def _known(self, key: str) -> int | None:
        if key in self._keys:
            return self._keys[key]
        row = self.database.execute("SELECT offset FROM records WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def write(self) -> None:
        self.database.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", self.rows)
