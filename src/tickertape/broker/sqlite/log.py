"""``LogFile``, a log in an SQLite file: its tables, and all operations on them. Blocking.

The row in ``log`` is the head of the log. An append reads and writes it in its own transaction
(``BEGIN IMMEDIATE``: one writer at a time, among all processes), so offsets have no holes. The same
transaction deletes records over the retention; SQLite uses their pages again.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

from ...errors import BrokerError, LogResetError
from ...wire import Cursor, Draft
from ..protocol import Retention, TopicFilter
from ..records import LogState, Page, Record, new_epoch

_APPLICATION: Final = 0x7469636B
"""``tick``: identifies our databases in the file header."""

_VERSION: Final = 1
"""Version of the tables."""

_SCHEMA: Final = (
    """CREATE TABLE log (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch TEXT NOT NULL,
        newest INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        boot TEXT
    )""",
    # The columns that trimming and filtering read come first; long data may continue on other pages.
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
"""Records inserted by one statement: cheaper than one statement each."""

_INSERT: Final = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)"
_INSERT_ROWS: Final = _INSERT + ", (?, ?, ?, ?, ?, ?, ?)" * (_ROWS - 1)

_TRIM: Final = 1000
"""Records deleted at a time: a few milliseconds, in which other writers wait."""

_SLICE: Final = 0.005
"""Seconds of one slice of a filtered read: other readers, and the event loop for its lock, wait no longer."""

_LOOKS: Final = 64
"""Records of a filtered read between two looks at the clock."""

_POLL: Final = 0.001
"""Seconds between two attempts to begin a write. SQLite itself waits up to 0.1 s between two attempts, and so
misses the gaps between the transactions of a process that writes all the time."""

_JOURNAL_LIMIT: Final = 16 * 1024 * 1024
"""Bytes to which SQLite cuts its write-ahead log after a burst."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

_HINTS: Final = {
    "SQLITE_BUSY": "another process holds its lock",
    "SQLITE_CANTOPEN": "check that its directory exists and that this process may write to it",
    "SQLITE_CORRUPT": "its content is damaged: restore it, or move it away to start a new log",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_IOERR": "the disk fails, or is full",
    "SQLITE_NOTADB": "it is another kind of file, or its content is damaged",
    "SQLITE_PERM": "this process may not write to it",
    "SQLITE_READONLY": "this process may not write to it, or to its directory",
}


class Stored(NamedTuple):
    """Result of an append: a cursor for each draft, and the records that were new."""

    cursors: list[Cursor]
    records: list[Record]


class Slice(NamedTuple):
    """A part of a filtered read.

    Attributes:
        state: the state of the log at the moment of this part.
        records: the records found.
        offset: the last offset that was examined.
        end: True if the end of the log was reached.
    """

    state: LogState
    records: list[Record]
    offset: int
    end: bool


