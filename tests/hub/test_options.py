"""Options of a hub and of a retention are checked when they are built."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tickertape.broker import Retention
from tickertape.hub import Hub


@pytest.mark.parametrize(
    ("option", "value", "range_"),
    [
        ("heartbeat", 0, "> 0, or None"),
        ("heartbeat", -1.0, "> 0, or None"),
        ("heartbeat", math.nan, "> 0, or None"),
        ("heartbeat", True, "> 0, or None"),
        ("heartbeat", "15", "> 0, or None"),
        ("send_timeout", 0.0, "> 0, or None"),
        ("send_timeout", [1], "> 0, or None"),
        ("retry", -1, ">= 0 and <= 86400"),
        ("retry", None, ">= 0 and <= 86400"),
        ("retry", 86_401, ">= 0 and <= 86400"),
        ("drain_window", -0.1, ">= 0"),
        ("drain_window", None, ">= 0"),
    ],
)
def test_seconds_out_of_range(option: str, value: Any, range_: str) -> None:
    with pytest.raises(ValueError, match=f"expected {option} to be a number of seconds {range_}, got "):
        Hub(**{option: value})


@pytest.mark.parametrize("option", ["max_event_size", "max_topics"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "1"])
def test_count_out_of_range(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"expected {option} to be an int of at least 1, got "):
        Hub(**{option: value})


@pytest.mark.parametrize(
    "options",
    [
        {"heartbeat": None, "send_timeout": None},
        {"heartbeat": 0.25, "send_timeout": 1, "retry": 0, "drain_window": 0},
        {"retry": 86_400, "max_event_size": 1, "max_topics": 1},
    ],
)
def test_valid_options(options: dict[str, Any]) -> None:
    hub = Hub(**options)
    assert {name: getattr(hub, name) for name in options} == options


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        *(("events", value) for value in (-1, 0, 1.0, True)),
        *(("bytes", value) for value in (0, "1")),
        *(("age", value) for value in (0, -1, math.nan, True, "1")),
    ],
)
def test_retention_out_of_range(limit: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"expected {limit} to be "):
        Retention(**{limit: value})


def test_valid_retention() -> None:
    assert Retention(events=1, bytes=1, age=0.5) == Retention(events=1, bytes=1, age=0.5)
    assert Retention(events=None, bytes=None, age=None).events is None
