"""Notifications of a real PostgreSQL, as a source and as the wake-up of a poll."""

from __future__ import annotations

import asyncio
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import namedtuple_row

import tickertape
from broker.postgres_logs import POSTGRES_URL, postgres_absent
from broker.private_servers import forwarded, require
from sources.reading import PATIENCE, reading
from tickertape.broker.postgres import PostgresListener
from tickertape.errors import BrokerError
from tickertape.hub import Hub
from tickertape.sources import Poll, PostgresNotifications, postgres_listen


class Shop:
    """A table of orders with a trigger that notifies, as the docs have it.

    Attributes:
        name: of the table, and of its channel.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.name = f"test_{secrets.token_hex(6)}"
        self.connection = connection

    async def execute(self, statement: str, *arguments: Any) -> list[Any]:
        cursor = await self.connection.execute(statement.replace("$t", self.name).encode(), arguments or None)
        return await cursor.fetchall() if cursor.description else []

    async def make(self) -> None:
        await self.execute(
            "CREATE TABLE $t (id bigint GENERATED ALWAYS AS IDENTITY, item text,"
            " xact xid8 NOT NULL DEFAULT pg_current_xact_id())"
        )
        await self.execute("CREATE INDEX ON $t (xact, id)")
        await self.execute(
            "CREATE FUNCTION $t() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_notify('$t', ''); RETURN NULL; END $$"
        )
        await self.execute("CREATE TRIGGER wake AFTER INSERT ON $t FOR EACH STATEMENT EXECUTE FUNCTION $t()")

    async def remove(self) -> None:
        await self.execute("DROP TABLE IF EXISTS $t")
        await self.execute("DROP FUNCTION IF EXISTS $t()")

    async def insert(self, *items: str) -> None:
        for item in items:
            await self.execute("INSERT INTO $t (item) VALUES (%s)", item)

    async def new_rows(self, position: Any) -> list[Any]:
        """The query of the docstring of :class:`Poll`."""
        async with await psycopg.AsyncConnection.connect(POSTGRES_URL, row_factory=namedtuple_row) as connection:
            query = (
                "SELECT *, xact::text::bigint AS x FROM $t"
                " WHERE (xact, id) > (%s::text::xid8, %s) AND xact < pg_snapshot_xmin(pg_current_snapshot())"
                " ORDER BY xact, id LIMIT 500"
            )
            cursor = await connection.execute(query.replace("$t", self.name).encode(), position)
            return await cursor.fetchall()

    async def sequential(self, position: int) -> list[Any]:
        """By ids alone: for one writer."""
        return await self.execute("SELECT id, item FROM $t WHERE id > %s ORDER BY id LIMIT 500", position)

    async def sessions(self) -> list[int]:
        """The server's processes that serve the connections made with :attr:`url`."""
        rows = await self.execute("SELECT pid FROM pg_stat_activity WHERE application_name = %s", self.name)
        return [pid for (pid,) in rows]

    async def until(self, condition: Callable[[list[int]], Any]) -> None:
        """Wait until the sessions are as they should be."""
        async with asyncio.timeout(PATIENCE):
            while True:
                if condition(await self.sessions()):
                    return
                await asyncio.sleep(0.02)

    @property
    def url(self) -> str:
        return f"{POSTGRES_URL}?application_name={self.name}"


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    require(postgres_absent())
    async with await psycopg.AsyncConnection.connect(POSTGRES_URL, autocommit=True) as connection:
        shop = Shop(connection)
        try:
            await shop.make()
            yield shop
        finally:
            await shop.remove()


