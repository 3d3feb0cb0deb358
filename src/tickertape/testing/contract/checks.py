"""The parts of the suite: ``Check``, the log that it runs on, and the traits that decide whether it runs."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, TypeAlias

from ...broker import DEFAULT_RETENTION, Broker, Retention

PATIENCE: Final = 20.0
"""Seconds after which a check fails that waits for something; on an idle machine nothing takes one second."""

_patience: Final = ContextVar("patience", default=PATIENCE)


def patiently() -> asyncio.Timeout:
    """Return the time limit of the current check, for ``async with``."""
    return asyncio.timeout(_patience.get())


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """The features of a broker, and the freedom that it takes.

    Attributes:
        shared: a log outlives its brokers, and several brokers may use it at once.
        opener: the way for another process to open a shared log: ``"module:name"`` of a callable that
            takes the log's URL and returns a broker. ``None`` if only one process can use a log.
        max_data: the greatest number of bytes of one event's data; ``None`` for no limit below 16 MiB.
        nul: text may contain U+0000; otherwise it is refused.
        spare: the number of records that may be kept for a while beyond the limit of records.
        keys_linger: keys may be known longer than their records are kept.
        rules: topics may have a separate retention, and be discarded.
    """

    shared: bool = True
    opener: str | None = "tickertape.broker:create_broker"
    max_data: int | None = None
    nul: bool = True
    spare: int = 0
    keys_linger: bool = False
    rules: bool = True


class Log(ABC):
    """One log in some store, for one check. No other check sees its records or its keys.

    Arguments:
        directory: an empty directory that is removed after the test.

    Attributes:
        traits: the features of the broker.
        url: the argument of :attr:`Traits.opener`, which finds the log from any process.
    """

    traits: ClassVar[Traits] = Traits()
    url: str = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @abstractmethod
    def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
        """Return another broker on this log, not yet open. If logs are not shared, it has a separate log."""

    async def wipe(self) -> None:
        """Destroy the log, as an operator's mistake does, while brokers may be open on it.

        Called for shared logs only.
        """
        raise NotImplementedError

    async def remove(self) -> None:  # noqa: B027 - most logs go with their directory
        """Remove the log after the check; does nothing by default."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature that not every broker has.

    Attributes:
        exists: returns True if a broker with some traits has the feature.
        missing: the traits of a broker without it, and their meaning.
    """

    exists: Callable[[Traits], bool]
    missing: str

    def and_(self, other: Feature) -> Feature:
        """Return the feature of brokers that have both."""
        return Feature(
            lambda traits: self.exists(traits) and other.exists(traits), f"{self.missing}, or {other.missing}"
        )


SHARED: Final = Feature(lambda traits: traits.shared, "shared=False: a log has one broker, and ends with it")
PROCESSES: Final = Feature(
    lambda traits: traits.shared and traits.opener is not None,
    "shared=False, or no opener: a log belongs to one process",
)
UNLIMITED_DATA: Final = Feature(lambda traits: traits.max_data is None, "max_data: large events are refused")
RULES: Final = Feature(lambda traits: traits.rules, "rules=False: all topics share one retention")
NUL: Final = Feature(lambda traits: traits.nul, "nul=False: text with U+0000 is refused")


CheckFunction: TypeAlias = Callable[[Log], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Check:
    """One promise of the contract.

    Attributes:
        function: raises ``AssertionError`` or ``TimeoutError`` if the broker of a log breaks the promise.
        feature: the feature that the promise is about; ``None`` for promises of all brokers.
        without: True if the check is for brokers that do not have the feature.
    """

    function: CheckFunction
    feature: Feature | None = None
    without: bool = False

    @property
    def name(self) -> str:
        """The promise, as an identifier."""
        return self.function.__name__

    @property
    def reason(self) -> str:
        """The reason to skip the check."""
        return f"not for traits with {self.feature.missing}" if self.feature is not None else ""

    def applies(self, traits: Traits) -> bool:
        """Return True if brokers with these traits must pass the check."""
        return self.feature is None or self.feature.exists(traits) is not self.without

    async def run(self, log: Log, patience: float = PATIENCE) -> None:
        """Run the check on a log, and remove the log.

        Arguments:
            log: a new log.
            patience: seconds after which the check fails if it waits for something.

        Raises:
            AssertionError: the promise is broken.
            TimeoutError: something promised did not happen in time.
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


def check_if(feature: Feature) -> Callable[[CheckFunction], CheckFunction]:
    """Return a decorator that adds a check for brokers that have a feature."""
    return lambda function: _add(Check(function, feature))


def check_unless(feature: Feature) -> Callable[[CheckFunction], CheckFunction]:
    """Return a decorator that adds a check for brokers that do not have a feature."""
    return lambda function: _add(Check(function, feature, without=True))


def _add(added: Check) -> CheckFunction:
    CHECKS.append(added)
    return added.function
