"""``Table`` on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from tickertape.demo.notifications.demo import open_database
from tickertape.demo.notifications.notification import NewNotification
from tickertape.demo.notifications.table import Row, Table, TableError

from .databases import KINDS, execute, new_database, whole_database

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
INSERT = "INSERT INTO notifications (user_id, title) VALUES (?, ?)"


class Opened:
    """An open table, and the URL for other programs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.table = Table(open_database(url))

    async def inserted(self, *titles: str, user: str = "ann") -> list[int]:
        return [await self.table.insert(NewNotification(user, title)) or 0 for title in titles]

    async def settled(self, count: int) -> list[Row]:
        """Return rows for the feed. Open transactions of other tests on the server may hold some back for a moment."""
        rows: list[Row] = []
        async with asyncio.timeout(30):
            while len(rows) < count:
                rows += await self.table.newer_settled(rows[-1].position if rows else None)
        return rows

    async def titles(self, user: str = "ann") -> list[str]:
        return [notification.title for notification in (await self.table.inbox(user)).notifications]


@pytest.fixture(params=KINDS)
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    with new_database(request.param, tmp_path) as url:
        opened = Opened(url)
        await opened.table.database.open()
        try:
            yield opened
        finally:
            await opened.table.database.close()


async def test_insert(opened: Opened) -> None:
    new = NewNotification("zoë 名前", "A title", "Two\nlines, 'quotes' and %s ?", "https://example.com/?a=%20")
    stored = await opened.table.insert(new)
    (found,) = (await opened.table.inbox("zoë 名前")).notifications
    assert (found.id, found.user, found.title, found.body, found.link) == (stored, *_fields(new))
    assert MOMENT.fullmatch(found.created_at)
    assert found.read_at is None


def _fields(new: NewNotification) -> tuple[str, str, str, str]:
    return new.user, new.title, new.body, new.link


async def test_inbox(opened: Opened) -> None:
    ids = await opened.inserted("1", "2", "3", "4", "5")
    await opened.inserted("not Ann's", user="bob")
    await opened.table.mark_read("ann", [ids[0], ids[4]])
    first = await opened.table.inbox("ann", limit=2)
    assert [found.title for found in first.notifications] == ["5", "4"]
    assert (first.more, first.unread_older) == (True, 2)
    second = await opened.table.inbox("ann", before=ids[3], limit=3)
    assert [found.title for found in second.notifications] == ["3", "2", "1"]
    assert (second.more, second.unread_older) == (False, 0)
    assert await opened.titles("eve") == []


async def test_mark_read(opened: Opened) -> None:
    ids = await opened.inserted("1", "2", "3")
    (bobs,) = await opened.inserted("of Bob", user="bob")

    async def read(user: str) -> list[bool]:
        return [found.read_at is not None for found in (await opened.table.inbox(user)).notifications]

    await opened.table.mark_read("ann", [ids[1], bobs, 10**15])
    assert (await read("ann"), await read("bob")) == ([False, True, False], [False])
    (moment,) = [found.read_at for found in (await opened.table.inbox("ann")).notifications if found.read_at]
    assert MOMENT.fullmatch(moment)
    await opened.table.mark_all_read("ann", ids[1])
    assert (await read("ann"), await read("bob")) == ([False, True, True], [False])
    assert moment in [found.read_at for found in (await opened.table.inbox("ann")).notifications]
    await opened.table.mark_all_read("ann", 2**63 - 1)
    assert (await read("ann"), await read("bob")) == ([True, True, True], [False])


async def test_feed_position(opened: Opened) -> None:
    table = opened.table
    assert await table.position() is None
    assert await table.newer(None) == []
    ids = await opened.inserted("1", "2")
    ids += await opened.inserted("3", user="bob")
    rows = await opened.settled(3)
    assert [row.notification.id for row in rows] == ids
    assert rows[2].notification.user == "bob"
    assert [row.notification.id for row in await table.newer(None, 2)] == ids[:2]
    assert [row.notification.id for row in await table.newer(rows[1].position)] == ids[2:]
    for row in rows:
        await table.save_position(row.position)
    assert await table.position() == rows[2].position
    assert await table.newer(await table.position()) == []


async def test_repeated_queue_key(opened: Opened) -> None:
    first = await opened.table.insert(NewNotification("ann", "once"), queue_key="stream/7")
    assert first is not None
    assert await opened.table.insert(NewNotification("ann", "once"), queue_key="stream/7") is None
    assert await opened.table.insert(NewNotification("ann", "another"), queue_key="stream/8") is not None
    await opened.inserted("without", "a key")
    assert await opened.titles() == ["a key", "without", "another", "once"]


async def test_rows_of_other_programs(opened: Opened) -> None:
    execute(opened.url, INSERT, "ann", "by SQL")
    (row,) = await opened.settled(1)
    assert (row.notification.title, row.notification.body, row.notification.link) == ("by SQL", "", "")
    assert MOMENT.fullmatch(row.notification.created_at)


@pytest.mark.parametrize(
    ("user", "title"), [("Ann", "upper case"), ("", "empty user"), ("a" * 97, "long"), ("ann", ""), ("ann", "x" * 121)]
)
async def test_constraints(opened: Opened, user: str, title: str) -> None:
    with pytest.raises((sqlite3.IntegrityError, psycopg.errors.CheckViolation), match=r"(?i)check"):
        execute(opened.url, INSERT, user, title)


async def test_concurrent_open(opened: Opened) -> None:
    await opened.inserted("kept")
    others = [Opened(opened.url) for _ in range(3)]
    await asyncio.gather(*(other.table.database.open() for other in others))
    for other in others:
        assert await other.titles() == ["kept"]
        await other.table.database.close()
        await other.table.database.close()
        with pytest.raises(TableError, match="is closed"):
            await other.titles()


async def test_late_commit(tmp_path: Path) -> None:
    with new_database("postgres", tmp_path) as url, psycopg.connect(url) as late:
        opened = Opened(url)
        await opened.table.database.open()
        late.execute(INSERT.replace("?", "%s"), ["ann", "begun first, committed last"])
        await opened.inserted("committed first")
        assert await opened.table.newer(None) == []  # otherwise the feed would skip the late row
        waiting = asyncio.create_task(opened.table.newer_settled(None))
        await asyncio.sleep(0)
        late.commit()
        assert (await waiting)[0].notification.title == "begun first, committed last"
        rows = await opened.settled(2)
        assert [row.notification.title for row in rows] == ["begun first, committed last", "committed first"]
        assert await opened.table.newer_settled(rows[-1].position) == []
        await opened.table.database.close()


async def test_lost_connection(tmp_path: Path) -> None:
    with whole_database("postgres", tmp_path) as url:
        opened = Opened(url)
        await opened.table.database.open()
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        execute(url, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}")
        with pytest.raises(TableError, match="PostgreSQL: "):
            await opened.titles()
        assert await opened.titles() == []
        await opened.table.database.close()


async def test_unavailable_database(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="unable to open"):
        await open_database(f"sqlite:///{tmp_path}/no/such/folder").open()
    with pytest.raises(TableError, match=r"PostgreSQL: .*refused"):
        await open_database("postgresql://127.0.0.1:1/test").open()


@pytest.mark.parametrize("url", ["mysql://host/db", "notifications.sqlite", "sqlite://", "sqlite:///", ""])
def test_invalid_url(url: str) -> None:
    with pytest.raises(ValueError, match="expected a database as postgresql://… or sqlite:///path, got "):
        open_database(url)