async def test_payloads(shop: Shop) -> None:
    channel = 'Orders "new" é'
    source = postgres_listen(shop.url, channel)
    assert repr(source) == f"<PostgresNotifications PostgreSQL at 127.0.0.1/test {channel!r}>"
    async with reading(source) as found:
        while not found.qsize():  # what is notified before it listens is lost
            await shop.execute("SELECT pg_notify(%s, 'first')", channel)
            await asyncio.sleep(0.02)
        for number in range(200):
            await shop.execute("SELECT pg_notify(%s, %s)", channel, f"n{number}")
            await shop.execute("SELECT pg_notify(%s, 'other')", "orders")
        numbered = [payload for payload in [await found.get() for _ in range(201)] if payload != "first"]
        while len(numbered) < 200:
            numbered += [payload for payload in [await found.get()] if payload != "first"]
        assert numbered == [f"n{number}" for number in range(200)]
    await shop.until(lambda sessions: not sessions)


async def test_lost_connection(shop: Shop) -> None:
    async with reading(postgres_listen(shop.url, shop.name).wakes()) as found:
        assert await found.get() == [], "it reports that it listens"
        (pid,) = await shop.sessions()
        await shop.execute("SELECT pg_terminate_backend(%s)", pid)
        error = await found.get()
        assert isinstance(error, BrokerError)
        assert "cannot reach PostgreSQL at 127.0.0.1/test" in str(error)


async def test_checks_of_the_connection_lose_nothing(shop: Shop) -> None:
    source = PostgresNotifications(PostgresListener(shop.url, shop.name, silence=0.01))
    async with reading(source) as found:
        await shop.until(len)
        heard: list[str] = []
        for number in range(50):
            await shop.execute("SELECT pg_notify(%s, %s)", shop.name, f"{number}")
            await asyncio.sleep(0.01)
        await shop.execute("SELECT pg_notify(%s, 'end')", shop.name)
        while "end" not in heard:
            heard.append(await found.get())
        assert heard[-10:] == [*map(str, range(41, 50)), "end"], "expected no loss once it listens"


async def test_silent_server(shop: Shop) -> None:
    """A server that stops answering is an error in time, also for a statement that cannot be cancelled."""
    async with forwarded(5432) as forwarder:
        there = shop.url.replace("@127.0.0.1", f"@127.0.0.1:{forwarder.port}")
        async with reading(
            PostgresNotifications(PostgresListener(f"{there}&timeout=0.2", shop.name, silence=0.05)).wakes()
        ) as found:
            assert await found.get() == []
            forwarder.stall()
            error = await found.get()
            assert isinstance(error, BrokerError)
            assert f"no answer from PostgreSQL at 127.0.0.1:{forwarder.port}/test within 0.2 s" in str(error)


