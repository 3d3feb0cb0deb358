"""Headers: any case, any number of the same name, nothing that could end a line."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tickertape.asgi import Headers


def test_names_without_case() -> None:
    headers = Headers({"X-One": "1"})
    headers["x-ONE"] = "2"
    assert headers["X-one"] == "2"
    assert "x-one" in headers
    assert headers.raw == [(b"x-one", b"2")]


@pytest.mark.parametrize(
    ("given", "raw"),
    [
        ({}, []),
        ({"A": "1", "b": "ü"}, [(b"a", b"1"), (b"b", b"\xfc")]),
        ([("set-cookie", "a=1"), ("Set-Cookie", "b=2")], [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]),
    ],
)
def test_raw(given: Mapping[str, str] | list[tuple[str, str]], raw: list[tuple[bytes, bytes]]) -> None:
    assert Headers(given).raw == raw


def test_repeated_name() -> None:
    headers = Headers([("a", "1"), ("b", "2"), ("A", "3")])
    assert list(headers) == ["a", "b"]
    assert len(headers) == 2
    assert headers["a"] == "1"


def test_delete() -> None:
    headers = Headers([("a", "1"), ("b", "2"), ("A", "3")])
    del headers["A"]
    assert headers.raw == [(b"b", b"2")]
    with pytest.raises(KeyError, match="A"):
        del headers["A"]


@pytest.mark.parametrize("key", ["missing", 1, None])
def test_contains(key: object) -> None:
    assert key not in Headers({"a": "1"})


def test_missing_name() -> None:
    with pytest.raises(KeyError):
        Headers()["a"]


@pytest.mark.parametrize(
    ("name", "value"), [("a", "1\r\nb: 2"), ("a", "1\n"), ("a", "\r"), ("a\r\nb", "1"), ("a", "1\0")]
)
def test_line_break(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="expected a header without line breaks"):
        Headers({name: value})
    with pytest.raises(ValueError, match="expected a header without line breaks"):
        Headers()[name] = value


def test_outside_latin_1() -> None:
    with pytest.raises(UnicodeEncodeError):
        Headers({"a": "€"})


def test_repr() -> None:
    assert repr(Headers({"A": "1"})) == "Headers([('a', '1')])"
