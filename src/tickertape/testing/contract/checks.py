"""What a check is, what it needs of a broker, and the log that it tries."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, TypeAlias

from ...broker import DEFAULT_RETENTION, Broker, Retention

__all__ = [
    "CHECKS",
    "ONE_SIZE",
    "PATIENCE",
    "PROCESSES",
    "SHARED",
    "TEXT",
    "Check",
    "Log",
    "Need",
    "Traits",
    "check",
    "check_if",
    "check_unless",
    "patiently",
]

PATIENCE: Final = 20.0
"""Seconds until what must come is given up: none of it takes one, on a machine that is not busy."""

_patience: Final = ContextVar("patience", default=PATIENCE)


def patiently() -> asyncio.Timeout:
    """Return a limit for what must come, to be entered with ``async with``."""
    return asyncio.timeout(_patience.get())


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a broker can do, and how far it goes beyond what the contract asks for.

    Attributes:
        shared: a log outlives its brokers, and takes several of them at once.
        opener: what another process opens a shared log with: ``"module:name"`` of something that is
            called with the log's URL and returns a broker; ``None`` if there is one process only.
        max_data: the greatest number of bytes of one event's data; ``None`` for no limit below 16 MiB.
        nul: text may contain U+0000; otherwise it is refused.
        spare: how many records may be kept, for a while, beyond the limit of records.
        keys_linger: keys may be known longer than their records are kept.
    """

    shared: bool = True
    opener: str | None = "tickertape.broker:create_broker"
    max_data: int | None = None
    nul: bool = True
    spare: int = 0
    keys_linger: bool = False


class Log(ABC):
    """One log in some store, for one check; no other check sees its records or its keys.

    Arguments:
        directory: empty, and gone after the test.

    Attributes:
        traits: what the broker can do.
        url: what :attr:`Traits.opener` finds the log by, from any process.
    """

    traits: ClassVar[Traits] = Traits()
    url: str = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @abstractmethod
    def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
        """Return another broker on the log, not open yet; if the log is not shared, on one of its own."""

    async def wipe(self) -> None:
        """Destroy the log, as an operator's mistake would, while brokers may be open on it.

        Only logs that are shared are asked to.
        """
        raise NotImplementedError

    async def remove(self) -> None:  # noqa: B027 - most logs go with their directory
        """Remove what is left of the log when the check is over; by default nothing."""


@dataclass(frozen=True, slots=True)
class Need:
    """Something that not every broker can do.

    Attributes:
        met: tells whether a broker with some traits can.
        lacking: what is said of one that cannot.
    """

    met: Callable[[Traits], bool]
    lacking: str


SHARED: Final = Need(lambda traits: traits.shared, "shared=False: a log has one broker, and ends with it")
PROCESSES: Final = Need(
    lambda traits: traits.shared and traits.opener is not None,
    "shared=False, or no opener: a log belongs to one process",
)
ONE_SIZE: Final = Need(lambda traits: traits.max_data is None, "max_data: great events are refused")
TEXT: Final = Need(lambda traits: traits.nul, "nul=False: text with U+0000 is refused")


CheckFunction: TypeAlias = Callable[[Log], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Check:
    """One part of the contract.

    Attributes:
        function: raises ``AssertionError``, or ``TimeoutError``, for a log whose broker does not keep it.
        need: what it is about, if not all brokers can do that.
        stands_in: whether it is for those that cannot.
    """

    function: CheckFunction
    need: Need | None = None
    stands_in: bool = False

    @property
    def name(self) -> str:
        """What a broker promises, as an identifier."""
        return self.function.__name__

    @property
    def reason(self) -> str:
        """Why it is skipped, when it is."""
        return f"not for traits with {self.need.lacking}" if self.need is not None else ""

    def applies(self, traits: Traits) -> bool:
        """Tell whether brokers with these traits are held to it."""
        return self.need is None or self.need.met(traits) is not self.stands_in

    async def run(self, log: Log, patience: float = PATIENCE) -> None:
        """Try a log, and remove it.

        Arguments:
            log: nothing has used it before.
            patience: seconds until what must come is given up.

        Raises:
            AssertionError: a promise is broken.
            TimeoutError: something promised did not come.
        """
        token = _patience.set(patience)
        try:
            await self.function(log)
        finally:
            _patience.reset(token)
            await log.remove()


CHECKS: Final[list[Check]] = []
"""All checks."""


def check(function: CheckFunction) -> CheckFunction:
    """Add a check for all brokers."""
    CHECKS.append(Check(function))
    return function


def check_if(need: Need) -> Callable[[CheckFunction], CheckFunction]:
    """Return what adds a check for brokers that can do something."""
    return lambda function: _added(Check(function, need))


def check_unless(need: Need) -> Callable[[CheckFunction], CheckFunction]:
    """Return what adds a check for brokers that cannot, in the place of those for brokers that can."""
    return lambda function: _added(Check(function, need, stands_in=True))


def _added(added: Check) -> CheckFunction:
    CHECKS.append(added)
    return added.function
