"""The log on a Redis server."""

from .broker import RedisBroker

__all__ = ["RedisBroker"]
