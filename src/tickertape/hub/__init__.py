"""Topics over one shared log: publish, subscribe, resume without silent loss."""

from .audience import Form
from .change import MAX_PAST
from .direct import DirectOutput
from .feeds import Batch, Feed, FeedState, FeedStatistics, Field, field_reader
from .grants import EVERYTHING, Access, Grant, ImmediateAccess
from .hub import DEFAULT_DRAIN_WINDOW, DEFAULT_MAX_EVENT_SIZE, DEFAULT_RETRY, REVOCATIONS, Hub
from .log import MAX_LAST, Last
from .presence import Presence
from .pull import HubEvent, PullOutput
from .response import HubResponse, Shaping
from .statistics import Distribution, HubStatistics
from .subscription import Overflow, OverflowPolicy, SubscriberInfo, Subscription
from .tracing import Tracing

__all__ = [
    "DEFAULT_DRAIN_WINDOW",
    "DEFAULT_MAX_EVENT_SIZE",
    "DEFAULT_RETRY",
    "EVERYTHING",
    "MAX_LAST",
    "MAX_PAST",
    "REVOCATIONS",
    "Access",
    "Batch",
    "DirectOutput",
    "Distribution",
    "Feed",
    "FeedState",
    "FeedStatistics",
    "Field",
    "Form",
    "Grant",
    "Hub",
    "HubEvent",
    "HubResponse",
    "HubStatistics",
    "ImmediateAccess",
    "Last",
    "Overflow",
    "OverflowPolicy",
    "Presence",
    "PullOutput",
    "Shaping",
    "SubscriberInfo",
    "Subscription",
    "Tracing",
    "field_reader",
]
