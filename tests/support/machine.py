"""A machine that is as busy as a test says, for the dashboard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from tickertape.demo.dashboard import Reading
from tickertape.demo.dashboard.readings import Process
from tickertape.testing import FakeClock

__all__ = ["EPOCH", "PATIENCE", "FakeMachine", "until"]

EPOCH: Final = 1_700_000_000.0
"""What a wall clock shows when a fake clock shows 0."""

PATIENCE: Final = 30.0
"""Seconds to wait for what should come at once: generous, for machines that do other things too."""


class FakeMachine:
    """Two cores, the one half busy and the other idle; 2 KiB/s come in, 1 KiB/s go out.

    Arguments:
        clock: tells how much that makes by now.

    Attributes:
        readings: the moments at which readings were taken.
        broken: raised by the next reading.
        away: seconds by which the wall clock is ahead: it was set, or the machine slept.
    """

    def __init__(self, clock: FakeClock, host: str = "machine") -> None:
        self._clock = clock
        self._host = host
        self.readings: list[float] = []
        self.broken: Exception | None = None
        self.away = 0.0

    async def __call__(self) -> Reading:
        if self.broken is not None:
            broken, self.broken = self.broken, None
            raise broken
        now = self._clock.time()
        self.readings.append(now)
        return Reading(
            host=self._host,
            at=EPOCH + now + self.away,
            moment=now,
            cores=[(now / 2, now), (0.0, now)],
            memory=(3 << 30, 4 << 30),
            load=(0.5, 0.25, 0.125),
            network={"eth0": (int(2048 * now), int(1024 * now))},
            disks=None,
            processes=101,
            busiest=[Process("<b>bold</b>", 12.5, 1 << 20)],
        )


async def until(condition: Callable[[], Any]) -> None:
    """Return when ``condition`` holds, in another thread say."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
