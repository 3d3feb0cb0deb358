"""The table of notifications: what the application asks of it, in SQL that SQLite and PostgreSQL both speak.

The table belongs to everyone: any program may insert a row, in whatever language and transaction it likes.
The application does so itself for its form and its queue; what it pushes it reads from the table alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

from .notification import Draft, Notification

__all__ = ["CHANNEL", "MAX_ID", "MAX_PAGE", "Database", "Entry", "Inbox", "Table", "TableError"]

CHANNEL: Final = "notifications"
"""Where PostgreSQL tells that rows were inserted."""

MAX_PAGE: Final = 100
"""Notifications that an answer holds at most."""

MAX_ID: Final = 2**63 - 1
"""The greatest number that either database can hold."""

_PAUSE: Final = 0.02
"""Seconds until rows that are kept back are asked for again; twice as many each time."""

_LONGEST_PAUSE: Final = 1.0

_COLUMNS: Final = "id, user_id, title, body, link, created_at, read_at"


class TableError(Exception):
    """The database cannot be reached, or refused what it was asked."""


class Database(Protocol):
    """A database that has the table; made by :mod:`.sqlite` or :mod:`.postgres`."""

    now: str
    """The SQL for this moment."""

    start: str
    """The position before the first row: one part or several, between colons."""

    newer: str
    """The SQL for rows behind a position, in order: the position, whether none can come before it any more, and
    the columns; its arguments are the position's parts."""

    async def open(self) -> None:
        """Connect, and make the tables that are not there yet."""

    async def close(self) -> None:
        """Let go of it; may be called twice."""

    async def fetch(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Run a statement in a transaction of its own; a ``?`` stands for each argument."""


class Inbox(NamedTuple):
    """A page of one user's notifications, newest first."""

    notifications: list[Notification]
    more: bool
    """Whether there are older ones."""
    unread_older: int
    """How many of those are unread."""


class Entry(NamedTuple):
    """A row with its place in the order in which rows became visible."""

    position: str
    notification: Notification


class Table:
    """Ask a database for notifications."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def __repr__(self) -> str:
        return f"<Table {self.database!r}>"

    async def insert(self, draft: Draft, *, queue_key: str | None = None) -> int | None:
        """Store a notification and return its id.

        Arguments:
            draft: what is to be stored.
            queue_key: names the message that it came in: a second time nothing is stored, and None returned.
        """
        rows = await self.database.fetch(
            "INSERT INTO notifications (user_id, title, body, link, queue_key) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (queue_key) DO NOTHING RETURNING id",
            *(draft.user, draft.title, draft.body, draft.link, queue_key),
        )
        return rows[0][0] if rows else None

    async def inbox(self, user: str, *, before: int = MAX_ID, limit: int = MAX_PAGE) -> Inbox:
        """Return the newest notifications of ``user``, or those older than the id ``before``."""
        rows = await self.database.fetch(
            f"SELECT {_COLUMNS} FROM notifications WHERE user_id = ? AND id < ? ORDER BY id DESC LIMIT ?",
            *(user, before, limit + 1),
        )
        page = [_read_row(row) for row in rows[:limit]]
        more = len(rows) > limit
        return Inbox(page, more, await self._count_unread(user, page[-1].id) if more else 0)

    async def _count_unread(self, user: str, before: int) -> int:
        rows = await self.database.fetch(
            "SELECT count(*) FROM notifications WHERE user_id = ? AND id < ? AND read_at IS NULL", user, before
        )
        return int(rows[0][0])

    async def mark_read(self, user: str, ids: Sequence[int]) -> None:
        """Mark some of the notifications of ``user``; ids of others are passed over."""
        marks = ", ".join("?" * len(ids))
        await self.database.fetch(
            f"UPDATE notifications SET read_at = {self.database.now} "
            f"WHERE user_id = ? AND read_at IS NULL AND id IN ({marks})",
            *(user, *ids),
        )

    async def mark_all_read(self, user: str, up_to: int) -> None:
        """Mark the notifications of ``user`` up to an id: not those that came while the page was looked at."""
        await self.database.fetch(
            f"UPDATE notifications SET read_at = {self.database.now} WHERE user_id = ? AND read_at IS NULL AND id <= ?",
            *(user, up_to),
        )

    # What the feed reads.

    async def newer(self, position: str | None, limit: int = MAX_PAGE) -> list[Entry]:
        """Return rows behind a position, or the first ones, in the order in which they became visible."""
        return (await self._look(position, limit))[0]

    async def newer_soon(self, position: str | None) -> list[Entry]:
        """As :meth:`newer`; wait for rows that an older transaction keeps back, since nobody will tell of them."""
        pause = _PAUSE
        while True:
            entries, kept_back = await self._look(position, MAX_PAGE)
            if entries or not kept_back:
                return entries
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _look(self, position: str | None, limit: int) -> tuple[list[Entry], bool]:
        parts = (position or self.database.start).split(":")
        rows = await self.database.fetch(self.database.newer, *parts, limit)
        entries = [Entry(place, _read_row(row)) for place, settled, *row in rows if settled]
        return entries, len(entries) < len(rows)

    async def position(self) -> str | None:
        """Return the position that was saved last."""
        rows = await self.database.fetch("SELECT position FROM notification_feeds WHERE name = 'hub'")
        return rows[0][0] if rows else None

    async def save_position(self, position: str) -> None:
        """Note how far the feed has come."""
        await self.database.fetch(
            "INSERT INTO notification_feeds (name, position) VALUES ('hub', ?) "
            "ON CONFLICT (name) DO UPDATE SET position = excluded.position",
            position,
        )


def _read_row(row: Sequence[Any]) -> Notification:
    number, user, title, body, link, created_at, read_at = row
    return Notification(number, user, title, body, link, _as_text(created_at), read_at and _as_text(read_at))


def _as_text(moment: str | datetime) -> str:
    """Write a moment by RFC 3339, in UTC; SQLite has it as text already."""
    if isinstance(moment, str):
        return moment
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
