"""What the query of a request asks for."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from starlette.requests import Request

from ..hub import MAX_LAST, OverflowPolicy
from ..wire import Cursor
from .refusal import Refusal

__all__ = ["DEFAULT_LIMIT", "MAX_LIMIT", "after_of", "last_of", "limit_of", "policy_of", "topics_of"]

DEFAULT_LIMIT: Final = 100
"""Events of one answer of the history: what somebody reads."""

MAX_LIMIT: Final = 1_000
"""Events of one answer of the history: with events of the usual size some hundred KiB; more comes by ``after``."""


def topics_of(request: Request) -> list[str]:
    """Return the topic patterns."""
    return request.query_params.getlist("topic")


def last_of(request: Request) -> int | None:
    """Return with how many past events to start."""
    return _integer(request, "last", 0, MAX_LAST)


def limit_of(request: Request) -> int:
    """Return how many events to answer with at most."""
    limit = _integer(request, "limit", 1, MAX_LIMIT)
    return DEFAULT_LIMIT if limit is None else limit


def policy_of(request: Request) -> str:
    """Return what to do with a subscriber that reads too slowly."""
    policy = request.query_params.get("on_overflow", OverflowPolicy.DISCONNECT)
    if policy not in list(OverflowPolicy):
        known = ", ".join(OverflowPolicy)
        raise Refusal(HTTPStatus.BAD_REQUEST, f"expected on_overflow to be one of {known}, got {policy[:40]!r}")
    return policy


def after_of(request: Request) -> str | None:
    """Return the cursor to start behind."""
    after = request.query_params.get("after")
    if after is not None and Cursor.parse(after) is None:
        raise Refusal(
            HTTPStatus.BAD_REQUEST, f"expected after to be a cursor, as '0a1b2c3d4e5f-42', got {after[:80]!r}"
        )
    return after


def _integer(request: Request, name: str, least: int, most: int) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and least <= int(text) <= most:
        return int(text)
    raise Refusal(HTTPStatus.BAD_REQUEST, f"expected {name} to be an integer from {least} to {most}, got {text[:40]!r}")
