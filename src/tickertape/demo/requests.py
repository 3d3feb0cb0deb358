"""Read the JSON body of a request."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

MAX_BODY: Final = 64 * 1024
"""Bytes in a body. No form of the demos produces more."""


async def read_json(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body of a request.

    Only ``application/json`` is accepted, because a page of another origin cannot send it without a preflight request.

    Raises:
        HTTPException: the body has another type, is too large, or is not a JSON object.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        sentence = f"expected a Content-Type of application/json, got {media_type or 'none'}"
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, sentence)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {MAX_BODY} bytes")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        sentence = f"expected a JSON object, got {body[:40].decode(errors='replace')}"
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)
    return value
