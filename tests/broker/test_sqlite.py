"""What is an SQLite log's own: its URL, its file, and what may go wrong with that."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tickertape.broker import Retention, SQLiteBroker, create_broker
from tickertape.broker.sqlite.log import LogFile
from tickertape.broker.sqlite.threads import _LOOK
from tickertape.errors import BrokerError, LogResetError
from tickertape.testing.contract.checks import PATIENCE
from tickertape.testing.contract.steps import collect, tailing
from tickertape.wire import Cursor, Draft

KIB = Draft("t", "x" * 1024)


@asynccontextmanager
async def opened(broker: SQLiteBroker) -> AsyncIterator[SQLiteBroker]:
    try:
        await broker.open()
        yield broker
    finally:
        await broker.close()


# URLs.


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///log.db", "{here}/log.db"),
        ("sqlite:///some/log.db", "{here}/some/log.db"),
        ("sqlite:////var/log.db", "/var/log.db"),
        ("sqlite:////var/a%20b%3F.db", "/var/a b?.db"),
        ("sqlite:///log.db?synchronous=normal&timeout=0.5", "{here}/log.db"),
    ],
)
def test_url_names_a_file(url: str, path: str) -> None:
    assert f"{path.format(here=Path.cwd())!r}" in repr(create_broker(url))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("sqlite://", "expected sqlite:///relative.db or sqlite:////absolute.db, got 'sqlite://'"),
        ("sqlite://log.db", "expected sqlite:///relative.db or sqlite:////absolute.db, got 'sqlite://log.db'"),
        ("sqlite:///", "expected sqlite:///relative.db or sqlite:////absolute.db, got 'sqlite:///'"),
        ("sqlite:///l.db?synchronous=off", "expected synchronous to be one of full, normal, got 'off'"),
        ("sqlite:///l.db?timeout=0", "expected timeout to be a positive number of seconds, got '0'"),
        ("sqlite:///l.db?timeout=x", "expected timeout to be a positive number of seconds, got 'x'"),
        ("sqlite:///l.db?sync=full", "expected an option of sqlite:// (synchronous, timeout), got 'sync'"),
        ("sqlite:///l.db?timeout=1&timeout=2", "the option timeout is given twice"),
    ],
)
def test_url_that_names_none_is_refused(url: str, sentence: str) -> None:
    with pytest.raises(BrokerError) as caught:
        create_broker(url)
    assert str(caught.value) == sentence


# Opening what cannot be.


def nothing(path: Path) -> None:
    path.parent.rmdir()


def text(path: Path) -> None:
    path.write_text("once upon a time " * 1000)


def other(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE customers (name TEXT)")


def made(path: Path, *statements: str) -> None:
    async def make() -> None:
        async with opened(SQLiteBroker(path)) as broker:
            await broker.append([KIB] * 200)

    with asyncio.Runner() as runner:
        runner.run(make())
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


def newer(path: Path) -> None:
    made(path, "PRAGMA user_version = 2")


def damaged(path: Path) -> None:
    made(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


def headless(path: Path) -> None:
    made(path, "DELETE FROM log", "PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.mark.parametrize(
    ("spoil", "sentences"),
    [
        (nothing, ["expected a directory for the log {path}, got {path.parent}: there is none"]),
        (Path.mkdir, ["cannot open the log {path}: unable to open database file; it cannot be opened or made"]),
        (text, ["cannot open the log {path}: file is not a database; it is another kind of file"]),
        (other, ["expected a log of tickertape in {path}, got another program's database"]),
        (newer, ["expected a log of format 1 in {path}, got format 2: a newer tickertape has written it"]),
        (headless, ["expected the head of the log {path}, got none: its content is damaged"]),
        (damaged, ["the log {path}: database disk image is malformed; its content is damaged"]),
    ],
)
def test_file_that_is_no_log_is_refused_at_once(
    spoil: Callable[[Path], None], sentences: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "logs" / "log.db"
    path.parent.mkdir()
    spoil(path)
    before = path.read_bytes() if path.is_file() else None

    async def open_it() -> None:
        for _ in range(2):  # a health endpoint asks again
            broker = SQLiteBroker(path)
            with pytest.raises(BrokerError) as caught:
                await broker.open()
            for sentence in sentences:
                assert sentence.format(path=path) in str(caught.value)
            await broker.close()

    with asyncio.Runner() as runner:
        runner.run(open_it())
    assert before is None or path.read_bytes() == before, "expected a file that is left alone"


async def test_open_that_failed_may_be_tried_again(tmp_path: Path) -> None:
    broker = SQLiteBroker(tmp_path / "later" / "log.db")
    with pytest.raises(BrokerError):
        await broker.open()
    with pytest.raises(BrokerError, match="not open"):
        await broker.append([KIB])
    (tmp_path / "later").mkdir()
    async with opened(broker):
        assert [cursor.offset for cursor in await broker.append([KIB])] == [1]


# Locks.


async def test_locked_log_refuses_after_its_timeout_and_goes_on_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SQLiteBroker(path, timeout=0.2)) as broker, tailing(broker, 0) as tail:
        await broker.append([KIB])
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            results = await asyncio.gather(*(broker.append([KIB]) for _ in range(5)), return_exceptions=True)
            for result in results:
                assert isinstance(result, BrokerError)
                assert "database is locked; another process holds its lock" in str(result)
            assert len((await broker.read(0, 10)).records) == 1, "expected a log that can be read while someone writes"
        assert (await broker.append([KIB]))[0].offset == 2
        assert [record.offset for record in await collect(tail, 2)] == [1, 2]


# Retention.


@pytest.mark.parametrize(
    "retention",
    [Retention(events=200, bytes=None), Retention(events=None, bytes=200 * 1024), Retention(events=None, age=0.01)],
    ids=["events", "bytes", "age"],
)
async def test_file_stops_growing(retention: Retention, tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    ticks = itertools.count()
    log = SQLiteBroker(path, retention=retention, synchronous="normal", now=lambda: next(ticks) / 1000)
    async with opened(log) as broker:
        sizes = []
        for _ in range(6):
            for _ in range(50):
                await broker.append([KIB] * 20)
            sizes.append(path.stat().st_size + path.with_name("log.db-wal").stat().st_size)
        assert sizes[-1] <= 1.1 * sizes[1], sizes
        assert sizes[-1] < 6 * 1000 * 1024


async def test_less_retention_counts_at_once_and_is_enforced_in_steps(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SQLiteBroker(path)) as broker:
        await broker.append([Draft("t", "x")] * 10_000)
    async with opened(SQLiteBroker(path, retention=Retention(events=10))) as broker:
        state = await broker.state()
        assert (state.oldest, state.newest) == (9991, 10_000)
        assert [record.offset for record in (await broker.read(0, 2)).records] == [9991, 9992]
        await broker.append([Draft("t", "x")])
        with closing(sqlite3.connect(path)) as database:
            ((kept,),) = database.execute("SELECT count(*) FROM records")
        assert kept == 9001, "expected one step of 1000"
        for _ in range(10):
            await broker.append([Draft("t", "x")])
        with closing(sqlite3.connect(path)) as database:
            ((kept,),) = database.execute("SELECT count(*) FROM records")
        assert kept == 10


# Another file in its place.


def remove(path: Path) -> None:
    for file in path.parent.glob("log.db*"):
        file.unlink()


def replace(path: Path) -> None:
    made(path.with_name("new.db"))
    remove(path)
    path.with_name("new.db").replace(path)


@pytest.mark.parametrize("change", [remove, replace])
async def test_file_that_is_removed_or_replaced_resets_the_log(change: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SQLiteBroker(path)) as broker, tailing(broker, 0) as tail:
        before = await broker.state()
        await broker.append([Draft("t", "1")])
        await collect(tail, 1)
        await asyncio.to_thread(change, path)
        with pytest.raises(LogResetError, match="another file or none in its place"):
            async with asyncio.timeout(PATIENCE):
                await anext(tail)
        with pytest.raises(LogResetError):
            await broker.append([Draft("t", "2")])
        with pytest.raises(LogResetError):
            await broker.read(0, 1)
        after = await broker.state()
        assert after.epoch != before.epoch
        assert await broker.append([Draft("t", "3")]) == [Cursor(after.epoch, after.newest + 1)]


def files(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def test_closed_log_is_one_file(tmp_path: Path) -> None:
    for _ in range(20):
        async with opened(SQLiteBroker(tmp_path / "log.db")) as broker:
            await broker.append([KIB])
        assert files(tmp_path) == ["log.db"]


async def test_older_copy_in_its_place_is_another_log_with_what_it_still_has(tmp_path: Path) -> None:
    path, copy = tmp_path / "log.db", tmp_path / "copy.db"
    async with opened(SQLiteBroker(path)) as broker:
        await broker.append([Draft("t", "1")])
    shutil.copy(path, copy)
    async with opened(SQLiteBroker(path)) as broker, tailing(broker, 0) as tail:
        before = await broker.state()
        await broker.append([Draft("t", "2")])
        await collect(tail, 2)
        remove(path)
        copy.replace(path)
        with pytest.raises(LogResetError):
            await broker.append([Draft("t", "3")])
        after = await broker.state()
        assert after.epoch != before.epoch
        assert [record.data for record in (await broker.read(0, 10)).records] == ["1"]
        assert await broker.append([Draft("t", "3")]) == [Cursor(after.epoch, 2)]


async def test_who_lets_go_of_a_removed_file_does_not_harm_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SQLiteBroker(path)) as old:
        await old.append([KIB] * 10)
        remove(path)
        async with opened(SQLiteBroker(path)) as new:
            await new.append([Draft("t", "1")])
            await old.close()
            await new.append([Draft("t", "2")])
            copy = tmp_path / "copy.db"
            for suffix in ("", "-wal"):  # as it would be found if the process ended here
                shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
            async with opened(SQLiteBroker(copy)) as found:
                assert [record.data for record in (await found.read(0, 10)).records] == ["1", "2"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names its boots")
async def test_restart_of_the_machine_begins_an_epoch_only_if_records_may_be_lost(tmp_path: Path) -> None:
    path = tmp_path / "log.db"

    async def epoch(synchronous: str) -> str:
        async with opened(SQLiteBroker(path, synchronous=synchronous)) as broker:
            return (await broker.state()).epoch

    def restart() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("UPDATE log SET boot = 'before' WHERE boot IS NOT NULL")

    first = await epoch("full")
    restart()
    assert await epoch("full") == await epoch("normal") == await epoch("normal") == await epoch("full") == first
    restart()
    second = await epoch("normal")
    assert second != first
    restart()
    third = await epoch("full")
    assert third not in (first, second)
    restart()
    assert await epoch("full") == third


# Looking for appends.


class Blind(LogFile):
    """Does not see what changed."""

    def changed(self) -> bool:
        return False

    def moved(self) -> bool:
        return False


class Counting(LogFile):
    """Counts how often it is looked at."""

    looks = 0

    def changed(self) -> bool:
        self.looks += 1
        return super().changed()


async def test_own_appends_need_no_look(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    broker = SQLiteBroker(path)
    broker._read = Blind(path, Retention(), "full", PATIENCE)
    async with opened(broker), opened(SQLiteBroker(path)) as other, tailing(broker, 0) as tail:
        for number in range(1, 20, 2):
            await other.append([Draft("t", "of another")])  # comes along with the own one
            await broker.append([Draft("t", "own")])
            assert [record.offset for record in await collect(tail, 2)] == [number, number + 1]


async def test_others_appends_are_looked_for_every_few_milliseconds_and_only_by_tails(tmp_path: Path) -> None:
    assert _LOOK < 0.01
    path = tmp_path / "log.db"
    broker = SQLiteBroker(path)
    broker._read = file = Counting(path, Retention(), "full", PATIENCE)
    async with opened(broker), opened(SQLiteBroker(path)) as other:
        async with tailing(broker, 0) as tail:
            began = time.monotonic()
            for number in range(1, 21):
                await other.append([KIB])
                assert [record.offset for record in await collect(tail, 1)] == [number]
            assert 0 < file.looks <= (time.monotonic() - began) / _LOOK + 1
        await broker.read(0, 1)  # behind what the reader was about
        seen = file.looks
        for _ in range(20):
            await other.append([KIB])
            await broker.read(0, 1)
        assert file.looks == seen


# Threads.


async def test_closing_ends_the_threads(tmp_path: Path) -> None:
    def threads() -> int:
        return sum(thread.name.startswith("tickertape-sqlite") for thread in threading.enumerate())

    before = threads()
    async with opened(SQLiteBroker(tmp_path / "log.db")) as broker:
        assert threads() == before + 2
        await broker.open()
        assert threads() == before + 2
    assert threads() == before
    refused = SQLiteBroker(tmp_path / "none" / "log.db")
    with pytest.raises(BrokerError):
        await refused.open()
    assert threads() == before


def test_program_that_does_not_close_its_broker_ends(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from tickertape.broker import create_broker\n"
        "from tickertape.wire import Cursor, Draft\n"
        "async def main():\n"
        "    broker = create_broker(sys.argv[1])\n"
        "    state = await broker.open()\n"
        "    await broker.append([Draft('t', 'x')])\n"
        "    await anext(broker.tail(Cursor(state.epoch, 0)))\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"sqlite:///{tmp_path}/log.db"], timeout=PATIENCE, check=False
    )
    assert done.returncode == 0
