"""Logs on a running Redis server, each under its own prefix."""

from __future__ import annotations

import os
import secrets
import socket
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from redis.asyncio import Redis

from tickertape.broker import DEFAULT_RETENTION, Broker, Retention, create_broker
from tickertape.testing.contract import Log

__all__ = ["REDIS_URL", "RedisLog", "redis_absent"]

REDIS_URL: Final = os.environ.get("TICKERTAPE_TEST_REDIS", "redis://127.0.0.1:6379/0")


@cache
def redis_absent() -> str | None:
    """Return the reason why there is no Redis to test with, or None."""
    parts = urlsplit(REDIS_URL)
    try:
        with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=1.0):
            return None
    except OSError as error:
        return f"no Redis at {parts.hostname}:{parts.port}: {error}"


class RedisLog(Log):
    """A log under its own prefix."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._prefix = f"test-{secrets.token_hex(6)}"
        self.url = f"{REDIS_URL}?prefix={self._prefix}"

    def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
        return create_broker(self.url, retention=retention)

    async def wipe(self) -> None:
        async with Redis.from_url(REDIS_URL) as client:
            keys = [key async for key in client.scan_iter(match=f"{{{self._prefix}}}:*", count=10_000)]
            if keys:
                await client.delete(*keys)

    async def remove(self) -> None:
        await self.wipe()
