"""Event streams as ASGI applications: no framework, every framework, every server."""

from .body import ResponseBody
from .chunks import begin_stream, encode_stream, pass_on
from .drain import DEFAULT_GRACE, stream_until_drain
from .iteration import close_iterator
from .plain import Headers
from .problems import problem_body, problem_headers, send_problem, status_of
from .request_context import request_id
from .response import STREAM_HEADERS, EventSourceResponse, StreamResponse, get_last_event_id
from .shutdown import OpenStream, close_streams, open_streams
from .sockets import reset_on_close, with_connection
from .stream import DEFAULT_HEARTBEAT, DEFAULT_SEND_TIMEOUT, DisconnectReason, Stream, wait_for_disconnect
from .takeover import Takeover, TransportOwner, frame
from .tcp_timeout import copy_tcp_timeout, set_tcp_timeout, tcp_timeout_for
from .types import ASGIApp, HasScope, Message, Receive, Scope, Send

__all__ = [
    "DEFAULT_GRACE",
    "DEFAULT_HEARTBEAT",
    "DEFAULT_SEND_TIMEOUT",
    "STREAM_HEADERS",
    "ASGIApp",
    "DisconnectReason",
    "EventSourceResponse",
    "HasScope",
    "Headers",
    "Message",
    "OpenStream",
    "Receive",
    "ResponseBody",
    "Scope",
    "Send",
    "Stream",
    "StreamResponse",
    "Takeover",
    "TransportOwner",
    "begin_stream",
    "close_iterator",
    "close_streams",
    "copy_tcp_timeout",
    "encode_stream",
    "frame",
    "get_last_event_id",
    "open_streams",
    "pass_on",
    "problem_body",
    "problem_headers",
    "request_id",
    "reset_on_close",
    "send_problem",
    "set_tcp_timeout",
    "status_of",
    "stream_until_drain",
    "tcp_timeout_for",
    "wait_for_disconnect",
    "with_connection",
]
