"""A fake machine with a known load, for the tests of the dashboard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from tickertape.demo.dashboard.samples import Process, Reading
from tickertape.testing import FakeClock

__all__ = ["EPOCH", "PATIENCE", "FakeMachine", "until"]

EPOCH: Final = 1_700_000_000.0
"""The time of the wall clock when the fake clock is at 0."""

PATIENCE: Final = 30.0
"""Seconds to wait for an event that should happen at once: long enough for a busy machine."""


class FakeMachine:
    """A machine with one half busy and one idle core, which receives 2 KiB/s and sends 1 KiB/s.

    Arguments:
        clock: the clock that the counters depend on.

    Attributes:
        readings: the times of the readings.
        error: raised by the next reading.
        wall_offset: seconds by which the wall clock is ahead, because it was set or the machine was suspended.
    """

    def __init__(self, clock: FakeClock, host: str = "machine") -> None:
        self._clock = clock
        self._host = host
        self.readings: list[float] = []
        self.error: Exception | None = None
        self.wall_offset = 0.0

    async def __call__(self) -> Reading:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        now = self._clock.time()
        self.readings.append(now)
        return Reading(
            host=self._host,
            at=EPOCH + now + self.wall_offset,
            monotonic=now,
            cores=[(now / 2, now), (0.0, now)],
            memory=(3 << 30, 4 << 30),
            load=(0.5, 0.25, 0.125),
            network={"eth0": (int(2048 * now), int(1024 * now))},
            disks=None,
            processes=101,
            busiest=[Process("<b>bold</b>", 12.5, 1 << 20)],
        )


async def until(condition: Callable[[], Any]) -> None:
    """Wait until ``condition`` is true. Another thread may change it."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
