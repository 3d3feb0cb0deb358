"""Logs: where published events are kept, in one total order, for every hub that shares them."""

from .factory import create_broker, extra_needed
from .memory import MemoryBroker
from .protocol import DEFAULT_RETENTION, Broker, Retention, TopicFilter
from .records import LogState, Page, Record, new_epoch
from .remote import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT
from .sqlite import SQLiteBroker
from .transactional import SQLConnection, TransactionalBroker
from .urls import NatsURL, read_nats_url, without_secrets

__all__ = [
    "DEFAULT_CONNECT_TIMEOUT",
    "DEFAULT_RETENTION",
    "DEFAULT_TIMEOUT",
    "Broker",
    "LogState",
    "MemoryBroker",
    "NatsURL",
    "Page",
    "Record",
    "Retention",
    "SQLConnection",
    "SQLiteBroker",
    "TopicFilter",
    "TransactionalBroker",
    "create_broker",
    "extra_needed",
    "new_epoch",
    "read_nats_url",
    "without_secrets",
]
