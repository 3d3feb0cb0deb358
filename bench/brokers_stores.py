"""The stores that brokers keep their logs in, each with its bare client and the least code that stores events,
and the logs in them.

No offsets without holes, no idempotency, no retention, no epoch: a table, a stream, and what the client
does fastest with it. Where there are two ways, both are here, and the faster is what a broker is held to.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import nats
import psycopg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from redis.asyncio import BlockingConnectionPool, Redis

from tickertape.wire import Draft

__all__ = ["KINDS", "MANY", "Bare", "Contest", "Follow", "Kind", "Publish"]

POSTGRES: Final = os.environ.get("TICKERTAPE_TEST_POSTGRES", "postgresql://postgres@127.0.0.1/test")
REDIS: Final = os.environ.get("TICKERTAPE_TEST_REDIS", "redis://127.0.0.1:6379/0")
NATS: Final = os.environ.get("TICKERTAPE_TEST_NATS", "nats://127.0.0.1:4222")
PORTS: Final = {"postgresql": 5432, "redis": 6379, "nats": 4222}

MANY: Final = 32
"""Publishers at once, at most: each has its own connection if the bare client needs one for each."""

Publish: TypeAlias = Callable[[Sequence[Draft]], Awaitable[object]]
"""Stores events, and returns when they are acknowledged."""

Follow: TypeAlias = Callable[[], AsyncIterator[str]]
"""Yields the data of the events stored from now on, over a separate connection."""


class Bare(NamedTuple):
    """A store.

    Attributes:
        ways: to publish to it, by name.
        stored: returns the number of events that it holds.
        notify: publishes such that ``follow`` sees it.
        follow: follows it; ``None`` if the store does not notify of new events.
    """

    ways: dict[str, Publish]
    stored: Callable[[], Awaitable[int]]
    notify: Publish
    follow: Follow | None


@asynccontextmanager
async def sqlite_table(path: Path, synchronous: str) -> AsyncIterator[Bare]:
    """Provide a table in a file, written to in the event loop: no threads, one transaction each time."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {synchronous}")
    database.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, topic TEXT, event TEXT, data TEXT)")
    insert = "INSERT INTO events (topic, event, data) VALUES (?, ?, ?)"

    async def many(drafts: Sequence[Draft]) -> None:
        database.execute("BEGIN IMMEDIATE")
        if len(drafts) == 1:
            (draft,) = drafts
            database.execute(insert, (draft.topic, draft.event, draft.data))
        else:
            database.executemany(insert, [(draft.topic, draft.event, draft.data) for draft in drafts])
        database.execute("COMMIT")

    async def stored() -> int:
        ((found,),) = database.execute("SELECT count(*) FROM events")
        return int(found)

    try:
        yield Bare({"executemany": many}, stored, many, None)
    finally:
        database.close()


@asynccontextmanager
async def redis_stream(url: str) -> AsyncIterator[Bare]:
    """Provide a stream; a batch is one pipeline of XADD, and each publisher has a connection."""
    stream = f"bench-{secrets.token_hex(6)}"
    pool: Any = BlockingConnectionPool.from_url(url, max_connections=MANY + 1, timeout=None, socket_timeout=None)
    client = Redis(connection_pool=pool)

    def entry(draft: Draft) -> dict[Any, Any]:
        return {"t": draft.topic, "e": draft.event or "", "d": draft.data}

    async def xadd(drafts: Sequence[Draft]) -> None:
        if len(drafts) == 1:
            await client.xadd(stream, entry(drafts[0]))
            return
        pipeline = client.pipeline(transaction=False)
        for draft in drafts:
            pipeline.xadd(stream, entry(draft))
        await pipeline.execute()

    async def follow() -> AsyncIterator[str]:
        after = "$"
        while True:
            answer: Any = await client.xread({stream: after}, block=0)
            entries = answer[0][1]
            after = entries[-1][0]
            for _, fields in entries:
                yield fields[b"d"].decode()

    async def stored() -> int:
        return int(await client.xlen(stream))

    try:
        yield Bare({"XADD": xadd}, stored, xadd, follow)
    finally:
        await client.delete(stream)
        await pool.disconnect()


