"""Delays between attempts, and waiting on a clock."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from tickertape.testing import FakeClock
from tickertape.timing import backoff, check_limit, check_seconds, sleep


@pytest.mark.parametrize(
    ("failures", "longest"), [(1, 0.1), (2, 0.2), (3, 0.4), (6, 3.2), (7, 5.0), (1000, 5.0), (10**9, 5.0)]
)
def test_backoff(failures: int, longest: float) -> None:
    """The delay doubles up to the cap, and a part of it is random."""
    options = {"first": 0.1, "cap": 5.0}
    assert backoff(failures, lambda: 0.0, **options) == pytest.approx(longest)
    assert backoff(failures, lambda: 1.0, **options) == pytest.approx(longest / 2)
    assert backoff(failures, lambda: 1.0, jitter=0.0, **options) == pytest.approx(longest)
    assert backoff(failures, lambda: 1.0, jitter=1.0, **options) == 0.0


async def test_sleep() -> None:
    clock, event = FakeClock(), asyncio.Event()
    long, short = (asyncio.ensure_future(sleep(clock, 5.0, until)) for until in (None, event))
    await asyncio.sleep(0)
    event.set()
    await asyncio.wait_for(short, 5)
    clock.advance(4.9)
    await asyncio.sleep(0)
    assert not long.done()
    clock.advance(0.1)
    await asyncio.wait_for(long, 5)
    assert "timers=0" in repr(clock)


@pytest.mark.parametrize(
    ("value", "options", "range_"),
    [
        (-0.1, {}, ">= 0"),
        (math.nan, {}, ">= 0"),
        (math.inf, {}, ">= 0"),
        (True, {}, ">= 0"),
        ("1", {}, ">= 0"),
        (None, {}, ">= 0"),
        (0, {"above": 0}, "> 0"),
        (2, {"above": 2}, "> 2"),
        (11, {"most": 10}, ">= 0 and <= 10"),
    ],
)
def test_bad_seconds(value: Any, options: dict[str, float], range_: str) -> None:
    with pytest.raises(ValueError, match=f"^expected pause to be a number of seconds {range_}, got {value!r}$"):
        check_seconds("pause", value, **options)


def test_seconds() -> None:
    assert [check_seconds("pause", value, most=10) for value in (0, 0.5, 10)] == [0.0, 0.5, 10.0]
    assert check_seconds("pause", 1e-9, above=0) == 1e-9


@pytest.mark.parametrize(("value", "limit"), [(None, None), (math.inf, None), (3, 3.0)])
def test_limit(value: Any, limit: float | None) -> None:
    assert check_limit("pause", value) == limit


@pytest.mark.parametrize("value", [0, -1, True, math.nan, "3"])
def test_bad_limit(value: Any) -> None:
    with pytest.raises(ValueError, match="expected pause to be a number of seconds > 0, or None, got "):
        check_limit("pause", value)
