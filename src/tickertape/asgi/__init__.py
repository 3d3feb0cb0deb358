"""Event streams as ASGI applications: no framework, every framework, every server."""

from .headers import Headers
from .hub import DIRECT_EXTENSION, Connection, Hub, HubResponse
from .problem import problem_of, send_problem
from .request import get_last_event_id
from .response import EventSourceResponse
from .shutdown import close_streams

__all__ = [
    "DIRECT_EXTENSION",
    "Connection",
    "EventSourceResponse",
    "Headers",
    "Hub",
    "HubResponse",
    "close_streams",
    "get_last_event_id",
    "problem_of",
    "send_problem",
]
