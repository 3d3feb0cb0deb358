"""Chat rooms: messages are in a log that survives a restart; presence and typing notices are in memory only."""

from .demo import chat_demo

__all__ = ["chat_demo"]