@asynccontextmanager
async def postgres_table(url: str) -> AsyncIterator[Bare]:
    """Provide a table; each publisher has a connection, and each batch is a transaction."""
    table = f"bench_{secrets.token_hex(6)}"
    idle: list[psycopg.AsyncConnection[Any]] = []
    first = await psycopg.AsyncConnection.connect(url, autocommit=True)
    columns = "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text, event text, data text"
    await first.execute(f"CREATE TABLE {table} ({columns})".encode())

    async def connection() -> psycopg.AsyncConnection[Any]:
        return idle.pop() if idle else await psycopg.AsyncConnection.connect(url, autocommit=True)

    one = f"INSERT INTO {table} (topic, event, data) VALUES (%s, %s, %s)".encode()
    into = f"COPY {table} (topic, event, data) FROM STDIN".encode()
    several = f"""INSERT INTO {table} (topic, event, data)
        SELECT * FROM unnest(%b::text[], %b::text[], %b::text[])""".encode()

    async def insert(drafts: Sequence[Draft]) -> None:
        own = await connection()
        if len(drafts) == 1:
            (draft,) = drafts
            await own.execute(one, (draft.topic, draft.event, draft.data), prepare=True)
        else:
            columns = [[getattr(draft, name) for draft in drafts] for name in ("topic", "event", "data")]
            await own.execute(several, columns, prepare=True)
        idle.append(own)

    async def copy(drafts: Sequence[Draft]) -> None:
        own = await connection()
        rows = "".join([f"{draft.topic}\t{draft.event}\t{draft.data}\n" for draft in drafts])
        async with own.cursor() as cursor, cursor.copy(into) as stream:
            await stream.write(rows)
        idle.append(own)

    async def notify(drafts: Sequence[Draft]) -> None:
        (draft,) = drafts
        query = f"WITH stored AS ({one.decode()} RETURNING id) SELECT pg_notify('{table}', id::text) FROM stored"
        await first.execute(query.encode(), (draft.topic, draft.event, draft.data), prepare=True)

    async def follow() -> AsyncIterator[str]:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as own:
            await own.execute(f"LISTEN {table}".encode())
            query = f"SELECT data FROM {table} WHERE id = %s".encode()
            while True:
                async for notice in own.notifies(stop_after=1):
                    number = int(notice.payload)
                cursor = await own.execute(query, (number,), prepare=True)
                for (data,) in await cursor.fetchall():
                    yield data

    async def stored() -> int:
        cursor = await first.execute(f"SELECT count(*) FROM {table}".encode())
        ((found,),) = await cursor.fetchall()
        return int(found)

    try:
        yield Bare({"INSERT": insert, "COPY": copy}, stored, notify, follow)
    finally:
        await first.execute(f"DROP TABLE {table}".encode())
        for each in (first, *idle):
            await each.close()


_WINDOW: Final = 4000
"""Messages that may wait for their acknowledgement: as many as the client allows by itself."""


