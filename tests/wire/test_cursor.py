"""``Cursor``: its range and its text."""

from __future__ import annotations

from typing import Any

import pytest

from tickertape.errors import InvalidCursorError
from tickertape.wire import MAX_OFFSET, Cursor


@pytest.mark.parametrize(("epoch", "offset"), [("e", 0), ("0123456789ab", 42), ("A_z", MAX_OFFSET), ("e" * 64, 1)])
def test_text(epoch: str, offset: int) -> None:
    cursor = Cursor(epoch, offset)
    assert str(cursor) == f"{epoch}-{offset}"
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "e", "e-", "-1", "e-01", "e-x", "e--1", "e-1 ", "e-1\n", "é-1", "e-١", "a-b-1", "e-1.0"),
        *(f"e-{MAX_OFFSET + 1}", "e-99999999999999999999", "e" * 65 + "-1"),
    ],
)
def test_other_text(text: str) -> None:
    assert Cursor.parse(text) is None


@pytest.mark.parametrize(
    ("epoch", "offset", "sentence"),
    [
        ("", 1, "expected an epoch of 1 to 64 letters, digits or '_', got ''"),
        ("a-b", 1, "expected an epoch"),
        ("a b", 1, "expected an epoch"),
        ("e" * 65, 1, "expected an epoch"),
        ("e", -1, "expected an offset from 0 to 9223372036854775807, got -1"),
        ("e", MAX_OFFSET + 1, "expected an offset"),
        ("e", 1.0, "expected an offset"),
        ("e", True, "expected an offset"),
        ("e", "1", "expected an offset"),
    ],
)
def test_out_of_range(epoch: Any, offset: Any, sentence: str) -> None:
    with pytest.raises(InvalidCursorError, match=sentence):
        Cursor(epoch, offset)
