"""What a request to publish brings: its body, received up to a limit, and the events that it stands for.

A mistake is told by the HTTP status: 400 for what cannot be read, 413 for too much, 415 for a type
that is not taken, 422 for what can be read and is no event. In a batch the problem names the
``index`` of the event that is wrong, counted from 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import parse_qsl

from starlette.requests import Request

from .refusal import Refusal

__all__ = ["BODY_FACTOR", "MAX_BATCH", "Publication", "parse_publication", "parse_text", "receive_body"]

BODY_FACTOR: Final = 8
"""Times that a body may be as large as an event: JSON escapes a byte with six, and a batch has several events."""

MAX_BATCH: Final = 10_000
"""Events of a batch: they are checked and appended in one go, and every subscriber waits that long."""

_FIELDS: Final = ("topic", "data", "event", "key")

_JSON: Final = "application/json"
_LINES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_FORM: Final = "application/x-www-form-urlencoded"


class Publication(NamedTuple):
    """The events of a request, their fields still unchecked but for names and types.

    Attributes:
        events: keyword arguments of :meth:`Hub.draft`.
        many: whether they came as a list, and their cursors are to be told as one.
    """

    events: list[dict[str, Any]]
    many: bool


async def receive_body(request: Request, limit: int) -> bytes:
    """Return the body of a request; one that is too large is refused as soon as that is known.

    The server takes what still comes of such a body and forgets it: a connection closed in the
    middle would be reset before many clients had read why.
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected a body without a Content-Encoding, got {encoding!r}"
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit, f"{declared} bytes")
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise _too_large(limit, f"{size} bytes or more")
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(limit: int, size: str) -> Refusal:
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected a body of at most {limit} bytes, got {size}")


def parse_text(body: bytes) -> str:
    """Return a body that is itself the data of an event."""
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Refusal(
            HTTPStatus.BAD_REQUEST, f"expected a body in UTF-8, got the byte 0x{body[error.start]:02x} at {error.start}"
        ) from None


def parse_publication(content_type: str, body: bytes) -> Publication:
    """Return the events that a body of this type stands for."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == _JSON:
        value = _load(body, "a body in JSON")
        if not isinstance(value, list):
            return Publication([_checked(value)], many=False)
        return _batch((_checked(item, index=index) for index, item in enumerate(value)), len(value))
    if media_type in _LINES:
        lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
        return _batch(_events_of_lines(lines), len(lines))
    if media_type == _FORM:
        return Publication([_checked(_form(body))], many=False)
    raise Refusal(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        f"expected a Content-Type of {_JSON}, {_LINES[0]} or {_FORM}, got {media_type or 'none'}",
    )


def _batch(events: Iterator[dict[str, Any]], count: int) -> Publication:
    if count > MAX_BATCH:
        raise Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {MAX_BATCH} events in a batch, got {count}"
        )
    return Publication(list(events), many=True)


def _events_of_lines(lines: list[tuple[int, bytes]]) -> Iterator[dict[str, Any]]:
    for index, (number, line) in enumerate(lines):
        yield _checked(_load(line, f"JSON in line {number}", index=index), index=index)


def _load(text: bytes, what: str, **place: int) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        # JSON of our own is what `data` becomes again, so one nested beyond measure is refused here.
        raise Refusal(HTTPStatus.BAD_REQUEST, f"expected {what}, got: {error}", **place) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is not JSON")


def _form(body: bytes) -> dict[str, str]:
    if body.lstrip()[:1] in (b"{", b"["):
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"expected form fields, as the Content-Type {_FORM} says, got what looks like JSON: "
            f"send it with the Content-Type {_JSON}",
        )
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"expected form fields in UTF-8, got: {error}") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "expected each form field once, got one of them again")
    # An input of a page that was left empty is sent all the same.
    return {name: value for name, value in fields.items() if value or name in ("topic", "data")}


def _checked(item: Any, **place: int) -> dict[str, Any]:
    """Return an event whose fields have the right names and types, as far as the hub takes them for granted."""

    def wrong(sentence: str) -> Refusal:
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, sentence, **place)

    if not isinstance(item, dict):
        raise wrong(f"expected an event as a JSON object, got {json.dumps(item)[:40]}")
    unknown = [name for name in item if name not in _FIELDS]
    if unknown:
        raise wrong(f"expected the fields topic, data, event and key alone, got the unknown {unknown[0][:40]!r}")
    for name in ("topic", "data"):
        if name not in item:
            raise wrong(f"expected the field {name!r}, got an event without it")
    for name in ("event", "key"):
        value = item.get(name)
        if value is not None and not (isinstance(value, str) and _is_unicode(value)):
            raise wrong(f"expected {name!r} to be a string, got {json.dumps(value)[:40]}")
    if not isinstance(item["topic"], str):
        raise wrong(f"expected 'topic' to be a string, got {json.dumps(item['topic'])[:40]}")
    return item


def _is_unicode(text: str) -> bool:
    """Tell whether ``text`` has a UTF-8 form: JSON may carry half of a surrogate pair, ``"\\ud800"``."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
