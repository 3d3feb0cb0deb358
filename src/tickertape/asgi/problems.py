"""Error responses as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

from ..errors import (
    AccessUnavailableError,
    BrokerError,
    EventTooLargeError,
    ForbiddenError,
    HubClosedError,
    InvalidEventError,
    InvalidTopicError,
    RunActiveError,
    RunEndedError,
    RunOwnerError,
    SubscriptionBusyError,
    SubscriptionNotFoundError,
    UnauthorizedError,
)
from .request_context import request_id
from .types import Send

RETRY_AFTER: Final = 5
"""Seconds after which a client may retry when a hub drains or has lost its log: a restart takes about as long."""


def status_of(error: Exception) -> int:
    """Return the HTTP status for an exception of a hub."""
    if isinstance(error, EventTooLargeError):
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if isinstance(error, InvalidTopicError):
        return HTTPStatus.BAD_REQUEST
    if isinstance(error, InvalidEventError):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    if isinstance(error, UnauthorizedError):
        return HTTPStatus.UNAUTHORIZED
    if isinstance(error, (ForbiddenError, RunOwnerError)):
        return HTTPStatus.FORBIDDEN
    if isinstance(error, (RunActiveError, RunEndedError)):
        return HTTPStatus.CONFLICT
    if isinstance(error, SubscriptionNotFoundError):
        return HTTPStatus.NOT_FOUND
    if isinstance(error, SubscriptionBusyError):
        return HTTPStatus.TOO_MANY_REQUESTS
    if isinstance(error, (HubClosedError, BrokerError, TimeoutError, AccessUnavailableError)):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.INTERNAL_SERVER_ERROR


def problem_body(status: int, detail: str, **extra: Any) -> bytes:
    """Encode a problem as JSON; ``extra`` adds members. If the request has an id, the problem contains it."""
    problem = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **extra}
    if (own := request_id.get()) is not None:
        problem["request"] = own
    return json.dumps(problem).encode()


def problem_headers(status: int, body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of a problem whose body is ``body``."""
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"%d" % RETRY_AFTER))
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110, 15.5.2, and RFC 6750, 3
    return headers


async def send_problem(send: Send, status: int, detail: str) -> None:
    """Answer a request with a problem."""
    body = problem_body(status, detail)
    await send({"type": "http.response.start", "status": status, "headers": problem_headers(status, body)})
    await send({"type": "http.response.body", "body": body, "more_body": False})
