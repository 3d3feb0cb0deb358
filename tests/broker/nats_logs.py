"""Logs in a NATS server, for the contract."""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import nats
from nats.js.errors import NotFoundError

from tickertape.broker import DEFAULT_RETENTION, Broker, Retention, create_broker
from tickertape.testing.contract import Log, Traits

__all__ = ["NatsLog", "nats_absent"]

SERVER: Final = os.environ.get("TICKERTAPE_TEST_NATS", "nats://127.0.0.1:4222")


@cache
def nats_absent() -> str | None:
    """Return, once, why there is no server; ``None`` if there is one."""
    parts = urlsplit(SERVER)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 4222), timeout=1):
            return None
    except OSError as error:
        return f"no NATS at {parts.netloc}: {error}"


class NatsLog(Log):
    """A log in a separate stream, on a server with the default ``max_payload`` of 1 MiB."""

    traits = Traits(max_data=1024 * 1024 - 1024)

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.stream = f"test-{secrets.token_hex(6)}"
        self.url = f"{SERVER}/{self.stream}"

    def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
        return create_broker(self.url, retention=retention)

    async def wipe(self) -> None:
        client = await nats.connect(SERVER)
        try:
            with suppress(NotFoundError):
                await client.jetstream().delete_stream(self.stream)
        finally:
            await client.close()

    async def remove(self) -> None:
        await self.wipe()
