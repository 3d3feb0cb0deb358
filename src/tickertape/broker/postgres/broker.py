"""The log in PostgreSQL: for services that have one anyway, and publish inside their own transactions.

:mod:`.postgres_schema` has the tables, and the functions that do what must happen at once. Notifications
only wake hubs up; what there is they read from the tables, and they look by themselves once in a while,
so that a notification that is lost costs seconds, not events. LISTEN needs a session of its own: connect
to PostgreSQL itself, not to a pooler in transaction mode.

**Publishing inside a transaction** (:meth:`PostgresBroker.append_with`) inserts into an outbox. An offset
there and then would be wrong either way: taken at once, it appears after greater ones if the transaction
commits late, and readers that have passed it never see it; and locked until the commit, it would stop
every other publisher for as long as the transaction lasts. PostgreSQL delivers the notification at the
commit; then one of the hubs, which holds an advisory lock for the moment, moves what is committed into
the log, in the order of the outbox' ids, deleting and appending in one transaction of its own: exactly
once. A transaction that began earlier and commits later comes later, though its ids are smaller.

**Fencing.** An epoch ends when the server may have fewer records than were shown to anybody: when its
``life`` is another one, the system identifier (a restored dump) or the timeline (a promoted standby, a
restored backup), or when it has fewer records than this process has seen. Every append looks at it in the
database, under the lock that gives the offsets. A server that crashed and started again keeps its life:
our sessions commit to the disk before anyone is shown anything. A standby may have been promoted with
every record, and mostly has been, but it cannot know what the old primary had; ``?failover=lossless``
in the URL promises it (synchronous replication, planned switchovers), and the epoch goes on unless this
process has seen more.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, errors

from ...errors import BrokerError, LogResetError
from ...wire import Cursor, Draft
from ..options import read_seconds
from ..protocol import DEFAULT_RETENTION, Retention
from ..records import LogState, Record, new_epoch
from ..remote import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT, RemoteBroker, promises_lossless
from ..transactional import SQLConnection
from .link import ByteArray, Link, explain, parse_url
from .schema import OUTBOX_WAKE, VERSION, schema_script

__all__ = ["DEFAULT_POLL", "PostgresBroker"]

logger = logging.getLogger("tickertape.broker")

DEFAULT_POLL: Final = 5.0
"""Seconds between two looks at a log of which nothing was heard: the safety net under notifications."""

_CONNECTIONS: Final = 3
"""Requests under way at once, beside the session that listens: appends go together anyway, reads are short."""

_BATCH: Final = 500
"""Records that a tail takes, and rows of the outbox that a hub moves, at once."""

_GROUP: Final = 1000
"""Drafts stored together: some milliseconds, for which other hubs' appends wait."""

_BIND_BUDGET: Final = 10_000
"""Records that opening removes when they are too old."""

_MAX_KEY: Final = 2000
"""Bytes of an idempotency key: what an entry of PostgreSQL's index holds at the least."""

_SCHEMA: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}", re.ASCII)
"""Names of schemas: they stand in statements, and have room for a suffix in those of the channels."""

_OPTIONS: Final = ("schema", "failover", "connect_timeout", "timeout")
"""What we take out of the URL's query; the rest is libpq's."""

_MAKE_LOCK, _MOVE_LOCK = 0x7469636B, 0x74617065
"""Classes of advisory locks: for making the schema, and for moving the outbox. (``tick``, ``tape``)"""

_MISSING: Final = (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedFunction)
"""What PostgreSQL says when our schema is not there, or not yet, or no more."""


