"""Server-Sent Events for Python, complete."""

from .errors import EventTooLargeError, InvalidEventError, TickertapeError
from .wire import Decoder, ServerSentEvent

__version__ = "0.1.0.dev0"

__all__ = ["Decoder", "EventTooLargeError", "InvalidEventError", "ServerSentEvent", "TickertapeError"]
