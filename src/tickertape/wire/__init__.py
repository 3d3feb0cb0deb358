"""The event stream format: events, their encoding, an incremental decoder, and the notices of our own protocol.

Standard library only, no I/O, no clock.
"""

from .cursor import MAX_OFFSET, Cursor
from .decoder import DEFAULT_MAX_EVENT_SIZE, Decoder
from .draft import MAX_KEY_LENGTH, MAX_SEGMENTS, MAX_TOPIC_LENGTH, Draft, check_segments, check_topic
from .event import ReceivedEvent, ServerSentEvent, encode_fields
from .notices import ERROR_EVENT, GAP_EVENT, HEARTBEAT, RESERVED_PREFIX, STREAM_ERROR, Gap, GapReason

__all__ = [
    "DEFAULT_MAX_EVENT_SIZE",
    "ERROR_EVENT",
    "GAP_EVENT",
    "HEARTBEAT",
    "MAX_KEY_LENGTH",
    "MAX_OFFSET",
    "MAX_SEGMENTS",
    "MAX_TOPIC_LENGTH",
    "RESERVED_PREFIX",
    "STREAM_ERROR",
    "Cursor",
    "Decoder",
    "Draft",
    "Gap",
    "GapReason",
    "ReceivedEvent",
    "ServerSentEvent",
    "check_segments",
    "check_topic",
    "encode_fields",
]
