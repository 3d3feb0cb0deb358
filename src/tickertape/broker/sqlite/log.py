"""``LogFile``, a log in an SQLite file: its tables, and all operations on them. Blocking.

The row in ``log`` is the head of the log. An append reads and writes it in its own transaction
(``BEGIN IMMEDIATE``: one writer at a time, among all processes), so each offset is given once. The same
transaction deletes records over the retention; SQLite uses their pages again.

Records of topics with a rule are in ``ruled``, all others in ``records``: who has no rules pays nothing for them.
``lanes`` has the size of each rule's records and the newest offset that the rule has dropped.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

from ...errors import BrokerError, LogResetError
from ...wire import Cursor, Draft
from ..protocol import TopicFilter
from ..records import OTHERS, LogState, Page, Record, marks_after, new_epoch
from ..retention import MAX_MARKS, Lanes, Retention

_APPLICATION: Final = 0x7469636B
"""``tick``: identifies our databases in the file header."""

_VERSION: Final = 2
"""Version of the tables."""

_SCHEMA: Final = (
    """CREATE TABLE log (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch TEXT NOT NULL,
        newest INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        kept INTEGER NOT NULL,
        dropped INTEGER NOT NULL,
        boot TEXT
    )""",
    """CREATE TABLE lanes (
        name TEXT PRIMARY KEY,
        bytes INTEGER NOT NULL,
        kept INTEGER NOT NULL,
        dropped INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE TABLE discarded (topic TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID",
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
    """CREATE TABLE ruled (
        offset INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        size INTEGER NOT NULL,
        topic TEXT NOT NULL,
        event TEXT,
        key TEXT,
        data TEXT NOT NULL,
        lane TEXT NOT NULL
    )""",
    "CREATE UNIQUE INDEX ruled_keys ON ruled (key) WHERE key IS NOT NULL",
    "CREATE INDEX ruled_lanes ON ruled (lane, offset)",
    "CREATE INDEX ruled_topics ON ruled (topic, offset)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_VERSION}",
)

_ROWS: Final = 25
"""Records inserted by one statement: cheaper than one statement each."""

_INSERT: Final = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)"
_INSERT_ROWS: Final = _INSERT + ", (?, ?, ?, ?, ?, ?, ?)" * (_ROWS - 1)
_INSERT_RULED: Final = "INSERT INTO ruled VALUES (?, ?, ?, ?, ?, ?, ?, ?)"

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


