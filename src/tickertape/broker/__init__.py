"""Logs: where published events are kept, in one total order, for every hub that shares them."""

from .memory import MemoryBroker
from .protocol import DEFAULT_RETENTION, Broker, Retention, TopicFilter
from .records import LogState, Page, Record, new_epoch
from .sqlite import SQLiteBroker
from .transactional import SQLConnection, TransactionalBroker
from .urls import create_broker

__all__ = [
    "DEFAULT_RETENTION",
    "Broker",
    "LogState",
    "MemoryBroker",
    "Page",
    "Record",
    "Retention",
    "SQLConnection",
    "SQLiteBroker",
    "TopicFilter",
    "TransactionalBroker",
    "create_broker",
    "new_epoch",
]
