"""The log in Redis: its scripts and keys, fencing, failover, and URLs."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tickertape.broker import Broker, LogState, Record, Retention, create_broker
from tickertape.broker.redis import RedisBroker
from tickertape.broker.redis.fencing import Binding, Decision, Server, decide, parse_info
from tickertape.errors import BrokerError, LogResetError
from tickertape.testing.contract.steps import collect, tailing
from tickertape.wire import Cursor, Draft

from .private_servers import PrivateRedis, forwarded, wait_until

META, PREFIX = "{tickertape}:meta", "{tickertape}:"
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")

Start = Callable[..., PrivateRedis]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Yield a function that starts servers; they end with the test."""
    servers: list[PrivateRedis] = []

    def run(*options: str) -> PrivateRedis:
        servers.append(PrivateRedis(tmp_path, *options))
        return servers[-1]

    yield run
    for server in servers:
        server.end()


def fast(url: str, retention: Retention | None = None) -> RedisBroker:
    """Return a broker with short timeouts and pauses."""
    return RedisBroker(url, retention=retention or Retention(), connect_timeout=1.0, timeout=1.5, random=lambda: 0.0)


def drafts(first: int, last: int) -> list[Draft]:
    return [Draft("numbers", f"{number}") for number in range(first, last + 1)]


def numbers(records: list[Record]) -> list[int]:
    return [int(record.data) for record in records]


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


# The stored records.


async def test_meta_counts_bytes_and_keys(start: Start) -> None:
    server = start()
    broker = RedisBroker(server.url, retention=Retention(events=7, bytes=None))
    epoch = (await broker.open()).epoch
    for number in range(30):
        await broker.append([Draft("t", "x" * number, event="é", key=f"key {number}")])
    with server.client() as client:
        assert client.xlen(f"{PREFIX}log:{epoch}") == 7
        assert int(client.hget(META, "bytes") or 0) == sum(1 + 2 + number for number in range(23, 30))
        assert client.hlen(f"{PREFIX}keys:{epoch}") == 7
    await broker.close()


async def test_append_is_one_script(start: Start) -> None:
    """Keys, offsets, entries and removals happen at once."""
    server = start()
    broker = RedisBroker(server.url, retention=Retention(events=3, bytes=None))
    await broker.open()
    batch = [Draft("t", "1", key="1"), Draft("t", "2"), Draft("t", "again", key="1"), Draft("t", "3"), Draft("t", "4")]
    await broker.append(batch)  # the server learns the script
    with server.client() as client, client.monitor() as monitor:
        cursors = await broker.append([draft.replace(key=draft.key and "other") for draft in batch])
        client.echo("over")
        asked: list[str] = []
        done: list[str] = []
        for command in iter(monitor.next_command, None):
            name = command["command"].split()[0].upper()
            if name == "ECHO":
                break
            (done if command["client_type"] == "lua" else asked).append(name)
    assert [cursor.offset for cursor in cursors] == [5, 6, 5, 7, 8]
    assert [name for name in asked if name not in ("HELLO", "CLIENT")] == ["EVALSHA"]  # but for who said ECHO
    assert Counter(done).items() >= {"HGET": 2, "XADD": 4, "XTRIM": 1, "HSET": 2}.items()
    await broker.close()


async def test_lowered_retention(start: Start) -> None:
    server = start()
    broker = RedisBroker(server.url, retention=Retention(events=None, bytes=None))
    await broker.open()
    await broker.append(drafts(1, 500))
    await broker.close()
    broker = RedisBroker(server.url, retention=Retention(events=None, bytes=10))
    await broker.open()
    await broker.append(drafts(501, 501))
    assert (await broker.open()).oldest == 501  # "numbers" and "501" are ten bytes
    await broker.close()


async def test_batch_without_memory_is_refused_as_a_whole(start: Start) -> None:
    server = start("--maxmemory-policy", "noeviction")
    broker = RedisBroker(server.url)
    await broker.open()
    await broker.append(drafts(1, 3))
    with server.client() as client:
        client.config_set("maxmemory", "1mb")
        with pytest.raises(BrokerError, match="maxmemory"):
            await broker.append(drafts(4, 9))
        client.config_set("maxmemory", "0")
    assert numbers((await broker.read(0, 100)).records) == [1, 2, 3]
    await broker.append(drafts(4, 4))
    assert numbers((await broker.read(0, 100)).records) == [1, 2, 3, 4]
    await broker.close()


