"""The log in PostgreSQL: the caller's transaction, notifications, connections, and fencing."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import errors

from tickertape.broker import Broker, LogState, Record, Retention, create_broker
from tickertape.broker.postgres import PostgresBroker
from tickertape.broker.postgres.connections import translate_error
from tickertape.broker.transactional import TransactionalBroker
from tickertape.errors import BrokerError, LogResetError
from tickertape.hub import Hub
from tickertape.testing.contract.checks import PATIENCE
from tickertape.testing.contract.steps import collect, tailing
from tickertape.wire import Cursor, Draft

from .postgres_logs import POSTGRES_URL, postgres_absent
from .private_servers import PrivatePgbouncer, PrivatePostgres, forwarded, require


@pytest.fixture
def schema() -> Iterator[str]:
    """Yield the name of a schema that is removed after the test."""
    require(postgres_absent())
    name = f"test_{secrets.token_hex(6)}"
    yield name
    with psycopg.connect(POSTGRES_URL, autocommit=True) as connection:
        connection.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE'.encode())


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivatePostgres]:
    """Yield a private server."""
    server = PrivatePostgres()
    try:
        server.start()
        yield server
    finally:
        server.end()


@contextmanager
def pooled(mode: str) -> Iterator[str]:
    """Yield the URL of the test database behind a pgbouncer."""
    parts = urlsplit(POSTGRES_URL)
    pooler = PrivatePgbouncer(parts.port or 5432, mode)
    try:
        yield parts._replace(netloc=f"postgres@127.0.0.1:{pooler.port}").geturl()
    finally:
        pooler.end()


@contextmanager
def stopped(cluster: PrivatePostgres) -> Iterator[None]:
    """Stop the server, and continue it even if the test fails: others use it too."""
    cluster.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        cluster.signal(signal.SIGCONT)


@asynccontextmanager
async def opened(
    schema: str, *, poll: float = 60.0, retention: Retention | None = None
) -> AsyncIterator[PostgresBroker]:
    """Yield a broker; by default one that depends on notifications within a test."""
    url = f"{POSTGRES_URL}?schema={schema}"
    broker = PostgresBroker(url, poll=poll, retention=retention or Retention(), random=lambda: 0.0)
    try:
        await broker.open()
        yield broker
    finally:
        await broker.close()


def impatient(url: str) -> PostgresBroker:
    return PostgresBroker(url, connect_timeout=1.0, timeout=1.5, poll=0.5, random=lambda: 0.0)


async def connect() -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(POSTGRES_URL)


def execute(statement: str, *arguments: object) -> list[tuple[object, ...]]:
    with psycopg.connect(POSTGRES_URL, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), arguments or None)
        return cursor.fetchall() if cursor.description else []


def drafts(*data: str) -> list[Draft]:
    return [Draft("t", each) for each in data]


def data(records: list[Record]) -> list[str]:
    return [record.data for record in records]


async def refused(broker: Broker) -> str:
    with pytest.raises(BrokerError) as caught:
        await broker.open()
    await broker.close()
    return str(caught.value)


async def append_until_stored(broker: Broker, draft: Draft) -> Cursor:
    """Append repeatedly, as a publisher with a key does, until the draft is stored."""
    async with asyncio.timeout(30.0):
        while True:
            try:
                return (await broker.append([draft]))[0]
            except BrokerError:
                await asyncio.sleep(0.05)


# The caller's transaction.


async def test_commit(schema: str) -> None:
    async with opened(schema) as broker, tailing(broker, 0) as tail, await connect() as connection:
        assert isinstance(broker, TransactionalBroker)
        keys = await broker.append_with(connection, [Draft("t", "in", event="e", key="k"), Draft("t", "side")])
        assert keys[0] == "k"
        assert len(keys[1]) == 32
        await broker.append(drafts("outside"))
        assert data(await collect(tail, 1)) == ["outside"]
        await connection.commit()
        assert await collect(tail, 2) == [Record(2, "t", "e", "in"), Record(3, "t", None, "side")]


async def test_rollback(schema: str) -> None:
    async with opened(schema) as broker, tailing(broker, 0) as tail, await connect() as connection:
        await broker.append_with(connection, drafts("never"))
        await connection.rollback()
        await broker.append_with(connection, drafts("this"))
        await connection.commit()
        assert data(await collect(tail, 1)) == ["this"]
    assert execute(f'SELECT * FROM "{schema}".outbox') == []


async def test_killed_transaction(schema: str) -> None:
    async with opened(schema) as broker, tailing(broker, 0) as tail:
        connection = await connect()
        await broker.append_with(connection, drafts("never"))
        execute("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        with pytest.raises(psycopg.OperationalError):
            await connection.commit()
        await connection.close()
        await broker.append(drafts("this"))
        assert data(await collect(tail, 1)) == ["this"]


async def test_open_transaction_does_not_delay(schema: str) -> None:
    async with opened(schema) as broker, tailing(broker, 0) as tail, await connect() as slow, await connect() as quick:
        await broker.append_with(slow, drafts("slow"))
        await broker.append_with(quick, drafts("quick"))
        await quick.commit()
        assert data(await collect(tail, 1)) == ["quick"]
        await broker.append(drafts("direct"))
        assert data(await collect(tail, 1)) == ["direct"]
        await slow.commit()  # behind, although its row is the older one
        assert data(await collect(tail, 1)) == ["slow"]


async def test_locks_of_an_open_transaction(schema: str) -> None:
    """No other session waits for a lock of an open transaction."""
    async with opened(schema) as broker, await connect() as connection:
        await broker.append_with(connection, drafts("slow"))
        held = execute(
            "SELECT DISTINCT relation::regclass::text, mode FROM pg_locks"
            " WHERE pid = %s AND relation::regclass::text LIKE %s",
            connection.info.backend_pid,
            f"%{schema}%",
        )
        found = {(str(table).rpartition(".")[2], mode) for table, mode in held}
        assert found == {("outbox", "RowExclusiveLock"), ("outbox_id_seq", "RowExclusiveLock")}
        advisory = "SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype = 'advisory'"
        assert execute(advisory, connection.info.backend_pid) == [(0,)]
        await connection.rollback()


async def test_event_of_1_mib_in_a_transaction(schema: str) -> None:
    great = "é" * (512 * 1024)
    async with opened(schema) as broker, tailing(broker, 0) as tail, await connect() as connection:
        await broker.append_with(connection, [Draft("t", great), Draft("t", "small")])
        await connection.commit()
        assert data(await collect(tail, 2)) == [great, "small"]


async def test_role_that_may_only_insert_into_the_outbox(cluster: PrivatePostgres) -> None:
    cluster.execute("CREATE ROLE shop LOGIN PASSWORD 'pw'")
    broker = impatient(cluster.url + "?schema=rights")
    await broker.open()
    cluster.execute("GRANT USAGE ON SCHEMA rights TO shop")
    cluster.execute("GRANT INSERT ON rights.outbox TO shop")
    url = f"postgresql://shop:pw@127.0.0.1:{cluster.port}/postgres"
    async with tailing(broker, 0) as tail, await psycopg.AsyncConnection.connect(url) as connection:
        await broker.append_with(connection, drafts("sold"))
        await connection.commit()
        assert data(await collect(tail, 1)) == ["sold"]
    await broker.close()


async def test_commit_while_no_hub_is_running(schema: str) -> None:
    async with opened(schema) as broker, await connect() as connection:
        for number in range(3):
            await broker.append_with(connection, drafts(f"{number}"))
            await connection.commit()
        assert (await broker.read(0, 10)).records == []
    async with opened(schema) as broker, tailing(broker, 0) as tail:
        assert data(await collect(tail, 3)) == ["0", "1", "2"]


async def test_key_in_a_transaction(schema: str) -> None:
    async with opened(schema) as broker, tailing(broker, 0) as tail, await connect() as connection:
        await broker.append([Draft("t", "first", key="k")])
        await broker.append_with(connection, [Draft("t", "again", key="k"), Draft("t", "new", key="l")])
        await connection.commit()
        assert data(await collect(tail, 2)) == ["first", "new"]
        assert (await broker.append([Draft("t", "again", key="l")]))[0].offset == 2


async def test_many_hubs_move_each_row_once(schema: str) -> None:
    async with (
        opened(schema) as one,
        opened(schema) as two,
        tailing(one, 0) as first,
        tailing(two, 0) as second,
        await connect() as connection,
    ):
        found = asyncio.gather(collect(first, 60), collect(second, 60))
        for number in range(60):
            await one.append_with(connection, drafts(f"{number}"))
            await connection.commit()
        assert [data(records) for records in await found] == [[f"{number}" for number in range(60)]] * 2


async def test_outbox_of_several_batches(schema: str) -> None:
    async with opened(schema) as broker, await connect() as connection:
        await broker.append_with(connection, drafts(*(f"{number}" for number in range(1200))))
        await connection.commit()
        async with tailing(broker, 0) as tail:
            assert data(await collect(tail, 1200)) == [f"{number}" for number in range(1200)]


async def test_synchronous_connection_and_adapter(schema: str) -> None:
    class Adapter:
        def __init__(self, connection: psycopg.AsyncConnection) -> None:
            self.connection = connection

        async def execute(self, query: str, params: object, /) -> None:
            assert isinstance(params, tuple)
            await self.connection.execute(query.encode(), params)

    async with opened(schema) as broker, tailing(broker, 0) as tail:
        with psycopg.connect(POSTGRES_URL) as synchronous:
            await broker.append_with(synchronous, drafts("1"))
        assert data(await collect(tail, 1)) == ["1"]
        async with await connect() as connection:
            await broker.append_with(Adapter(connection), drafts("2"))
        assert data(await collect(tail, 1)) == ["2"]


async def test_failed_transaction(schema: str) -> None:
    async with opened(schema) as broker, await connect() as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await connection.execute("SELECT 1 / 0")
        with pytest.raises(BrokerError, match="current transaction is aborted"):
            await broker.append_with(connection, drafts("never"))
        await connection.rollback()


async def test_publish_nothing_in_a_transaction(schema: str) -> None:
    async with opened(schema) as broker, await connect() as connection:
        assert await broker.append_with(connection, []) == []
        assert connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE


# Notifications.


async def test_lost_notifications(schema: str) -> None:
    async with opened(schema, poll=0.1) as broker, tailing(broker, 0) as tail, await connect() as connection:
        execute(f'CREATE OR REPLACE FUNCTION "{schema}".wake(what text) RETURNS void LANGUAGE sql AS $$ SELECT $$')
        await broker.append(drafts("1"))
        assert data(await collect(tail, 1)) == ["1"]
        waiting = asyncio.create_task(collect(tail, 2))
        await broker.append(drafts("2"))
        await broker.append_with(connection, drafts("3"))
        await connection.commit()
        assert data(await waiting) == ["2", "3"]


async def test_payloads_of_notifications(schema: str) -> None:
    async with opened(schema) as broker, await connect() as listener, await connect() as connection:
        await listener.set_autocommit(True)
        await listener.execute(f'LISTEN "{schema}_wake"'.encode())
        await broker.append([Draft("t", "x" * 1024 * 1024)])
        await broker.append_with(connection, drafts("inside"))
        await connection.commit()
        said = [notice.payload async for notice in listener.notifies(timeout=PATIENCE, stop_after=2)]
        assert set(said) <= {"log", "outbox"}
        assert len(said) == 2


async def test_killed_session(schema: str) -> None:
    async with opened(schema) as broker, tailing(broker, 0) as tail:
        await broker.append(drafts("1"))
        assert data(await collect(tail, 1)) == ["1"]
        waiting = asyncio.create_task(collect(tail, 1))
        execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE %s", f"%{schema}%")
        await append_until_stored(broker, Draft("t", "2", key="2"))
        assert data(await waiting) == ["2"]


# The stored records.


async def test_lowered_retention(schema: str) -> None:
    async with opened(schema, retention=Retention(events=None, bytes=None)) as broker:
        await broker.append(drafts(*(f"{number}" for number in range(200))))
    async with opened(schema, retention=Retention(events=5, bytes=None)) as broker:
        while (await broker.open()).oldest < (await broker.open()).newest - 4:
            await broker.append(drafts("x"))
        state = await broker.open()
        assert state.newest < 220
    rows = execute(f'SELECT count(*), sum(size), (SELECT bytes FROM "{schema}".meta) FROM "{schema}".log')
    assert rows == [(5, 10, 10)]


async def test_newer_schema(schema: str) -> None:
    async with opened(schema):
        execute(f'UPDATE "{schema}".meta SET version = 3')
    assert "expected version 2 of the schema" in await refused(create_broker(f"{POSTGRES_URL}?schema={schema}"))


async def test_sessions_commit_to_the_disk(schema: str) -> None:
    url = f"{POSTGRES_URL}?schema={schema}&options=-csynchronous_commit%3Doff"
    broker = PostgresBroker(url)
    await broker.open()
    assert await broker._fetch("SHOW synchronous_commit") == [("on",)]
    await broker.close()


async def test_close_ends_every_session(schema: str) -> None:
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    broker = PostgresBroker(f"{POSTGRES_URL}?schema={schema}&application_name={schema}")
    await broker.open()
    async with tailing(broker, 0) as tail:
        await asyncio.gather(*(broker.append(drafts("1")) for _ in range(5)), *(broker.read(0, 5) for _ in range(5)))
        await collect(tail, 5)
        assert execute(count, schema)[0][0] in (2, 3, 4)  # a session that listens, and up to three connections
        await broker.close()
    async with asyncio.timeout(10.0):
        while execute(count, schema) != [(0,)]:  # noqa: ASYNC110 - the server notices the end of sessions later
            await asyncio.sleep(0.01)


async def test_cancelled_request_disturbs_no_other(schema: str) -> None:
    async with opened(schema) as broker:
        await broker.append(drafts("1", "2"))
        for _ in range(10):
            reading = asyncio.create_task(broker.read(0, 10))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        assert data((await broker.read(0, 10)).records) == ["1", "2"]


async def test_catching_up_costs_one_statement_per_page(cluster: PrivatePostgres) -> None:
    broker = PostgresBroker(cluster.url + "?schema=pages&options=-clog_statement%3Dall")
    await broker.open()
    await broker.append(drafts(*(f"{number}" for number in range(5000))))
    before = len(statements(cluster))
    after = 0
    while after < 5000:
        page = await broker.read(after, 100)
        assert page.state.newest == 5000
        after = page.records[-1].offset
    assert len(statements(cluster)) - before == 50
    await broker.state()
    assert len(statements(cluster)) - before == 51
    await broker.close()


def statements(cluster: PrivatePostgres) -> list[str]:
    return [line for line in cluster.log().splitlines() if "LOG:  execute" in line or "LOG:  statement" in line]


async def test_request_after_all_sessions_were_terminated(schema: str) -> None:
    """Idle connections that the server has closed are replaced before they are used."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    terminate = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = %s"
    broker = PostgresBroker(f"{POSTGRES_URL}?schema={schema}&application_name={schema}")
    try:
        await broker.open()
        async with asyncio.timeout(10.0):
            while execute(count, schema) != [(3,)]:  # until the pool is full, so that no connection is being made
                await asyncio.gather(*(broker.read(0, 5) for _ in range(20)))
        await asyncio.gather(*(broker.read(0, 5) for _ in range(20)))
        assert set(execute(terminate, schema)) == {(True,)}  # it waits for the processes, so their sockets are closed
        assert await asyncio.gather(*(broker.state() for _ in range(20))) == [await broker.state()] * 20
    finally:
        await broker.close()  # a pool that is left open can keep the loop from ending


