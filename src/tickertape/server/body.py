"""The body of a request that publishes: received up to a limit, and parsed into events.

The HTTP status tells the kind of mistake: 400 if the body cannot be parsed, 413 if it is too large, 415 if its type is
not supported, 422 if it can be parsed but an event is invalid. For a batch, the problem contains the ``index`` of the
invalid event, counted from 0.

A body may take a hundred milliseconds to parse. So it is parsed in slices, between which the event loop serves others.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from http import HTTPStatus
from json import JSONDecodeError
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import parse_qsl

from starlette.requests import Request

from .limits import Limits
from .problems import Problem

BODY_FACTOR: Final = 8
"""Size of a body in sizes of an event: JSON escapes one byte with six, and a batch has several events."""

_SLICE: Final = 0.005
"""Seconds of parsing after which others are served: too short to notice, and long enough to cost no throughput."""

_WINDOWS: Final = (4 * 1024, 64 * 1024, 512 * 1024)
"""Characters of an array in which its next item is looked for."""

_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
"""A string of JSON. One without an end matches up to the end of the text, so that each character is looked at once."""

_FIELDS: Final = ("topic", "data", "event", "key")

_JSON: Final = "application/json"
_LINES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_FORM: Final = "application/x-www-form-urlencoded"

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_LINE: Final = re.compile(rb"\S[^\n]*")


class Publication(NamedTuple):
    """The events of a request; only the names and types of their fields are checked.

    Attributes:
        events: keyword arguments of :meth:`Hub.draft`.
        many: True if they came as a list, and so the answer has a list of cursors.
    """

    events: list[dict[str, Any]]
    many: bool


class Values(NamedTuple):
    """The values in a body of JSON.

    Attributes:
        items: the values.
        many: True if they came as a list.
    """

    items: list[Any]
    many: bool


class Turns:
    """Share the event loop during long work: ``await turns.take()`` after each small piece of it.

    Arguments:
        now: a monotonic clock.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._end = now() + _SLICE

    async def take(self) -> None:
        """Yield to other tasks if a few milliseconds have passed."""
        if self._now() >= self._end:
            await asyncio.sleep(0)
            self._end = self._now() + _SLICE


