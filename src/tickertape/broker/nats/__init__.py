"""The log in a NATS JetStream stream."""

from .broker import NatsBroker

__all__ = ["NatsBroker"]