class LogFile:
    """One connection to the file, for one thread; only ``identity`` may be read in others.

    Arguments:
        path: the file, absolute.
        retention: the limits of the log.
        synchronous: ``"full"`` or ``"normal"``, see :class:`~tickertape.broker.SQLiteBroker`.
        timeout: seconds to wait for locks of other processes.
        now: the clock for ages, in seconds; the same in all processes.

    Attributes:
        identity: device and inode of the file that is open; ``None`` before the first.
        is_abandoned: returns True if no caller waits for this connection any more, so that it waits for no lock.
    """

    def __init__(
        self, path: Path, retention: Retention, synchronous: str, timeout: float, now: Callable[[], float] = time.time
    ) -> None:
        self.identity: tuple[int, int] | None = None
        self.is_abandoned: Callable[[], bool] = lambda: False
        self._path = path
        self._retention = retention
        self._synchronous = synchronous
        self._timeout = timeout
        self._now = now
        self._connection: sqlite3.Connection | None = None

    # Connections.

    def create(self, seen: Cursor) -> None:
        """Connect, and create the file and its tables if there are none.

        Arguments:
            seen: the newest record that this process knows. If the file has the same epoch and ends before
                it, it is an older copy, and gets a new epoch.

        Raises:
            BrokerError: the file cannot be opened or created, or it is not a log.
        """
        if not self._path.parent.is_dir():
            raise BrokerError(f"cannot open the log {self._path}: no such directory: {self._path.parent}")
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                with self._translate_errors("open"):
                    self._connect(create=True)
                    with self._transaction("DEFERRED") as database:
                        self._is_empty(database)  # refuse a foreign file before anything is changed
                    self._database.execute("PRAGMA journal_mode = WAL")
                    self._migrate(seen)
                return
            except BrokerError as error:
                self.close()
                # SQLite does not wait for the lock that another process holds for a moment while it changes
                # the journal's mode, or closes the file as the last one.
                cause = error.__cause__
                busy = isinstance(cause, sqlite3.Error) and _primary_code(cause) == "SQLITE_BUSY"
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL)

    def connect(self) -> None:
        """Connect to the existing file."""
        with self._translate_errors("open"):
            self._connect(create=False)

    def close(self) -> None:
        """Close the connection; may be called twice."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _connect(self, *, create: bool) -> None:
        self.close()
        uri = f"{self._path.as_uri()}?mode={'rwc' if create else 'rw'}"
        timeout = 0 if create else self._timeout  # a writer waits by itself, see `_begin`
        self._connection = sqlite3.connect(uri, timeout=timeout, isolation_level=None, uri=True)
        self._connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        self._connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT}")
        self.identity = file_identity(self._path)

    def _migrate(self, seen: Cursor) -> None:
        with self._transaction("IMMEDIATE") as database:
            if self._is_empty(database):
                for statement in _SCHEMA:
                    database.execute(statement)
                database.execute("INSERT INTO log VALUES (1, ?, 0, 0, NULL)", (new_epoch(),))
            self._check_boot(database)
            self._check_lost(database, seen)

    def _is_empty(self, database: sqlite3.Connection) -> bool:
        """Return True if the file has no tables yet; raise if it is not a log of this version."""
        ((version,),) = database.execute("PRAGMA user_version")
        ((application,),) = database.execute("PRAGMA application_id")
        ((tables,),) = database.execute("SELECT count(*) FROM sqlite_master")
        if not tables and not version:
            return True
        if application != _APPLICATION:
            raise BrokerError(f"cannot open the log {self._path}: it is a database of another program")
        if version > _VERSION:
            raise BrokerError(
                f"cannot open the log {self._path}: its format is {version}, of a newer tickertape; "
                f"this one reads format {_VERSION}"
            )
        return False

    def _check_boot(self, database: sqlite3.Connection) -> None:
        """Begin a new epoch if the machine was restarted since this log was written without full sync.

        Its last records may be lost, and their offsets must not be used again under the same epoch.
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

    # Lost records.

    def begin_epoch_if_lost(self, seen: Cursor) -> None:
        """Begin a new epoch if the log has lost a record that this process knows; keep the other records.

        ``seen`` was stored before this call. So if the log ends before ``seen``, it has lost that record, even
        if other processes append now.
        """
        with self._translate_errors("change"), self._transaction("IMMEDIATE") as database:
            self._check_lost(database, seen)

    def _check_lost(self, database: sqlite3.Connection, seen: Cursor) -> None:
        database.execute(
            "UPDATE log SET epoch = ? WHERE epoch = ? AND newest < ?", (new_epoch(), seen.epoch, seen.offset)
        )

    # Appends.

    def append(self, drafts: Sequence[Draft], seen: Cursor) -> Stored:
        """Append drafts in one transaction, and return when it is committed.

        Arguments:
            drafts: at least one.
            seen: the newest record that this process knows, see :meth:`begin_epoch_if_lost`.
        """
        with self._translate_errors("append to"):
            self._check_replaced()
            with self._transaction("IMMEDIATE") as database:
                head = self._head(database)
                if head.epoch == seen.epoch and head.newest < seen.offset:
                    self._check_lost(database, seen)
                    head = self._head(database)
                cursors = head.append(drafts)
                head.insert()
                self._delete_old(head, max(_TRIM, 2 * len(head.rows)))
            # If the file was replaced during the transaction, the records are in a file without a name.
            self._check_replaced()
            return Stored(cursors, [Record(row[0], row[3], row[4], row[6]) for row in head.rows])

    def trim(self) -> bool:
        """Delete some records over the retention; return True if there may be more."""
        with self._translate_errors("trim"):
            if self._state().oldest == self._oldest_stored():
                return False
            with self._transaction("IMMEDIATE") as database:
                return self._delete_old(self._head(database), _TRIM) == _TRIM

    def _delete_old(self, head: _Head, limit: int) -> int:
        keep = self._retention
        deadline = self._deadline()
        last, count = 0, 0
        for offset, at, size in head.database.execute(
            "SELECT offset, at, size FROM records ORDER BY offset LIMIT ?", (limit,)
        ):
            if not (
                (keep.events is not None and head.newest - offset >= keep.events)
                or (keep.bytes is not None and head.bytes > keep.bytes)
                or at < deadline
            ):
                break
            last, count = offset, count + 1
            head.bytes -= size
        if count:
            head.database.execute("DELETE FROM records WHERE offset <= ?", (last,))
        if count or head.rows:
            head.database.execute("UPDATE log SET newest = ?, bytes = ?", (head.newest, head.bytes))
        return count

    # Reads.

    def state(self) -> LogState:
        """Return the current state of the log."""
        with self._translate_errors("read"):
            self._check_replaced()
            return self._state()

    def newest(self) -> Cursor:
        """Return the cursor of the newest record, or offset 0: the cheapest look for appends."""
        with self._translate_errors("read"):
            self._check_replaced()
            return Cursor(*self._only(self._database.execute("SELECT epoch, newest FROM log")))

    def page(self, after: int, limit: int, size: int | None = None) -> Page:
        """Return the next kept records: at most ``limit``, and at most ``size`` bytes or one record."""
        with self._translate_errors("read"), self._transaction("DEFERRED") as database:
            self._check_replaced()
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

    def scan(self, after: int, limit: int, topics: TopicFilter, wanted: dict[str, bool]) -> Slice:
        """Read a slice of the records after an offset, and return those with the right topics.

        Arguments:
            after: an offset.
            limit: the greatest number of records to return.
            topics: the topics to return.
            wanted: the results of ``topics`` so far, shared by the slices of one read.
        """
        with self._translate_errors("read"), self._transaction("DEFERRED") as database:
            self._check_replaced()
            state = self._state()
            offset = max(after, state.oldest - 1)
            found: list[int] = []
            deadline = time.monotonic() + _SLICE
            rows = database.execute("SELECT offset, topic FROM records WHERE offset > ? ORDER BY offset", (offset,))
            end = False
            while not end and len(found) < limit and time.monotonic() < deadline:
                some = rows.fetchmany(_LOOKS)
                end = len(some) < _LOOKS
                for offset, topic in some:
                    if topic not in wanted:
                        wanted[topic] = topics(topic)
                    if wanted[topic]:
                        found.append(offset)
                        if len(found) == limit:
                            end = False
                            break
            rows.close()
            query = "SELECT offset, topic, event, data FROM records WHERE offset = ?"
            records = [Record(*database.execute(query, (each,)).fetchone()) for each in found]
            return Slice(state, records, offset, end)

    def _state(self) -> LogState:
        rows = self._database.execute(
            "SELECT epoch, newest, (SELECT offset FROM records WHERE at >= ? ORDER BY offset LIMIT 1) FROM log",
            (self._deadline(),),
        )
        epoch, newest, first = self._only(rows)
        oldest = newest + 1 if first is None else first
        if self._retention.events is not None:
            oldest = max(oldest, newest - self._retention.events + 1)
        return LogState(epoch, oldest, newest)

    def _head(self, database: sqlite3.Connection) -> _Head:
        epoch, newest, size = self._only(database.execute("SELECT epoch, newest, bytes FROM log"))
        return _Head(database, epoch, newest, size, self._now())

    def _only(self, rows: sqlite3.Cursor) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = rows.fetchone()
        if row is None:
            raise BrokerError(f"cannot read the log {self._path}: its content is damaged, the table 'log' is empty")
        return row

    def _oldest_stored(self) -> int:
        ((oldest,),) = self._database.execute(
            "SELECT coalesce((SELECT min(offset) FROM records), (SELECT newest + 1 FROM log))"
        )
        return int(oldest)

    def _deadline(self) -> float:
        return float("-inf") if self._retention.age is None else self._now() - self._retention.age

    # Errors.

    @property
    def _database(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LogResetError(f"the log {self._path} is not open: it was replaced, and could not be opened again")
        return self._connection

    def _check_replaced(self) -> None:
        if file_identity(self._path) != self.identity:
            raise LogResetError(f"the file of the log {self._path} was replaced or removed")

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        database = self._database
        self._begin(database, kind)
        try:
            yield database
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _begin(self, database: sqlite3.Connection, kind: str) -> None:
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                database.execute(f"BEGIN {kind}")
                return
            except sqlite3.OperationalError as error:
                busy = _primary_code(error) == "SQLITE_BUSY"
                if not busy or time.monotonic() > deadline or self.is_abandoned():
                    raise
            time.sleep(_POLL)

    @contextmanager
    def _translate_errors(self, action: str) -> Iterator[None]:
        """Raise errors of SQLite as ``BrokerError``, with the path and a hint."""
        try:
            yield
        except sqlite3.Error as error:
            if self.identity is not None and file_identity(self._path) != self.identity:
                raise LogResetError(
                    f"cannot {action} the log {self._path}: its file was replaced or removed"
                ) from error
            hint = _HINTS.get(_primary_code(error))
            raise BrokerError(
                f"cannot {action} the log {self._path}: {error}" + (f"; {hint}" if hint else "")
            ) from error


class _Head:
    """The head of the log within a transaction, and the rows to insert."""

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
                known = self._offset_of(key)
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

    def _offset_of(self, key: str) -> int | None:
        if key in self._keys:
            return self._keys[key]
        row = self.database.execute("SELECT offset FROM records WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def insert(self) -> None:
        whole = len(self.rows) - len(self.rows) % _ROWS
        for start in range(0, whole, _ROWS):
            self.database.execute(_INSERT_ROWS, [*chain.from_iterable(self.rows[start : start + _ROWS])])
        self.database.executemany(_INSERT, self.rows[whole:])


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file; ``None`` if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - over a hundred times a second
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _primary_code(error: sqlite3.Error) -> str:
    """Return the name of an error without its details: ``SQLITE_IOERR`` of ``SQLITE_IOERR_WRITE``."""
    return "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