class _Lane(NamedTuple):
    """The records of a rule, or all others.

    Attributes:
        name: the pattern of the rule; :data:`OTHERS` for the others.
        limits: its limits.
        bytes: bytes of its records in the file.
        kept: number of its records in the file.
        dropped: the newest offset that it has dropped, records included that are still in the file.
        stored: the same without those.
    """

    name: str
    limits: Retention
    bytes: int
    kept: int
    dropped: int
    stored: int


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
        self._lane_of = Lanes(retention)
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
                database.execute("INSERT INTO log VALUES (1, ?, 0, 0, 0, 0, NULL)", (new_epoch(),))
            self._check_boot(database)
            self._check_lost(database, seen)
            # Until now, records of a new rule were dropped with the others: readers must not trust older cursors.
            for lane in self._lane_of.names:
                database.execute("INSERT OR IGNORE INTO lanes SELECT ?, 0, 0, newest FROM log", (lane,))

    def _is_empty(self, database: sqlite3.Connection) -> bool:
        """Return True if the file has no tables yet; raise if it is not a log of this version."""
        ((version,),) = database.execute("PRAGMA user_version")
        ((application,),) = database.execute("PRAGMA application_id")
        ((tables,),) = database.execute("SELECT count(*) FROM sqlite_master")
        if not tables and not version:
            return True
        if application != _APPLICATION:
            raise BrokerError(f"cannot open the log {self._path}: it is a database of another program")
        if version < _VERSION:
            raise BrokerError(
                f"cannot open the log {self._path}: its format is {version}, of an older tickertape; "
                f"this one reads format {_VERSION}: move the file away to begin a new log"
            )
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
                self._delete_old(head, max(_TRIM, 2 * len(head.records)))
            # If the file was replaced during the transaction, the records are in a file without a name.
            self._check_replaced()
            return Stored(cursors, head.records)

    def trim(self) -> bool:
        """Delete some records over the retention; return True if there may be more."""
        with self._translate_errors("trim"):
            if all(lane.dropped == lane.stored for lane in self._lanes()):
                return False
            with self._transaction("IMMEDIATE") as database:
                return self._delete_old(self._head(database), _TRIM) == _TRIM

    def _delete_old(self, head: _Head, limit: int) -> int:
        """Delete records over the retention, at most ``limit`` of all lanes together, and store the head."""
        database = head.database
        total = self._delete_from(head.others, limit, database)
        for lane in head.lanes():
            count = self._delete_from(lane, limit - total, database) if total < limit else 0
            total += count
            if count or lane.changed:
                values = (lane.bytes, lane.kept, lane.dropped, lane.name)
                database.execute("UPDATE lanes SET bytes = ?, kept = ?, dropped = ? WHERE name = ?", values)
        if total or head.records:
            others = head.others
            database.execute(
                "UPDATE log SET newest = ?, bytes = ?, kept = ?, dropped = ?",
                (head.newest, others.bytes, others.kept, others.dropped),
            )
        return total

    def _delete_from(self, lane: _Size, limit: int, database: sqlite3.Connection) -> int:
        keep = self._lane_of.limits(lane.name)
        deadline = self._deadline(keep)
        over_events = keep.events is not None and lane.kept > keep.events
        over_bytes = keep.bytes is not None and lane.bytes > keep.bytes
        if not (over_events or over_bytes or keep.age is not None):
            return 0
        table, condition, arguments = _part(lane.name)
        count = 0
        for offset, at, size in database.execute(
            f"SELECT offset, at, size FROM {table} WHERE {condition} ORDER BY offset LIMIT ?", (*arguments, limit)
        ):
            if not (
                (keep.events is not None and lane.kept > keep.events)
                or (keep.bytes is not None and lane.bytes > keep.bytes)
                or at < deadline
            ):
                break
            count += 1
            lane.dropped = offset
            lane.kept -= 1
            lane.bytes -= size
        if count:
            database.execute(f"DELETE FROM {table} WHERE {condition} AND offset <= ?", (*arguments, lane.dropped))
        return count

    def discard(self, topic: str, upto: int) -> bool:
        """Delete some records of a topic with a rule, up to an offset; return True if there may be more."""
        with self._translate_errors("change"):
            self._check_replaced()
            found = "SELECT offset, size, lane FROM ruled WHERE topic = ? AND offset <= ? ORDER BY offset LIMIT ?"
            with self._transaction("IMMEDIATE") as database:
                rows = database.execute(found, (topic, upto, _TRIM)).fetchall()
                if not rows:
                    return False
                last = rows[-1][0]
                database.execute("DELETE FROM ruled WHERE topic = ? AND offset <= ?", (topic, last))
                change = "UPDATE lanes SET bytes = bytes - ?, kept = kept - 1 WHERE name = ?"
                database.executemany(change, [(size, lane) for _, size, lane in rows])
                database.execute("INSERT OR REPLACE INTO discarded VALUES (?, ?)", (topic, last))
                self._fold_marks(database, rows[-1][2])
                return len(rows) == _TRIM

    def _fold_marks(self, database: sqlite3.Connection, lane: str) -> None:
        """Keep the marks of discarded topics within their number: the oldest becomes that of its rule."""
        ((count,),) = database.execute("SELECT count(*) FROM discarded")
        if count <= MAX_MARKS:
            return
        topic, offset = self._only(database.execute("SELECT topic, offset FROM discarded ORDER BY offset LIMIT 1"))
        database.execute("DELETE FROM discarded WHERE topic = ?", (topic,))
        name = self._lane_of(topic) or lane
        database.execute("UPDATE lanes SET dropped = max(dropped, ?) WHERE name = ?", (offset, name))

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
        with self._translate_errors("read"), self._transaction("DEFERRED"):
            self._check_replaced()
            state, rows = self._select(after, "topic, event, data, size", limit)
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
            state, rows = self._select(after, "topic")
            offset = max(after, state.oldest - 1)
            found: list[int] = []
            deadline = time.monotonic() + _SLICE
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
            query = "SELECT offset, topic, event, data FROM {} WHERE offset = ?"
            query = f"{query.format('records')} UNION ALL {query.format('ruled')}"
            records = [Record(*database.execute(query, (each, each)).fetchone()) for each in found]
            return Slice(state, records, offset, end)

    def _state(self, lanes: list[_Lane] | None = None) -> LogState:
        epoch, newest = self._only(self._database.execute("SELECT epoch, newest FROM log"))
        lanes = self._lanes() if lanes is None else lanes
        first = (self._first(lane) for lane in lanes if lane.kept)
        oldest = min((offset for offset in first if offset is not None), default=newest + 1)
        marks = [(lane.name, lane.dropped) for lane in lanes]
        discarded = self._database.execute(
            "SELECT topic, offset FROM discarded WHERE offset >= ?", (oldest,)
        ).fetchall()
        return LogState(epoch, oldest, newest, marks_after(oldest, marks, discarded))

    def _lanes(self) -> list[_Lane]:
        """Return the lanes as a reader sees them: without records that are over the limits, if still in the file."""
        query = "SELECT '', bytes, kept, dropped FROM log UNION ALL SELECT name, bytes, kept, dropped FROM lanes"
        return [self._look(*row) for row in self._database.execute(query).fetchall()]

    def _look(self, name: str, size: int, kept: int, stored: int) -> _Lane:
        limits = self._lane_of.limits(name)
        table, condition, arguments = _part(name)
        dropped = stored
        if kept and limits.age is not None:
            # From the oldest on, as far as they are too old: as many as wait for the next trimming.
            query = f"SELECT offset, at FROM {table} WHERE {condition} ORDER BY offset"
            deadline = self._deadline(limits)
            for offset, at in self._database.execute(query, arguments):
                if at >= deadline:
                    break
                dropped = offset
        if limits.events is not None and kept > limits.events:
            query = f"SELECT offset FROM {table} WHERE {condition} ORDER BY offset LIMIT 1 OFFSET ?"
            over = self._only(self._database.execute(query, (*arguments, kept - limits.events - 1)))
            dropped = max(dropped, over[0])
        return _Lane(name, limits, size, kept, dropped, stored)

    def _first(self, lane: _Lane) -> int | None:
        table, condition, arguments = _part(lane.name)
        query = f"SELECT offset FROM {table} WHERE {condition} AND offset > ? ORDER BY offset LIMIT 1"
        row = self._database.execute(query, (*arguments, lane.dropped)).fetchone()
        return None if row is None else int(row[0])

    def _select(self, after: int, columns: str, limit: int = -1) -> tuple[LogState, sqlite3.Cursor]:
        """Return the state of the log, and its records after an offset, in order: the offset and some columns."""
        lanes = self._lanes()
        state = self._state(lanes)
        others, *ruled = lanes
        after = max(after, state.oldest - 1)
        query = f"SELECT offset, {columns} FROM records WHERE offset > ?"
        arguments: list[Any] = [max(after, others.dropped)]
        if any(lane.kept for lane in ruled):
            query += f" UNION ALL SELECT offset, {columns} FROM ruled WHERE offset > ?"
            arguments.append(after)
            for lane in ruled:
                if lane.dropped > max(after, lane.stored):
                    query += " AND NOT (lane = ? AND offset <= ?)"
                    arguments += (lane.name, lane.dropped)
        return state, self._database.execute(f"{query} ORDER BY offset LIMIT ?", (*arguments, limit))

    def _head(self, database: sqlite3.Connection) -> _Head:
        epoch, newest, *others = self._only(database.execute("SELECT epoch, newest, bytes, kept, dropped FROM log"))
        return _Head(database, epoch, newest, _Size(OTHERS, *others), self._now(), self._lane_of)

    def _only(self, rows: sqlite3.Cursor) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = rows.fetchone()
        if row is None:
            raise BrokerError(f"cannot read the log {self._path}: its content is damaged, the table 'log' is empty")
        return row

    def _deadline(self, limits: Retention) -> float:
        return float("-inf") if limits.age is None else self._now() - limits.age

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


