"""Data that is not text is sent as JSON, also the types that applications return from their endpoints."""

from __future__ import annotations

import datetime as dt
import json
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from tickertape import ServerSentEvent
from tickertape.wire import Draft


class Colour(Enum):
    RED = "red"


class Kind(StrEnum):
    A = "a"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Point:
    x: int
    when: dt.date


class Price(BaseModel):
    cents: int = Field(alias="priceInCents")


UTC = dt.UTC
CASES: list[tuple[Any, str]] = [
    (dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), '"2026-01-02T03:04:05+00:00"'),
    (dt.date(2026, 1, 2), '"2026-01-02"'),
    (dt.time(3, 4), '"03:04:00"'),
    (dt.timedelta(seconds=1.5), "1.5"),
    (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    (Decimal("1.50"), "1.5"),
    (Decimal(3), "3"),
    (Colour.RED, '"red"'),
    (Level.HIGH, "3"),
    (PurePosixPath("/a/b"), '"/a/b"'),
    ({1}, "[1]"),
    (frozenset({2}), "[2]"),
    (deque([1, 2]), "[1,2]"),
    (b"\xc3\xbc", '"ü"'),
    (Point(1, dt.date(2026, 1, 2)), '{"x":1,"when":"2026-01-02"}'),
    (Price(priceInCents=5), '{"priceInCents":5}'),
]


@pytest.mark.parametrize(("value", "text"), CASES, ids=lambda value: type(value).__name__)
def test_value(value: Any, text: str) -> None:
    """Alone, within a list, within a dict, and in a draft."""
    if not isinstance(value, bytes):  # bytes alone are text
        assert ServerSentEvent(value).data == text
    assert ServerSentEvent([value, 1]).data == f"[{text},1]"
    assert ServerSentEvent({"a": {"b": value}}).data == f'{{"a":{{"b":{text}}}}}'
    assert Draft("t", {"a": value}).data == f'{{"a":{text}}}'


def test_row_of_a_database() -> None:
    row = {
        "id": UUID(int=7),
        "created_at": dt.datetime(2026, 1, 2, tzinfo=UTC),
        "price": Decimal("9.99"),
        "kind": Kind.A,
    }
    assert json.loads(ServerSentEvent(row).data or "") == {
        "id": str(UUID(int=7)),
        "created_at": "2026-01-02T00:00:00+00:00",
        "price": 9.99,
        "kind": "a",
    }


def test_own_default_comes_first() -> None:
    assert ServerSentEvent({"at": Decimal("1.10")}, default=str).data == '{"at":"1.10"}'
    assert Draft("t", [object()], default=lambda _: "x").data == '["x"]'
