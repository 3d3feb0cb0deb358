"""The id of the last event that a client received."""

from __future__ import annotations

from typing import Any

import pytest
from litestar import Request as LitestarRequest
from starlette.requests import Request as StarletteRequest

from tickertape import get_last_event_id


def scope_of(header: bytes | None, query: bytes, name: bytes = b"last-event-id") -> dict[str, Any]:
    headers = [(b"host", b"x"), *([] if header is None else [(name, header)])]
    return {"type": "http", "method": "GET", "path": "/", "headers": headers, "query_string": query}


CASES = [
    (None, b"", None),
    (b"7", b"", "7"),
    (b"", b"", None),
    (None, b"last_event_id=8", "8"),
    (None, b"lastEventId=9", "9"),
    (None, b"topic=a&lastEventId=9&x=", "9"),
    (None, b"last_event_id=", None),
    (None, b"last_event_id=1&last_event_id=2", "2"),
    (None, b"lastEventId=9&last_event_id=8", "8"),
    (b"7", b"last_event_id=8", "7"),
    (b"", b"last_event_id=8", "8"),
    ("ü-€-😀".encode(), b"", "ü-€-😀"),
    (None, b"last_event_id=%C3%BC%20%E2%82%AC", "ü €"),
    (b"\xff", b"", "\ufffd"),
    (b"epoch-42", b"", "epoch-42"),
]


@pytest.mark.parametrize(("header", "query", "expected"), CASES)
def test_scope(header: bytes | None, query: bytes, expected: str | None) -> None:
    assert get_last_event_id(scope_of(header, query)) == expected


@pytest.mark.parametrize(("header", "query", "expected"), CASES)
@pytest.mark.parametrize("kind", [StarletteRequest, LitestarRequest])
def test_request(kind: Any, header: bytes | None, query: bytes, expected: str | None) -> None:
    assert get_last_event_id(kind(scope_of(header, query))) == expected


def test_header_without_case() -> None:
    assert get_last_event_id(scope_of(b"7", b"", name=b"Last-Event-ID")) == "7"


@pytest.mark.parametrize("missing", ["headers", "query_string"])
def test_optional_keys(missing: str) -> None:
    scope = scope_of(None, b"")
    del scope[missing]
    assert get_last_event_id(scope) is None
