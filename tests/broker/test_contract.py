"""The contract suite on every broker."""

from __future__ import annotations

import pytest

from tickertape.broker import DEFAULT_RETENTION, Broker, MemoryBroker, Retention
from tickertape.testing.contract import BrokerContract, Log, Traits

from .nats_logs import NatsLog, nats_absent
from .postgres_logs import PostgresLog, postgres_absent
from .private_servers import require
from .redis_logs import RedisLog, redis_absent
from .sqlite_logs import SQLiteLog


class MemoryLog(Log):
    """A log in memory; each broker has a separate one."""

    traits = Traits(shared=False)

    def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
        return MemoryBroker(retention=retention)


class TestMemory(BrokerContract):
    log = MemoryLog


class TestSQLite(BrokerContract):
    log = SQLiteLog


class TestRedis(BrokerContract):
    log = RedisLog

    @pytest.fixture(autouse=True)
    def server(self) -> None:
        require(redis_absent())


class TestPostgres(BrokerContract):
    log = PostgresLog

    @pytest.fixture(autouse=True)
    def server(self) -> None:
        require(postgres_absent())


class TestNATS(BrokerContract):
    log = NatsLog

    @pytest.fixture(autouse=True)
    def server(self) -> None:
        require(nats_absent())
