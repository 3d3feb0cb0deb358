"""Brokers by URL."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from ..errors import BrokerError
from .memory import MemoryBroker
from .options import extra_needed, read_options
from .protocol import DEFAULT_RETENTION, Broker, Retention
from .sqlite import SQLiteBroker

__all__ = ["create_broker", "without_secrets"]


_SECRETS: Final = re.compile(r"(?<=[?&])(\w*(?:password|passwd|secret|token)\w*=)[^&#]*", re.ASCII | re.IGNORECASE)
"""Options that hold a secret, such as libpq's ``password``."""

_TOKENS: Final = ("nats", "nats+tls")
"""Schemes in which a user without a password is a secret too."""

_PATHS: Final = ("sqlite", "redis+unix")
"""Schemes of files, whose names may hold any sign."""


def _memory(url: str, retention: Retention) -> Broker:
    read_options(url, {})
    return MemoryBroker(retention=retention)


def _postgres(url: str, retention: Retention) -> Broker:
    with extra_needed("psycopg", "postgres"):
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
"""By scheme; a factory imports its driver when it is called, so that only its own extra is needed."""


def create_broker(url: str, *, retention: Retention = DEFAULT_RETENTION) -> Broker:
    """Return the broker that ``url`` names; it connects when it is opened.

    Arguments:
        url: ``memory://``, ``sqlite:///path.db``, ``redis://host``, ``postgresql://host/database``,
            ``nats://host``; see each broker's class for its parameters.
        retention: how much the log keeps.

    Raises:
        BrokerError: no broker has the URL's scheme, or the URL is wrong.
    """
    parts = urlsplit(url)
    scheme = parts.scheme
    if "@" in parts.path + parts.fragment and "@" not in parts.netloc and scheme not in _PATHS:
        raise BrokerError("expected a URL whose user and password are percent-encoded, got one with '/' or '#' in them")
    factory = _FACTORIES.get(scheme)
    if factory is None:
        # Not the URL itself: it may hold a password, and this sentence goes to logs.
        known = ", ".join(f"{name}://" for name in _FACTORIES)
        raise BrokerError(
            f"expected a broker URL that starts with one of {known}, got one with {scheme or 'no'} scheme"
        )
    return factory(url, retention)


def without_secrets(url: str) -> str:
    """Return a broker's URL as it may be shown: without its password, or the token that stands for one."""
    url = _SECRETS.sub(r"\1***", url)
    scheme, mark, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    if not at or scheme == "sqlite":
        return url
    user, colon, _ = login.partition(":")
    shown = f"{user}:***" if colon else "***" if scheme in _TOKENS else user
    return f"{scheme}{mark}{shown}@{place}"
