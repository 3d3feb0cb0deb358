"""The log in a NATS JetStream stream."""

from .broker import NatsBroker
from .connection import Inbox, NatsConnection, Refused

__all__ = ["Inbox", "NatsBroker", "NatsConnection", "Refused"]
