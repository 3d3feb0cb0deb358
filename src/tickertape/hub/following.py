"""Following the log, whatever happens to it."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ..broker import Broker, LogState, Retention
from ..errors import BrokerError, LogResetError, LogTrimmedError
from .clock import Clock
from .delivery import Delivery
from .window import Window

__all__ = ["Follower"]

logger = logging.getLogger("tickertape.hub")

_PREFILL: Final = 10_000
"""Records read into the window when a hub opens: what clients of the last minutes may ask for."""

_PAGE: Final = 1_000
"""Records read at a time."""

_PAUSE: Final = 1.0
"""Seconds until a tail that failed is begun again."""


class Follower:
    """Bring what is appended to a log, by anyone, into a hub's delivery.

    Arguments:
        broker: the log, open.
        retention: how much the window holds.
        clock: what ages are measured on.

    Attributes:
        healthy: whether the log is being followed now.
    """

    def __init__(self, broker: Broker, retention: Retention, clock: Clock) -> None:
        self.healthy = False
        self._broker = broker
        self._retention = retention
        self._clock = clock
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
        while True:
            try:
                async for records in self._broker.tail(delivery.window.newest):
                    self.healthy = True
                    delivery.ingest(records)
                return
            except (LogResetError, LogTrimmedError) as error:
                logger.warning("the log went on without this hub: %s", error)
                await self._start_over(delivery)
            except Exception:
                logger.exception("lost the log; trying again")
                self.healthy = False
                await asyncio.sleep(_PAUSE)

    async def _start_over(self, delivery: Delivery) -> None:
        try:
            state = await self._broker.open()
            delivery.rebase(await self._window(state), state.oldest)
        except BrokerError as error:
            logger.error("cannot open the log again: %s", error)
            self.healthy = False
            await asyncio.sleep(_PAUSE)

    async def _window(self, state: LogState) -> Window:
        """Return a window that holds the last records of the log."""
        window = Window(state.epoch, max(state.oldest - 1, state.newest - _PREFILL), self._retention)
        while window.newest < state.newest:
            records = await self._broker.read(window.newest, _PAGE)
            if not records or records[0].offset != window.newest + 1:  # trimmed meanwhile
                return Window(state.epoch, state.newest, self._retention)
            window.append(records, self._clock.time())
        return window
