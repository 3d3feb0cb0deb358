"""The event stream format: events, their encoding, an incremental decoder, and the notices of our own protocol.

Standard library only, no I/O, no clock.
"""

from .cursor import MAX_OFFSET, Cursor
from .decoder import DEFAULT_MAX_EVENT_SIZE, Decoder
from .draft import MAX_KEY_LENGTH, MAX_SEGMENTS, MAX_TOPIC_LENGTH, Draft, check_segments, check_topic
from .event import ReceivedEvent, ServerSentEvent, encode_fields
from .notices import (
    END_EVENT,
    ERROR_EVENT,
    EXPIRED,
    EXPIRED_EVENT,
    GAP_EVENT,
    HEARTBEAT,
    OPEN_EVENT,
    RESERVED_PREFIX,
    STREAM_ERROR,
    TOPIC_END_EVENT,
    TOPICS_EVENT,
    End,
    Gap,
    GapReason,
    StreamOpen,
    TopicsChange,
)
from .patterns import (
    INTERNAL,
    MAX_TOPICS,
    Patterns,
    PatternSet,
    check_patterns,
    compile_patterns,
    covers,
    is_internal,
    overlap,
)

__all__ = [
    "DEFAULT_MAX_EVENT_SIZE",
    "END_EVENT",
    "ERROR_EVENT",
    "EXPIRED",
    "EXPIRED_EVENT",
    "GAP_EVENT",
    "HEARTBEAT",
    "INTERNAL",
    "MAX_KEY_LENGTH",
    "MAX_OFFSET",
    "MAX_SEGMENTS",
    "MAX_TOPICS",
    "MAX_TOPIC_LENGTH",
    "OPEN_EVENT",
    "RESERVED_PREFIX",
    "STREAM_ERROR",
    "TOPICS_EVENT",
    "TOPIC_END_EVENT",
    "Cursor",
    "Decoder",
    "Draft",
    "End",
    "Gap",
    "GapReason",
    "PatternSet",
    "Patterns",
    "ReceivedEvent",
    "ServerSentEvent",
    "StreamOpen",
    "TopicsChange",
    "check_patterns",
    "check_segments",
    "check_topic",
    "compile_patterns",
    "covers",
    "encode_fields",
    "is_internal",
    "overlap",
]