async def test_more_requests_than_connections(schema: str) -> None:
    async with opened(schema) as broker:
        await broker.append(drafts("1"))
        pages = await asyncio.gather(*(broker.read(0, 5) for _ in range(50)))
        assert [data(page.records) for page in pages] == [["1"]] * 50


async def test_waiting_requests_fail_with_the_reason(
    cluster: PrivatePostgres, caplog: pytest.LogCaptureFixture
) -> None:
    """All requests fail as soon as connecting fails, not when their time is up."""
    broker = PostgresBroker(f"postgresql://postgres:wrong@127.0.0.1:{cluster.port}/postgres", timeout=60.0)
    try:
        async with asyncio.timeout(20.0):
            errors = await asyncio.gather(*(broker.state() for _ in range(10)), return_exceptions=True)
    finally:
        await broker.close()
    assert [str(error) for error in errors if "password authentication failed" not in str(error)] == []
    assert caplog.text == "", "psycopg's pool logs nothing about our connections"


async def test_invalid_utf8_of_another_program(schema: str) -> None:
    async with opened(schema) as broker, tailing(broker, 0) as tail:
        execute(
            f'SELECT "{schema}".append(%s, NULL, %s, %s, %s, %s::bytea[], %s::bytea[])',
            (await broker.state()).epoch,
            [b"t\xff"],
            [b"e\xff"],
            [b"d\xff"],
            [],
            [],
        )
        expected = [Record(1, "t\ufffd", "e\ufffd", "d\ufffd")]
        assert (await broker.read(0, 10)).records == expected
        assert await collect(tail, 1) == expected


