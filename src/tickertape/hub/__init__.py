"""Topics over one shared log: publish, subscribe, resume without silent loss."""

from .clock import Clock, Timer
from .defaults import (
    DEFAULT_DRAIN_WINDOW,
    DEFAULT_HEARTBEAT,
    DEFAULT_MAX_EVENT_SIZE,
    DEFAULT_RETRY,
    DEFAULT_SEND_TIMEOUT,
    HEARTBEAT,
)
from .direct import DirectSubscriber
from .feed import Feed, FeedState, FeedStatistics
from .gap import Gap, OverflowPolicy
from .hub import Hub, SubscriptionRequest
from .items import Batch
from .presence import Presence
from .reason import DisconnectReason
from .statistics import HubStatistics
from .subscriber import SubscriberInfo
from .subscription import HubEvent, Subscription
from .topics import MAX_TOPICS, check_patterns, check_topic

__all__ = [
    "DEFAULT_DRAIN_WINDOW",
    "DEFAULT_HEARTBEAT",
    "DEFAULT_MAX_EVENT_SIZE",
    "DEFAULT_RETRY",
    "DEFAULT_SEND_TIMEOUT",
    "HEARTBEAT",
    "MAX_TOPICS",
    "Batch",
    "Clock",
    "DirectSubscriber",
    "DisconnectReason",
    "Feed",
    "FeedState",
    "FeedStatistics",
    "Gap",
    "Hub",
    "HubEvent",
    "HubStatistics",
    "OverflowPolicy",
    "Presence",
    "SubscriberInfo",
    "Subscription",
    "SubscriptionRequest",
    "Timer",
    "check_patterns",
    "check_topic",
]
