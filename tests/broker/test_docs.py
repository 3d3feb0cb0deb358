"""The page on brokers: its tables agree with the code, and its programs run."""

from __future__ import annotations

import asyncio
import inspect
import re
import runpy
import secrets
import shlex
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tickertape import Hub
from tickertape.broker import SQLiteBroker, create_broker
from tickertape.broker.postgres import PostgresBroker
from tickertape.broker.postgres import connections as postgres
from tickertape.broker.redis import RedisBroker
from tickertape.broker.redis import client as redis_client
from tickertape.broker.remote import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT
from tickertape.broker.sqlite import broker as sqlite
from tickertape.errors import BrokerError
from tickertape.testing.contract import CHECKS, BrokerContract
from tickertape.testing.contract.checks import PATIENCE
from tickertape.wire import Cursor, Draft

from . import test_contract
from .postgres_logs import POSTGRES_URL, postgres_absent
from .private_servers import PrivateRedis, require

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "operations" / "brokers.md").read_text("utf-8")
URLS = PAGE.partition("\n## URLs\n")[2].partition("\n## ")[0]


def section(name: str) -> str:
    return URLS.partition(f"\n### {name}\n")[2].partition("\n### ")[0]


def known_options(url: str) -> set[str]:
    """Return the options of a URL, taken from the error for another one."""
    with pytest.raises(BrokerError) as caught:
        create_broker(f"{url}?no_such_option=1")
    found = re.search(r"\((.*)\), got 'no_such_option'", str(caught.value))
    assert found is not None, str(caught.value)
    return set(found[1].split(", ")) - {"none"}


# URLs.


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SQLite", known_options("sqlite:///log.db")),
        ("Redis and Valkey", set(redis_client._OPTIONS)),
        ("PostgreSQL", set(postgres._OPTIONS)),
        ("NATS", known_options("nats://localhost/log")),
    ],
)
def test_options_are_documented(name: str, options: set[str]) -> None:
    table = section(name).partition("\n| option | default |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == options


@pytest.mark.parametrize(
    ("name", "option", "default"),
    [
        ("SQLite", "timeout", sqlite.DEFAULT_TIMEOUT),
        *(
            (name, option, default)
            for name in ("Redis and Valkey", "PostgreSQL", "NATS")
            for option, default in (("timeout", DEFAULT_TIMEOUT), ("connect_timeout", DEFAULT_CONNECT_TIMEOUT))
        ),
    ],
)
def test_defaults_of_timeouts(name: str, option: str, default: float) -> None:
    assert f"\n| `{option}` | `{default:g}` |" in section(name)


def test_memory_has_no_options() -> None:
    assert known_options("memory://") == set()


def test_schemes_are_documented() -> None:
    with pytest.raises(BrokerError) as caught:
        create_broker("carrier-pigeon://")
    schemes = re.findall(r"([a-z+]+://)", str(caught.value))
    assert len(schemes) > 10
    assert [scheme for scheme in schemes if f"`{scheme}" not in PAGE and scheme != "postgres://"] == []


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("Redis and Valkey", lambda option: RedisBroker(f"rediss://localhost/0?{option}")),
        ("PostgreSQL", lambda option: PostgresBroker(f"postgresql://localhost/shop?{option}")),
    ],
)
def test_options_of_drivers_exist(name: str, make: Callable[[str], object]) -> None:
    (sentence,) = re.findall(r"All other options are [^.]*: (.*?)(?:\. With|\.\n)", section(name), re.DOTALL)
    options = re.findall(r"`(\w+=[^`]*)`", sentence)
    assert len(options) >= 3
    for option in options:
        make(option)


# Tables.


def test_table_of_the_contract() -> None:
    classes = [value for value in vars(test_contract).values() if inspect.isclass(value)]
    brokers = [value for value in classes if issubclass(value, BrokerContract) and value is not BrokerContract]
    marks = {
        check.name: {
            broker.__name__.removeprefix("Test"): "✓" if check.applies(broker.log.traits) else "–" for broker in brokers
        }
        for check in CHECKS
        if any(check.applies(broker.log.traits) for broker in brokers)
    }
    module = runpy.run_path(str(DOCS / "broker_contract.py"), run_name="broker_contract")
    assert module["table"](marks) == module["PLACE"].search(PAGE)[0].strip() + "\n", module["__doc__"]


# Programs.