class PostgresBroker(RemoteBroker):
    """Keep the log in a PostgreSQL schema, which is made on opening.

    Arguments:
        url: ``postgresql://[user[:password]@]host[:port]/database`` with libpq's options;
            ``?schema=tickertape`` names the log, ``?failover=lossless`` promises that no failover
            loses records, ``?timeout=`` and ``?connect_timeout=`` are seconds.
        retention: how much is kept; exact, except when it was lowered, which is done by and by.
        connect_timeout: seconds for a connection.
        timeout: seconds for an answer.
        poll: seconds between two looks at a log of which nothing was heard.
        random: gives numbers from 0 to 1, for the jitter of reconnects.

    Raises:
        BrokerError: the URL is wrong.
    """

    def __init__(
        self,
        url: str,
        *,
        retention: Retention = DEFAULT_RETENTION,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
        timeout: float = DEFAULT_TIMEOUT,
        poll: float = DEFAULT_POLL,
        random: Callable[[], float] = random.random,
    ) -> None:
        conninfo, options, self._server = parse_url(url, _OPTIONS)
        connect_timeout = read_seconds(options, "connect_timeout", connect_timeout)
        timeout = read_seconds(options, "timeout", timeout)
        super().__init__(retention=retention, timeout=timeout, random=random, group=_GROUP)
        self._schema = options.get("schema", "tickertape")
        if not _SCHEMA.fullmatch(self._schema):
            raise BrokerError(f"expected a schema of up to 48 letters, digits and '_', got {self._schema!r}")
        self._lossless = promises_lossless(options)
        self._poll = poll
        self._make_link: Callable[[], Link] = lambda: Link(conninfo, self._server, connect_timeout, timeout)
        self._idle: asyncio.LifoQueue[Link] = asyncio.LifoQueue()
        self._links = {self._make_link() for _ in range(_CONNECTIONS)}
        for link in self._links:
            self._idle.put_nowait(link)
        self._made = False
        age = None if retention.age is None else timedelta(seconds=retention.age)
        self._limits = (retention.events, retention.bytes, age)

    def __repr__(self) -> str:
        return f"<PostgresBroker {self._server} {self._schema} epoch={self._current} seen={self._seen.offset}>"

    def _where(self) -> str:
        return self._server

    @property
    def _channel(self) -> str:
        return f"{self._schema}_wake"

    def _sql(self, text: str) -> bytes:
        return text.replace("$schema", self._schema).encode()

    def _check_draft(self, draft: Draft) -> None:
        if draft.key is not None and len(draft.key.encode()) > _MAX_KEY:
            raise BrokerError(f"expected a key of at most {_MAX_KEY} bytes, got {len(draft.key.encode())}")

    async def _fetch(self, text: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Ask on one of the few connections."""
        link = await self._idle.get()
        try:
            return await link.fetch(self._sql(text), arguments)
        finally:
            self._idle.put_nowait(link)

    # Which epoch it is.

    async def _establish(self, seen: Cursor) -> LogState:
        if not self._made:
            await self._make()
        query = 'SELECT "$schema".bind(%s, %s, %s, %s, %s, %s, %s, %s)'
        arguments = (new_epoch(), seen.epoch, seen.offset, self._lossless, _BIND_BUDGET, *self._limits)
        try:
            rows = await self._fetch(query, *arguments)
        except BrokerError as error:
            if not isinstance(error.__cause__, _MISSING):
                raise
            self._made = False  # it was dropped
            await self._make()
            rows = await self._fetch(query, *arguments)
        epoch, oldest, newest = rows[0][0]
        return LogState(epoch, int(oldest), int(newest))

    async def _make(self) -> None:
        """Make the schema if there is none, and check its version."""
        link = await self._idle.get()
        try:
            if await self._version(link) == 0:
                await link.run(self._make_with)
            version = await self._version(link)
        finally:
            self._idle.put_nowait(link)
        if version != VERSION:
            raise BrokerError(
                f"expected version {VERSION} of the schema {self._schema!r}, got {version}: update tickertape here"
            )
        self._made = True

    async def _version(self, link: Link) -> int:
        try:
            rows = await link.fetch(self._sql('SELECT version FROM "$schema".meta'))
        except BrokerError as error:
            if not isinstance(error.__cause__, _MISSING):
                raise
            return 0
        return int(rows[0][0]) if rows else 0

    async def _make_with(self, connection: AsyncConnection[tuple[Any, ...]]) -> None:
        script = schema_script(self._schema, self._channel, _MOVE_LOCK)
        lock = b"SELECT pg_advisory_xact_lock(%s, hashtext(%s))"
        with suppress(errors.DuplicateTable):  # another hub was faster
            async with connection.transaction():
                await connection.execute(lock, (_MAKE_LOCK, self._schema))
                await connection.execute(script.encode())

    # The log.

    async def _store(self, epoch: str, drafts: Sequence[Draft]) -> list[int] | None:
        query = 'SELECT "$schema".append(%s, %s, %s, %s, %s, %s, %s, %s)'
        try:
            rows = await self._fetch(query, epoch, *self._limits, *map(ByteArray, _columns(drafts)))
        except BrokerError as error:
            if isinstance(error.__cause__, _MISSING):
                return None
            raise
        offsets: list[int] | None = rows[0][0]
        return offsets

    async def _page(self, epoch: str, after: int, limit: int) -> list[Record]:
        link = await self._idle.get()
        try:
            return await self._page_on(link, epoch, after, limit, self._limits[2])
        finally:
            self._idle.put_nowait(link)

    async def _page_on(self, link: Link, epoch: str, after: int, limit: int, age: timedelta | None) -> list[Record]:
        # One statement sees one state: records of another epoch than it tells cannot be among them. LIMIT 1 says
        # to the planner that there is one row: if it reckons with hundreds, it compiles the plan, each time.
        query = """
            SELECT m.epoch, l."offset", l.topic, l.event, l.data
            FROM (SELECT * FROM "$schema".meta LIMIT 1) m LEFT JOIN LATERAL (
              SELECT * FROM "$schema".log
              WHERE "offset" > greatest(%s, m.oldest - 1)
                AND (%s::interval IS NULL OR at >= clock_timestamp() - %s::interval)
              ORDER BY "offset" LIMIT %s
            ) l ON true ORDER BY l."offset"
        """
        try:
            rows = await link.fetch(self._sql(query), (after, age, age, limit))
        except BrokerError as error:
            if isinstance(error.__cause__, _MISSING):
                raise LogResetError(f"expected the log {epoch}, got one that was dropped") from error
            raise
        if not rows or rows[0][0] != epoch:
            raise LogResetError(f"expected the log {epoch}, got {rows[0][0] if rows else 'none'}")
        return [_record(row) for row in rows if row[1] is not None]

    async def _follow(self, epoch: str, after: int) -> AsyncGenerator[list[Record], None]:
        link = self._make_link()
        self._links.add(link)
        try:
            await link.fetch(f'LISTEN "{self._channel}"'.encode())
            waiting = True  # what was published inside transactions while no hub was there
            while not self._closing.is_set():
                moved = await self._in_time(self._move(link, epoch), "moving the outbox") if waiting else 0
                records = await self._in_time(self._page_on(link, epoch, after, _BATCH, None), "reading")
                if records:
                    after = records[-1].offset
                    yield records
                waiting = moved == _BATCH
                if not waiting and len(records) < _BATCH:
                    payloads = await link.payloads(self._poll)
                    waiting = not payloads or OUTBOX_WAKE in payloads
                    if not payloads:
                        yield []
        finally:
            self._links.discard(link)
            await link.close()

    async def _move(self, link: Link, epoch: str) -> int:
        """Move what is committed of the outbox into the log; returns how many rows."""
        query = 'SELECT "$schema".relay(%s, %s, %s, %s, %s)'
        try:
            rows = await link.fetch(self._sql(query), (epoch, *self._limits, _BATCH))
        except BrokerError as error:
            if isinstance(error.__cause__, _MISSING):
                return 0  # reading says what became of the log
            raise
        return int(rows[0][0])

    async def _release(self) -> None:
        for link in [*self._links]:
            await link.close()

    # Publishing inside the caller's transaction.

    async def append_with(self, connection: SQLConnection, drafts: Sequence[Draft]) -> list[str]:
        """Append drafts if, and only if, the caller's transaction commits; see :class:`TransactionalBroker`."""
        self._check_open()
        keyed = [draft if draft.key is not None else draft.replace(key=secrets.token_hex(16)) for draft in drafts]
        for draft in keyed:
            self._check_draft(draft)
        if keyed:
            query = self._sql('SELECT "$schema".publish(%s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[])')
            try:
                answer = connection.execute(query.decode(), _columns(keyed))
                if inspect.isawaitable(answer):
                    await answer
            except psycopg.Error as error:
                raise explain(error, self._server) from error
        return [draft.key or "" for draft in keyed]


def _columns(drafts: Sequence[Draft]) -> tuple[list[bytes | None], ...]:
    """Return topics, event types, data and keys as the functions take them: no keys are an empty array."""
    keys = [None if draft.key is None else draft.key.encode() for draft in drafts]
    return (
        [draft.topic.encode() for draft in drafts],
        [None if draft.event is None else draft.event.encode() for draft in drafts],
        [draft.data.encode() for draft in drafts],
        keys if any(key is not None for key in keys) else [],
    )


def _record(row: tuple[Any, ...]) -> Record:
    _, offset, topic, event, data = row
    return Record(
        offset,
        topic.decode(),
        None if event is None else event.decode(),
        data.decode(),
    )
