"""Read the JSON body of a request, and check its fields."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

_KEY: Final = re.compile(r"[0-9A-Za-z-]{1,64}")

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


def check_text(value: Any, what: str, longest: int) -> str:
    """Return a text without the space around it.

    Raises:
        HTTPException: it is not a text of 1 to ``longest`` characters.
    """
    text = value.strip() if isinstance(value, str) else ""
    if not 0 < len(text) <= longest:
        sentence = f"expected a {what} of 1 to {longest:,} characters, got {len(text):,}"
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)
    return text


def check_key(value: Any) -> str:
    """Return the key of a request that may be repeated.

    Raises:
        HTTPException: it is not a valid key.
    """
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        sentence = f"expected a key of 1 to 64 letters, digits and dashes, got {value!r:.60}"
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)
    return value
