"""The client: event sources that resume where they stopped, and publishers. Needs ``httpx2``."""

try:
    import httpx2 as _httpx2
except ModuleNotFoundError as error:
    if error.name != "httpx2":
        raise
    raise ImportError("tickertape.client needs httpx2: pip install 'tickertape[client]'") from error

from ..errors import (
    ClientError,
    ContentTypeError,
    EventTooLargeError,
    ForbiddenError,
    GaveUpError,
    InvalidTopicError,
    PublishError,
    RedirectError,
    StatusError,
    SubscriptionBusyError,
    UnauthorizedError,
)
from ..wire import Draft, End, Gap, ReceivedEvent, TopicsChange
from .aio import EventSource
from .policy import Policy
from .publisher import Publisher, PublisherStatistics, SyncPublisher
from .reconnect import Closed, Opened, Reconnecting, State, Statistics
from .stores import AsyncCursorStore, CursorStore, FileCursor
from .sync import SyncEventSource

__all__ = [
    "AsyncCursorStore",
    "ClientError",
    "Closed",
    "ContentTypeError",
    "CursorStore",
    "Draft",
    "End",
    "EventSource",
    "EventTooLargeError",
    "FileCursor",
    "ForbiddenError",
    "Gap",
    "GaveUpError",
    "InvalidTopicError",
    "Opened",
    "Policy",
    "PublishError",
    "Publisher",
    "PublisherStatistics",
    "ReceivedEvent",
    "Reconnecting",
    "RedirectError",
    "State",
    "Statistics",
    "StatusError",
    "SubscriptionBusyError",
    "SyncEventSource",
    "SyncPublisher",
    "TopicsChange",
    "UnauthorizedError",
]

del _httpx2