async def test_wake_and_fallback(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    await shop.insert("before")
    async with forwarded(5432) as forwarder, Hub() as hub, hub.subscribe("orders") as subscription:
        there = shop.url.replace("@127.0.0.1", f"@127.0.0.1:{forwarder.port}")

        async def items(count: int) -> list[str]:
            return [(await anext(subscription)).data or "" for _ in range(count)]

        wake = postgres_listen(there, shop.name)
        source = Poll(shop.sequential, every=3600, fallback=0.05, wake=wake, after=0, position=lambda row: row[0])
        hub.feed("orders", source, key=lambda row: row[0], data=lambda row: row[1])
        async with asyncio.timeout(PATIENCE):
            assert await items(1) == ["before"]
            await shop.until(len)
            await shop.insert("notified", "again")
            assert await items(2) == ["notified", "again"]
            forwarder.move(0)  # cut, and out of reach
            await shop.insert("unheard", "of")
            assert await items(2) == ["unheard", "of"]
            assert "failed, polling every 0.05 s until it is back: cannot reach PostgreSQL" in caplog.text
            forwarder.move(5432)
            await shop.until(len)
            await shop.insert("back")
            assert await items(1) == ["back"]
            (pid,) = await shop.sessions()
            await shop.execute("SELECT pg_terminate_backend(%s)", pid)
            await shop.insert("killed")
            assert await items(1) == ["killed"]
            await shop.until(lambda sessions: sessions not in ([], [pid]))
    await shop.until(lambda sessions: not sessions)


async def test_commits_out_of_order(shop: Shop) -> None:
    async with Hub() as hub, hub.subscribe("orders") as subscription:
        # The query also waits for open transactions of other tests on this server.
        source = Poll(shop.new_rows, every=0.1, after=(0, 0), position=lambda row: (row.x, row.id))
        hub.feed("orders", source, key="id", data=lambda row: row.item)
        async with asyncio.timeout(PATIENCE):
            async with await psycopg.AsyncConnection.connect(POSTGRES_URL) as slow:
                insert = f"INSERT INTO {shop.name} (item) VALUES ('early id, late commit')"
                await slow.execute(insert.encode())
                await shop.insert("late id, early commit")
                assert await shop.new_rows((0, 0)) == [], "an open transaction may come before it"
                await slow.commit()
            assert [(await anext(subscription)).data for _ in range(2)] == [
                "early id, late commit",
                "late id, early commit",
            ]


async def test_process_killed_before_save(shop: Shop, tmp_path: Path) -> None:
    """The log in SQLite and the position in a file, that a kill -9 comes between."""
    rows = [f"row {number}" for number in range(60)]
    await shop.insert(*rows)
    program = f"""
import asyncio, os, signal, sys
from pathlib import Path
import psycopg
from psycopg.rows import dict_row
from tickertape.hub import Hub
from tickertape.sources import Poll

place = Path({str(tmp_path / "place")!r})

async def query(position):
    async with await psycopg.AsyncConnection.connect({POSTGRES_URL!r}, row_factory=dict_row) as connection:
        cursor = await connection.execute(
            "SELECT id, item FROM {shop.name} WHERE id > %s ORDER BY id LIMIT 7", [position])
        return await cursor.fetchall()

def load():
    return int(place.read_text()) if place.exists() else 0

def save(position):
    if position > load() and int(sys.argv[1]) < position <= int(sys.argv[1]) + 7:
        os.kill(os.getpid(), signal.SIGKILL)
    new = place.with_suffix(".new")
    new.write_text(str(position))
    new.replace(place)

async def main():
    async with Hub("sqlite:///{tmp_path / "log.db"}") as hub:
        hub.feed("orders", Poll(query, after=load, save=save), key="id", data=lambda row: row["item"])
        while load() < {len(rows)}:
            await asyncio.sleep(0.02)

asyncio.run(main())
"""
    script = tmp_path / "program.py"
    script.write_text(program)
    source = Path(tickertape.__file__).parents[1]
    for at in (0, 20, 40, 1000):
        command = [sys.executable, str(script), str(at)]
        done = await asyncio.to_thread(
            subprocess.run, command, timeout=60, capture_output=True, text=True, env={"PYTHONPATH": str(source)}
        )
        assert done.returncode == (0 if at == 1000 else -signal.SIGKILL), done.stderr
    async with Hub(f"sqlite:///{tmp_path / 'log.db'}") as hub:
        records, _ = await hub.history("orders", limit=1000)
        assert [record.data for _, record in records] == rows


@pytest.mark.parametrize(
    ("url", "channel", "error", "sentence"),
    [
        (POSTGRES_URL, "", ValueError, "expected a channel of 1 to 63 bytes, got ''"),
        (POSTGRES_URL, "é" * 32, ValueError, "expected a channel of 1 to 63 bytes"),
        (POSTGRES_URL, "a\0b", ValueError, "expected a channel"),
        ("postgresql://h/d?nothing=1", "c", BrokerError, "expected the URL of a PostgreSQL database"),
        (f"{POSTGRES_URL}?timeout=soon", "c", BrokerError, "expected timeout to be"),
    ],
)
def test_invalid_arguments(url: str, channel: str, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        postgres_listen(url, channel)


async def test_unreachable_server() -> None:
    async with reading(postgres_listen("postgresql://127.0.0.1:1/none", "c")) as found:
        error = await found.get()
        assert isinstance(error, BrokerError)
        assert "cannot reach PostgreSQL at 127.0.0.1:1/none" in str(error)
