"""``Refusal``: why a request is answered with a problem, in the words of that answer."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ..asgi import problem_body, problem_headers, status_of

__all__ = ["Refusal", "problem_response"]


class Refusal(Exception):
    """Answer a request with a problem (RFC 9457).

    Attributes:
        status: the HTTP status.
        detail: a sentence that says what was expected and what came.
        extensions: further members of the problem.
    """

    def __init__(self, status: int, detail: str, **extensions: Any) -> None:
        super().__init__(status, detail, extensions)
        self.status = status
        self.detail = detail
        self.extensions = extensions

    @classmethod
    def of(cls, error: Exception, **extensions: Any) -> Refusal:
        """Return the refusal that an error of the hub comes to."""
        return cls(status_of(error), str(error), **extensions)


def problem_response(
    status: int, detail: str, headers: list[tuple[bytes, bytes]] | None = None, **extensions: Any
) -> Response:
    """Return a problem as a response."""
    body = problem_body(status, detail, **extensions)
    response = Response(body, status)
    response.raw_headers = problem_headers(status, body) + (headers or [])
    return response
