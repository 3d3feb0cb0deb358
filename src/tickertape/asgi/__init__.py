"""Event streams as ASGI applications: no framework, every framework, every server."""

from .headers import Headers
from .request import get_last_event_id
from .response import EventSourceResponse
from .shutdown import close_streams

__all__ = ["EventSourceResponse", "Headers", "close_streams", "get_last_event_id"]
