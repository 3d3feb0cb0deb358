"""How often somebody may do something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["Allowance"]

_TIDY: Final = 1_000
"""Users after which those are forgotten who have all their tokens again: they are as good as new ones."""


class Allowance:
    """Let each user do something ``burst`` times in a row, and ``rate`` times a second for ever.

    A token bucket for each user, held as one number: the moment at which it is full again.

    Arguments:
        burst: tokens that a bucket holds.
        rate: tokens that come back in a second.
        now: seconds, of a clock that never goes back.
    """

    def __init__(self, burst: int, rate: float, now: Callable[[], float]) -> None:
        self.burst = burst
        self.rate = rate
        self._now = now
        self._full_at: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Allowance burst={self.burst} rate={self.rate:g} users={len(self._full_at)}>"

    def take(self, user: str) -> float:
        """Take a token and return 0; if there is none, return the seconds until there is one."""
        now = self._now()
        full_at = max(self._full_at.get(user, now), now) + 1 / self.rate
        wait = full_at - now - self.burst / self.rate
        if wait > 1e-3:  # what sums of fractions may be off by
            return wait
        if len(self._full_at) >= _TIDY:
            self._full_at = {user: moment for user, moment in self._full_at.items() if moment > now}
        self._full_at[user] = full_at
        return 0.0
