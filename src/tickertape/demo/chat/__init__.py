"""Chat rooms: messages from a log that outlives the server, and who is there and types from one that forgets."""

from .demo import chat_demo

__all__ = ["chat_demo"]
