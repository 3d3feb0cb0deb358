"""The programs of the page on feeds, run on databases of the test."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import nats
import psycopg
import pytest
from nats.js.errors import NoStreamResponseError, NotFoundError

from broker.nats_logs import SERVER, nats_absent
from broker.postgres_logs import POSTGRES_URL, postgres_absent
from broker.private_servers import require
from tickertape.testing import EventStreamClient

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "feeds.md").read_text("utf-8")

PATIENCE = 30.0


def block(heading: str, language: str) -> str:
    """Return the first block of code below a heading."""
    section = PAGE.partition(f"## {heading}")[2].partition("\n## ")[0]
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return found[0]


def run(program: str, **instead: str) -> dict[str, Any]:
    """Run a program of the page with some words replaced."""
    for word in instead.values():
        found, _, other = word.partition(" -> ")
        assert found in program, found
        program = program.replace(found, other)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(program, "feeds.md", "exec", dont_inherit=True), names)
    return names


async def test_notifications_from_sqlite(tmp_path: Path) -> None:
    program = block("From SQLite", "python")
    places = {"table": f"app.db -> {tmp_path}/app.db", "log": f"sqlite:///events.db -> sqlite:///{tmp_path}/events.db"}

    def page() -> dict[str, Any]:
        return run(program, **places)

    names = page()
    async with EventStreamClient(names["app"]) as client, client.open("/users/ann/events") as stream:
        async with client.open("/users/ann/notifications?text=hello", method="POST") as answer:
            assert await answer.started() == 200
        event = await stream.next_event(PATIENCE)
        assert (event.event, event.json()) == ("notification", {"id": 1, "text": "hello"})
    with names["database"]() as connection:
        connection.execute("INSERT INTO notifications (user, text) VALUES ('bob', 'for bob'), ('ann', 'later')")
    async with EventStreamClient(page()["app"]) as client:  # the next process
        async with client.open("/users/ann/events", last_event_id=event.id) as stream:
            assert (await stream.next_event(PATIENCE)).json() == {"id": 3, "text": "later"}
        async with client.open("/users/bob/events") as stream:
            assert (await stream.next_event(PATIENCE)).json() == {"id": 2, "text": "for bob"}
    with names["database"]() as connection:
        assert connection.execute("SELECT position FROM positions").fetchone()[0] == 3


@asynccontextmanager
async def database() -> AsyncIterator[str]:
    """The URL of a new database."""
    require(postgres_absent())
    name = f"test_{secrets.token_hex(6)}"
    async with await psycopg.AsyncConnection.connect(POSTGRES_URL, autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield POSTGRES_URL.rpartition("/")[0] + f"/{name}"
        finally:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def test_orders_from_postgresql() -> None:
    async with database() as url, await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(block("From PostgreSQL", "postgresql").encode())
        insert = b"INSERT INTO orders (customer, state) VALUES ('c1', 'new'), ('c2', 'new'), ('c1', 'paid')"
        await connection.execute(insert)
        program = block("From PostgreSQL", "python")
        # Transactions of other tests on this server may be open, and nothing reports their end.
        names = run(program, url=f"postgresql://localhost/shop -> {url}", every="every=5.0 -> every=0.1")
        async with EventStreamClient(names["app"]) as client, client.open("/customers/c2/events") as stream:
            await connection.execute(b"INSERT INTO orders (customer, state) VALUES ('c2', 'gone')")
            states = [(await stream.next_event(PATIENCE)).json()["state"]]
            if states == ["new"]:  # it was read before the stream was opened, or after
                states.append((await stream.next_event(PATIENCE)).json()["state"])
            assert states[-1] == "gone"
            cursor = await connection.execute(b'SELECT data FROM tickertape.log ORDER BY "offset"')
            assert [bytes(data) for (data,) in await cursor.fetchall()] == [
                b'{"id":1,"state":"new"}',
                b'{"id":2,"state":"new"}',
                b'{"id":3,"state":"paid"}',
                b'{"id":4,"state":"gone"}',
            ]


async def test_sensors_from_nats(tmp_path: Path) -> None:
    require(nats_absent())
    name = f"test-{secrets.token_hex(6)}"
    program = block("From NATS", "python")
    names = run(
        program,
        server=f"nats://localhost:4222 -> {SERVER}",
        log=f"sqlite:///events.db -> sqlite:///{tmp_path}/events.db",
        subject=f"sensors.* -> {name}.*",
        topic=f'f"sensors/{{sensor}}" -> f"{name}/{{sensor}}"',
        stream=f"SENSORS -> {name}",
    )
    client = await nats.connect(SERVER)
    try:
        async with EventStreamClient(names["app"]) as app, app.open("/sensors/roof/events") as stream:

            async def stored() -> bool:
                with suppress(NoStreamResponseError):  # the feed is about to make it
                    return bool(await client.jetstream().publish(f"{name}.roof", b"21.5"))
                return False

            await until(stored)
            assert (await stream.next_event(PATIENCE)).data == "21.5"
    finally:
        with suppress(NotFoundError):
            await client.jetstream().delete_stream(name)
        await client.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("number", range(PAGE.count("```python\n")))
def test_every_program_is_python(number: int) -> None:
    compile(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[number], "feeds.md", "exec")
