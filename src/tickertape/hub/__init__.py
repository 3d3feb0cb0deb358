"""Topics over one shared log: publish, subscribe, resume without silent loss."""

from .clock import Clock, Timer
from .direct import DirectSubscriber
from .gap import Gap, OverflowPolicy
from .hub import Hub, SubscriptionRequest
from .presence import Presence
from .reason import DisconnectReason
from .statistics import HubStatistics
from .subscriber import SubscriberInfo
from .subscription import HubEvent, Subscription
from .topics import check_patterns, check_topic

__all__ = [
    "Clock",
    "DirectSubscriber",
    "DisconnectReason",
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
