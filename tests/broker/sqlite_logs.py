"""Logs in SQLite files, for the contract."""

from __future__ import annotations

from pathlib import Path

from tickertape.broker import DEFAULT_RETENTION, Broker, Retention, SQLiteBroker
from tickertape.testing.contract import Log

__all__ = ["SQLiteLog"]


class SQLiteLog(Log):
    """A log in a separate file."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.path = directory / "log.db"
        self.url = f"sqlite:///{self.path}"

    def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
        return SQLiteBroker(self.path, retention=retention)

    async def wipe(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink()