# Epochs.


async def test_dropped_schema(schema: str) -> None:
    async with opened(schema, poll=0.1) as broker:
        before = await broker.open()
        await broker.append(drafts("1", "2"))
        async with tailing(broker, 2) as tail:
            execute(f'DROP SCHEMA "{schema}" CASCADE')
            with pytest.raises(LogResetError):
                await collect(tail, 1)
        cursors = await broker.append(drafts("3"))
        assert cursors == [Cursor((await broker.open()).epoch, 1)]
        assert cursors[0].epoch != before.epoch


async def test_state_and_read_begin_no_epoch(schema: str) -> None:
    async with opened(schema) as broker:
        before = await broker.open()
        await broker.append(drafts("1", "2", "3"))
        execute(f'DELETE FROM "{schema}".log WHERE "offset" = 3')
        execute(f'UPDATE "{schema}".meta SET newest = 2, life = %s', "7/00000001")
        assert await broker.state() == LogState(before.epoch, 1, 2)
        assert (await broker.read(0, 10)).state == LogState(before.epoch, 1, 2)
        assert execute(f'SELECT epoch, life FROM "{schema}".meta') == [(before.epoch, "7/00000001")]
        assert (await broker.open()).epoch != before.epoch
        execute(f'DROP SCHEMA "{schema}" CASCADE')
        with pytest.raises(LogResetError, match="there is no log in the schema"):
            await broker.state()
        with pytest.raises(LogResetError, match="there is no log in the schema"):
            await broker.read(0, 10)


