"""What an event stream's request says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

from .types import Scope

__all__ = ["HasScope", "get_last_event_id"]

_QUERY_NAMES: Final = ("last_event_id", "lastEventId")


class HasScope(Protocol):
    """A request of any ASGI framework: Starlette's, FastAPI's, Litestar's, Django's."""

    @property
    def scope(self) -> Mapping[str, Any]:
        """The ASGI connection scope."""


def get_last_event_id(request: HasScope | Scope) -> str | None:
    """Return the id after which the client wants to go on, or ``None`` if it starts anew.

    Arguments:
        request: a request that has a ``scope``, or an ASGI scope itself.

    The header ``Last-Event-ID`` comes first: a browser sends it when it reconnects, to a URL whose
    query is as old as the page. A query parameter ``last_event_id`` or ``lastEventId`` comes next,
    for pages that know where they were. An empty id is none.

    Follows WHATWG HTML, "The `Last-Event-ID` header": the value is UTF-8.
    """
    scope = request if isinstance(request, Mapping) else request.scope
    for name, value in scope.get("headers", ()):
        if name.lower() == b"last-event-id" and value:
            return bytes(value).decode("utf-8", "replace")
    query = parse_qs(scope.get("query_string", b"").decode("utf-8", "replace"))
    return next((query[name][-1] for name in _QUERY_NAMES if name in query), None)
