"""Topics over one shared log: publish, subscribe, resume without silent loss."""

from .defaults import (
    DEFAULT_DRAIN_WINDOW,
    DEFAULT_MAX_EVENT_SIZE,
    DEFAULT_RETRY,
)
from .direct import DirectSubscriber
from .feeds import Batch, Feed, FeedState, FeedStatistics, Field, field_reader
from .hub import Hub, SubscriptionRequest
from .presence import Presence
from .response import HubResponse
from .starting import MAX_LAST
from .statistics import HubStatistics
from .subscriber import OverflowPolicy, SubscriberInfo
from .subscription import HubEvent, Subscription
from .topics import MAX_TOPICS, check_patterns

__all__ = [
    "DEFAULT_DRAIN_WINDOW",
    "DEFAULT_MAX_EVENT_SIZE",
    "DEFAULT_RETRY",
    "MAX_LAST",
    "MAX_TOPICS",
    "Batch",
    "DirectSubscriber",
    "Feed",
    "FeedState",
    "FeedStatistics",
    "Field",
    "Hub",
    "HubEvent",
    "HubResponse",
    "HubStatistics",
    "OverflowPolicy",
    "Presence",
    "SubscriberInfo",
    "Subscription",
    "SubscriptionRequest",
    "check_patterns",
    "field_reader",
]