async def test_server_that_cannot_save(start: Start, tmp_path: Path) -> None:
    server = start("--save", "3600 1", "--enable-protected-configs", "local")
    broker = RedisBroker(server.url)
    await broker.open()
    with server.client() as client:
        (tmp_path / "gone").mkdir()
        client.config_set("dir", str(tmp_path / "gone"))
        (tmp_path / "gone").rmdir()
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "a failed save")
        with pytest.raises(BrokerError, match=r"^Redis at 127.0.0.1:\d+/?\d* cannot write to its disk: free space"):
            await broker.append(drafts(1, 1))
        client.config_set("dir", str(tmp_path))
        client.save()
    assert (await broker.append(drafts(1, 1)))[0].offset == 1
    await broker.close()


async def test_server_with_too_few_replicas(start: Start) -> None:
    server = start("--min-replicas-to-write", "1")
    error = await refused(RedisBroker(server.url))
    assert error == f"Redis at 127.0.0.1:{server.port} has fewer replicas than min-replicas-to-write requires"


async def test_catching_up_costs_one_script_per_page(start: Start) -> None:
    server = start()
    broker = RedisBroker(server.url)
    await broker.open()
    await broker.append(drafts(1, 5000))
    await broker.state()
    await broker.read(0, 1)  # the server learns the scripts
    with server.client() as client, client.monitor() as monitor:
        after = 0
        while after < 5000:
            page = await broker.read(after, 100)
            assert page.state.newest == 5000
            after = page.records[-1].offset
        await broker.state()
        client.echo("over")
        asked: list[str] = []
        for command in iter(monitor.next_command, None):
            name = command["command"].split()[0].upper()
            if name == "ECHO":
                break
            if command["client_type"] != "lua":
                asked.append(name)
    assert [name for name in asked if name not in ("HELLO", "CLIENT")] == ["EVALSHA"] * 51
    await broker.close()


async def test_foreign_entries(start: Start) -> None:
    """An entry of another program, without our fields or not in UTF-8, is read as well as possible."""
    server = start()
    broker = fast(server.url)
    epoch = (await broker.open()).epoch
    await broker.append(drafts(1, 1))
    with server.client() as client:
        fields: dict[bytes, bytes] = {b"t": b"t\xff", b"e": b"+e\xff", b"d": b"d\xff", b"k": b"", b"a": b"0"}
        client.xadd(f"{PREFIX}log:{epoch}", fields, id="2-0")
        client.xadd(f"{PREFIX}log:{epoch}", {"x": "y"}, id="3-0")
        client.hset(META, "newest", "3")
    expected = [Record(2, "t\ufffd", "e\ufffd", "d\ufffd"), Record(3, "", None, "")]
    async with tailing(broker, 1) as tail:
        assert await collect(tail, 2) == expected
    found = (await broker.read(1, 10)).records
    assert [record.offset for record in found] == [2, 3]
    assert found[0] == expected[0]
    await broker.close()


# Epochs.

BINDING = Binding("e", 10, "a" * 40, "run", durable=True)
NONE = "0" * 40


