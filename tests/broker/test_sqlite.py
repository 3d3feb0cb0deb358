"""The SQLite broker: its URL, its file, its threads, and their failures."""

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

from tickertape.broker import LogState, Page, Record, Retention, SQLiteBroker, create_broker
from tickertape.broker.sqlite.broker import _LOOK, _OFFERED
from tickertape.broker.sqlite.log import LogFile
from tickertape.errors import BrokerError, LogResetError
from tickertape.testing.contract.checks import PATIENCE
from tickertape.testing.contract.steps import collect, drafts_of, offsets, raised, tailing
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
def test_url(url: str, path: str) -> None:
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
        (
            "sqlite:///:memory:",
            "SQLite cannot share a log in memory: use memory:// instead of sqlite:///:memory:",
        ),
        (
            "sqlite://:memory:",
            "SQLite cannot share a log in memory: use memory:// instead of sqlite://:memory:",
        ),
    ],
)
def test_invalid_url(url: str, sentence: str) -> None:
    with pytest.raises(BrokerError) as caught:
        create_broker(url)
    assert str(caught.value) == sentence


def test_memory_is_no_path() -> None:
    with pytest.raises(BrokerError, match="use memory://"):
        SQLiteBroker(":memory:")


# Files that cannot be opened.


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
    made(path, "PRAGMA user_version = 3")


def damaged(path: Path) -> None:
    made(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


def headless(path: Path) -> None:
    made(path, "DELETE FROM log", "PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.mark.parametrize(
    ("spoil", "sentences"),
    [
        (nothing, ["cannot open the log {path}: no such directory: {path.parent}"]),
        (Path.mkdir, ["cannot open the log {path}: unable to open database file; check that its directory exists"]),
        (text, ["cannot open the log {path}: file is not a database; it is another kind of file"]),
        (other, ["cannot open the log {path}: it is a database of another program"]),
        (newer, ["cannot open the log {path}: its format is 3, of a newer tickertape; this one reads format 2"]),
        (headless, ["cannot read the log {path}: its content is damaged"]),
        (damaged, ["the log {path}: database disk image is malformed; its content is damaged"]),
    ],
)
def test_file_that_is_no_log(spoil: Callable[[Path], None], sentences: list[str], tmp_path: Path) -> None:
    path = tmp_path / "logs" / "log.db"
    path.parent.mkdir()
    spoil(path)
    before = path.read_bytes() if path.is_file() else None

    async def open_it() -> None:
        for _ in range(2):  # as a health endpoint does
            broker = SQLiteBroker(path)
            with pytest.raises(BrokerError) as caught:
                await broker.open()
            for sentence in sentences:
                assert sentence.format(path=path) in str(caught.value)
            await broker.close()

    with asyncio.Runner() as runner:
        runner.run(open_it())
    assert before is None or path.read_bytes() == before, "the file was changed"


async def test_open_again_after_a_failure(tmp_path: Path) -> None:
    broker = SQLiteBroker(tmp_path / "later" / "log.db")
    with pytest.raises(BrokerError):
        await broker.open()
    with pytest.raises(BrokerError, match="not open"):
        await broker.append([KIB])
    (tmp_path / "later").mkdir()
    async with opened(broker):
        assert [cursor.offset for cursor in await broker.append([KIB])] == [1]


# Locks.


async def test_lock_of_another_process(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SQLiteBroker(path, timeout=0.2)) as broker, tailing(broker, 0) as tail:
        await broker.append([KIB])
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            results = await asyncio.gather(*(broker.append([KIB]) for _ in range(5)), return_exceptions=True)
            for result in results:
                assert isinstance(result, BrokerError)
                assert "database is locked; another process holds its lock" in str(result)
            assert len((await broker.read(0, 10)).records) == 1, "readers wait for a writer"
        assert (await broker.append([KIB]))[0].offset == 2
        assert [record.offset for record in await collect(tail, 2)] == [1, 2]


async def test_process_that_always_writes(tmp_path: Path) -> None:
    """Another process holds the lock nearly all the time, as on a slow disk; appends find the short gaps."""
    path = tmp_path / "log.db"
    stopped = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=PATIENCE)) as database:
            while not stopped.is_set():
                database.execute("BEGIN IMMEDIATE")
                time.sleep(0.1)
                database.execute("COMMIT")
                time.sleep(0.0003)

    async with opened(SQLiteBroker(path)) as broker:
        writing = asyncio.create_task(asyncio.to_thread(write))
        try:
            async with asyncio.timeout(PATIENCE):
                for _ in range(5):
                    await broker.append([KIB])
        finally:
            stopped.set()
            await writing


# Retention.


