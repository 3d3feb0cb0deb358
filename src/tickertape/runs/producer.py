"""``Producer``: one task that takes the items of a run and stores them."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from ..errors import BrokerError, InvalidEventError
from ..hub import Hub
from ..timing import backoff, sleep
from ..wire import Draft, ServerSentEvent
from .records import RESERVED, TEXT, RunInfo, RunState, end_drafts

logger = logging.getLogger("tickertape.runs")

MESSAGES: Final = {
    RunState.ERROR: "The run failed.",
    RunState.CANCELLED: "The run was cancelled.",
    RunState.ORPHANED: "The process that produced the run is gone.",
}
"""The text that readers get. The exception itself is for the log of the server."""

_MAX_WAITING: Final = 1_000
"""Items that wait to be stored. Beyond them the producer waits, so that a slow log slows it down."""

MAX_BATCH: Final = 250
"""Items stored at once: within the limits of every store."""

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
"""Seconds between attempts to store, if the log cannot be reached."""

_CLOSING: Final = 10.0
"""Seconds that the items may take to close when they are cancelled."""


class Producer:
    """Take the items of a run, and store them, and then its end.

    Items that come while others are being stored share the next append, and so do items of one turn of the
    loop: a token costs no commit of its own. If the log cannot be reached, items are kept and stored again under
    the same keys, so each is stored once.

    Arguments:
        hub: the hub on whose log the run is.
        info: the run.
        items: what it produces.
        describe: returns the text that readers get for an exception.
    """

    def __init__(
        self, hub: Hub, info: RunInfo, items: AsyncIterator[Any], describe: Callable[[Exception], str | None]
    ) -> None:
        self.info = info
        self._hub = hub
        self._items = items
        self._describe = describe
        self._waiting: list[Draft] = []
        self._count = 0
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._complete = False
        self._state: RunState | None = None  # the end that was asked for
        loop = asyncio.get_running_loop()
        self._taking = loop.create_task(self._take(), name=f"run {info.name}")
        self.task = loop.create_task(self._run(), name=f"run {info.name}, stored")

    def stop(self, state: RunState) -> None:
        """End the run before its items do. If the log has an end of it already, that one counts."""
        if self._state is None and not self._taking.done():
            self._state = state
            self._taking.cancel()

    async def _run(self) -> None:
        storing = asyncio.get_running_loop().create_task(self._store())
        try:
            state, error = await self._outcome()
        finally:
            self._complete = True
            self._work.set()
        await storing
        await self._append(end_drafts(self.info, state, error, time.time()))

    async def _outcome(self) -> tuple[RunState, str | None]:
        try:
            await asyncio.wait([self._taking])
        except asyncio.CancelledError:
            self._taking.cancel()
            raise
        failure = None if self._taking.cancelled() else self._taking.exception()
        if self._state is not None:
            if failure is not None:
                logger.error("run %s failed while it was being stopped", self.info.name, exc_info=failure)
            return self._state, MESSAGES[self._state]
        if self._taking.cancelled():
            return RunState.ERROR, MESSAGES[RunState.ERROR]
        if failure is None:
            return RunState.DONE, None
        logger.error("run %s failed", self.info.name, exc_info=failure)
        text = self._describe(failure) if isinstance(failure, Exception) else None
        return RunState.ERROR, text or MESSAGES[RunState.ERROR]

    async def _take(self) -> None:
        """Take the items, each with its number; wait while too many are not stored yet."""
        try:
            async for item in self._items:
                draft = item_draft(self._hub, self.info, item, f"{self.info.run}.{self._count}")
                self._count += 1
                if not self._waiting and self._hub.publish_now(draft):
                    continue
                self._waiting.append(draft)
                self._work.set()
                while len(self._waiting) >= _MAX_WAITING:
                    self._room.clear()
                    await self._room.wait()
        finally:
            close = getattr(self._items, "aclose", None)
            if close is not None:
                async with asyncio.timeout(_CLOSING):
                    await close()

    async def _store(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                batch = self._waiting[:MAX_BATCH]
                await self._append(batch)
                del self._waiting[: len(batch)]
                self._room.set()
            if self._complete:
                return

    async def _append(self, drafts: list[Draft]) -> None:
        """Store drafts, and try again until it succeeds: items of a run are lost only with its process."""
        failures = 0
        while True:
            try:
                await self._hub.publish_many(drafts)
            except BrokerError as error:
                failures += 1
                if failures == 1:
                    logger.warning("run %s waits for the log: %s", self.info.name, error)
                pause = backoff(failures, random.random, first=_FIRST_PAUSE, cap=_LONGEST_PAUSE)
                await sleep(self._hub.clock, pause)
            else:
                return


def item_draft(hub: Hub, info: RunInfo, item: Any, key: str | None) -> Draft:
    """Return the record of an item of a run.

    Raises:
        InvalidEventError: it cannot be sent, or its type is reserved.
        EventTooLargeError: it is too large.
    """
    if isinstance(item, str):
        return hub.draft(info.topic, item, event=TEXT, key=key)
    event = ServerSentEvent.of(item)
    if event.event is not None and event.event.startswith(RESERVED):
        raise InvalidEventError(f"event types that start with {RESERVED!r} are reserved, got {event.event!r}")
    return hub.draft(info.topic, event.data or "", event=event.event, key=key)
