"""Notifications in an SQLite file, for any number of programs on one machine."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from .notification import MAX_BODY, MAX_LINK, MAX_TITLE, MAX_USER_ID
from .table import TableError

__all__ = ["SQLite"]

T = TypeVar("T")

_PATIENCE: Final = 5.0
"""Seconds to wait for another program that writes."""

# One writer at a time, and ids that are never given out twice: the order of ids is that of commits.
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS notifications (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id TEXT NOT NULL
    CONSTRAINT user_id_is_in_lower_case CHECK (user_id NOT GLOB '*[A-Z]*')
    CHECK (length(user_id) BETWEEN 1 AND {MAX_USER_ID}),
  title TEXT NOT NULL CHECK (length(title) BETWEEN 1 AND {MAX_TITLE}),
  body TEXT NOT NULL DEFAULT '' CHECK (length(body) <= {MAX_BODY}),
  link TEXT NOT NULL DEFAULT '' CHECK (length(link) <= {MAX_LINK}),
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  read_at TEXT,
  queue_key TEXT UNIQUE
);
CREATE INDEX IF NOT EXISTS notifications_of_user ON notifications (user_id, id);
CREATE INDEX IF NOT EXISTS notifications_unread ON notifications (user_id, id) WHERE read_at IS NULL;
CREATE TABLE IF NOT EXISTS notification_feeds (name TEXT PRIMARY KEY, position TEXT NOT NULL);
"""


class SQLite:
    """Keep the table in ``file``, which is made when it is not there."""

    now = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
    start = "0"
    newer = (
        "SELECT CAST(id AS TEXT), true, id, user_id, title, body, link, created_at, read_at "
        "FROM notifications WHERE id > CAST(? AS INTEGER) ORDER BY id LIMIT ?"
    )

    def __init__(self, file: Path) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="notifications")
        self._connection: sqlite3.Connection | None = None

    def __repr__(self) -> str:
        return f"<SQLite {self._file}>"

    async def open(self) -> None:
        """Open the file, and make the tables that are not there yet."""
        await self._run(self._open)

    async def close(self) -> None:
        """Close the file; may be called twice."""
        if self._connection is not None:
            await self._run(self._connection.close)
            self._connection = None
        self._thread.shutdown()

    async def fetch(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Run a statement in a transaction of its own; a ``?`` stands for each argument."""
        connection = self._connection
        if connection is None:
            raise TableError(f"expected an open database, got {self!r}, which is closed")
        return await self._run(lambda: connection.execute(statement, arguments).fetchall())

    def _open(self) -> None:
        connection = sqlite3.connect(self._file, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")  # who reads waits for nobody
        connection.executescript(_SCHEMA)
        self._connection = connection

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise TableError(f"{self._file.name}: {error}") from error
