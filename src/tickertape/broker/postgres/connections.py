"""Connections to PostgreSQL: a pool for requests, sessions that listen, and psycopg's errors as sentences."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import suppress
from struct import Struct
from typing import Any, Final, NamedTuple, Self, TypeAlias, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Format
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from ...errors import BrokerError
from ..remote import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT
from ..urls import read_seconds

T = TypeVar("T")

Rows: TypeAlias = list[tuple[Any, ...]]

_OPTIONS: Final = ("schema", "failover", "connect_timeout", "timeout")
"""Our options in the URL's query. All others are libpq's."""

_SETTINGS: Final = b"""
SELECT set_config('statement_timeout', %(timeout)s, false), set_config('lock_timeout', %(timeout)s, false),
  set_config('idle_in_transaction_session_timeout', %(timeout)s, false),
  set_config('default_transaction_isolation', 'read committed', false),
  set_config('synchronous_commit',
    CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,
    false)
"""
"""The settings of our sessions, in place of the defaults of the role and the database.

The functions see the data committed before each of their statements, not only before the first. An event is
shown only when it is on the disk: a crash must not revoke what subscribers have received. And the server stops
a statement when its caller no longer waits for it.
"""

_CANCEL_TIMEOUT: Final = 1.0
"""Seconds for a cancel request. If the server does not answer in time, the connection is shut down."""

DEFAULT_SILENCE: Final = 10.0
"""Seconds without a notification after which a listener checks its connection: a lost one is noticed soon enough."""

_POOLS: Final = "tickertape:"
"""The beginning of the names of our pools."""

_MAX_CHANNEL: Final = 63
"""Bytes of an identifier in PostgreSQL."""


class Address(NamedTuple):
    """A database and how to reach it.

    Attributes:
        conninfo: the parameters of libpq.
        options: our options of the URL.
        where: the server in words, without credentials.
        connect_timeout: seconds for a connection.
        timeout: seconds for a request.
    """

    conninfo: str
    options: dict[str, str]
    where: str
    connect_timeout: float
    timeout: float


def parse_url(
    url: str, *, connect_timeout: float = DEFAULT_CONNECT_TIMEOUT, timeout: float = DEFAULT_TIMEOUT
) -> Address:
    """Return the address of a database.

    Arguments:
        url: ``postgresql://[user[:password]@]host[:port][,…]/database[?…]``, or ``postgres://``.
        connect_timeout: the default of that option.
        timeout: the default of that option.

    Raises:
        BrokerError: libpq does not understand the URL.
    """
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    options = {name: value for name, value in query if name in _OPTIONS}
    rest = urlencode([(name, value) for name, value in query if name not in _OPTIONS])
    try:
        known = conninfo_to_dict(parts._replace(query=rest).geturl())
    except psycopg.Error as error:
        raise BrokerError(f"expected the URL of a PostgreSQL database: {error}") from None
    # Of several hosts, libpq takes the first that can be written to, which is the primary.
    known.setdefault("target_session_attrs", "read-write")
    known.setdefault("application_name", "tickertape")
    hosts = parts.netloc.rpartition("@")[2] or str(known.get("host", "the local socket"))
    return Address(
        make_conninfo("", **known),
        options,
        f"PostgreSQL at {hosts}{parts.path}",
        read_seconds(options, "connect_timeout", connect_timeout),
        read_seconds(options, "timeout", timeout),
    )


class ByteArray(list[bytes | None]):
    """A list that a connection sends as ``bytea[]`` in binary form.

    psycopg sends a list as text, escaped byte by byte, which takes longer than to store it. Its own binary
    form looks up the type of each item.
    """


class _ByteArrayDumper(Dumper):
    format = Format.BINARY
    oid = psycopg.adapters.types["bytea"].array_oid

    def dump(self, obj: ByteArray) -> bytes:
        # One dimension, with NULL among the items, of bytea, from 1 on; then each item with its length.
        parts = [_ARRAY.pack(1, 1, psycopg.adapters.types["bytea"].oid, len(obj), 1)]
        for item in obj:
            parts += (_NULL,) if item is None else (_LENGTH.pack(len(item)), item)
        return b"".join(parts)


_ARRAY: Final = Struct("!iiIii")
_LENGTH: Final = Struct("!i")
_NULL: Final = _LENGTH.pack(-1)


class Connection(AsyncConnection[tuple[Any, ...]]):
    """A connection with our settings, on which a cancelled request ends soon even if the server hangs."""

    @classmethod
    async def to(cls, address: Address) -> Self:
        """Connect.

        Raises:
            psycopg.Error: the server refuses.
            OSError: the server cannot be reached. A ``TimeoutError`` is one.
        """
        try:
            async with asyncio.timeout(address.connect_timeout):
                return await cls._to(address)
        except TimeoutError:
            raise TimeoutError(f"no answer within {address.connect_timeout:g} s") from None

    @classmethod
    async def _to(cls, address: Address) -> Self:
        connection = await cls.connect(address.conninfo, autocommit=True)
        connection.adapters.register_dumper(ByteArray, _ByteArrayDumper)
        try:
            await connection.execute(_SETTINGS, {"timeout": str(int(address.timeout * 1000))})
        except BaseException:
            await connection.close()
            raise
        return connection

    async def cancel_safe(self, *, timeout: float = _CANCEL_TIMEOUT) -> None:
        """Ask the server to cancel the current statement, as psycopg does for a cancelled request."""
        try:
            async with asyncio.timeout(min(timeout, _CANCEL_TIMEOUT)):
                await super().cancel_safe(timeout=timeout)
        except (psycopg.Error, OSError):
            self.shut_down()

    def shut_down(self) -> None:
        """End the connection, and wake the tasks that wait for it."""
        # A duplicate of the descriptor: libpq keeps its own, and reads the end of the stream from it.
        with (
            suppress(psycopg.Error, OSError),
            socket.fromfd(self.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as duplicate,
        ):
            duplicate.shutdown(socket.SHUT_RDWR)

    async def fetch(self, query: bytes, arguments: Sequence[object] = ()) -> Rows:
        """Return the rows of a statement that is a whole transaction."""
        cursor = await self.execute(query, arguments or None, binary=True)
        return await cursor.fetchall() if cursor.description else []


class _PooledConnection(Connection):
    """A connection of a pool."""

    @classmethod
    async def connect(  # type: ignore[override]
        cls, conninfo: str = "", *, pool: Pool | None = None, **options: Any
    ) -> Self:
        """Connect as psycopg's pool asks for, and report a failure to ours."""
        if pool is None:
            return await super().connect(conninfo, **options)
        try:
            return await cls.to(pool.address)
        except (psycopg.Error, OSError) as error:
            pool.connect_failed(error)
            raise


