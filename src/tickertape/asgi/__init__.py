"""Event streams as ASGI applications: no framework, every framework, every server."""

from .base import StreamResponse
from .headers import Headers
from .problem import problem_body, problem_headers, send_problem, status_of
from .request import HasScope, get_last_event_id
from .response import EventSourceResponse
from .shutdown import OpenStream, close_streams, open_streams
from .stream import DEFAULT_HEARTBEAT, DEFAULT_SEND_TIMEOUT, DisconnectReason, Stream
from .takeover import Takeover, TransportOwner, frame
from .types import ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "DEFAULT_HEARTBEAT",
    "DEFAULT_SEND_TIMEOUT",
    "ASGIApp",
    "DisconnectReason",
    "EventSourceResponse",
    "HasScope",
    "Headers",
    "Message",
    "OpenStream",
    "Receive",
    "Scope",
    "Send",
    "Stream",
    "StreamResponse",
    "Takeover",
    "TransportOwner",
    "close_streams",
    "frame",
    "get_last_event_id",
    "open_streams",
    "problem_body",
    "problem_headers",
    "send_problem",
    "status_of",
]
