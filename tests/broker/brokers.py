"""The brokers that are held to the contract, in one table: how to make a log of each, and wipe it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tickertape.broker import DEFAULT_RETENTION, Broker, MemoryBroker, Retention, create_broker

from .contract import Log, Traits
from .nats_logs import nats_absent, nats_log
from .postgres_logs import postgres_absent, postgres_log
from .redis_logs import redis_absent, redis_log
from .sqlite_logs import sqlite_log

__all__ = ["BROKERS", "IN_CI", "Kind", "UrlLog"]

IN_CI: Final = os.environ.get("CI", "").lower() == "true"
"""Where a server that is absent is a failure, not a reason to skip."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of broker.

    Attributes:
        name: as in test ids.
        traits: what it can do.
        make: gives a log of its own in a directory of its own, and removes it afterwards.
        absent: tells why it cannot be tested here; ``None`` if it can.
    """

    name: str
    traits: Traits
    make: Callable[[Traits, Path], AbstractAsyncContextManager[Log]]
    absent: Callable[[], str | None] = lambda: None


class UrlLog:
    """A log that is found by its URL alone."""

    def __init__(self, traits: Traits, url: str) -> None:
        self.traits = traits
        self.url = url

    def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
        return create_broker(self.url, retention=retention)

    async def wipe(self) -> None:
        raise NotImplementedError


class _MemoryLog(UrlLog):
    def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
        return MemoryBroker(retention=retention)


@asynccontextmanager
async def _memory(traits: Traits, directory: Path) -> AsyncIterator[Log]:
    yield _MemoryLog(traits, "memory://")


BROKERS: Final = (
    Kind("memory", Traits(shared=False), _memory),
    Kind("sqlite", Traits(), sqlite_log),
    Kind("postgres", Traits(), postgres_log, postgres_absent),
    Kind("nats", Traits(), nats_log, nats_absent),
    Kind("redis", Traits(), redis_log, redis_absent),
)
