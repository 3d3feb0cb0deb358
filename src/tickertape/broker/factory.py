"""``create_broker``, which finds the broker for a URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from ..errors import BrokerError
from .memory import MemoryBroker
from .protocol import Broker
from .retention import DEFAULT_RETENTION, Retention
from .sqlite import SQLiteBroker
from .urls import read_options

_PATHS: Final = ("sqlite", "redis+unix")
"""Schemes of files, whose names may contain any character."""


@contextmanager
def extra_needed(driver: str, extra: str) -> Iterator[None]:
    """Name the extra to install if a driver that is imported here is missing.

    Raises:
        BrokerError: the driver is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != driver:
            raise
        raise BrokerError(f"the package {driver!r} is not installed: pip install 'tickertape[{extra}]'") from None


def _memory(url: str, retention: Retention) -> Broker:
    read_options(url, {})
    if url.partition("://")[2].partition("?")[0].strip("/"):
        raise BrokerError("memory:// is in this process: the URL has no user, no host and no path")
    return MemoryBroker(retention=retention)


def _postgres(url: str, retention: Retention) -> Broker:
    with extra_needed("psycopg", "postgres"), extra_needed("psycopg_pool", "postgres"):
        from .postgres import PostgresBroker
    return PostgresBroker(url, retention=retention)


def _redis(url: str, retention: Retention) -> Broker:
    with extra_needed("redis", "redis"):
        from .redis import RedisBroker
    return RedisBroker(url, retention=retention)


def _sqlite(url: str, retention: Retention) -> Broker:
    return SQLiteBroker.from_url(url, retention)


def _nats(url: str, retention: Retention) -> Broker:
    with extra_needed("nats", "nats"):
        from .nats import NatsBroker
    return NatsBroker(url, retention=retention)


_FACTORIES: Final[dict[str, Callable[[str, Retention], Broker]]] = {
    "memory": _memory,
    "postgres": _postgres,
    "postgresql": _postgres,
    "redis": _redis,
    "rediss": _redis,
    "redis+unix": _redis,
    "redis+sentinel": _redis,
    "rediss+sentinel": _redis,
    "redis+cluster": _redis,
    "rediss+cluster": _redis,
    "sqlite": _sqlite,
    "nats": _nats,
    "nats+tls": _nats,
    "valkey": _redis,
    "valkeys": _redis,
}
"""By scheme. A factory imports its driver when it is called, so that you need only its own extra."""


def create_broker(url: str, *, retention: Retention = DEFAULT_RETENTION) -> Broker:
    """Return the broker for a URL. It connects when it is opened.

    Arguments:
        url: ``memory://``, ``sqlite:///path.db``, ``redis://host``, ``postgresql://host/database``,
            ``nats://host``; see each broker's class for its options.
        retention: the limits of what the log keeps.

    Raises:
        BrokerError: no broker has the scheme, the URL is wrong, or a driver is not installed.
    """
    parts = urlsplit(url)
    scheme = parts.scheme
    if "@" in parts.path + parts.fragment and "@" not in parts.netloc and scheme not in _PATHS:
        raise BrokerError(
            "the user and the password of a broker's URL must be percent-encoded: one contains '/' or '#'"
        )
    factory = _FACTORIES.get(scheme)
    if factory is None:
        # Not the URL itself: it may contain a password, and this sentence is logged.
        known = ", ".join(f"{name}://" for name in _FACTORIES)
        raise BrokerError(
            f"expected a broker URL that starts with one of {known}, got one with {scheme or 'no'} scheme"
        )
    return factory(url, retention)
