"""What the state machine asks a shell to do, and what it tells the user: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from ..wire import ServerSentEvent
from .inbox import Gap

__all__ = [
    "Action",
    "Closed",
    "Connect",
    "Emit",
    "Follow",
    "Notice",
    "Notify",
    "Opened",
    "Read",
    "Reconnecting",
    "Save",
    "Sleep",
    "State",
    "Statistics",
    "Stop",
]


class State(StrEnum):
    """Where a source stands; the names are those of the browser's ``readyState``."""

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSED = "closed"


class Opened(NamedTuple):
    """A stream has begun."""

    url: str
    """Where it comes from, after redirects, without credentials and query."""
    headers: Mapping[str, str]
    """Of the response, names in lower case."""
    attempt: int
    """Which attempt it was since the source was made, from 1."""


class Reconnecting(NamedTuple):
    """A connection, or an attempt to make one, is over, and another will be made."""

    reason: str
    """Why, in words."""
    delay: float
    """Seconds until the next attempt."""
    failures: int
    """How many attempts in a row have brought no event."""
    error: Exception | None
    """What went wrong; ``None`` when the server ended the stream in good order."""


class Closed(NamedTuple):
    """A source is closed, and stays so."""

    error: Exception | None
    """What the iteration raises; ``None`` when it just ends (status 204, or ``close()``)."""


class Statistics(NamedTuple):
    """What a source has done since it was made."""

    attempts: int
    """Requests for the stream; the hops of redirects are not counted."""
    connections: int
    """Attempts that gave a stream."""
    reconnects: int
    """Waits for another attempt."""
    events: int
    """Events given to the user."""
    duplicates: int
    """Events dropped because they had been delivered before."""
    gaps: int
    """Notices that events are missing."""
    heartbeats: int
    """Comments."""


Notice: TypeAlias = Opened | Gap | Reconnecting | Closed


class Connect(NamedTuple):
    """Send the request; answer with ``responded`` or ``failed``."""

    headers: tuple[tuple[str, bytes], ...]
    seconds: float | None
    """After which to call it ``silent``."""


class Follow(NamedTuple):
    """Send the request to where the response redirects it; answer as for :class:`Connect`."""

    seconds: float | None


class Read(NamedTuple):
    """Wait for bytes; answer with ``received``, ``ended``, ``silent`` or ``failed``."""

    seconds: float | None


class Sleep(NamedTuple):
    """Let this time pass, without a connection, and ask again."""

    seconds: float


class Emit(NamedTuple):
    """Give the event to the user."""

    event: ServerSentEvent


class Save(NamedTuple):
    """Store the place; what came before it is done with."""

    id: str


class Notify(NamedTuple):
    """Log what has happened and call the user's hook."""

    notice: Notice


class Stop(NamedTuple):
    """Let go of everything; raise the error, if there is one."""

    error: Exception | None


Action: TypeAlias = Connect | Follow | Read | Sleep | Emit | Save | Notify | Stop
