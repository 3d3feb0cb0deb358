"""What the contract's checks are made of: traits, logs, the list of checks, and steps that they share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, cast

from tickertape.broker import DEFAULT_RETENTION, Broker, Cursor, Draft, Record, Retention
from tickertape.errors import BrokerError

__all__ = [
    "CHECKS",
    "PATIENCE",
    "Check",
    "Log",
    "Traits",
    "applicable",
    "assert_whole",
    "check",
    "check_if",
    "collect",
    "drafts_of",
    "offsets",
    "opened",
    "raised",
    "refused",
    "tailed",
    "tailing",
    "until",
]

PATIENCE: Final = 20.0
"""Seconds until what must come is given up: none of it takes one, on a machine that is not busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a broker can do, and how far it goes beyond what the contract asks for.

    Attributes:
        shared: a log has a URL, outlives its brokers, and takes several of them at once.
        max_data: the greatest number of bytes of one event's data; ``None`` for no limit below 16 MiB.
        nul: text may contain U+0000; otherwise it is refused.
        spare: how many records may be kept, for a while, beyond the limit of records.
        keys_linger: keys may be known longer than their records are kept.
    """

    shared: bool = True
    max_data: int | None = None
    nul: bool = True
    spare: int = 0
    keys_linger: bool = False


class Log(Protocol):
    """One log in some store, for one check; no other check sees its records or its keys."""

    @property
    def traits(self) -> Traits:
        """What the broker can do."""

    @property
    def url(self) -> str:
        """The URL that :func:`tickertape.broker.create_broker` finds the log by, from any process."""

    def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
        """Return another broker on the log, not open yet."""

    async def wipe(self) -> None:
        """Destroy the log, as an operator's mistake would, while brokers may be open on it."""


Check: TypeAlias = Callable[[Log], Awaitable[None]]

CHECKS: Final[list[Check]] = []
"""All checks."""

_NEEDS: Final[dict[Check, Callable[[Traits], bool]]] = {}


def applicable(traits: Traits) -> list[Check]:
    """Return the checks for brokers with these traits."""
    return [each for each in CHECKS if each not in _NEEDS or _NEEDS[each](traits)]


def check(function: Check) -> Check:
    """Add a check for all brokers."""
    CHECKS.append(function)
    return function


def check_if(needs: Callable[[Traits], bool]) -> Callable[[Check], Check]:
    """Return what adds a check for brokers with some trait."""

    def register(function: Check) -> Check:
        _NEEDS[function] = needs
        return check(function)

    return register


# What checks are made of.


@asynccontextmanager
async def opened(log: Log, retention: Retention = DEFAULT_RETENTION) -> AsyncIterator[Broker]:
    broker = log.broker(retention)
    try:
        async with asyncio.timeout(PATIENCE):
            await broker.open()
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def tailing(broker: Broker, after: int) -> AsyncIterator[AsyncGenerator[list[Record], None]]:
    """Give a tail, and close it."""
    tail = cast(AsyncGenerator[list[Record], None], broker.tail(after))
    try:
        yield tail
    finally:
        await tail.aclose()


async def collect(tail: AsyncIterator[list[Record]], count: int) -> list[Record]:
    """Return what a tail gives until it is ``count`` records; it may not give an empty list."""
    found: list[Record] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            records = await anext(tail)
            assert records, "expected a tail that gives records, got an empty list"
            found += records
    return found


async def tailed(broker: Broker, after: int, count: int) -> list[Record]:
    async with tailing(broker, after) as tail:
        return await collect(tail, count)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what a broker does by and by."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - another process may be what changes it
            await asyncio.sleep(0.01)


def drafts_of(count: int, *, topic: str = "numbers", size: int = 0) -> list[Draft]:
    return [Draft(topic, f"{number}".ljust(size, ".")) for number in range(1, count + 1)]


def offsets(found: Sequence[Record] | Sequence[Cursor]) -> list[int]:
    return [each.offset for each in found]


def assert_whole(found: list[Record]) -> None:
    assert offsets(found) == list(range(found[0].offset, found[0].offset + len(found)))


async def refused(broker: Broker, drafts: list[Draft], kind: type[BrokerError] = BrokerError) -> BrokerError:
    try:
        async with asyncio.timeout(PATIENCE):
            cursors = await broker.append(drafts)
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, got cursors {cursors}")


async def raised(tail: AsyncIterator[list[Record]], kind: type[BrokerError]) -> BrokerError:
    try:
        async with asyncio.timeout(PATIENCE):
            records = await anext(tail)
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, got {records}")