async def test_fewer_records_than_seen(schema: str) -> None:
    async with opened(schema) as broker:
        before = await broker.open()
        await broker.append(drafts("1", "2", "3"))
        execute(f'DELETE FROM "{schema}".log WHERE "offset" = 3')
        execute(f'UPDATE "{schema}".meta SET newest = 2')
        after = await broker.open()
        assert after.epoch != before.epoch
        assert (after.oldest, after.newest) == (1, 2)


@pytest.mark.parametrize("promised", [False, True])
async def test_restored_dump(schema: str, promised: bool) -> None:
    async with opened(schema) as broker:
        before = await broker.open()
        await broker.append(drafts("1", "2"))
        execute(f'UPDATE "{schema}".meta SET life = %s', "7/00000001")  # what the dump came with
        if not promised:
            cursors = await broker.append(drafts("3"))
            assert cursors[0].offset == 3
            assert cursors[0].epoch != before.epoch
    async with opened(f"{schema}&failover=lossless" if promised else schema) as broker:
        assert ((await broker.open()).epoch == before.epoch) is promised


async def test_promoted_standby_that_missed_records(cluster: PrivatePostgres) -> None:
    async with forwarded(cluster.port) as address:
        broker = impatient(cluster.url_at(address.port) + "?schema=failover")
        before = await broker.open()
        await broker.append(drafts("1", "2"))
        standby = PrivatePostgres(backup_of=cluster)
        try:
            standby.start(standby=True)
            assert "is read-only" in await refused(impatient(standby.url + "?schema=failover&target_session_attrs=any"))
            async with tailing(broker, 0) as tail:
                await broker.append(drafts("3", "4"))
                assert data(await collect(tail, 4)) == ["1", "2", "3", "4"]
                standby.execute("SELECT pg_promote()")
                address.move(standby.port)
                cursor = await append_until_stored(broker, Draft("t", "5", key="5"))
                assert cursor.offset == 3
                assert cursor.epoch != before.epoch
                with pytest.raises(LogResetError):
                    await collect(tail, 1)
            assert (await broker.open()).newest == 3
            assert data((await broker.read(0, 10)).records) == ["1", "2", "5"]
        finally:
            await broker.close()
            standby.end()