def server_with(**changes: object) -> Server:
    server = Server("master", "b" * 40, NONE, "other run", "7.0.15", linked=False, replicas=())
    return server._replace(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("server", "seen", "complete", "durable", "lossless", "decision"),
    [
        pytest.param(server_with(replid="a" * 40), 10, True, False, False, Decision.KEEP, id="the same"),
        pytest.param(server_with(replid="a" * 40), 11, True, False, False, Decision.RENEW, id="the same with less"),
        pytest.param(server_with(replid="a" * 40), 10, False, False, False, Decision.RENEW, id="without its stream"),
        pytest.param(server_with(run_id="run"), 10, True, False, False, Decision.REBIND, id="the same, another id"),
        pytest.param(
            server_with(run_id="run", previous="c" * 40), 10, True, True, False, Decision.RENEW, id="returned"
        ),
        pytest.param(server_with(), 10, True, True, False, Decision.REBIND, id="restarted, durable"),
        pytest.param(server_with(), 10, True, False, False, Decision.RENEW, id="restarted, not durable"),
        pytest.param(server_with(), 10, True, False, True, Decision.REBIND, id="restarted, promised"),
        pytest.param(server_with(), 11, True, True, True, Decision.RENEW, id="restarted with less"),
        pytest.param(server_with(previous="a" * 40), 10, True, True, False, Decision.VERIFY, id="promoted"),
        pytest.param(server_with(previous="c" * 40), 10, True, True, False, Decision.RENEW, id="promoted twice"),
        pytest.param(server_with(previous="a" * 40), 10, True, False, True, Decision.REBIND, id="promoted, promised"),
    ],
)
def test_fencing_decisions(
    server: Server, seen: int, complete: bool, durable: bool, lossless: bool, decision: Decision
) -> None:
    cursor = Cursor("e", seen)
    assert decide(BINDING, server, cursor, complete=complete, durable=durable, lossless=lossless) is decision


def test_new_log_begins_an_epoch() -> None:
    assert decide(None, server_with(), Cursor("none", 0), complete=False, durable=True, lossless=True) is Decision.RENEW


def test_durable_only_since_the_restart() -> None:
    bond = BINDING._replace(durable=False)
    assert decide(bond, server_with(), Cursor("e", 3), complete=True, durable=True, lossless=False) is Decision.RENEW


def test_parse_info() -> None:
    text = (
        "# Replication\r\nrole:slave\r\nmaster_link_status:up\r\nslave0:ip=10.0.0.1,port=6380,state=online,offset=4\r\n"
        "slave_repl_offset:4\r\nmaster_replid:abc\r\nmaster_replid2:def\r\n"
        "# Server\r\nredis_version:7.0.15\r\nrun_id:xyz\r\n"
    )
    assert parse_info(text) == Server("slave", "abc", "def", "xyz", "7.0.15", True, (("10.0.0.1", 6380),))


async def test_flushall(start: Start) -> None:
    server = start()
    broker = fast(server.url)
    before = await broker.open()
    await broker.append(drafts(1, 5))
    async with tailing(broker, 0) as tail:
        assert numbers(await collect(tail, 5)) == [1, 2, 3, 4, 5]
        with server.client() as client:
            client.flushall()
        cursors = await broker.append(drafts(6, 6))
        assert cursors[0].offset == 1
        assert cursors[0].epoch != before.epoch
        with pytest.raises(LogResetError):
            await collect(tail, 1)
    page = await broker.read(0, 10)
    assert page.state == LogState(cursors[0].epoch, 1, 1)
    assert numbers(page.records) == [6]
    await broker.close()


async def test_state_and_read_begin_no_epoch(start: Start) -> None:
    server = start()
    broker = fast(server.url)
    before = await broker.open()
    await broker.append(drafts(1, 5))
    with server.client() as client:
        client.hset(META, mapping={"newest": "4", "replid": "other"})
        client.xdel(f"{PREFIX}log:{before.epoch}", "5-0")
        meta = client.hgetall(META)
        assert await broker.state() == LogState(before.epoch, 1, 4)
        assert (await broker.read(0, 10)).state == LogState(before.epoch, 1, 4)
        assert client.hgetall(META) == meta
        assert (await broker.open()).epoch != before.epoch
        client.flushall()
    with pytest.raises(LogResetError, match="there is no log"):
        await broker.state()
    with pytest.raises(LogResetError, match="there is no log"):
        await broker.read(0, 10)
    await broker.close()


@pytest.mark.parametrize("lost", ["all", "one"])
async def test_lost_idempotency_keys_end_the_epoch(start: Start, lost: str) -> None:
    server = start()
    broker = fast(server.url)
    before = await broker.open()
    await broker.append([Draft("numbers", "1", key="1"), Draft("numbers", "2", key="2"), Draft("numbers", "3")])
    async with tailing(broker, 3) as tail:
        waiting = asyncio.create_task(collect(tail, 1))
        with server.client() as client:
            if lost == "all":
                client.delete(f"{PREFIX}keys:{before.epoch}")
            else:
                client.hdel(f"{PREFIX}keys:{before.epoch}", "+1")
        cursors = await broker.append([Draft("numbers", "1", key="1")])
        assert cursors == [Cursor((await broker.state()).epoch, 4)]
        assert cursors[0].epoch != before.epoch
        with pytest.raises(LogResetError):
            await waiting
    assert await broker.append([Draft("numbers", "1", key="1")]) == cursors
    assert numbers((await broker.read(0, 10)).records) == [1, 2, 3, 1]
    await broker.close()


