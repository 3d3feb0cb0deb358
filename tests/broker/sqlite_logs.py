"""Logs in SQLite files, for the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tickertape.broker import DEFAULT_RETENTION, Broker, Retention, SQLiteBroker

from .contract import Log, Traits

__all__ = ["SqliteLog", "sqlite_log"]


@dataclass(frozen=True)
class SqliteLog:
    """A log in a file of its own."""

    traits: Traits
    path: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
        return SQLiteBroker(self.path, retention=retention)

    async def wipe(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink()


@asynccontextmanager
async def sqlite_log(traits: Traits, directory: Path) -> AsyncIterator[Log]:
    """Give a log; its directory goes with the test."""
    yield SqliteLog(traits, directory / "log.db")
