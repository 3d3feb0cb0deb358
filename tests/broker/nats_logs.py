"""Logs in a NATS server, for the contract."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import nats
from nats.js.errors import NotFoundError

from tickertape.broker import DEFAULT_RETENTION, Broker, Retention, create_broker

from .contract import Log, Traits

__all__ = ["NatsLog", "nats_absent", "nats_log"]

SERVER: Final = os.environ.get("TICKERTAPE_TEST_NATS", "nats://127.0.0.1:4222")


def nats_absent() -> str | None:
    """Return why there is no server, ``None`` if there is one."""
    parts = urlsplit(SERVER)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 4222), timeout=1):
            return None
    except OSError as error:
        return f"no NATS at {parts.netloc}: {error}"


@dataclass(frozen=True)
class NatsLog:
    """A log in a stream of its own."""

    traits: Traits
    server: str
    stream: str

    @property
    def url(self) -> str:
        return f"{self.server}/{self.stream}"

    def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
        return create_broker(self.url, retention=retention)

    async def wipe(self) -> None:
        client = await nats.connect(self.server)
        try:
            with suppress(NotFoundError):
                await client.jetstream().delete_stream(self.stream)
        finally:
            await client.close()


@asynccontextmanager
async def nats_log(traits: Traits, directory: Path) -> AsyncIterator[Log]:
    """Give a log, and delete its stream."""
    log = NatsLog(traits, SERVER, f"test-{secrets.token_hex(6)}")
    try:
        yield log
    finally:
        await log.wipe()
