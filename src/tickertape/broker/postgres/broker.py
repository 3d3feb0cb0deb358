"""The log in PostgreSQL: for services that use it anyway, and publish inside their own transactions.

:mod:`.schema` has the tables, and the functions for what must happen at once. Notifications only wake hubs up. A hub
reads the records from the tables, and checks them regularly without a notification, so a lost one costs seconds, not
events. LISTEN needs its own session: connect to PostgreSQL itself, not to a pooler in transaction mode.

**Publishing inside a transaction** (:meth:`PostgresBroker.append_with`) inserts into an outbox. An offset assigned
at that time would be wrong either way. If it is assigned at once and the transaction commits late, it appears after
greater ones, and readers that have passed it never see it. If it is locked until the commit, every other publisher
waits for the transaction. PostgreSQL delivers the notification at the commit. Then one of the hubs, under an
advisory lock, moves the committed rows into the log in the order of their ids, deleting and appending in one
separate transaction: exactly once. A transaction that began earlier and commits later comes later, though its ids are
smaller.

**Fencing.** An epoch ends if the server may have fewer records than were shown to anyone: if its ``life`` is another
one (another system identifier: a restored dump; another timeline: a promoted standby, a restored backup), or if it
has fewer records than this process has seen. Every append checks it in the database, under the lock that gives the
offsets. A server that crashed and was restarted keeps its life: our sessions commit to the disk before anyone is shown
anything. A standby may have been promoted with every record, and mostly has been, but it cannot know what the old
primary had. ``?failover=lossless`` in the URL promises it (synchronous replication, planned switchovers), and then the
epoch continues unless this process has seen more.
"""

from __future__ import annotations

import inspect
import logging
import random
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import errors

from ...errors import BrokerError, LogResetError
from ...wire import Cursor, Draft
from ..records import OTHERS, LogState, Page, Record, marks_after, new_epoch
from ..remote import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT, RemoteBroker, epoch_changed, is_lossless
from ..retention import DEFAULT_RETENTION, MAX_MARKS, Retention
from ..transactional import SQLConnection
from .connections import ByteArray, Connection, Pool, Session, parse_url, translate_error
from .schema import OUTBOX_WAKE, VERSION, schema_script

logger = logging.getLogger("tickertape.broker")

DEFAULT_POLL: Final = 5.0
"""Seconds without a notification after which a tail reads the log: the safety net under notifications."""

_CONNECTIONS: Final = 3
"""Concurrent requests, beside the session that listens: appends are grouped anyway, reads are short."""

_BATCH: Final = 500
"""Records that a tail reads at once, and rows of the outbox that a hub moves at once."""

_GROUP: Final = 1000
"""Drafts stored together: some milliseconds, for which other hubs' appends wait."""

_TRIM_BUDGET: Final = 10_000
"""Records that opening removes if they are too old."""

_PROBE_TIMEOUT: Final = 2.0
"""Seconds for a notification behind a pooler: a direct one takes milliseconds."""

_SCHEMA: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}", re.ASCII)
"""Names of schemas. They are part of statements, and leave room for a suffix in the names of channels."""

_CREATE_LOCK, _MOVE_LOCK = 0x7469636B, 0x74617065
"""Classes of advisory locks: for creating the schema, and for moving the outbox. (``tick``, ``tape``)"""

_MISSING: Final = (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedFunction)
"""PostgreSQL's errors if our schema does not exist."""

_STEP: Final = 1_000
"""Records of a discarded topic that are removed in one transaction, in which appends wait."""


_DISCARDED: Final = """(SELECT json_agg(json_build_array(encode(topic, 'hex'), "offset"))
  FROM "$schema".discarded WHERE "offset" >= v.oldest)"""


