"""Connections to PostgreSQL that are made when needed, and given up when anything is wrong with them."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from struct import Struct
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Format

from ...errors import BrokerError

__all__ = ["ByteArray", "Link", "explain", "parse_url"]

logger = logging.getLogger("tickertape.broker")

T = TypeVar("T")

_SETTINGS: Final = """
SELECT set_config('statement_timeout', %(timeout)s, false), set_config('lock_timeout', %(timeout)s, false),
  set_config('idle_in_transaction_session_timeout', %(timeout)s, false),
  set_config('default_transaction_isolation', 'read committed', false),
  set_config('synchronous_commit',
    CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,
    false)
"""
"""What our sessions rely on, whatever the defaults of the role and the database are.

The functions see what was committed before each of their statements, not before the first. An event is
shown only when it is on the disk: a crash may not take back what subscribers have. And what nobody waits
for any more does not go on in the server.
"""


def parse_url(url: str, names: Sequence[str]) -> tuple[str, dict[str, str], str]:
    """Return what libpq connects with, our own options out of the query, and the server in words.

    Arguments:
        url: ``postgresql://[user[:password]@]host[:port][,…]/database[?…]``, or ``postgres://``.
        names: of our options.

    Raises:
        BrokerError: libpq does not understand the URL.
    """
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in query if name in names}
    rest = urlencode([(name, value) for name, value in query if name not in names])
    try:
        known = conninfo_to_dict(parts._replace(query=rest).geturl())
    except psycopg.Error as error:
        raise BrokerError(f"expected the URL of a PostgreSQL database, got one that is wrong: {error}") from None
    # Of several hosts, libpq takes the first that can be written to, which is the primary.
    known.setdefault("target_session_attrs", "read-write")
    known.setdefault("application_name", "tickertape")
    hosts = parts.netloc.rpartition("@")[2] or str(known.get("host", "the local socket"))
    return make_conninfo("", **known), ours, f"PostgreSQL at {hosts}{parts.path}"


class ByteArray(list[bytes | None]):
    """What a link sends as ``bytea[]`` in its binary form.

    A list that is sent as text is escaped byte by byte, which takes longer than to store it; psycopg's own
    binary form looks each item's type up.
    """


class _ByteArrayDumper(Dumper):
    format = Format.BINARY
    oid = psycopg.adapters.types["bytea"].array_oid

    def dump(self, obj: ByteArray) -> bytes:
        # One dimension, with NULL among the items, of bytea, from 1 on; then each with its length.
        parts = [_ARRAY.pack(1, 1, psycopg.adapters.types["bytea"].oid, len(obj), 1)]
        for item in obj:
            parts += (_NULL,) if item is None else (_LENGTH.pack(len(item)), item)
        return b"".join(parts)


_ARRAY: Final = Struct("!iiIii")
_LENGTH: Final = Struct("!i")
_NULL: Final = _LENGTH.pack(-1)


class Link:
    """One connection, for one request at a time.

    A request that is cancelled, as one whose time is up, cuts its connection: to ask a server that does
    not answer to cancel would take as long again.

    Arguments:
        conninfo: what libpq connects with.
        where: the server in words.
        connect_timeout: seconds for a connection.
        timeout: seconds after which the server gives up a statement.
    """

    def __init__(self, conninfo: str, where: str, connect_timeout: float, timeout: float) -> None:
        self._conninfo = conninfo
        self._where = where
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._connection: AsyncConnection[tuple[Any, ...]] | None = None
        self._lock = asyncio.Lock()
        self._closed = False

    async def fetch(self, query: bytes, arguments: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a statement that is a transaction of its own.

        Raises:
            BrokerError: the server is out of reach, or refuses; the cause is psycopg's error.
        """

        async def fetch(connection: AsyncConnection[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(query, arguments or None, binary=True)
            return await cursor.fetchall() if cursor.description else []

        return await self.run(fetch)

    async def payloads(self, timeout: float) -> list[str]:
        """Wait for notifications and return what they say; nothing when the time is up."""

        async def wait(connection: AsyncConnection[tuple[Any, ...]]) -> list[str]:
            return [notice.payload async for notice in connection.notifies(timeout=timeout, stop_after=1)]

        return await self.run(wait)

    async def run(self, work: Callable[[AsyncConnection[tuple[Any, ...]]], Coroutine[Any, Any, T]]) -> T:
        """Do something with the connection, which is made if there is none."""
        async with self._lock:
            connection = await self._connected()
            try:
                return await _uninterrupted(work(connection), lambda: _cut(connection))
            except psycopg.Error as error:
                raise explain(error, self._where) from error
            finally:
                if connection.broken or connection.closed or self._closed:
                    await self._drop()

    async def close(self) -> None:
        """Close the connection, which ends what is under way; may be called twice."""
        self._closed = True
        if self._connection is not None:
            _cut(self._connection)
        async with self._lock:
            await self._drop()

    async def _connected(self) -> AsyncConnection[tuple[Any, ...]]:
        if self._closed:
            raise BrokerError("expected an open broker, got one that was closed")
        if self._connection is None:
            try:
                async with asyncio.timeout(self._connect_timeout):
                    self._connection = await self._connect()
            except TimeoutError:
                said = f"cannot reach {self._where}: no answer within {self._connect_timeout:g} s"
                raise BrokerError(said) from None
            except (psycopg.Error, OSError) as error:
                raise explain(error, self._where) from error
        return self._connection

    async def _connect(self) -> AsyncConnection[tuple[Any, ...]]:
        connection = await AsyncConnection.connect(self._conninfo, autocommit=True)
        connection.adapters.register_dumper(ByteArray, _ByteArrayDumper)
        milliseconds = str(int(self._timeout * 1000))
        try:
            await _uninterrupted(
                connection.execute(_SETTINGS.encode(), {"timeout": milliseconds}), lambda: _cut(connection)
            )
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


async def _uninterrupted(work: Coroutine[Any, Any, T], cut: Callable[[], None]) -> T:
    """Let psycopg finish, whoever is cancelled: with an error at once, when the connection is cut."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        cut()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
    return task.result()


def _cut(connection: AsyncConnection[Any]) -> None:
    """End a connection such that whoever waits on it is told at once."""
    # A duplicate of the descriptor: libpq keeps its own, and reads the end of the stream from it.
    with (
        suppress(psycopg.Error, OSError),
        socket.fromfd(connection.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as duplicate,
    ):
        duplicate.shutdown(socket.SHUT_RDWR)


def explain(error: Exception, where: str) -> BrokerError:
    """Say what went wrong in one sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    match error:
        case errors.ReadOnlySqlTransaction() | errors.ObjectNotInPrerequisiteState():
            said = f"expected a primary, got {where}, which takes no writes: {text}"
        case errors.InsufficientPrivilege():
            said = f"expected a role with more rights, got a refusal of {where}: {text}"
        case errors.QueryCanceled() | errors.LockNotAvailable():
            said = f"expected an answer of {where} in time, got none: {text}"
        case errors.AdminShutdown() | errors.CrashShutdown() | errors.CannotConnectNow():
            said = f"cannot reach {where}: {text}"
        case errors.OperationalError() | OSError() if getattr(error, "sqlstate", None) is None:
            said = f"cannot reach {where}: {text}"
        case _:
            said = f"{where} refused: {text}"
    return BrokerError(said)