# Faults.


async def test_stopped_and_killed_server(cluster: PrivatePostgres) -> None:
    broker, new = impatient(cluster.url + "?schema=faults"), impatient(cluster.url + "?schema=faults")
    before = await broker.open()
    async with tailing(broker, 0) as tail:
        await broker.append(drafts("1"))
        assert data(await collect(tail, 1)) == ["1"]

        with stopped(cluster):
            with pytest.raises(BrokerError, match=r"no answer from PostgreSQL at .* within 1.5 s"):
                await broker.append([Draft("t", "2", key="2")])
            # Either an idle connection is used, or a new one is made.
            with pytest.raises(BrokerError, match=r"no answer from .* within 1.5 s|cannot reach .* within 1 s"):
                await broker.open()
            with pytest.raises(BrokerError, match=r"cannot reach PostgreSQL at .*: no answer within 1 s"):
                await new.open()
        await append_until_stored(broker, Draft("t", "2", key="2"))
        assert data(await collect(tail, 1)) == ["2"]

        cluster.signal(signal.SIGKILL)
        with pytest.raises(BrokerError, match="cannot reach PostgreSQL"):
            await broker.append(drafts("3"))
        cluster.start()
        assert await append_until_stored(broker, Draft("t", "3", key="3")) == Cursor(before.epoch, 3)
        assert data(await collect(tail, 1)) == ["3"]
    await broker.close()
    await new.close()


