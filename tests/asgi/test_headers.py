"""Headers: any case, any number of the same name, nothing that could end a line."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tickertape.asgi import Headers


def test_a_name_has_no_case() -> None:
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
def test_raw_is_what_asgi_sends(
    given: Mapping[str, str] | list[tuple[str, str]], raw: list[tuple[bytes, bytes]]
) -> None:
    assert Headers(given).raw == raw


def test_a_repeated_name_counts_once_and_gives_its_first_value() -> None:
    headers = Headers([("a", "1"), ("b", "2"), ("A", "3")])
    assert list(headers) == ["a", "b"]
    assert len(headers) == 2
    assert headers["a"] == "1"


def test_a_deletion_takes_all_of_the_name() -> None:
    headers = Headers([("a", "1"), ("b", "2"), ("A", "3")])
    del headers["A"]
    assert headers.raw == [(b"b", b"2")]
    with pytest.raises(KeyError, match="A"):
        del headers["A"]


@pytest.mark.parametrize("key", ["missing", 1, None])
def test_what_is_not_there(key: object) -> None:
    assert key not in Headers({"a": "1"})


def test_a_missing_name_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Headers()["a"]


@pytest.mark.parametrize(
    ("name", "value"), [("a", "1\r\nb: 2"), ("a", "1\n"), ("a", "\r"), ("a\r\nb", "1"), ("a", "1\0")]
)
def test_a_line_break_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="expected a header without line breaks"):
        Headers({name: value})
    with pytest.raises(ValueError, match="expected a header without line breaks"):
        Headers()[name] = value


def test_a_value_outside_latin_1_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        Headers({"a": "€"})


def test_its_repr_shows_the_pairs() -> None:
    assert repr(Headers({"A": "1"})) == "Headers([('a', '1')])"
