"""``Allowance``: how often somebody may do something."""

from __future__ import annotations

import pytest

from tickertape.demo.chat.allowance import Allowance
from tickertape.testing import FakeClock

STEPS: list[tuple[str, list[tuple[float, str, float]]]] = [
    (
        "a burst, then one by one",
        [(0, "a", 0), (0, "a", 0), (0, "a", 0), (0, "a", 2), (1, "a", 1), (1, "a", 0), (0, "a", 2)],
    ),
    ("each has a bucket", [(0, "a", 0), (0, "a", 0), (0, "a", 0), (0, "b", 0), (0, "a", 2), (0, "b", 0)]),
    ("a bucket fills, and does not overflow", [(0, "a", 0), (60, "a", 0), (0, "a", 0), (0, "a", 0), (0, "a", 2)]),
    ("who is refused loses nothing", [*[(0.0, "a", 0.0)] * 3, *[(0.0, "a", 2.0)] * 5, (2, "a", 0)]),
]
"""Seconds that pass, who takes a token, and the seconds to wait: three in a row, and one in two seconds."""


@pytest.mark.parametrize("steps", [steps for _, steps in STEPS], ids=[name for name, _ in STEPS])
def test_tokens(steps: list[tuple[float, str, float]]) -> None:
    clock = FakeClock()
    allowance = Allowance(3, 0.5, clock.time)
    for seconds, user, wait in steps:
        clock.advance(seconds)
        assert allowance.take(user) == pytest.approx(wait)


def test_a_rate_with_fractions_gives_the_whole_burst() -> None:
    allowance = Allowance(7, 0.3, FakeClock(1e9).time)
    assert [allowance.take("a") > 0 for _ in range(8)] == [False] * 7 + [True]


def test_who_has_all_tokens_again_is_forgotten() -> None:
    clock = FakeClock()
    allowance = Allowance(3, 0.5, clock.time)
    for number in range(1000):
        allowance.take(str(number))
    clock.advance(2)
    allowance.take("busy")
    assert repr(allowance) == "<Allowance burst=3 rate=0.5 users=1>"
