"""Chat rooms: messages, members and typing notices are topics, and messages survive a restart."""

from .demo import chat_demo

__all__ = ["chat_demo"]