async def test_close_with_a_stopped_server(cluster: PrivatePostgres) -> None:
    broker = impatient(cluster.url + "?schema=closing")
    await broker.open()
    async with tailing(broker, 0) as tail:
        await broker.append(drafts("1"))
        await collect(tail, 1)
        with stopped(cluster):
            appending = asyncio.create_task(broker.append(drafts("2")))
            await asyncio.sleep(0)
            async with asyncio.timeout(10.0):
                await broker.close()
            with pytest.raises(BrokerError):
                await appending


async def test_lock_of_the_offsets_is_held(schema: str) -> None:
    async with opened(schema), await connect() as connection:
        broker = impatient(f"{POSTGRES_URL}?schema={schema}")
        await broker.open()
        await connection.execute(f'SELECT FROM "{schema}".meta FOR UPDATE'.encode())
        with pytest.raises(BrokerError, match=r"in time|within 1.5 s"):
            await broker.append([Draft("t", "1", key="k")])
        await connection.rollback()
        await append_until_stored(broker, Draft("t", "1", key="k"))
        assert data((await broker.read(0, 10)).records) == ["1"]
        await broker.close()


# Errors.


async def test_wrong_password_database_and_port(cluster: PrivatePostgres) -> None:
    place = f"127.0.0.1:{cluster.port}"
    said = await refused(impatient(f"postgresql://postgres:wrong@{place}/postgres"))
    assert "password authentication failed" in said
    assert "wrong@" not in said
    elsewhere = impatient(cluster.url.removesuffix("postgres") + "nowhere")
    assert 'database "nowhere" does not exist' in await refused(elsewhere)
    assert "cannot reach PostgreSQL at 127.0.0.1:1" in await refused(impatient("postgresql://127.0.0.1:1/postgres"))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (errors.ReadOnlySqlTransaction("no INSERT"), "PostgreSQL at db is read-only: no INSERT"),
        (errors.DiskFull("could not extend file"), "PostgreSQL at db is out of disk space: could not extend file"),
        (errors.InsufficientPrivilege("denied"), "permission denied by PostgreSQL at db: denied"),
        (errors.QueryCanceled("timeout"), "no answer from PostgreSQL at db in time: timeout"),
        (errors.AdminShutdown("terminated"), "cannot reach PostgreSQL at db: terminated"),
        (psycopg.OperationalError("refused\n\tby it"), "cannot reach PostgreSQL at db: refused by it"),
        (ConnectionResetError("reset"), "cannot reach PostgreSQL at db: reset"),
        (TimeoutError("no answer within 3 s"), "cannot reach PostgreSQL at db: no answer within 3 s"),
        (errors.UniqueViolation("twice"), "PostgreSQL at db refused the request: twice"),
    ],
)
def test_errors_as_sentences(error: Exception, sentence: str) -> None:
    assert str(translate_error(error, "PostgreSQL at db")) == sentence


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_pooler_in_transaction_mode(schema: str, mode: str) -> None:
    with pooled(mode) as url:
        error = await refused(PostgresBroker(f"{url}?schema={schema}"))
    place = urlsplit(url)
    assert error == (
        f"PostgreSQL at 127.0.0.1:{place.port}{place.path} is a pooler in transaction mode, which loses notifications:"
        " connect to PostgreSQL itself, or use session mode"
    )


