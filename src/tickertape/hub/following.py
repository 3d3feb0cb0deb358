"""Following the log, whatever happens to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from ..broker import Broker, LogState, Retention
from ..errors import BrokerError, LogResetError, LogTrimmedError
from ..timing import Clock, backoff, sleep
from ..wire import Cursor
from .delivery import Delivery
from .window import Window

__all__ = ["Follower"]

logger = logging.getLogger("tickertape.hub")

_PREFILL: Final = 10_000
"""Records read into the window when a hub opens: what clients of the last minutes may ask for."""

_PAGE: Final = 1_000
"""Records read at a time."""

_PIECE: Final = 100
"""Records delivered before it is asked whether there is room for more: a tail may give a whole log at once."""

_PAUSE: Final = 0.25
"""Seconds until a log that was lost is opened again; twice as many after each failure in a row."""

_LONGEST_PAUSE: Final = 8.0
"""Seconds: for longer than that no log is left alone that may be back."""


class Follower:
    """Bring what is appended to a log, by anyone, into a hub's delivery.

    Arguments:
        broker: the log, open.
        retention: how much the window holds.
        clock: what ages and pauses are measured on.
        random: gives numbers from 0 to 1, for jitter.

    Attributes:
        healthy: whether the log is being followed now.
    """

    def __init__(self, broker: Broker, retention: Retention, clock: Clock, random: Callable[[], float]) -> None:
        self.healthy = False
        self._broker = broker
        self._retention = retention
        self._clock = clock
        self._random = random
        self._task: asyncio.Task[None] | None = None

    async def start(self, state: LogState) -> Delivery:
        """Read the last records of the log, and begin to follow it."""
        delivery = Delivery(self._broker, await self._window(state), self._clock)
        self._task = asyncio.get_running_loop().create_task(self._follow(delivery))
        self.healthy = True
        return delivery

    async def stop(self) -> None:
        """Follow no more."""
        self.healthy = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _follow(self, delivery: Delivery) -> None:
        failures = 0
        replaced = False
        while True:
            try:
                # What happened to the log while nobody looked: a tail can tell only what it sees itself.
                state = await self._broker.state()
                window = delivery.window
                if replaced or state.epoch != window.epoch or state.newest < window.newest:
                    delivery.rebase(await self._window(state), state.oldest)
                    replaced = False
                    continue
                self.healthy = True
                async for records in self._broker.tail(Cursor(delivery.window.epoch, delivery.window.newest)):
                    for start in range(0, len(records), _PIECE):
                        delivery.ingest(records[start : start + _PIECE])
                        await delivery.wait_for_room()
                    failures = 0
                raise BrokerError("expected a tail that goes on, got one that has ended")
            except (LogResetError, LogTrimmedError) as error:
                logger.warning("the log went on without this hub: %s", error)
                replaced = True
            except Exception as error:
                logger.error("lost the log: %s", error, exc_info=not isinstance(error, BrokerError))
                self.healthy = False
                failures += 1
                await sleep(self._clock, backoff(failures, self._random, first=_PAUSE, cap=_LONGEST_PAUSE))

    async def _window(self, state: LogState) -> Window:
        """Return a window that holds the last records of the log."""
        window = Window(state.epoch, max(state.oldest - 1, state.newest - _PREFILL), self._retention)
        while window.newest < state.newest:
            current, records = await self._broker.read(window.newest, _PAGE)
            if current.epoch != state.epoch:
                raise LogResetError(f"the log was reset while it was read: {state.epoch} became {current.epoch}")
            if not records or records[0].offset != window.newest + 1:  # trimmed meanwhile
                return Window(state.epoch, state.newest, self._retention)
            window.append(records, self._clock.time())
        return window
