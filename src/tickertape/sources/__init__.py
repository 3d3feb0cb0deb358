"""Sources of events: tables that are polled, notifications of PostgreSQL, subjects of NATS.

Each is an async iterable for :meth:`tickertape.Hub.feed`.
"""

from ..hub import Batch
from .nats import NatsMessage, NatsSubject, nats_subject
from .polling import DEFAULT_EVERY, DEFAULT_FALLBACK, Poll, Wake
from .postgres import PostgresNotifications, postgres_listen

__all__ = [
    "DEFAULT_EVERY",
    "DEFAULT_FALLBACK",
    "Batch",
    "NatsMessage",
    "NatsSubject",
    "Poll",
    "PostgresNotifications",
    "Wake",
    "nats_subject",
    "postgres_listen",
]