async def test_count_of_keys_under_retention(start: Start) -> None:
    """The count of keys is right under any retention, so that no epoch ends without a loss."""
    server = start()
    broker = RedisBroker(server.url, retention=Retention(events=5, bytes=None))
    before = await broker.open()
    for number in range(40):
        key = str(number % 7) if number % 3 else None
        await broker.append([Draft("t", "x", key=key), Draft("t", "y"), Draft("t", "z", key=key)])
    with server.client() as client:
        assert int(client.hget(META, "keys") or 0) == client.hlen(f"{PREFIX}keys:{before.epoch}")
    assert (await broker.open()).epoch == before.epoch
    await broker.close()


@pytest.mark.parametrize("evicted", ["meta", "log"])
async def test_evicted_key_ends_the_epoch(start: Start, evicted: str) -> None:
    server = start()
    broker = fast(server.url)
    before = await broker.open()
    await broker.append(drafts(1, 5))
    with server.client() as client:
        client.delete(META if evicted == "meta" else f"{PREFIX}log:{before.epoch}")
    cursors = await broker.append(drafts(6, 6))
    assert cursors == [Cursor((await broker.open()).epoch, 1)]
    assert cursors[0].epoch != before.epoch
    await broker.close()


# Failover.


def _knows_a_replica(master: PrivateRedis) -> bool:
    first = master.info("replication").get("slave0")
    return isinstance(first, dict) and first["state"] == "online"


def make_replica(start: Start, master: PrivateRedis) -> PrivateRedis:
    replica = start("--replicaof", f"127.0.0.1 {master.port}", "--repl-diskless-sync-delay", "0")
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up", "a replica in touch")
    # The master notices it later, and does not promote a replica before.
    wait_until(lambda: _knows_a_replica(master), "a replica that the master knows")
    return replica


async def test_promoted_replica_that_missed_records(start: Start) -> None:
    master = start("--repl-diskless-sync-delay", "0")
    async with forwarded(master.port) as address:
        broker = fast(f"redis://127.0.0.1:{address.port}")
        before = await broker.open()
        await broker.append(drafts(1, 3))
        replica = make_replica(start, master)
        async with tailing(broker, 0) as tail:
            replica.signal(signal.SIGSTOP)
            with master.client() as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "replica")
            await broker.append(drafts(4, 6))
            assert numbers(await collect(tail, 6)) == [1, 2, 3, 4, 5, 6]
            master.signal(signal.SIGKILL)
            replica.signal(signal.SIGCONT)
            with replica.client() as client:
                client.execute_command("REPLICAOF", "NO", "ONE")
            address.move(replica.port)
            cursor = await append_until_stored(broker, Draft("numbers", "7", key="7"))
            assert cursor.offset == 4  # as a record before, with another epoch
            assert cursor.epoch != before.epoch
            with pytest.raises(LogResetError):
                await collect(tail, 1)
        state = await broker.open()
        assert (state.epoch, state.oldest, state.newest) == (cursor.epoch, 1, 4)
        assert numbers((await broker.read(0, 10)).records) == [1, 2, 3, 7]
        await broker.close()


async def test_promoted_replica_and_a_new_hub(start: Start) -> None:
    """The records that one process has seen prove nothing: another one that saw more may be gone."""
    master = start("--repl-diskless-sync-delay", "0")
    broker = fast(master.url)
    before = await broker.open()
    await broker.append(drafts(1, 3))
    await broker.close()
    replica = make_replica(start, master)
    master.signal(signal.SIGKILL)
    with replica.client() as client:
        client.execute_command("REPLICAOF", "NO", "ONE")
    other = fast(replica.url)
    after = await other.open()
    assert after.epoch != before.epoch
    assert (after.oldest, after.newest) == (1, 3)
    await other.close()