class PostgresBroker(RemoteBroker):
    """Keep the log in a PostgreSQL schema, which is created on opening.

    Arguments:
        url: ``postgresql://[user[:password]@]host[:port]/database`` with libpq's options;
            ``?schema=tickertape`` names the log, ``?failover=lossless`` promises that no failover
            loses records, ``?timeout=`` and ``?connect_timeout=`` are seconds.
        retention: the limits of the log; exact, but a lowered retention is reached step by step.
        connect_timeout: seconds for a connection.
        timeout: seconds for a request.
        poll: seconds without a notification after which a tail reads the log.
        random: returns a number from 0 to 1, for the jitter of reconnects.

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
        self._address = parse_url(url, connect_timeout=connect_timeout, timeout=timeout)
        super().__init__(retention=retention, timeout=self._address.timeout, random=random, group=_GROUP)
        options = self._address.options
        self._schema = options.get("schema", "tickertape")
        if not _SCHEMA.fullmatch(self._schema):
            raise BrokerError(f"expected a schema of up to 48 letters, digits and '_', got {self._schema!r}")
        self._lossless = is_lossless(options)
        self._poll = poll
        self._pool = Pool(self._address, _CONNECTIONS)
        self._sessions: set[Session] = set()
        self._created = False
        self._limits = _limits(retention)
        self._physical = _limits(Retention(events=None, bytes=None))

    def __repr__(self) -> str:
        return f"<PostgresBroker {self._where()} {self._schema} seen={self._seen}>"

    def _where(self) -> str:
        return self._address.where

    @property
    def _channel(self) -> str:
        return f"{self._schema}_wake"

    def _sql(self, text: str) -> bytes:
        return text.replace("$schema", self._schema).encode()

    async def _fetch(self, text: str, *arguments: object) -> list[tuple[Any, ...]]:
        return await self._pool.fetch(self._sql(text), arguments)

    # Fencing.

    async def _fence(self, seen: Cursor) -> LogState:
        if not self._created:
            await self._create()
        query = f'SELECT "$schema".bind(%s, %s, %s, %s, %s, {self._limits})'
        arguments = (new_epoch(), seen.epoch, seen.offset, self._lossless, _TRIM_BUDGET)
        try:
            await self._fetch(query, *arguments)
        except BrokerError as error:
            if not isinstance(error.__cause__, _MISSING):
                raise
            self._created = False  # it was dropped
            await self._create()
            await self._fetch(query, *arguments)
        return await self._state()

    async def _create(self) -> None:
        """Create the schema if there is none, and check its version."""
        await self._check_pooler()
        if await self._version() == 0:
            await self._pool.run(self._create_with)
        version = await self._version()
        if version != VERSION:
            raise BrokerError(
                f"expected version {VERSION} of the schema {self._schema!r}, got {version}: update tickertape here"
            )
        self._created = True

    async def _version(self) -> int:
        try:
            rows = await self._fetch('SELECT version FROM "$schema".meta')
        except BrokerError as error:
            if not isinstance(error.__cause__, _MISSING):
                raise
            return 0
        return int(rows[0][0]) if rows else 0

    async def _create_with(self, connection: Connection) -> None:
        script = schema_script(self._schema, self._channel, _MOVE_LOCK)
        lock = b"SELECT pg_advisory_xact_lock(%s, hashtext(%s))"
        with suppress(errors.DuplicateTable):  # another hub was faster
            async with connection.transaction():
                await connection.execute(lock, (_CREATE_LOCK, self._schema))
                await connection.execute(script.encode())

    async def _check_pooler(self) -> None:
        """Raise if notifications do not arrive, because a pooler runs each transaction in another session."""
        if await self._pool.run(_is_direct):
            return
        channel = f"tickertape_probe_{secrets.token_hex(8)}"
        session = Session(self._address)
        try:
            await session.open()
            await session.fetch(f'LISTEN "{channel}"'.encode())
            await self._fetch("SELECT pg_notify(%s, '')", channel)
            if await session.payloads(_PROBE_TIMEOUT):
                return
        finally:
            await session.close()
        raise BrokerError(
            f"{self._where()} is a pooler in transaction mode, which loses notifications:"
            " connect to PostgreSQL itself, or use session mode"
        )

    # The log.

    async def _state(self) -> LogState:
        query = f"SELECT epoch, oldest, newest, marked, dropped, {_DISCARDED} FROM {_view(self._limits)}"
        try:
            rows = await self._fetch(query)
        except BrokerError as error:
            raise self._gone(error) from error
        if not rows or rows[0][0] is None:
            raise self._gone()
        return _read_state(rows[0])

    async def _page(self, after: int, limit: int) -> Page:
        return await self._page_on(self._pool, after, limit, self._limits)

    async def _page_on(self, connection: Pool | Session, after: int, limit: int, limits: str) -> Page:
        # One statement sees one moment of the log.
        query = f"""
            SELECT v.epoch, v.oldest, v.newest, v.marked, v.dropped, {_DISCARDED}, r."offset", r.topic, r.event, r.data
            FROM {_view(limits)} LEFT JOIN LATERAL (
              (SELECT "offset", topic, event, data FROM "$schema".log
                WHERE "offset" > greatest(%s, v.dropped[1]) ORDER BY "offset" LIMIT %s)
              UNION ALL
              (SELECT "offset", topic, event, data FROM "$schema".ruled
                WHERE "offset" > greatest(%s, v.oldest - 1)
                  AND "offset" > coalesce(v.dropped[array_position(v.marked, lane)], 0) ORDER BY "offset" LIMIT %s)
              ORDER BY "offset" LIMIT %s
            ) r ON true ORDER BY r."offset"
        """
        try:
            rows = await connection.fetch(self._sql(query), (after, limit, after, limit, limit))
        except BrokerError as error:
            raise self._gone(error) from error
        if not rows or rows[0][0] is None:
            raise self._gone()
        return Page(_read_state(rows[0]), [_record(*row[6:]) for row in rows if row[6] is not None])

    async def discard(self, topic: str, upto: int) -> None:
        self._check_open()
        lane = self._lane_of(topic)
        query = 'SELECT "$schema".discard(%s, %s, %s, %s, %s)'
        removed = 0 if lane == OTHERS else _STEP
        while removed == _STEP:  # appends come in between
            arguments = (topic.encode(), upto, _STEP, MAX_MARKS, lane.encode())
            rows = await self._request(self._fetch(query, *arguments))
            removed = int(rows[0][0])

    def _gone(self, error: BrokerError | None = None) -> BrokerError:
        """Return the error for a schema that was dropped, or else the error itself."""
        if error is not None and not isinstance(error.__cause__, _MISSING):
            return error
        return LogResetError(f"there is no log in the schema {self._schema!r} of {self._where()} any more")

    async def _store(self, epoch: str, drafts: Sequence[Draft]) -> list[int] | None:
        query = f'SELECT "$schema".append(%s, {self._limits}, %s, %s, %s, %s, %s)'
        try:
            rows = await self._fetch(query, epoch, *map(ByteArray, self._columns(drafts)))
        except BrokerError as error:
            if isinstance(error.__cause__, _MISSING):
                return None
            raise
        offsets: list[int] | None = rows[0][0]
        return offsets

    async def _follow(self, epoch: str, after: int) -> AsyncGenerator[list[Record], None]:
        session = Session(self._address)
        self._sessions.add(session)
        try:
            await self._request(session.open())
            await self._request(session.fetch(f'LISTEN "{self._channel}"'.encode()))
            look = True  # also for rows of the outbox that were committed while no hub was running
            while not self._closed:
                moved = await self._request(self._move(session, epoch)) if look else 0
                state, records = await self._request(self._page_on(session, after, _BATCH, self._physical))
                if state.epoch != epoch:
                    raise epoch_changed(epoch, state.epoch)
                if records:
                    after = records[-1].offset
                    yield records
                look = moved == _BATCH
                if not look and len(records) < _BATCH:
                    payloads = await session.payloads(self._poll)
                    look = not payloads or OUTBOX_WAKE in payloads
                    if not payloads:
                        yield []
        finally:
            self._sessions.discard(session)
            await session.close()

    async def _move(self, session: Session, epoch: str) -> int:
        """Move committed rows of the outbox into the log, and return how many."""
        query = f'SELECT "$schema".relay(%s, {self._limits}, %s)'
        try:
            rows = await session.fetch(self._sql(query), (epoch, _BATCH))
        except BrokerError as error:
            if isinstance(error.__cause__, _MISSING):
                return 0  # reading the log reports it
            raise
        return int(rows[0][0])

    def _columns(self, drafts: Sequence[Draft]) -> tuple[list[bytes | None], ...]:
        """Return topics, event types, data, keys and rules as the functions expect them; none are an empty array."""
        keys = [None if draft.key is None else draft.key.encode() for draft in drafts]
        lanes = [self._lane_of(draft.topic) for draft in drafts]
        return (
            [draft.topic.encode() for draft in drafts],
            [None if draft.event is None else draft.event.encode() for draft in drafts],
            [draft.data.encode() for draft in drafts],
            keys if any(key is not None for key in keys) else [],
            [lane.encode() for lane in lanes] if any(lanes) else [],
        )

    async def _release(self) -> None:
        for session in self._sessions:
            session.shut_down()
        await self._pool.close()

    # Publishing inside the caller's transaction.

    async def append_with(self, connection: SQLConnection, drafts: Sequence[Draft]) -> list[str]:
        """Append drafts if, and only if, the caller's transaction commits; see :class:`TransactionalBroker`."""
        self._check_open()
        keyed = [draft if draft.key is not None else draft.replace(key=secrets.token_hex(16)) for draft in drafts]
        if keyed:
            query = self._sql(f'SELECT "$schema".publish({", ".join(["%s::bytea[]"] * 5)})')
            try:
                answer = connection.execute(query.decode(), self._columns(keyed))
                if inspect.isawaitable(answer):
                    await answer
            except psycopg.Error as error:
                raise translate_error(error, self._where()) from error
        return [draft.key or "" for draft in keyed]