async def test_pooler_in_session_mode(schema: str) -> None:
    with pooled("session") as url:
        broker = PostgresBroker(f"{url}?schema={schema}", poll=60.0)
        await broker.open()
        async with tailing(broker, 0) as tail:
            await broker.append(drafts("1"))
            assert data(await collect(tail, 1)) == ["1"]
        await broker.close()


async def test_role_without_the_right_to_create_the_schema(cluster: PrivatePostgres) -> None:
    cluster.execute("CREATE ROLE guest LOGIN PASSWORD 'pw'")
    said = await refused(impatient(f"postgresql://guest:pw@127.0.0.1:{cluster.port}/postgres?schema=guests"))
    assert "permission denied by PostgreSQL" in said


@pytest.mark.parametrize(
    "url",
    [
        'postgresql://localhost/test?schema="',
        "postgresql://localhost/test?schema=",
        "postgresql://localhost/test?failover=never",
        "postgresql://localhost/test?no_such_option=1",
    ],
)
def test_wrong_urls(url: str) -> None:
    with pytest.raises(BrokerError, match="expected"):
        PostgresBroker(url)


async def test_hub_publishes_in_a_transaction(schema: str) -> None:
    async with (
        opened(schema) as broker,
        Hub(broker) as hub,
        await connect() as connection,
        hub.subscribe("orders/*") as subscription,
    ):
        key = await hub.publish("orders/1", "rolled back", connection=connection)
        assert len(key) == 32
        await connection.rollback()
        assert await hub.publish("orders/2", "committed", key="order-2", connection=connection) == "order-2"
        await connection.commit()
        event = await anext(subscription)
        assert (event.data, event.id) == ("committed", f"{hub.epoch}-1")


async def test_hub_without_a_database() -> None:
    async with Hub() as hub:
        connection = object()
        with pytest.raises(BrokerError, match=r"needs a log in your own database .*MemoryBroker"):
            await hub.publish("orders/1", connection=connection)  # type: ignore[call-overload]
