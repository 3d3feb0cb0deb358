"""``RateLimiter``: token buckets."""

from __future__ import annotations

import pytest

from tickertape.demo.chat.demo import RateLimiter
from tickertape.testing import FakeClock

STEPS: list[tuple[str, list[tuple[float, str, float]]]] = [
    (
        "a burst, then one by one",
        [(0, "a", 0), (0, "a", 0), (0, "a", 0), (0, "a", 2), (1, "a", 1), (1, "a", 0), (0, "a", 2)],
    ),
    ("one bucket for each user", [(0, "a", 0), (0, "a", 0), (0, "a", 0), (0, "b", 0), (0, "a", 2), (0, "b", 0)]),
    ("a full bucket does not overflow", [(0, "a", 0), (60, "a", 0), (0, "a", 0), (0, "a", 0), (0, "a", 2)]),
    ("a refused request costs no token", [*[(0.0, "a", 0.0)] * 3, *[(0.0, "a", 2.0)] * 5, (2, "a", 0)]),
]
"""Elapsed seconds, the user that takes a token, and the expected wait: three at once, then one per two seconds."""


@pytest.mark.parametrize("steps", [steps for _, steps in STEPS], ids=[name for name, _ in STEPS])
def test_tokens(steps: list[tuple[float, str, float]]) -> None:
    clock = FakeClock()
    limiter = RateLimiter(3, 0.5, clock.time)
    for seconds, user, wait in steps:
        clock.advance(seconds)
        assert limiter.take(user) == pytest.approx(wait)


def test_fractional_rate() -> None:
    limiter = RateLimiter(7, 0.3, FakeClock(1e9).time)
    assert [limiter.take("a") > 0 for _ in range(8)] == [False] * 7 + [True]


def test_full_buckets_are_removed() -> None:
    clock = FakeClock()
    limiter = RateLimiter(3, 0.5, clock.time)
    for number in range(1000):
        limiter.take(str(number))
    clock.advance(2)
    limiter.take("busy")
    assert repr(limiter) == "<RateLimiter burst=3 rate=0.5 users=1>"
