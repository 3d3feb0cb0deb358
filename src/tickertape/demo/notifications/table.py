"""The table of notifications, in SQL for SQLite and PostgreSQL; and the database in an SQLite file.

Any program may insert a row, in any language and any transaction. The feed of the demo reads only the table, so a row
from the form, from the queue or from another program is published in the same way.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from ...timing import backoff
from .notification import MAX_BODY, MAX_LINK, MAX_TITLE, MAX_USER_ID, NewNotification, Notification

T = TypeVar("T")

CHANNEL: Final = "notifications"
"""The channel on which PostgreSQL notifies listeners of new rows."""

MAX_PAGE: Final = 100
"""Notifications in one answer at most."""

MAX_ID: Final = 2**63 - 1
"""The largest integer in both databases."""

_BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait while another program writes to the file."""

_FIRST_DELAY: Final = 0.02
"""Seconds until the table is read again if an open transaction holds rows back. The delay doubles each time."""

_LONGEST_DELAY: Final = 1.0

_COLUMNS: Final = "id, user_id, title, body, link, created_at, read_at"


class TableError(Exception):
    """The database is not reachable, or it refused a statement."""


class Database(Protocol):
    """A database with the table of notifications."""

    now: str
    """The SQL expression for the current time."""

    start: str
    """The position before the first row: one or more parts, separated by colons."""

    newer: str
    """The SQL query for the rows after a position, in order. Its arguments are the parts of the position and a limit.

    The first two columns are the position of the row, and true if no earlier row can still become visible.
    """

    async def open(self) -> None:
        """Connect, and create the tables if they do not exist."""

    async def close(self) -> None:
        """Disconnect. Closing again has no effect."""

    async def fetch(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Run a statement in its own transaction, with a ``?`` for each argument."""


class InboxPage(NamedTuple):
    """Notifications of one user, newest first."""

    notifications: list[Notification]
    more: bool
    """True if there are older notifications."""
    unread_older: int
    """Number of unread notifications among the older ones."""


class Row(NamedTuple):
    """A notification, and its position in the order in which rows became visible."""

    position: str
    notification: Notification


class Table:
    """The table of notifications in a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def __repr__(self) -> str:
        return f"<Table {self.database!r}>"

    async def insert(self, new: NewNotification, *, queue_key: str | None = None) -> int | None:
        """Store a notification and return its id.

        Arguments:
            new: the notification.
            queue_key: the key of the message that it comes from. If the key is already stored, return None.
        """
        rows = await self.database.fetch(
            "INSERT INTO notifications (user_id, title, body, link, queue_key) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (queue_key) DO NOTHING RETURNING id",
            *(new.user, new.title, new.body, new.link, queue_key),
        )
        return rows[0][0] if rows else None

    async def inbox(self, user: str, *, before: int = MAX_ID, limit: int = MAX_PAGE) -> InboxPage:
        """Return the newest notifications of a user with an id below ``before``."""
        rows = await self.database.fetch(
            f"SELECT {_COLUMNS} FROM notifications WHERE user_id = ? AND id < ? ORDER BY id DESC LIMIT ?",
            *(user, before, limit + 1),
        )
        page = [_read_row(row) for row in rows[:limit]]
        more = len(rows) > limit
        return InboxPage(page, more, await self._count_unread(user, page[-1].id) if more else 0)

    async def _count_unread(self, user: str, before: int) -> int:
        rows = await self.database.fetch(
            "SELECT count(*) FROM notifications WHERE user_id = ? AND id < ? AND read_at IS NULL", user, before
        )
        return int(rows[0][0])

    async def mark_read(self, user: str, ids: Sequence[int]) -> None:
        """Mark notifications of a user as read. Ids of other users are ignored."""
        marks = ", ".join("?" * len(ids))
        await self.database.fetch(
            f"UPDATE notifications SET read_at = {self.database.now} "
            f"WHERE user_id = ? AND read_at IS NULL AND id IN ({marks})",
            *(user, *ids),
        )

    async def mark_all_read(self, user: str, up_to: int) -> None:
        """Mark all notifications of a user up to an id as read. Newer ones stay unread."""
        await self.database.fetch(
            f"UPDATE notifications SET read_at = {self.database.now} WHERE user_id = ? AND read_at IS NULL AND id <= ?",
            *(user, up_to),
        )

    # For the feed.

    async def newer(self, position: str | None, limit: int = MAX_PAGE) -> list[Row]:
        """Return the rows after a position, or the first rows, in the order in which they became visible."""
        return (await self._read_newer(position, limit))[0]

    async def newer_settled(self, position: str | None) -> list[Row]:
        """Return the rows like :meth:`newer`, but wait for rows that an open transaction holds back.

        The database does not notify its listeners when such rows become visible.
        """
        attempts = 0
        while True:
            rows, held_back = await self._read_newer(position, MAX_PAGE)
            if rows or not held_back:
                return rows
            attempts += 1
            await asyncio.sleep(backoff(attempts, random.random, first=_FIRST_DELAY, cap=_LONGEST_DELAY))

    async def _read_newer(self, position: str | None, limit: int) -> tuple[list[Row], bool]:
        parts = (position or self.database.start).split(":")
        found = await self.database.fetch(self.database.newer, *parts, limit)
        rows = [Row(place, _read_row(row)) for place, settled, *row in found if settled]
        return rows, len(rows) < len(found)

    async def position(self) -> str | None:
        """Return the saved position of the feed."""
        rows = await self.database.fetch("SELECT position FROM notification_feeds WHERE name = 'hub'")
        return rows[0][0] if rows else None

    async def save_position(self, position: str) -> None:
        """Save the position of the feed."""
        await self.database.fetch(
            "INSERT INTO notification_feeds (name, position) VALUES ('hub', ?) "
            "ON CONFLICT (name) DO UPDATE SET position = excluded.position",
            position,
        )


def _read_row(row: Sequence[Any]) -> Notification:
    number, user, title, body, link, created_at, read_at = row
    return Notification(number, user, title, body, link, _as_text(created_at), read_at and _as_text(read_at))


def _as_text(time: str | datetime) -> str:
    """Format a time by RFC 3339, in UTC. SQLite stores this text."""
    if isinstance(time, str):
        return time
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# SQLite has one writer at a time, and AUTOINCREMENT never reuses an id: rows become visible in the order of their ids.
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
    """The database in an SQLite file, for programs on one machine. The file is created if it does not exist."""

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
        """Open the file, and create the tables if they do not exist."""
        await self._run(self._open)

    async def close(self) -> None:
        """Close the file. Closing again has no effect."""
        if self._connection is not None:
            await self._run(self._connection.close)
            self._connection = None
        self._thread.shutdown()

    async def fetch(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Run a statement in its own transaction, with a ``?`` for each argument."""
        connection = self._connection
        if connection is None:
            raise TableError(f"{self!r} is closed")
        return await self._run(lambda: connection.execute(statement, arguments).fetchall())

    def _open(self) -> None:
        connection = sqlite3.connect(self._file, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")  # readers do not wait for a writer
        connection.executescript(_SCHEMA)
        self._connection = connection

    async def _run(self, function: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        except sqlite3.Error as error:
            raise TableError(f"{self._file.name}: {error}") from error