def _view(limits: str) -> str:
    """Return the state of the log. LIMIT 1 lets the planner expect one row: for hundreds it compiles the plan."""
    return f'(SELECT * FROM "$schema".view({limits}) LIMIT 1) v'


def _limits(retention: Retention) -> str:
    """Return a retention as a constant of the type ``limits``."""
    rules = [limits for _, limits in retention.rules]
    names = ", ".join(f"'\\x{name.encode().hex()}'" for name, _ in retention.rules)
    events = ", ".join(_number(limits.events) for limits in rules)
    sizes = ", ".join(_number(limits.bytes) for limits in rules)
    ages = ", ".join(_interval(limits.age) for limits in rules)
    return (
        f"ROW({_number(retention.events)}, {_number(retention.bytes)}, {_interval(retention.age)}, "
        f"ARRAY[{names}]::bytea[], ARRAY[{events}]::bigint[], ARRAY[{sizes}]::bigint[], ARRAY[{ages}]::interval[])"
        '::"$schema".limits'
    )


def _number(limit: int | None) -> str:
    return "NULL" if limit is None else str(limit)


def _interval(age: float | None) -> str:
    return "NULL" if age is None else f"'{age!r} seconds'"


def _read_state(row: tuple[Any, ...]) -> LogState:
    """Return the state that the first columns of a row describe."""
    epoch, oldest, newest, marked, dropped, discarded = row[:6]
    names = (bytes(name).decode(errors="replace") for name in marked)
    topics = [(bytes.fromhex(name).decode(errors="replace"), offset) for name, offset in discarded or ()]
    return LogState(epoch, oldest, newest, marks_after(oldest, zip(names, dropped, strict=True), topics))


def _record(offset: int, topic: bytes, event: bytes | None, data: bytes) -> Record:
    """Return a record. Another program may have written bytes that are not UTF-8."""
    kind = None if event is None else event.decode(errors="replace")
    return Record(offset, topic.decode(errors="replace"), kind, data.decode(errors="replace"))


async def _is_direct(connection: Connection) -> bool:
    """Return True if the session has the process that was announced for it, so that no pooler is between."""
    ((pid,),) = await connection.fetch(b"SELECT pg_backend_pid()")
    return bool(pid == connection.info.backend_pid)