@pytest.mark.parametrize(
    "retention",
    [Retention(events=200, bytes=None), Retention(events=None, bytes=200 * 1024), Retention(events=None, age=0.01)],
    ids=["events", "bytes", "age"],
)
async def test_file_size_is_bounded(retention: Retention, tmp_path: Path) -> None:
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


async def test_lowered_retention(tmp_path: Path) -> None:
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


# Replaced files.


def remove(path: Path) -> None:
    for file in path.parent.glob("log.db*"):
        file.unlink()


def replace(path: Path) -> None:
    made(path.with_name("new.db"))
    remove(path)
    path.with_name("new.db").replace(path)


@pytest.mark.parametrize("change", [remove, replace])
async def test_removed_or_replaced_file(change: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SQLiteBroker(path)) as broker, tailing(broker, 0) as tail:
        before = await broker.state()
        await broker.append([Draft("t", "1")])
        await collect(tail, 1)
        await asyncio.to_thread(change, path)
        with pytest.raises(LogResetError, match="was replaced or removed"):
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


async def test_close_leaves_one_file(tmp_path: Path) -> None:
    for _ in range(20):
        async with opened(SQLiteBroker(tmp_path / "log.db")) as broker:
            await broker.append([KIB])
        assert files(tmp_path) == ["log.db"]


async def test_older_copy_in_its_place(tmp_path: Path) -> None:
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


