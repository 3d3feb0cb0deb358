"""The client: event sources that never lose their place, and publishers. Needs ``httpx2``."""

try:
    import httpx2 as _httpx2
except ModuleNotFoundError as error:
    if error.name != "httpx2":
        raise
    raise ImportError("expected httpx2 for tickertape.client, got none: pip install 'tickertape[client]'") from error

from .actions import Closed, Opened, Reconnecting, State, Statistics
from .aio import EventSource
from .cursor import AsyncCursorStore, CursorStore, FileCursor
from .inbox import Gap
from .policy import Policy
from .publisher import Publisher, SyncPublisher
from .publishing import Draft, PublisherStatistics
from .sync import SyncEventSource

__all__ = [
    "AsyncCursorStore",
    "Closed",
    "CursorStore",
    "Draft",
    "EventSource",
    "FileCursor",
    "Gap",
    "Opened",
    "Policy",
    "Publisher",
    "PublisherStatistics",
    "Reconnecting",
    "State",
    "Statistics",
    "SyncEventSource",
    "SyncPublisher",
]

del _httpx2
