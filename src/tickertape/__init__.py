"""Server-Sent Events for Python, complete.

With no extra installed: the codec, the response for any ASGI application, and what goes with it.
"""

from .asgi import DisconnectReason, EventSourceResponse, close_streams, get_last_event_id, stream_until_drain
from .errors import EventTooLargeError, InvalidEventError, StreamEndedError, TickertapeError
from .hub import Hub, HubResponse
from .wire import Decoder, ServerSentEvent

__version__ = "0.1.0"

__all__ = [
    "Decoder",
    "DisconnectReason",
    "EventSourceResponse",
    "EventTooLargeError",
    "Hub",
    "HubResponse",
    "InvalidEventError",
    "ServerSentEvent",
    "StreamEndedError",
    "TickertapeError",
    "close_streams",
    "get_last_event_id",
    "stream_until_drain",
]