async def test_close_after_the_file_was_removed(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SQLiteBroker(path)) as old:
        await old.append([KIB] * 10)
        remove(path)
        async with opened(SQLiteBroker(path)) as new:
            await new.append([Draft("t", "1")])
            await old.close()
            await new.append([Draft("t", "2")])
            copy = tmp_path / "copy.db"
            for suffix in ("", "-wal"):  # as after a crash at this moment
                shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
            async with opened(SQLiteBroker(copy)) as found:
                assert [record.data for record in (await found.read(0, 10)).records] == ["1", "2"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names its boots")
async def test_restart_of_the_machine(tmp_path: Path) -> None:
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


# Lost records in the same file.


def lose(path: Path, newest: int) -> None:
    """Restore an older backup into the file, as ``.restore`` of the sqlite3 program does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("DELETE FROM records WHERE offset > ?", (newest,))
        database.execute("UPDATE log SET newest = ?", (newest,))


async def test_lost_records_begin_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SQLiteBroker(path)) as broker:
        before = await broker.state()
        await broker.append(drafts_of(5))
        await asyncio.to_thread(lose, path, 3)
        assert await broker.state() == LogState(before.epoch, 1, 3), "state() changes nothing"
        assert (await broker.read(0, 10)).state == LogState(before.epoch, 1, 3)
        (cursor,) = await broker.append([Draft("t", "new")])
        assert cursor.epoch != before.epoch
        assert cursor.offset == 4
        assert (await broker.state()).epoch == cursor.epoch


async def test_lost_records_end_tails_under_a_new_epoch(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SQLiteBroker(path)) as broker, opened(SQLiteBroker(path)) as late, tailing(broker, 0) as tail:
        before = await broker.state()
        await broker.append(drafts_of(5))
        await collect(tail, 5)
        await asyncio.to_thread(lose, path, 3)
        await raised(tail, LogResetError)
        after = await broker.state()
        assert after.epoch != before.epoch
        assert await late.append(drafts_of(1)) == [Cursor(after.epoch, 4)]


# Tails.


class Counting(LogFile):
    """Counts the reads of tails and the looks for appends of other processes."""

    pages = 0
    looks = 0

    def page(self, after: int, limit: int, size: int | None = None) -> Page:
        self.pages += size is not None
        return super().page(after, limit, size)

    def newest(self) -> Cursor:
        self.looks += 1
        return super().newest()


def counted(broker: SQLiteBroker, path: Path) -> Counting:
    """Make a broker count its reads, and return its log."""
    log = broker._reader.log = Counting(path, Retention(), "full", PATIENCE)
    return log


async def test_own_records_are_not_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    broker = SQLiteBroker(path)
    log = counted(broker, path)
    async with opened(broker), tailing(broker, 0) as tail:
        await broker.append(drafts_of(1))
        assert offsets(await collect(tail, 1)) == [1]
        pages = log.pages
        for number in range(2, 52):
            await broker.append([Draft("t", f"{number}", key="first" if number == 2 else None)])
            assert await anext(tail) == [Record(number, "t", None, f"{number}")]
        await broker.append([Draft("t", "again", key="first"), Draft("t", "last")])
        assert await anext(tail) == [Record(52, "t", None, "last")]
        # A look may see a commit before the event loop hears of it, and then the tail reads in vain.
        assert log.pages <= pages + 5


async def test_own_records_wait_for_those_of_others(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(SQLiteBroker(path)) as broker, opened(SQLiteBroker(path)) as other, tailing(broker, 0) as tail:
        for number in range(1, 40, 2):
            await other.append([Draft("t", "of another")])
            await broker.append([Draft("t", "own")])
            assert [record.offset for record in await collect(tail, 2)] == [number, number + 1]


@pytest.mark.parametrize("count", [_OFFERED - 1, _OFFERED + 500])
async def test_slow_tail(count: int, tmp_path: Path) -> None:
    """Records that wait for the reader of a tail are bounded; the tail reads the others from the file."""
    async with opened(SQLiteBroker(tmp_path / "log.db")) as broker, tailing(broker, 0) as tail:
        await broker.append(drafts_of(1))
        await collect(tail, 1)
        for start in range(0, count, 500):
            await broker.append(drafts_of(min(500, count - start)))
        assert offsets(await collect(tail, count)) == list(range(2, count + 2))


async def test_records_of_others_are_seen_within_10_ms(tmp_path: Path) -> None:
    assert _LOOK < 0.01
    path = tmp_path / "log.db"
    broker = SQLiteBroker(path)
    log = counted(broker, path)
    async with opened(broker), opened(SQLiteBroker(path)) as other:
        async with tailing(broker, 0) as tail:
            start = time.monotonic()
            for number in range(1, 21):
                await other.append([KIB])
                assert [record.offset for record in await collect(tail, 1)] == [number]
            assert 0 < log.looks <= (time.monotonic() - start) / _LOOK + 1
        await broker.read(0, 1)  # after any look that has begun
        seen = log.looks
        for _ in range(20):
            await other.append([KIB])
            await broker.read(0, 1)
        assert log.looks == seen, "looks without a tail"


# Filtered reads.


async def test_filter_is_called_once_for_each_topic(tmp_path: Path) -> None:
    asked: list[str] = []

    def topics(topic: str) -> bool:
        asked.append(topic)
        return topic == "t/3"

    async with opened(SQLiteBroker(tmp_path / "log.db")) as broker:
        await broker.append([Draft(f"t/{number % 10}", "x") for number in range(20_000)])
        assert len((await broker.read(0, 10_000, topics)).records) == 2_000
    assert sorted(asked) == [f"t/{number}" for number in range(10)]


async def test_filtered_read_lets_others_read(tmp_path: Path) -> None:
    """A filter that takes a second in all does not delay another read by more than a slice."""

    def topics(topic: str) -> bool:
        time.sleep(0.002)
        return topic == "t/499"

    async with opened(SQLiteBroker(tmp_path / "log.db")) as broker:
        await broker.append([Draft(f"t/{number}", "x") for number in range(500)])
        slow = asyncio.create_task(broker.read(0, 10, topics))
        for _ in range(3):
            assert len((await broker.read(0, 1)).records) == 1
        assert not slow.done()
        assert offsets((await slow).records) == [500]


@pytest.mark.parametrize(("prefix", "expected"), [("t", list(range(1, 52))), ("new", [51])])
async def test_filtered_read_of_a_log_that_is_reset(prefix: str, expected: list[int], tmp_path: Path) -> None:
    """If the epoch changes during a read, the page has only records of the new epoch's log."""
    path = tmp_path / "log.db"

    def topics(topic: str) -> bool:
        time.sleep(0.001)
        return topic.startswith(prefix)

    async with opened(SQLiteBroker(path)) as broker, opened(SQLiteBroker(path)) as other:
        before = await other.state()
        await broker.append([Draft(f"t/{number}", "x") for number in range(100)])
        reading = asyncio.create_task(broker.read(0, 200, topics))
        await broker.read(0, 1)
        await asyncio.to_thread(lose, path, 50)
        await broker.append([Draft("new" if prefix == "new" else "t/new", "x")])
        state, records = await reading
        assert state.epoch != before.epoch
        assert offsets(records) == expected


# Threads.


async def test_close_ends_the_threads(tmp_path: Path) -> None:
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


def test_program_that_waits_for_a_lock_ends(tmp_path: Path) -> None:
    """When Python exits, the thread of an append that waits for a lock ends too."""
    program = (
        "import asyncio, sqlite3, sys\n"
        "from tickertape.broker import create_broker\n"
        "from tickertape.wire import Draft\n"
        "async def main():\n"
        "    broker = create_broker(f'sqlite:///{sys.argv[1]}?timeout=600')\n"
        "    await broker.open()\n"
        "    holder = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "    holder.execute('BEGIN IMMEDIATE')\n"
        "    await asyncio.wait([asyncio.create_task(broker.append([Draft('t', 'x')]))], timeout=0.2)\n"
        "    return holder\n"
        "holder = asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, f"{tmp_path}/log.db"], timeout=PATIENCE, check=False)
    assert done.returncode == 0


def test_program_that_does_not_close_ends(tmp_path: Path) -> None:
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
