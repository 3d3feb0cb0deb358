"""``Tracing``: the operations of a hub that a tracing library observes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ..wire import Patterns


class Tracing(Protocol):
    """Observe a hub; see :class:`tickertape.integrations.opentelemetry.HubTracing`."""

    def publishing(self, topics: Sequence[str]) -> AbstractContextManager[Any]:
        """Return a context that is open while events are stored; ``topics`` has one for each event."""

    def opening(self, patterns: Patterns) -> AbstractContextManager[Any]:
        """Return a context that is open until a stream has its start, and never longer."""
