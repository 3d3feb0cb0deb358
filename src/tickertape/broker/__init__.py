"""Logs: where published events are kept, in one total order, for every hub that shares them."""

from .factory import create_broker, extra_needed
from .memory import MemoryBroker
from .protocol import Broker, DiscardingBroker, TopicFilter
from .records import OTHERS, LogState, Marks, Page, Record, new_epoch, relevant_marks
from .remote import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT
from .retention import DEFAULT_RETENTION, MAX_RULES, Lanes, Retention
from .sqlite import SQLiteBroker
from .transactional import SQLConnection, TransactionalBroker
from .urls import NatsURL, read_nats_url, without_secrets

__all__ = [
    "DEFAULT_CONNECT_TIMEOUT",
    "DEFAULT_RETENTION",
    "DEFAULT_TIMEOUT",
    "MAX_RULES",
    "OTHERS",
    "Broker",
    "DiscardingBroker",
    "Lanes",
    "LogState",
    "Marks",
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
    "relevant_marks",
    "without_secrets",
]