class Pool:
    """Connections for requests, made when they are needed.

    psycopg's pool lets requests wait while its attempts to connect fail. Here they fail at once, with the reason.

    Arguments:
        address: of the database.
        size: the greatest number of connections.
    """

    def __init__(self, address: Address, size: int) -> None:
        self.address = address
        self._pool = AsyncConnectionPool(
            address.conninfo,
            connection_class=_PooledConnection,
            kwargs={"pool": self},
            min_size=0,
            max_size=size,
            open=False,
            check=self._check,
            name=f"{_POOLS} {address.where}",
            timeout=address.timeout,
            reconnect_timeout=0.0,  # the next request makes the next attempt
        )
        logging.getLogger("psycopg.pool").addFilter(_is_not_ours)
        self._waiting: set[asyncio.Timeout] = set()
        self._busy: set[Connection] = set()
        self._failure: Exception | None = None

    async def fetch(self, query: bytes, arguments: Sequence[object] = ()) -> Rows:
        """Return the rows of a statement that is a whole transaction.

        Raises:
            BrokerError: the server cannot be reached, or refuses; the cause is psycopg's error.
        """
        return await self.run(lambda connection: connection.fetch(query, arguments))

    async def run(self, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        """Use a connection."""
        connection = await self._get()
        self._busy.add(connection)
        try:
            return await work(connection)
        except psycopg.Error as error:
            raise translate_error(error, self.address.where) from error
        finally:
            self._busy.discard(connection)
            await self._pool.putconn(connection)

    async def close(self) -> None:
        """Close all connections, which ends the requests on them; may be called twice."""
        for connection in self._busy:
            connection.shut_down()
        await self._pool.close()

    async def _get(self) -> _PooledConnection:
        await self._pool.open()  # does nothing if it is open
        try:
            async with asyncio.timeout(None) as limit:
                self._waiting.add(limit)
                try:
                    return await self._pool.getconn()
                finally:
                    self._waiting.discard(limit)
        except PoolClosed:
            raise BrokerError("broker is closed") from None
        except PoolTimeout:
            timeout = self.address.timeout
            raise BrokerError(f"no connection to {self.address.where} was free within {timeout:g} s") from None
        except TimeoutError:
            assert self._failure is not None
            raise translate_error(self._failure, self.address.where) from self._failure

    def connect_failed(self, error: Exception) -> None:
        """Fail the requests that wait, unless a connection that others use will soon be free for them."""
        self._failure = error
        now = asyncio.get_running_loop().time()
        while self._waiting and not self._busy:
            self._waiting.pop().reschedule(now)

    async def _check(self, connection: _PooledConnection) -> None:
        """Raise if the server has closed an idle connection; needs no request."""
        try:
            connection.pgconn.consume_input()  # its last words
            connection.pgconn.consume_input()  # the end of the stream
        except psycopg.Error:
            await self._pool.drain()  # the others were closed with it
            raise


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Filter what psycopg logs on our pools: the errors of our requests report it already."""
    about = record.args[0] if isinstance(record.args, tuple) and record.args else None
    return not (isinstance(about, _PooledConnection) or (isinstance(about, str) and about.startswith(_POOLS)))


class Session:
    """A separate connection for one task: statements and notifications.

    Arguments:
        address: of the database.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: Connection | None = None

    async def open(self) -> None:
        """Connect.

        Raises:
            BrokerError: the server cannot be reached, or refuses.
        """
        try:
            self._connection = await Connection.to(self._address)
        except (psycopg.Error, OSError) as error:
            raise translate_error(error, self._address.where) from error

    async def fetch(self, query: bytes, arguments: Sequence[object] = ()) -> Rows:
        """Return the rows of a statement that is a whole transaction."""
        return await self._run(lambda connection: connection.fetch(query, arguments))

    async def payloads(self, timeout: float) -> list[str]:
        """Wait for notifications, and return their payloads; none if the time is up."""

        async def wait(connection: Connection) -> list[str]:
            return [notice.payload async for notice in connection.notifies(timeout=timeout, stop_after=1)]

        return await self._run(wait)

    async def _run(self, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        if self._connection is None:
            raise BrokerError("broker is closed")
        try:
            return await work(self._connection)
        except psycopg.Error as error:
            raise translate_error(error, self._address.where) from error

    def shut_down(self) -> None:
        """End the connection, and wake the task that waits for it."""
        if self._connection is not None:
            self._connection.shut_down()

    async def close(self) -> None:
        """Close the connection; may be called twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class PostgresListener:
    """The notifications of one channel, over a separate connection.

    Arguments:
        url: as for :class:`PostgresBroker`.
        channel: the name of the channel, exactly as ``pg_notify`` has it.
        silence: seconds without a notification after which the connection is checked.

    Attributes:
        where: the server in words, without credentials.
        channel: the channel.

    Raises:
        BrokerError: the URL is wrong.
        ValueError: the channel is not an identifier of PostgreSQL.
    """

    def __init__(self, url: str, channel: str, *, silence: float = DEFAULT_SILENCE) -> None:
        if not 0 < len(channel.encode()) <= _MAX_CHANNEL or "\0" in channel:
            raise ValueError(f"expected a channel of 1 to {_MAX_CHANNEL} bytes, got {channel!r}")
        self._address = parse_url(url)
        self._silence = silence
        self.where = self._address.where
        self.channel = channel

    def __repr__(self) -> str:
        return f"<PostgresListener {self.where} {self.channel!r}>"

    async def listen(self) -> AsyncGenerator[list[str], None]:
        """Yield an empty list as soon as the server listens, then the payloads that arrive.

        Raises:
            BrokerError: the connection cannot be made, or is lost. Listen again then.
        """
        session = Session(self._address)
        quoted = self.channel.replace('"', '""')
        try:
            await session.open()
            await self._execute(session, f'LISTEN "{quoted}"')
            yield []
            while True:
                payloads = await session.payloads(self._silence)
                if payloads:
                    yield payloads
                else:
                    await self._execute(session, "SELECT 1")
        finally:
            await session.close()

    async def _execute(self, session: Session, statement: str) -> None:
        timeout = self._address.timeout
        try:
            async with asyncio.timeout(timeout):
                await session.fetch(statement.encode())
        except TimeoutError:
            raise BrokerError(f"no answer from {self._address.where} within {timeout:g} s") from None


def translate_error(error: Exception, where: str) -> BrokerError:
    """Return psycopg's error as a ``BrokerError`` with one sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    match error:
        case errors.ReadOnlySqlTransaction() | errors.ObjectNotInPrerequisiteState():
            sentence = f"{where} is read-only: {text}"
        case errors.DiskFull():
            sentence = f"{where} is out of disk space: {text}"
        case errors.InsufficientPrivilege():
            sentence = f"permission denied by {where}: {text}"
        case errors.QueryCanceled() | errors.LockNotAvailable():
            sentence = f"no answer from {where} in time: {text}"
        case errors.AdminShutdown() | errors.CrashShutdown() | errors.CannotConnectNow():
            sentence = f"cannot reach {where}: {text}"
        case errors.OperationalError() | OSError() if getattr(error, "sqlstate", None) is None:
            sentence = f"cannot reach {where}: {text}"
        case _:
            sentence = f"{where} refused the request: {text}"
    return BrokerError(sentence)
