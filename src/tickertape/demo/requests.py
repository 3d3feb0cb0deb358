"""What the demos read of a request."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..server.body import receive_body

__all__ = ["MAX_BODY", "read_json"]

MAX_BODY: Final = 64 * 1024
"""Bytes of a body: more than any form of the demos can fill."""


async def read_json(request: Request, *, limit: int = MAX_BODY) -> dict[str, Any]:
    """Return the JSON object that a request brings.

    Only ``application/json`` is taken: a page of another origin cannot send that without asking first.

    Arguments:
        request: the request.
        limit: bytes of its body at most.

    Raises:
        HTTPException: it brings something else; the status and the sentence say what.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        sentence = f"expected a Content-Type of application/json, got {media_type or 'none'}"
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, sentence)
    body = await receive_body(request, limit)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"expected a body in JSON, got: {error}") from None
    if not isinstance(value, dict):
        sentence = f"expected a JSON object, got {body[:40].decode(errors='replace')}"
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)
    return value
