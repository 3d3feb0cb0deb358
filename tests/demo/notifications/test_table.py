"""The table of notifications, over every database that can have it."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from tickertape.demo.notifications import Draft, Entry, Table, TableError
from tickertape.demo.notifications.demo import open_database

from .databases import KINDS, execute, new_database, whole_database

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
INSERT = "INSERT INTO notifications (user_id, title) VALUES (?, ?)"


class Opened:
    """An open table, and the URL at which other programs find it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.table = Table(open_database(url))

    async def inserted(self, *titles: str, user: str = "ann") -> list[int]:
        return [await self.table.insert(Draft(user, title)) or 0 for title in titles]

    async def settled(self, count: int) -> list[Entry]:
        """All rows for the feed: transactions of other tests on the server may keep some back for a moment."""
        entries: list[Entry] = []
        async with asyncio.timeout(30):
            while len(entries) < count:
                entries += await self.table.newer_soon(entries[-1].position if entries else None)
        return entries

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


async def test_what_is_stored_is_found_as_it_was(opened: Opened) -> None:
    draft = Draft("zoë 名前", "A title", "Two\nlines, 'quotes' and %s ?", "https://example.com/?a=%20")
    stored = await opened.table.insert(draft)
    (found,) = (await opened.table.inbox("zoë 名前")).notifications
    assert (found.id, found.user, found.title, found.body, found.link) == (stored, *_fields(draft))
    assert MOMENT.fullmatch(found.created_at)
    assert found.read_at is None


def _fields(draft: Draft) -> tuple[str, str, str, str]:
    return draft.user, draft.title, draft.body, draft.link


async def test_the_inbox_is_paged_newest_first_and_of_one_user_alone(opened: Opened) -> None:
    ids = await opened.inserted("1", "2", "3", "4", "5")
    await opened.inserted("not Ann's", user="bob")
    await opened.table.mark_read("ann", [ids[0], ids[4]])
    first = await opened.table.inbox("ann", limit=2)
    assert [found.title for found in first.notifications] == ["5", "4"]
    assert (first.more, first.unread_older) == (True, 2)
    second = await opened.table.inbox("ann", before=ids[3], limit=3)
    assert [found.title for found in second.notifications] == ["3", "2", "1"]
    assert (second.more, second.unread_older) == (False, 0)
    assert await opened.titles("nobody") == []


async def test_only_ones_own_are_marked_and_only_those_that_were_seen(opened: Opened) -> None:
    ids = await opened.inserted("1", "2", "3")
    (others,) = await opened.inserted("of Bob", user="bob")

    async def read(user: str) -> list[bool]:
        return [found.read_at is not None for found in (await opened.table.inbox(user)).notifications]

    await opened.table.mark_read("ann", [ids[1], others, 10**15])
    assert (await read("ann"), await read("bob")) == ([False, True, False], [False])
    (moment,) = [found.read_at for found in (await opened.table.inbox("ann")).notifications if found.read_at]
    assert MOMENT.fullmatch(moment)
    await opened.table.mark_all_read("ann", ids[1])
    assert (await read("ann"), await read("bob")) == ([False, True, True], [False])
    assert moment in [found.read_at for found in (await opened.table.inbox("ann")).notifications]
    await opened.table.mark_all_read("ann", 2**63 - 1)
    assert (await read("ann"), await read("bob")) == ([True, True, True], [False])


async def test_the_feed_gets_all_rows_in_order_and_goes_on_where_it_was(opened: Opened) -> None:
    table = opened.table
    assert await table.position() is None
    assert await table.newer(None) == []
    ids = await opened.inserted("1", "2")
    ids += await opened.inserted("3", user="bob")
    entries = await opened.settled(3)
    assert [entry.notification.id for entry in entries] == ids
    assert entries[2].notification.user == "bob"
    assert [entry.notification.id for entry in await table.newer(None, 2)] == ids[:2]
    assert [entry.notification.id for entry in await table.newer(entries[1].position)] == ids[2:]
    for entry in entries:
        await table.save_position(entry.position)
    assert await table.position() == entries[2].position
    assert await table.newer(await table.position()) == []


async def test_a_message_that_is_delivered_again_is_stored_once(opened: Opened) -> None:
    first = await opened.table.insert(Draft("ann", "once"), queue_key="stream/7")
    assert first is not None
    assert await opened.table.insert(Draft("ann", "once"), queue_key="stream/7") is None
    assert await opened.table.insert(Draft("ann", "another"), queue_key="stream/8") is not None
    await opened.inserted("without", "a key")
    assert await opened.titles() == ["a key", "without", "another", "once"]


async def test_other_programs_write_rows_too(opened: Opened) -> None:
    execute(opened.url, INSERT, "ann", "by SQL")
    (entry,) = await opened.settled(1)
    assert (entry.notification.title, entry.notification.body, entry.notification.link) == ("by SQL", "", "")
    assert MOMENT.fullmatch(entry.notification.created_at)


@pytest.mark.parametrize(
    ("user", "title"), [("Ann", "upper case"), ("", "nobody"), ("a" * 97, "long"), ("ann", ""), ("ann", "x" * 121)]
)
async def test_rows_that_would_reach_nobody_are_refused(opened: Opened, user: str, title: str) -> None:
    with pytest.raises((sqlite3.IntegrityError, psycopg.errors.CheckViolation), match=r"(?i)check"):
        execute(opened.url, INSERT, user, title)


async def test_the_tables_are_made_once_and_kept(opened: Opened) -> None:
    await opened.inserted("kept")
    others = [Opened(opened.url) for _ in range(3)]
    await asyncio.gather(*(other.table.database.open() for other in others))
    for other in others:
        assert await other.titles() == ["kept"]
        await other.table.database.close()
        await other.table.database.close()
        with pytest.raises(TableError, match="which is closed"):
            await other.titles()


async def test_rows_that_are_committed_late_are_not_missed(tmp_path: Path) -> None:
    with new_database("postgres", tmp_path) as url, psycopg.connect(url) as late:
        opened = Opened(url)
        await opened.table.database.open()
        late.execute(INSERT.replace("?", "%s"), ["ann", "begun first, committed last"])
        await opened.inserted("committed first")
        assert await opened.table.newer(None) == []  # what is shown now would be passed over later
        waiting = asyncio.create_task(opened.table.newer_soon(None))
        await asyncio.sleep(0)
        late.commit()
        assert (await waiting)[0].notification.title == "begun first, committed last"
        entries = await opened.settled(2)
        assert [entry.notification.title for entry in entries] == ["begun first, committed last", "committed first"]
        assert await opened.table.newer_soon(entries[-1].position) == []
        await opened.table.database.close()


async def test_a_lost_connection_is_told_and_then_another_made(tmp_path: Path) -> None:
    with whole_database("postgres", tmp_path) as url:
        opened = Opened(url)
        await opened.table.database.open()
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        execute(url, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}")
        with pytest.raises(TableError, match="PostgreSQL: "):
            await opened.titles()
        assert await opened.titles() == []
        await opened.table.database.close()


async def test_a_database_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="unable to open"):
        await open_database(f"sqlite:///{tmp_path}/no/such/folder").open()
    with pytest.raises(TableError, match=r"PostgreSQL: .*refused"):
        await open_database("postgresql://127.0.0.1:1/test").open()


@pytest.mark.parametrize("url", ["mysql://host/db", "notifications.sqlite", "sqlite://", "sqlite:///", ""])
def test_what_is_no_database(url: str) -> None:
    with pytest.raises(ValueError, match="expected a database as postgresql://… or sqlite:///path, got "):
        open_database(url)
