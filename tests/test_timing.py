"""Delays between attempts, and waiting on a clock."""

from __future__ import annotations

import asyncio

import pytest

from tickertape.testing import FakeClock
from tickertape.timing import backoff, sleep


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