async def test_planned_failover(start: Start) -> None:
    master = start("--repl-diskless-sync-delay", "0")
    async with forwarded(master.port) as address:
        broker = fast(f"redis://127.0.0.1:{address.port}")
        before = await broker.open()
        await broker.append(drafts(1, 3))
        replica = make_replica(start, master)
        async with tailing(broker, 0) as tail:
            assert numbers(await collect(tail, 3)) == [1, 2, 3]
            with master.client() as client:
                client.execute_command("FAILOVER", "TO", "127.0.0.1", f"{replica.port}")
            wait_until(lambda: replica.info("replication")["role"] == "master", "a promoted replica")
            address.target = replica.port  # connections to the demoted one stay
            cursor = await append_until_stored(broker, Draft("numbers", "4", key="4"))
            assert cursor == Cursor(before.epoch, 4)
            assert numbers(await collect(tail, 1)) == [4]
        await broker.close()


async def test_promise_of_lossless_failover(start: Start) -> None:
    master = start("--repl-diskless-sync-delay", "0")
    broker = fast(f"{master.url}?failover=lossless")
    before = await broker.open()
    await broker.append(drafts(1, 3))
    await broker.close()
    replica = make_replica(start, master)
    master.signal(signal.SIGKILL)
    with replica.client() as client:
        client.execute_command("REPLICAOF", "NO", "ONE")
    other = fast(f"{replica.url}?failover=lossless")
    assert await other.open() == LogState(before.epoch, 1, 3)
    assert await other.append(drafts(4, 4)) == [Cursor(before.epoch, 4)]
    await other.close()


# Faults.


async def test_stopped_and_killed_server(start: Start) -> None:
    server = start(*ALWAYS)
    broker = fast(server.url)
    before = await broker.open()
    async with tailing(broker, 0) as tail:
        await broker.append(drafts(1, 2))
        assert numbers(await collect(tail, 2)) == [1, 2]

        server.signal(signal.SIGSTOP)
        with pytest.raises(BrokerError, match=r"no answer from .* within 1.5 s"):
            await broker.append([Draft("numbers", "3", key="3")])
        server.signal(signal.SIGCONT)
        await append_until_stored(broker, Draft("numbers", "3", key="3"))
        assert numbers(await collect(tail, 1)) == [3]

        server.signal(signal.SIGKILL)
        with pytest.raises(BrokerError, match="cannot reach Redis"):
            await broker.append(drafts(4, 4))
        with pytest.raises(BrokerError, match="cannot reach Redis"):
            await broker.open()
        server.start()
        assert await append_until_stored(broker, Draft("numbers", "4", key="4")) == Cursor(before.epoch, 4)
        assert numbers(await collect(tail, 1)) == [4]
    await broker.close()


async def test_restart_without_fsync(start: Start) -> None:
    server = start("--appendonly", "yes", "--appendfsync", "everysec")
    broker = fast(server.url)
    before = await broker.open()
    await broker.append(drafts(1, 3))
    async with tailing(broker, 3) as tail:
        server.signal(signal.SIGKILL)
        server.start()
        with pytest.raises(LogResetError):
            await collect(tail, 1)
    after = await broker.open()
    assert after.epoch != before.epoch
    assert numbers((await broker.read(0, 10)).records) == list(range(1, after.newest + 1))
    await broker.close()


async def test_close_with_a_stopped_server(start: Start) -> None:
    server = start()
    broker = fast(server.url)
    await broker.open()
    server.signal(signal.SIGSTOP)
    appending = asyncio.create_task(broker.append(drafts(1, 1)))
    await asyncio.sleep(0)
    await broker.close()
    with pytest.raises(BrokerError):
        await appending
    server.signal(signal.SIGCONT)


async def test_close_ends_every_connection(start: Start) -> None:
    server = start()
    broker = fast(server.url)
    await broker.open()
    async with tailing(broker, 0) as tail:
        await broker.append(drafts(1, 1))
        await collect(tail, 1)
        await broker.close()
        with server.client() as client:
            wait_until(lambda: len(client.client_list()) == 1, "only this test's own connection")
    await broker.close()


