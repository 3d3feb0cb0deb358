"""Polling: every row once and in order, on time, and woken up."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from support.hub import settle
from tickertape.hub import Hub
from tickertape.sources import Poll
from tickertape.testing import FakeClock, ScriptedBroker


class Table:
    """Rows and a position, as an application keeps them, with a query that can fail.

    Attributes:
        rows: all rows.
        saved: all positions that were saved.
        asked: the position of each query.
    """

    def __init__(self, *rows: int) -> None:
        self.rows = [{"id": row} for row in rows]
        self.saved: list[Any] = []
        self.asked: list[Any] = []
        self.failures: list[Exception] = []
        self.unsaved: list[Exception] = []

    async def query(self, position: Any) -> list[dict[str, int]]:
        self.asked.append(position)
        if self.failures:
            raise self.failures.pop(0)
        return [row for row in self.rows if row["id"] > (position or 0)][:10]

    async def save(self, position: Any) -> None:
        if self.unsaved:
            raise self.unsaved.pop(0)
        self.saved.append(position)

    async def load(self) -> Any:
        return self.saved[-1] if self.saved else None

    def add(self, *rows: int) -> None:
        self.rows += [{"id": row} for row in rows]


@asynccontextmanager
async def hub_of(broker: ScriptedBroker | None = None) -> AsyncIterator[tuple[Hub, FakeClock]]:
    clock = FakeClock()
    async with Hub(broker or ScriptedBroker(), clock=clock, random=lambda: 0.0) as hub:
        yield hub, clock


async def ids(hub: Hub) -> list[int]:
    records, _ = await hub.history("**", limit=10_000)
    return [int(record.data) for _, record in records]


def feed(hub: Hub, source: Poll) -> None:
    hub.feed("t", source, key="id", data=lambda row: row["id"])


async def turn(clock: FakeClock, seconds: float, step: float = 0.25) -> None:
    """Advance the clock in steps, and let each take effect."""
    for _ in range(round(seconds / step)):
        await settle()
        clock.advance(step)
    await settle()


async def test_every() -> None:
    table = Table(*range(1, 26))
    async with hub_of() as (hub, clock):
        feed(hub, Poll(table.query, every=2.0, clock=clock))
        await settle(100)
        assert table.asked == [None, 10, 20, 25]
        await turn(clock, 1.75)
        assert len(table.asked) == 4
        table.add(26)
        await turn(clock, 0.25)
        assert table.asked == [None, 10, 20, 25, 25, 26]
        assert await ids(hub) == list(range(1, 27))


async def test_save_after_storing() -> None:
    broker, table = ScriptedBroker(), Table(1, 2, 3)
    async with hub_of(broker) as (hub, clock):
        broker.hold("append")
        feed(hub, Poll(table.query, save=table.save, clock=clock))
        await settle()
        assert (table.asked, table.saved) == ([None], [])
        broker.release()
        await settle()
        assert (table.asked, table.saved) == ([None, 3], [3])


@pytest.mark.parametrize("trouble", ["query", "save"])
async def test_failures(trouble: str) -> None:
    table = Table(*range(1, 26))
    async with hub_of() as (hub, clock):
        (table.failures if trouble == "query" else table.unsaved).extend([OSError("away"), OSError("away")])
        feed(hub, Poll(table.query, save=table.save, after=table.load, clock=clock))
        await turn(clock, 10)
        assert await ids(hub) == list(range(1, 26))
        assert table.saved == [10, 20, 25]
        assert hub.statistics().feeds["t"].failures == 2


async def test_killed_before_save() -> None:
    broker, table = ScriptedBroker(), Table(*range(1, 16))

    async def save(position: Any) -> None:
        if position == 15:
            await asyncio.Event().wait()  # stored, and it will never come to saving it
        await table.save(position)

    async with hub_of(broker) as (hub, clock):
        feed(hub, Poll(table.query, save=save, after=table.load, clock=clock))
        await settle(100)
        assert table.saved == [10]
        async with Hub(broker, clock=clock) as second:  # the next process, on the same log
            feed(second, Poll(table.query, save=table.save, after=table.load, clock=clock))
            table.add(16)
            await settle(100)
            assert (await ids(second), table.saved) == (list(range(1, 17)), [10, 16])


POSITIONS: list[tuple[Any, Any]] = [
    (None, None),
    (7, 7),
    (lambda: 7, 7),
    (Table.load, None),
]


@pytest.mark.parametrize(("after", "first"), POSITIONS)
async def test_first_position(after: Any, first: Any) -> None:
    table = Table(5, 8)
    if after is Table.load:
        table.saved = [5]
        after, first = table.load, 5
    asked = asyncio.Event()

    async def query(position: Any) -> list[Any]:
        rows = await table.query(position)
        if not rows:
            asked.set()
        return rows

    async with hub_of() as (hub, clock):
        feed(hub, Poll(query, after=after, clock=clock))
        async with asyncio.timeout(10):
            await asked.wait()
        assert table.asked == [first, 8]


async def test_read_again() -> None:
    table = Table(1, 2)
    async with hub_of() as (hub, clock):
        feed(hub, Poll(table.query, after=0, clock=clock))
        await settle()
        table.failures.append(OSError("away"))
        await turn(clock, 3)
        assert table.asked[:3] == [0, 2, 2]
        assert set(table.asked[3:]) == {2}


async def test_blocking_functions(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    threads: set[int] = set()

    def database() -> closing[sqlite3.Connection]:
        threads.add(threading.get_ident())
        connection = sqlite3.connect(path, isolation_level=None)
        connection.row_factory = sqlite3.Row
        return closing(connection)

    with database() as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, item TEXT)")
        connection.execute("CREATE TABLE place (position INTEGER)")
        connection.execute("INSERT INTO place VALUES (0)")
        connection.executemany("INSERT INTO orders (item) VALUES (?)", [["a"], ["b"], ["c"]])
    threads.clear()

    def new_orders(position: int) -> list[sqlite3.Row]:
        with database() as connection:
            found = connection.execute("SELECT * FROM orders WHERE id > ? ORDER BY id LIMIT 2", [position])
            return found.fetchall()

    def load() -> int:
        with database() as connection:
            return int(connection.execute("SELECT position FROM place").fetchone()[0])

    def save(position: int) -> None:
        with database() as connection:
            connection.execute("UPDATE place SET position = ?", [position])

    async with Hub() as hub, hub.subscribe("orders") as subscription:
        source = Poll(new_orders, every=600, after=load, save=save)
        hub.feed("orders", source, key="id", data=dict, event="order")
        async with asyncio.timeout(20):
            assert [(await anext(subscription)).json()["item"] for _ in range(3)] == ["a", "b", "c"]
            with database() as connection:
                connection.execute("INSERT INTO orders (item) VALUES ('d')")
            source.wake()
            event = await anext(subscription)
        assert (event.event, event.json()) == ("order", {"id": 4, "item": "d"})
    threads.discard(threading.get_ident())
    assert threads
    source.wake()  # no effect: the source is not read


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (lambda position: None, "TypeError: expected the query to return rows, got None"),
        (lambda position: "rows", "TypeError: expected the query to return rows, got 'rows'"),
        (lambda position: [{"id": 7}], "ValueError: expected rows after the position 7, got rows that end with it"),
        (lambda position: [{"name": 7}], "KeyError: 'id'"),
    ],
)
async def test_broken_queries(query: Callable[[Any], Any], sentence: str) -> None:
    async def asked(position: Any) -> Any:
        return query(position)

    async with hub_of() as (hub, clock):
        feed(hub, Poll(asked, after=7, clock=clock))
        await settle()
        assert hub.statistics().feeds["t"].last_error == sentence
        assert hub.statistics().feeds["t"].state == "retrying"


async def test_second_reader() -> None:
    async with hub_of() as (hub, clock):
        source = Poll(Table(1).query, clock=clock)
        feed(hub, source)
        await settle()
        hub.feed("u", source, key="id")
        await settle()
        assert "a poll is read by one feed" in (hub.statistics().feeds["u"].last_error or "")
        assert repr(source) == "<Poll Table.query after 1>"


# Wake-ups.


class Bell:
    """A wake-up that a test controls.

    Attributes:
        listening: the number of iterators that listen.
    """

    def __init__(self) -> None:
        self.listening = 0
        self.attempts = 0
        self._state = "away"
        self._changed = asyncio.Event()

    def become(self, state: str) -> None:
        """Change to ``away`` or ``there``, or ``ring``."""
        self._state = state
        self._changed.set()
        self._changed = asyncio.Event()

    async def wakes(self) -> AsyncIterator[object]:
        self.attempts += 1
        if self._state == "away":
            raise OSError("no answer")
        self.listening += 1
        try:
            yield "listening"
            while True:
                await self._changed.wait()
                if self._state == "away":
                    raise OSError("lost")
                yield "news"
        finally:
            self.listening -= 1


async def test_wake_and_fallback(caplog: pytest.LogCaptureFixture) -> None:
    bell, table = Bell(), Table(1)
    bell.become("there")
    async with hub_of() as (hub, clock):
        feed(hub, Poll(table.query, every=30, fallback=1, wake=bell, clock=clock))
        await settle()
        assert bell.listening == 1
        table.asked.clear()
        await turn(clock, 20)
        assert table.asked == [], "expected no query while it can be woken up"
        table.add(2)
        bell.become("ring")
        await settle()
        assert await ids(hub) == [1, 2]
        bell.become("away")
        await settle()
        table.asked.clear()
        await turn(clock, 20)
        assert 18 <= len(table.asked) <= 30
        assert (
            "the wake-up of <Poll Table.query after 2> failed, polling every 1 s until it is back: lost" in caplog.text
        )
        assert 3 <= bell.attempts <= 7
        bell.become("there")
        await turn(clock, 10)
        assert bell.listening == 1
        table.asked.clear()
        await turn(clock, 25)
        assert len(table.asked) <= 1
    assert bell.listening == 0


async def test_wake_recovers() -> None:
    bell, table = Bell(), Table(1)
    async with hub_of() as (hub, clock):
        feed(hub, Poll(table.query, every=600, fallback=600, wake=bell, clock=clock))
        await settle()
        bell.become("there")
        table.add(2)
        await turn(clock, 2)
        assert bell.listening == 1
        assert await ids(hub) == [1, 2]


async def test_wake_by_iterable() -> None:
    rung: asyncio.Queue[str] = asyncio.Queue()

    class Iterable:
        async def __aiter__(self) -> AsyncIterator[str]:
            while True:
                yield await rung.get()

    table = Table(1)
    async with hub_of() as (hub, clock):
        feed(hub, Poll(table.query, every=600, wake=Iterable(), clock=clock))
        await settle()
        table.asked.clear()
        await turn(clock, 10)
        assert table.asked == []
        table.add(2)
        rung.put_nowait("now")
        await settle()
        assert await ids(hub) == [1, 2]


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"query": "SELECT 1"}, TypeError, "expected query to be a function, got 'SELECT 1'"),
        ({"save": 5}, TypeError, "expected save to be a function, got 5"),
        ({"every": 0}, ValueError, "expected every to be a number of seconds > 0, got 0"),
        ({"every": float("inf")}, ValueError, "expected every to be a number of seconds > 0, got inf"),
        ({"fallback": -1}, ValueError, "expected fallback to be a number of seconds > 0, got -1"),
        ({"wake": "orders"}, TypeError, "expected wake to be postgres_listen"),
    ],
)
def test_invalid_arguments(fields: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        Poll(**{"query": Table().query, **fields})