@pytest.fixture
def shop() -> Iterator[str]:
    """Yield the URL, without its scheme, of a private database with an order in it."""
    require(postgres_absent())
    name = f"test_{secrets.token_hex(6)}"
    place = f"{POSTGRES_URL.partition('://')[2].rpartition('/')[0]}/{name}"
    with psycopg.connect(POSTGRES_URL, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            with psycopg.connect(f"postgresql://{place}", autocommit=True) as there:
                there.execute("CREATE TABLE orders (id integer PRIMARY KEY, state text NOT NULL CHECK (state <> ''))")
                there.execute("INSERT INTO orders VALUES (42, 'new')")
            yield place
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


PROGRAMS = [text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "connection=" in text]


@asynccontextmanager
async def running(program: str, place: str) -> AsyncIterator[Callable[[Hub, int], Awaitable[None]]]:
    """Yield the function that a program of the page defines."""
    names: dict[str, Any] = {}
    assert "://localhost/shop" in program
    exec(compile(program.replace("://localhost/shop", f"://{place}"), "brokers.md", "exec"), names)
    try:
        yield names["pay"]
    finally:
        engine = names.get("engine")
        if isinstance(engine, AsyncEngine):
            await engine.dispose()


@pytest.mark.parametrize("program", PROGRAMS, ids=["psycopg", "sqlalchemy"])
async def test_programs_with_transactions(program: str, shop: str) -> None:
    failing = program.replace("'paid'", "''")  # which the table refuses, at once
    late = re.sub(r"(connection=[\w.]+\)\n)", r"\1        raise InterruptedError\n", program)
    async with (
        Hub(f"postgresql://{shop}") as hub,
        hub.subscribe("orders/*") as subscription,
        running(failing, shop) as fail,
        running(late, shop) as interrupt,
        running(program, shop) as pay,
    ):
        with pytest.raises(Exception, match="violates check constraint"):
            await fail(hub, 42)
        with pytest.raises(InterruptedError):
            await interrupt(hub, 42)
        with psycopg.connect(f"postgresql://{shop}") as connection:
            assert connection.execute("SELECT state FROM orders").fetchall() == [("new",)]
        await pay(hub, 42)
        await pay(hub, 42)  # the same key: once
        await hub.publish("orders/43", "last")
        async with asyncio.timeout(PATIENCE):
            found = [await anext(subscription), await anext(subscription)]
        assert sorted(str(event.data) for event in found) == ["last", '{"state":"paid"}']
        with psycopg.connect(f"postgresql://{shop}") as connection:
            assert connection.execute("SELECT state FROM orders").fetchall() == [("paid",)]


def remedy(store: str) -> str:
    (found,) = re.findall(
        rf"^\| [^|]*\b{store}\b[^|]* \| `(.*)` \|$", PAGE.partition("\n## Fencing\n")[2], re.MULTILINE
    )
    return str(found)


async def test_new_epoch_of_sqlite_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    broker = SQLiteBroker(path)
    before = await broker.open()
    await broker.append([Draft("t", "1")])
    await broker.close()
    statement = re.fullmatch(r'sqlite3 log.db "(.*)"', remedy("SQLite"))
    assert statement is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement[1])
    broker = SQLiteBroker(path)
    after = await broker.open()
    assert (after.oldest, after.newest) == (1, 1)
    assert re.fullmatch("[0-9a-f]{12}", after.epoch)
    assert after.epoch != before.epoch
    await broker.close()


async def test_new_epoch_of_redis_by_hand(tmp_path: Path) -> None:
    server = PrivateRedis(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    try:
        broker = RedisBroker(server.url)
        before = await broker.open()
        cursors = await broker.append([Draft("t", "1", key="1")])
        await broker.close()
        with server.client() as client:
            client.execute_command(*shlex.split(remedy("Redis"))[1:])
        broker = RedisBroker(server.url)
        after = await broker.open()
        assert (after.oldest, after.newest) == (1, 1)
        assert after.epoch != before.epoch
        assert await broker.append([Draft("t", "1", key="1")]) == [Cursor(after.epoch, cursors[0].offset)]
        await broker.close()
    finally:
        server.end()


async def test_new_epoch_of_postgres_by_hand(shop: str) -> None:
    broker = PostgresBroker(f"postgresql://{shop}")
    before = await broker.open()
    await broker.append([Draft("t", "1")])
    await broker.close()
    with psycopg.connect(f"postgresql://{shop}") as connection:
        connection.execute(remedy("PostgreSQL").encode())
    broker = PostgresBroker(f"postgresql://{shop}")
    after = await broker.open()
    assert (after.oldest, after.newest) == (1, 1)
    assert after.epoch != before.epoch
    await broker.close()
