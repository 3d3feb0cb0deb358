"""``Problem``, an error answered with problem details (RFC 9457)."""

from __future__ import annotations

from typing import Any, Self

from starlette.responses import Response

from ..asgi import problem_body, problem_headers, status_of
from ..errors import EventTooLargeError


class Problem(Exception):
    """Answer the request with problem details.

    Attributes:
        status: the HTTP status.
        detail: one sentence for the developer of the client.
        headers: further headers of the answer.
        extensions: further members of the problem.
        limit: the name of the limit that refuses the request, under which it is counted; ``None`` for another reason.
    """

    def __init__(self, status: int, detail: str, **extensions: Any) -> None:
        super().__init__(status, detail, extensions)
        self.headers: list[tuple[bytes, bytes]] = []
        self.status = status
        self.detail = detail
        self.extensions = extensions
        self.limit: str | None = None

    def with_header(self, name: bytes, value: bytes) -> Self:
        """Add a header to the answer; return the problem."""
        self.headers.append((name, value))
        return self

    def counted_as(self, limit: str) -> Self:
        """Set the name of the limit that refuses the request; return the problem."""
        self.limit = limit
        return self

    @classmethod
    def of(cls, error: Exception, **extensions: Any) -> Problem:
        """Return the problem for an error of the hub."""
        problem = cls(status_of(error), str(error), **extensions)
        return problem.counted_as("event_size") if isinstance(error, EventTooLargeError) else problem


def problem_response(
    status: int, detail: str, headers: list[tuple[bytes, bytes]] | None = None, **extensions: Any
) -> Response:
    """Return problem details as a response."""
    body = problem_body(status, detail, **extensions)
    response = Response(body, status)
    response.raw_headers = problem_headers(status, body) + (headers or [])
    return response
