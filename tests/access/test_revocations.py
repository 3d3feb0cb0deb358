"""Revocations: in one process, and over two hubs on the brokers of many machines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.nats_logs import NatsLog, nats_absent
from broker.postgres_logs import PostgresLog, postgres_absent
from broker.private_servers import require
from broker.redis_logs import RedisLog, redis_absent
from broker.sqlite_logs import SQLiteLog
from support.hub import HubClient, settle
from support.servers import until
from tickertape import Hub
from tickertape.access import Revocations, Tickets, Verified
from tickertape.errors import UnauthorizedError
from tickertape.hub import Grant
from tickertape.testing import FakeClock, ScriptedBroker
from tickertape.testing.contract import Log

ALICE = Grant(user="alice", subscribe=("a",))


@pytest.mark.parametrize(
    ("user", "issued", "refused"),
    [("alice", 999.0, True), ("alice", None, True), ("alice", 1001.0, False), ("bob", 999.0, False)],
)
async def test_check(user: str, issued: float | None, refused: bool) -> None:
    """Credentials from before are refused, also by a hub that was opened later."""
    clock = FakeClock()
    broker = ScriptedBroker()
    async with Hub(broker) as here, Hub(broker) as there:
        revocations = Revocations(here, now=clock.time)
        await revocations.check(Verified(ALICE, 1.0))
        await revocations.revoke("alice")
        await here.disconnect(user="bob")  # ends streams only
        await settle()
        for known in (revocations, Revocations(there)):
            verified = Verified(Grant(user=user), issued)
            if refused:
                with pytest.raises(UnauthorizedError, match="was revoked"):
                    await known.check(verified)
            else:
                await known.check(verified)
        await revocations.check(Verified(Grant(), 1.0))


async def test_without_a_user() -> None:
    async with Hub() as hub:
        with pytest.raises(ValueError, match="the name of a user"):
            await Revocations(hub).revoke("")


@pytest.mark.parametrize(
    ("kind", "absent"),
    [
        (SQLiteLog, lambda: None),
        (RedisLog, redis_absent),
        (PostgresLog, postgres_absent),
        (NatsLog, nats_absent),
    ],
)
async def test_two_nodes(kind: type[Log], absent: Callable[[], str | None], tmp_path: Path) -> None:
    """A revocation on one node ends a stream on another; a ticket is good once on both."""
    require(absent())
    log = kind(tmp_path)
    secret = b"a secret that both nodes have in a file"
    try:
        async with Hub(log.url) as here, Hub(log.url) as there:
            client = HubClient(there, "a", direct=True, grant=ALICE)
            known = Revocations(there)
            while not there.subscribers():
                await settle()
            await known.check(Verified(ALICE, 1.0))
            await Revocations(here).revoke("alice")
            await until(lambda: not there.subscribers(), lambda: "the stream to end", within=5)
            client.read()
            assert [event.json() for event in client.events if event.data] == [{"reason": "revoked"}]
            assert client.complete
            with pytest.raises(UnauthorizedError):
                await known.check(Verified(ALICE, 1.0))
            ticket = Tickets(secret).issue(ALICE, "a")
            results = await asyncio.gather(
                *(Tickets(secret, hub).redeem(ticket) for hub in (here, there, here)), return_exceptions=True
            )
            assert sum(isinstance(result, UnauthorizedError) for result in results) == 2
            await client.close()
    finally:
        await log.remove()