async def receive_body(request: Request, limit: int, account: Callable[[int], None]) -> bytes:
    """Return the body of a request; raise as soon as it is known to be too large.

    Arguments:
        request: the request.
        limit: the most bytes.
        account: called with the number of bytes received so far; raises if they take too much memory.

    The server reads and drops the rest of such a body: if it closed the connection, many clients would see a reset
    instead of the answer.
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send the body without a Content-Encoding, got {encoding!r}")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit, f"{declared} bytes")
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise _too_large(limit, f"{size} bytes or more")
        account(size)
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(limit: int, size: str) -> Problem:
    problem = Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected a body of at most {limit} bytes, got {size}")
    return problem.counted_as("body_size")


def parse_text(body: bytes) -> str:
    """Return a body that is itself the data of an event."""
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Problem(
            HTTPStatus.BAD_REQUEST, f"expected a body in UTF-8, got the byte 0x{body[error.start]:02x} at {error.start}"
        ) from None


async def parse_publication(content_type: str, body: bytes, turns: Turns, limits: Limits) -> Publication:
    """Return the events in a body of this content type."""
    found = await parse_values(content_type, body, turns, limits)
    if found is None:
        media_type = _media_type(content_type)
        if media_type == _FORM:
            return Publication([_checked(_form(body))], many=False)
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"expected a Content-Type of {_JSON}, {_LINES[0]} or {_FORM}, got {media_type or 'none'}",
        )
    if not found.many:
        return Publication([_checked(found.items[0])], many=False)
    events = []
    for index, item in enumerate(found.items):
        events.append(_checked(item, index=index))
        await turns.take()
    return Publication(events, many=True)


async def parse_values(content_type: str, body: bytes, turns: Turns, limits: Limits) -> Values | None:
    """Return the values in a body of JSON or of lines of JSON; ``None`` if it has another content type."""
    media_type = _media_type(content_type)
    if media_type == _JSON:
        return await _parse_json(body, turns, limits)
    if media_type in _LINES:
        return Values(await _parse_lines(body, turns, limits), many=True)
    return None


async def parse_object(
    content_type: str, body: bytes, turns: Turns, limits: Limits, fields: Mapping[str, str]
) -> dict[str, Any]:
    """Return the members of a JSON object; none if the body is empty.

    Arguments:
        fields: the names of the members that are known, each with the type that it must have, in words of JSON.
    """
    if not body:
        return {}
    found = await parse_values(content_type, body, turns, limits)
    if found is None:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected a Content-Type of {_JSON}, or no body")
    return check_object(found.items[0] if found.items and not found.many else found.items, fields)


def check_object(value: Any, fields: Mapping[str, str], **place: int) -> dict[str, Any]:
    """Return a JSON object if its members are known and have the types that they must have; without the nulls."""

    def invalid(sentence: str) -> Problem:
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, sentence, **place)

    if not isinstance(value, dict):
        raise invalid(f"expected a JSON object, got {_excerpt(value)}")
    for name, member in value.items():
        if name not in fields:
            raise invalid(f"expected the fields {', '.join(fields)}, got {name[:40]!r}")
        if member is not None and not _TYPES[fields[name]](member):
            raise invalid(f"expected {name!r} to be a {fields[name]}, got {_excerpt(member)}")
    return {
        name: int(member) if fields[name] == _WHOLE else member for name, member in value.items() if member is not None
    }


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


async def _parse_json(body: bytes, turns: Turns, limits: Limits) -> Values:
    decoder = _decoder(limits.max_digits)
    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        start = _skip_space(text, 0)
        if not text.startswith("[", start):
            _check_parts(text, limits.max_values)
            return Values([decoder.decode(text)], many=False)
        items = []
        for item in _items_of_array(text, start + 1, decoder, limits.max_values):
            items.append(item)
            _check_count(len(items), limits.max_batch)
            await turns.take()
    except (ValueError, RecursionError) as error:
        # Deeply nested data is refused here, because it is encoded as JSON again.
        raise _invalid("the body", error) from None
    return Values(items, many=True)


class _DigitsError(ValueError):
    """An integer has too many digits."""


def _invalid(what: str, error: Exception, **place: int) -> Problem:
    problem = Problem(HTTPStatus.BAD_REQUEST, f"{what} is not valid JSON: {error}", **place)
    return problem.counted_as("digits") if isinstance(error, _DigitsError) else problem


def _check_parts(text: str, most: int | None) -> None:
    """Refuse a value of so many parts that parsing it would hold the event loop: a part takes up to 2 µs.

    The parts are the commas outside of strings.
    """
    if most is not None and text.count(",") > most and _STRING.sub("", text).count(",") > most:
        problem = Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {most} values in an event, got more")
        raise problem.counted_as("values")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


@lru_cache(maxsize=8)
def _decoder(digits: int) -> json.JSONDecoder:
    """Return a decoder for integers of so many digits; `json.loads` would build one for each line."""

    def parse_int(text: str) -> int:
        count = len(text.removeprefix("-"))
        if count > digits:  # the time for a conversion grows with the square
            raise _DigitsError(f"expected an integer of at most {digits} digits, got {count}")
        return int(text)

    return json.JSONDecoder(parse_constant=_refuse_constant, parse_int=parse_int)


def _items_of_array(text: str, at: int, decoder: json.JSONDecoder, most: int | None) -> Iterator[Any]:
    """Yield the items of a JSON array one by one.

    Arguments:
        text: a JSON document.
        at: the index after the opening bracket.
        decoder: decodes an item.
        most: the greatest number of values in an item; ``None`` for no limit.
    """
    at = _skip_space(text, at)
    if not text.startswith("]", at):
        while True:
            item, at = _decode_item(text, at, decoder, most)
            yield item
            at = _skip_space(text, at)
            if text.startswith("]", at):
                break
            if not text.startswith(",", at):
                raise JSONDecodeError("Expecting ',' delimiter", text, at)
            at = _skip_space(text, at + 1)
    end = _skip_space(text, at + 1)
    if end != len(text):
        raise JSONDecodeError("Extra data", text, end)


def _decode_item(text: str, at: int, decoder: json.JSONDecoder, most: int | None) -> tuple[Any, int]:
    """Return the item at ``at``, and the index after it. Look at a few characters first, then at more."""
    for size in _WINDOWS:
        if at + size >= len(text) or not text.startswith(("{", "["), at):
            break
        try:
            item, end = decoder.raw_decode(text[at : at + size])
        except JSONDecodeError:
            continue  # it is longer, or no JSON
        return item, at + end
    else:
        _check_parts(text[at:], most)
    return decoder.raw_decode(text, at)


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


async def _parse_lines(body: bytes, turns: Turns, limits: Limits) -> list[Any]:
    decoder = _decoder(limits.max_digits)
    items: list[Any] = []
    number, counted = 1, 0
    for found in _LINE.finditer(body):
        await turns.take()
        number += body.count(b"\n", counted, found.start())
        counted = found.start()
        try:
            line = found[0].decode()
            _check_parts(line, limits.max_values)
            items.append(decoder.decode(line))
        except (ValueError, RecursionError) as error:
            raise _invalid(f"line {number}", error, index=len(items)) from None
        _check_count(len(items), limits.max_batch)
    return items


def _check_count(count: int, most: int) -> None:
    if count > most:
        problem = Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {most} events in a batch, got more")
        raise problem.counted_as("batch")


def _form(body: bytes) -> dict[str, str]:
    if body.lstrip()[:1] in (b"{", b"["):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"the body looks like JSON, but its Content-Type is {_FORM}: send it with the Content-Type {_JSON}",
        )
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body does not consist of form fields in UTF-8: {error}") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "a form field is repeated")
    # Browsers also send the inputs of a form that are left empty.
    return {name: value for name, value in fields.items() if value or name in ("topic", "data")}


def _checked(item: Any, **place: int) -> dict[str, Any]:
    """Return an event if its fields have the names and types that the hub requires of its callers."""

    def invalid(sentence: str) -> Problem:
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, sentence, **place)

    if not isinstance(item, dict):
        raise invalid(f"expected an event to be a JSON object, got {_excerpt(item)}")
    unknown = [name for name in item if name not in _FIELDS]
    if unknown:
        raise invalid(f"an event has the fields topic, data, event and key, but not {unknown[0][:40]!r}")
    for name in ("topic", "data"):
        if name not in item:
            raise invalid(f"the event has no field {name!r}")
    for name in ("event", "key"):
        value = item.get(name)
        if value is not None and not (isinstance(value, str) and _is_unicode(value)):
            raise invalid(f"expected {name!r} to be a string, got {_excerpt(value)}")
    if not isinstance(item["topic"], str):
        raise invalid(f"expected 'topic' to be a string, got {_excerpt(item['topic'])}")
    return item


def _excerpt(value: Any) -> str:
    return json.dumps(value)[:40]


def _is_unicode(text: str) -> bool:
    """Return True if ``text`` has a UTF-8 form: JSON can contain half of a surrogate pair, ``"\\ud800"``."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_WHOLE: Final = "whole number"
"""In JSON, 2.0 is one too."""

_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "string": lambda value: isinstance(value, str) and _is_unicode(value),
    "number": _is_number,
    _WHOLE: lambda value: _is_number(value) and value == value // 1,
    "boolean": lambda value: isinstance(value, bool),
    "list of strings": lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    "value": lambda value: True,
}