@asynccontextmanager
async def nats_stream(url: str) -> AsyncIterator[Bare]:
    """Provide a JetStream stream, on the disk as that of a broker; each event is a message with an acknowledgement."""
    name = f"bench-{secrets.token_hex(6)}"
    client = await nats.connect(f"nats://{urlsplit(url).netloc}")
    jetstream = client.jetstream(timeout=30, publish_async_max_pending=_WINDOW)
    await jetstream.add_stream(name=name, subjects=[f"{name}.>"])
    subject = f"{name}.events"

    async def concurrently(drafts: Sequence[Draft]) -> None:
        if len(drafts) == 1:
            await jetstream.publish(subject, drafts[0].data.encode())
            return
        await asyncio.gather(*(jetstream.publish(subject, draft.data.encode()) for draft in drafts))

    async def pipelined(drafts: Sequence[Draft]) -> None:
        for waiting in [await jetstream.publish_async(subject, draft.data.encode()) for draft in drafts]:
            await waiting

    async def follow() -> AsyncIterator[str]:
        config = ConsumerConfig(deliver_policy=DeliverPolicy.NEW, ack_policy=AckPolicy.NONE, mem_storage=True)
        subscription = await jetstream.subscribe(subject, stream=name, config=config)
        async for message in subscription.messages:
            yield message.data.decode()

    async def stored() -> int:
        return int((await jetstream.stream_info(name)).state.messages)

    try:
        yield Bare({"publish": concurrently, "publish_async": pipelined}, stored, concurrently, follow)
    finally:
        await jetstream.delete_stream(name)
        await client.close()


# The logs, each beside its store.


class Contest(NamedTuple):
    """A log by its URL, and the store that it is in; memory has none."""

    url: str
    bare: Bare | None


@dataclass(frozen=True)
class Kind:
    """A kind of broker: a context with a log and its store, and the server that it needs."""

    enter: Callable[[Path], AbstractAsyncContextManager[Contest]]
    server: str = ""

    def absent(self) -> str:
        """Return the reason why the server is missing; nothing if it runs, or if none is needed."""
        if self.server:
            parts = urlsplit(self.server)
            try:
                socket.create_connection((parts.hostname or "127.0.0.1", parts.port or PORTS[parts.scheme]), 1).close()
            except OSError as error:
                return f"no server at {parts.hostname}: {error}"
        return ""


@asynccontextmanager
async def memory(directory: Path) -> AsyncIterator[Contest]:
    yield Contest("memory://", None)


def sqlite(synchronous: str) -> Callable[[Path], AbstractAsyncContextManager[Contest]]:
    @asynccontextmanager
    async def enter(directory: Path) -> AsyncIterator[Contest]:
        async with sqlite_table(directory / f"bare-{synchronous}.db", synchronous) as bare:
            yield Contest(f"sqlite:///{directory}/ours-{synchronous}.db?synchronous={synchronous}", bare)

    return enter


@asynccontextmanager
async def redis(directory: Path) -> AsyncIterator[Contest]:
    prefix = f"bench-{secrets.token_hex(6)}"
    async with redis_stream(REDIS) as bare, Redis.from_url(REDIS) as client:
        try:
            yield Contest(f"{REDIS}?prefix={prefix}", bare)
        finally:
            if keys := [key async for key in client.scan_iter(match=f"{{{prefix}}}:*", count=10_000)]:
                await client.delete(*keys)


@asynccontextmanager
async def postgres(directory: Path) -> AsyncIterator[Contest]:
    schema = f"bench_{secrets.token_hex(6)}"
    async with postgres_table(POSTGRES) as bare:
        try:
            yield Contest(f"{POSTGRES}?schema={schema}", bare)
        finally:
            async with await psycopg.AsyncConnection.connect(POSTGRES, autocommit=True) as connection:
                await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'.encode())


@asynccontextmanager
async def jetstream(directory: Path) -> AsyncIterator[Contest]:
    stream = f"bench-{secrets.token_hex(6)}"
    async with nats_stream(NATS) as bare:
        try:
            yield Contest(f"{NATS}/{stream}", bare)
        finally:
            client = await nats.connect(NATS)
            await client.jetstream().delete_stream(stream)
            await client.close()


KINDS: Final = {
    "memory": Kind(memory),
    "SQLite full": Kind(sqlite("full")),
    "SQLite normal": Kind(sqlite("normal")),
    "Redis": Kind(redis, REDIS),
    "PostgreSQL": Kind(postgres, POSTGRES),
    "NATS": Kind(jetstream, NATS),
}
