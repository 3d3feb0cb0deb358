"""A connection to an SQLite file that other processes write to, and that someone may replace. Blocking."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...errors import BrokerError, LogResetError

__all__ = ["SQLiteFile", "code"]

_JOURNAL_LIMIT: Final = 16 * 1024 * 1024
"""Bytes to which the write-ahead log is cut back after a burst."""

_TICK: Final = 0.1
"""Seconds for which a file's time may stay the same although it is written to: on Linux 0.01 at most."""

_ASK: Final = 20
"""Looks of which one asks SQLite in any case."""

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


class SQLiteFile:
    """Connect to a file; for one thread at a time.

    Arguments:
        path: the file.
        synchronous: ``"full"`` or ``"normal"``, see :class:`~tickertape.broker.SQLiteBroker`.
        timeout: seconds to wait for other processes' locks.
    """

    def __init__(self, path: Path, synchronous: str, timeout: float) -> None:
        self._path = path
        self._synchronous = synchronous
        self._timeout = timeout
        self._database: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._journal = f"{path}-wal"
        self._version = 0
        self._looks = 0
        self._mark = (0.0, 0)

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

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        if self._database is not None:
            self._database.close()
        self._database = None

    def changed(self) -> bool:
        """Tell whether another connection, of this process or another, committed since the last call.

        Asking SQLite takes locks. The write-ahead log's time and size tell as much, but for writes that
        follow each other within one tick of the file system's clock: so it is asked until that is over,
        and now and then in any case.
        """
        self._looks += 1
        mark = self._mark
        self._mark = self._find_mark()
        if mark == self._mark and time.time() - mark[0] > _TICK and self._looks % _ASK:
            return False
        version = self._version
        ((self._version,),) = self._database_now.execute("PRAGMA data_version")
        return version != self._version

    def moved(self) -> bool:
        """Tell whether there is no longer the file that was connected to."""
        return self._find() != self._identity

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

    def _find_mark(self) -> tuple[float, int]:
        try:
            found = os.stat(self._journal)  # noqa: PTH116 - some hundred times a second
        except OSError:
            return time.time(), 0
        return found.st_mtime, found.st_size

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
            hint = _HINTS.get(code(error))
            if self.moved() and self._identity is not None:
                raise LogResetError(
                    f"cannot {action} the log {self._path}: its file was replaced or removed"
                ) from error
            raise BrokerError(
                f"cannot {action} the log {self._path}: {error}" + (f"; {hint}" if hint else "")
            ) from error


def code(error: sqlite3.Error) -> str:
    """Return the name of an error without its details: ``SQLITE_IOERR`` of ``SQLITE_IOERR_WRITE``."""
    return "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
