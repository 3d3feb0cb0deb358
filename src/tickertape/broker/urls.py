"""Brokers by URL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from ..errors import BrokerError
from .memory import MemoryBroker
from .protocol import DEFAULT_RETENTION, Broker, Retention

__all__ = ["create_broker"]


def _memory(url: str, retention: Retention) -> Broker:
    return MemoryBroker(retention=retention)


_FACTORIES: Final[dict[str, Callable[[str, Retention], Broker]]] = {"memory": _memory}
"""By scheme; a factory imports its driver when it is called, so that only its own extra is needed."""


def create_broker(url: str, *, retention: Retention = DEFAULT_RETENTION) -> Broker:
    """Return the broker that ``url`` names; it connects when it is opened.

    Arguments:
        url: ``memory://``.
        retention: how much the log keeps.

    Raises:
        BrokerError: no broker has the URL's scheme.
    """
    scheme = urlsplit(url).scheme
    factory = _FACTORIES.get(scheme)
    if factory is None:
        known = ", ".join(f"{name}://" for name in _FACTORIES)
        raise BrokerError(f"expected a broker URL that starts with one of {known}, got {url!r}")
    return factory(url, retention)