def _part(lane: str) -> tuple[str, str, list[str]]:
    """Return the table of a lane, the condition for its records there, and the condition's arguments."""
    return ("ruled", "lane = ?", [lane]) if lane else ("records", "TRUE", [])


class _Size:
    """The size of a lane within a transaction."""

    def __init__(self, name: str, bytes: int, kept: int, dropped: int) -> None:
        self.name = name
        self.bytes = bytes
        self.kept = kept
        self.dropped = dropped
        self.changed = False


class _Head:
    """The head of the log within a transaction, and the records to insert."""

    def __init__(
        self, database: sqlite3.Connection, epoch: str, newest: int, others: _Size, now: float, lane_of: Lanes
    ) -> None:
        self.database = database
        self.epoch = epoch
        self.newest = newest
        self.others = others
        self.records: list[Record] = []
        self._rows: list[tuple[int, float, int, str, str | None, str | None, str]] = []
        self._ruled: list[tuple[int, float, int, str, str | None, str | None, str, str]] = []
        self._lanes: dict[str, _Size] | None = None
        self._now = now
        self._lane_of = lane_of
        self._keys: dict[str, int] = {}

    def lanes(self) -> Collection[_Size]:
        """Return the lanes of rules that have records."""
        if self._lanes is None:
            rows = self.database.execute("SELECT name, bytes, kept, dropped FROM lanes WHERE kept > 0")
            self._lanes = {row[0]: _Size(*row) for row in rows.fetchall()}
        return self._lanes.values()

    def _lane(self, name: str) -> _Size:
        self.lanes()
        assert self._lanes is not None
        lane = self._lanes.get(name)
        if lane is None:
            query = "SELECT name, bytes, kept, dropped FROM lanes WHERE name = ?"
            row = self.database.execute(query, (name,)).fetchone()
            lane = self._lanes[name] = _Size(*row)
        lane.changed = True
        return lane

    def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        offsets = []
        lane_of = self._lane_of
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
            row = (self.newest, self._now, size, draft.topic, draft.event, key, draft.data)
            name = lane_of(draft.topic)
            if name == OTHERS:
                lane = self.others
                self._rows.append(row)
            else:
                lane = self._lane(name)
                self._ruled.append((*row, name))
            lane.bytes += size
            lane.kept += 1
            self.records.append(Record(self.newest, draft.topic, draft.event, draft.data))
            offsets.append(self.newest)
        return [Cursor(self.epoch, offset) for offset in offsets]

    def _offset_of(self, key: str) -> int | None:
        if key in self._keys:
            return self._keys[key]
        query = "SELECT offset FROM records WHERE key = ? UNION ALL SELECT offset FROM ruled WHERE key = ?"
        row = self.database.execute(query, (key, key)).fetchone()
        return None if row is None else int(row[0])

    def insert(self) -> None:
        whole = len(self._rows) - len(self._rows) % _ROWS
        for start in range(0, whole, _ROWS):
            self.database.execute(_INSERT_ROWS, [*chain.from_iterable(self._rows[start : start + _ROWS])])
        self.database.executemany(_INSERT, self._rows[whole:])
        if self._ruled:
            self.database.executemany(_INSERT_RULED, self._ruled)


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