# Errors.


async def test_wrong_and_missing_passwords(start: Start) -> None:
    server = start("--requirepass", "sesame")
    port = server.port
    assert "rejected the credentials" in await refused(fast(f"redis://127.0.0.1:{port}"))
    said = await refused(fast(f"redis://:wrong@127.0.0.1:{port}"))
    assert "rejected the credentials" in said
    assert "wrong@" not in said
    broker = fast(f"redis://:sesame@127.0.0.1:{port}/3?prefix=mine")
    await broker.open()
    await broker.close()


async def test_user_without_config(start: Start) -> None:
    server = start(*ALWAYS)
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "hub", "on", ">pw", "~{tickertape}:*", "+@all", "-@admin", "-config")
    broker = fast(f"redis://hub:pw@127.0.0.1:{server.port}")
    before = await broker.open()
    await broker.append(drafts(1, 1))
    assert (await broker.open()).newest == 1
    assert before.newest == 0
    await broker.close()


async def test_read_only_replica(start: Start) -> None:
    master = start("--repl-diskless-sync-delay", "0")
    assert "read-only replica" in await refused(fast(make_replica(start, master).url))


async def test_missing_server() -> None:
    assert "cannot reach Redis at 127.0.0.1:1" in await refused(fast("redis://127.0.0.1:1"))
    said = await refused(fast("redis+sentinel://127.0.0.1:1/news"))
    assert said == "cannot reach Redis at 127.0.0.1:1: No master found for 'news'"


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost/0?prefix={a}",
        "redis://localhost/0?prefix=",
        "redis://localhost?failover=never",
        "redis+sentinel://localhost:26379",
        "redis+sentinel://localhost:26379/news?ssl_ca_certs=ca.pem",
        "redis://localhost?no_such_option=1",
        "redis+cluster://localhost?no_such_option=1",
        "redis://localhost:port",
        "redis+else://localhost",
    ],
)
def test_wrong_urls(url: str) -> None:
    with pytest.raises(BrokerError, match="expected"):
        RedisBroker(url)


# Other URLs.


async def use(broker: Broker) -> None:
    state = await broker.open()
    cursors = await broker.append([Draft("t", "1", event="e", key="k"), Draft("t", "2")])
    assert [cursor.offset for cursor in cursors] == [state.newest + 1, state.newest + 2]
    assert [record.data for record in (await broker.read(0, 10)).records] == ["1", "2"]
    async with tailing(broker, 0) as tail:
        assert len(await collect(tail, 2)) == 2
        await broker.append([Draft("t", "3")])
        assert [record.data for record in await collect(tail, 1)] == ["3"]
    await broker.close()


async def test_unix_socket(start: Start, tmp_path: Path) -> None:
    start("--unixsocket", str(tmp_path / "redis.sock"))
    await use(create_broker(f"redis+unix://{tmp_path}/redis.sock?db=2"))


@pytest.mark.parametrize("secret", ["", "open@sentinel"])
async def test_sentinel(start: Start, tmp_path: Path, secret: str) -> None:
    master = start("--requirepass", "sesame")
    settings = tmp_path / "sentinel.conf"
    lines = [f"sentinel monitor news 127.0.0.1 {master.port} 1", "sentinel auth-pass news sesame"]
    lines += [f"requirepass {secret}"] if secret else []
    settings.write_text("\n".join(lines) + "\n")
    # Sentinel takes its settings from a file that it may write to, before all options.
    sentinel = PrivateRedis.sentinel(tmp_path, settings)
    try:
        options = f"?sentinel_password={quote(secret)}" if secret else ""
        await use(create_broker(f"redis+sentinel://:sesame@127.0.0.1:{sentinel.port},127.0.0.1:1/news/1{options}"))
    finally:
        sentinel.end()


async def test_cluster(start: Start) -> None:
    server = start("--cluster-enabled", "yes")
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    wait_until(lambda: _cluster_is_ok(server), "a cluster that serves all slots")
    await use(create_broker(f"redis+cluster://127.0.0.1:{server.port}"))


def _cluster_is_ok(server: PrivateRedis) -> bool:
    with server.client() as client:
        return bool(client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
