"""What a server says about an error: problem details (RFC 9457), or some words of its body."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from ..errors import PublishError

__all__ = ["DETAIL_SECONDS", "MAX_DETAIL", "publish_error", "said"]

MAX_DETAIL: Final = 16 * 1024
"""Bytes of an error's body that are read: a problem description has some hundred."""

DETAIL_SECONDS: Final = 5.0
"""Seconds that reading them may take: the status is known, so it is not worth more."""

_LONGEST_EXCERPT: Final = 300
"""Characters of a body in a message: a sentence or two, and no page of HTML."""

_MEMBERS: Final = frozenset({"type", "title", "status", "detail", "instance"})


def said(body: bytes, content_type: str) -> str:
    """Return in words what the body of an error response says."""
    problem = _problem(body, content_type)
    if problem:
        return ": ".join(part for part in (_text(problem, "title"), _text(problem, "detail")) if part)
    # Markup is written for browsers; the status says as much.
    return "" if "html" in content_type.lower() else _excerpt(body)


def publish_error(status: int, body: bytes, content_type: str) -> PublishError:
    """Return the error that a hub's answer to a publication describes."""
    problem = _problem(body, content_type)
    if not problem:
        return PublishError(status, "", said(body, content_type))
    extensions = {name: value for name, value in problem.items() if name not in _MEMBERS}
    return PublishError(
        status,
        _text(problem, "title"),
        _text(problem, "detail"),
        _text(problem, "type") or "about:blank",
        _text(problem, "instance"),
        extensions,
    )


def _problem(body: bytes, content_type: str) -> Mapping[str, Any]:
    if content_type.partition(";")[0].strip().lower() != "application/problem+json":
        return {}
    try:
        problem = json.loads(body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _text(problem: Mapping[str, Any], name: str) -> str:
    # "If a member's value type does not match the specified type, the member MUST be ignored."
    value = problem.get(name)
    return value if isinstance(value, str) else ""


def _excerpt(body: bytes) -> str:
    text = " ".join(body.decode("utf-8", "replace").split())
    return text if len(text) <= _LONGEST_EXCERPT else f"{text[:_LONGEST_EXCERPT]}…"
