"""Logs on a running PostgreSQL server, each in its own schema."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import psycopg

from tickertape.broker import DEFAULT_RETENTION, Broker, Retention, create_broker
from tickertape.testing.contract import Log

__all__ = ["POSTGRES_URL", "PostgresLog", "postgres_absent"]

POSTGRES_URL: Final = os.environ.get("TICKERTAPE_TEST_POSTGRES", "postgresql://postgres@127.0.0.1/test")


@cache
def postgres_absent() -> str | None:
    """Return the reason why there is no PostgreSQL to test with, or None."""
    try:
        psycopg.connect(POSTGRES_URL, connect_timeout=2).close()
    except psycopg.Error as error:
        return f"no PostgreSQL: {error}"
    return None


class PostgresLog(Log):
    """A log in its own schema."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._schema = f"test_{secrets.token_hex(6)}"
        self.url = f"{POSTGRES_URL}?schema={self._schema}"

    def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
        return create_broker(self.url, retention=retention)

    async def wipe(self) -> None:
        async with await psycopg.AsyncConnection.connect(POSTGRES_URL, autocommit=True) as connection:
            while True:
                # A broker that reads several tables at this moment locks them in another order.
                with suppress(psycopg.errors.DeadlockDetected):
                    await connection.execute(f'DROP SCHEMA IF EXISTS "{self._schema}" CASCADE'.encode())
                    return

    async def remove(self) -> None:
        await self.wipe()
