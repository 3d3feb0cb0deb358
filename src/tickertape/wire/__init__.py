"""The event stream format: events, their encoding, and an incremental decoder.

Standard library only, no I/O, no clock.
"""

from .decoder import Decoder
from .event import ServerSentEvent

__all__ = ["Decoder", "ServerSentEvent"]
