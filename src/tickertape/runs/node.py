"""``Node``: the producers and the readers of runs in this process, while its hub is open."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

from ..errors import BrokerError, HubClosedError, RunActiveError, RunOwnerError, TickertapeError
from ..hub import Hub
from ..timing import Timer, sleep
from ..wire import Draft
from .directory import Directory, Entry
from .producer import MAX_BATCH, MESSAGES, Producer
from .records import ALIVE, BEAT, CONTROL, NODES, READERS, RunInfo, RunState, end_drafts

logger = logging.getLogger("tickertape.runs")

_PARTING: Final = 1.0
"""Seconds for which readers may read the end when the hub closes."""

_BEAT: Final = 2.0
"""Seconds between two signs of life: three may be lost before a process counts as gone."""

_SHORTEST: Final = 0.1
"""Seconds between two of them at least."""

_DISCARDED: Final = 200
"""Topics of runs whose time is over that are removed from the log between two signs of life."""

_CLOSING: Final = 15.0
"""Seconds that producers may take to end when the hub closes: longer than their items may take to close."""

_MAX_ABANDONED: Final = 1_000
"""Starts that have failed and that are remembered, in case that their records are found in the log later."""


class Node:
    """Follow the runs of a log, produce some of them, and count the readers here.

    It publishes signs of life, and ends runs whose producers give none. It belongs to one event loop and to one
    opening of its hub, and closes with it.

    Arguments:
        hub: the hub on whose log the runs are.
        former: the node that this one follows, whose event loop was closed before its hub.
    """

    def __init__(self, hub: Hub, former: Node | None = None) -> None:
        self.id = secrets.token_hex(6)
        self.directory = Directory(hub, self._changed)
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        self._ids = {self.id}
        if former is not None and former._process == self._process:  # after a fork, the other process has it still
            self._ids |= former._ids
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._closed = False
        self._work = asyncio.Event()  # something is to be done before the next beat
        self._producers: dict[str, Producer] = {}
        self._starting: set[str] = set()  # nonces
        self._abandoned: dict[str, None] = {}  # nonces, the oldest first
        self._ended: dict[str, asyncio.Event] = {}
        self._idle: dict[str, Timer] = {}
        self._kept: dict[str, float] = {}  # runs whose producers are outside, and when their signs of life were sent
        self._readers: dict[str, int] = {}
        self._left = asyncio.Event()  # no reader is here
        self._counted: dict[str, RunInfo] = {}  # runs with readers here that need some
        self._announced: dict[str, RunInfo] = {}  # those of them that other processes know of
        self._announcing: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._producers)

    # Life.

    @property
    def usable(self) -> bool:
        """True if it can be used in the running loop. False if it is closed, or its loop is.

        Raises:
            HubClosedError: it is in use in another loop.
        """
        if self._closed:
            return False
        if self._loop is asyncio.get_running_loop():
            return True
        if self._loop.is_closed() or self._process != os.getpid():
            return False
        raise HubClosedError("the runs belong to another event loop, as their hub does")

    async def open(self) -> None:
        """Read the runs of the log, and begin to follow it, if that has not begun.

        Raises:
            HubClosedError: the hub is closed.
            BrokerError: the log cannot be read.
        """
        if self._tasks:
            return
        await self.directory.sync()
        if not self._tasks and not self._closed:
            self._hub.attach(self)
            self._tasks = [
                self._loop.create_task(self._follow(), name="tickertape runs"),
                self._loop.create_task(self._watch(), name="tickertape runs, signs of life"),
            ]

    async def close(self) -> None:
        """End the runs whose producers are here, as ``orphaned``; called when the hub closes."""
        self._closing = True
        producers = [*self._producers.values()]
        for producer in producers:
            producer.stop(RunState.ORPHANED)
        if producers:
            await asyncio.wait([producer.task for producer in producers], timeout=_CLOSING)
        if self._readers:
            with suppress(BrokerError, TimeoutError):
                await self.directory.sync()
                async with asyncio.timeout(_PARTING):
                    await self._left.wait()
        tasks = [*self._tasks, *(producer.task for producer in producers)]
        if self._announcing is not None:
            tasks.append(self._announcing)
        for task in tasks:
            task.cancel()
        for timer in self._idle.values():
            timer.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for event in self._ended.values():
            event.set()
        self._closed = True

    async def _follow(self) -> None:
        while True:
            try:
                await self.directory.follow()
                return
            except HubClosedError:
                return
            except TickertapeError as error:
                logger.warning("the runs of the log cannot be followed: %s", error)
                await sleep(self._hub.clock, _BEAT)

    async def _watch(self) -> None:
        """Publish signs of life for the producers and readers here, and end the runs whose producers are gone."""
        lost = True
        while True:
            self._work.clear()
            stored = [run for run, producer in self._producers.items() if producer.task.done()]
            try:
                if self._producers or self._counted:
                    await self._hub.publish(f"{NODES}/{self.id}", event=BEAT)
                await self.directory.sync()
                if lost:
                    self.directory.alive()
                    lost = False
                for run in stored:
                    self._producers.pop(run, None)  # if its end is not in the log, it is trimmed already
                await self._end_lost_runs()
                for topic, upto in self.directory.take_over(_DISCARDED):
                    await self._hub.discard(topic, str(upto))
            except HubClosedError:
                return
            except BrokerError:
                lost = True
            for run in self._producers:
                if (entry := self.directory.get(run)) is not None:
                    self._check_readers(entry)
            self._announce()
            pause = _BEAT if lost else max(_SHORTEST, min(_BEAT, self.directory.silent_in()))
            await sleep(self._hub.clock, pause, self._work)

    async def _end_lost_runs(self) -> None:
        for entry in self.directory.unended():
            logger.warning("the process that replaced run %s is gone", entry.info.name)
            await self.end(entry.info, RunState.CANCELLED)
        for entry in self.directory.silent():
            if (producer := self._producers.get(entry.info.run)) is not None and not producer.task.done():
                continue  # a busy process is late with its own sign of life, which comes next
            logger.warning("the producer of run %s is gone", entry.info.name)
            await self.end(entry.info, RunState.ORPHANED)
        for entry in self.directory.active():
            if self._is_abandoned(entry):
                logger.warning("the start of run %s was abandoned", entry.info.name)
                await self.end(entry.info, RunState.ORPHANED)

    def _changed(self, entry: Entry) -> None:
        """Act on a run that has begun, was cancelled or has ended, or whose readers changed."""
        run, active = entry.info.run, entry.info.active
        producer = self._producers.get(run)
        if producer is not None:
            if entry.cancelled or not active:
                producer.stop(RunState.CANCELLED if active else entry.info.state)
            self._check_readers(entry)
            if not active and producer.task.done():
                del self._producers[run]
        elif active and self._is_abandoned(entry):
            self._work.set()
        if not active:
            self._kept.pop(run, None)
            if (ended := self._ended.pop(run, None)) is not None:
                ended.set()

    async def wait(self, entry: Entry) -> None:
        """Wait for the end of a run."""
        if entry.info.active:
            await self._ended.setdefault(entry.info.run, asyncio.Event()).wait()

    async def end(self, info: RunInfo, state: RunState, error: str | None = None) -> None:
        """Store the end of a run. The first one counts.

        Raises:
            BrokerError: the log cannot be reached.
        """
        *_, cursor = await self._hub.publish_many(end_drafts(info, state, error or MESSAGES.get(state), time.time()))
        await self.directory.sync(cursor)

    # Producers.

    @contextmanager
    def starting(self) -> Iterator[str]:
        """Yield the nonce of a start. If the block fails, the run that it may have begun is ended."""
        if self._closing:
            raise HubClosedError("hub is closing")
        nonce = secrets.token_hex(8)
        self._starting.add(nonce)
        try:
            yield nonce
        except (RunActiveError, RunOwnerError):
            raise
        except BaseException:
            self._abandoned[nonce] = None
            if len(self._abandoned) > _MAX_ABANDONED:
                del self._abandoned[next(iter(self._abandoned))]
            self._work.set()
            raise
        finally:
            self._starting.discard(nonce)

    def _is_abandoned(self, entry: Entry) -> bool:
        """Return whether a run has no producer, although this process has begun it."""
        here = entry.node in self._ids and entry.info.run not in self._producers
        return entry.nonce in self._abandoned or (here and entry.nonce not in self._starting)

    def produce(self, entry: Entry, items: AsyncIterator[Any], describe: Callable[[Exception], str | None]) -> None:
        """Produce a run here."""
        info = entry.info
        producer = self._producers[info.run] = Producer(self._hub, info, items, describe)
        producer.task.add_done_callback(lambda _: self._produced(producer))
        self._check_readers(entry)
        if self._closing:
            producer.stop(RunState.ORPHANED)
        elif not info.active or entry.cancelled:
            producer.stop(RunState.CANCELLED)

    def _produced(self, producer: Producer) -> None:
        run = producer.info.run
        if not producer.task.cancelled() and (error := producer.task.exception()) is not None:
            logger.error("the end of run %s was not stored: %s", producer.info.name, error)
        elif (entry := self.directory.get(run)) is not None and entry.info.active:
            return  # its end is stored, and will be found in the log in a moment
        self._producers.pop(run, None)

    async def keep(self, info: RunInfo) -> None:
        """Publish a sign of life for a producer outside, at most once in a beat."""
        now = self._hub.clock.time()
        if now - self._kept.get(info.run, now - _BEAT) >= _BEAT:
            self._kept[info.run] = now
            await self._hub.publish(f"{CONTROL}/{info.name}", {"run": info.run}, event=ALIVE)

    def _check_readers(self, entry: Entry) -> None:
        """Start or stop the time after which a run without readers is cancelled."""
        if entry.policy != "cancel":
            return
        run = entry.info.run
        if not entry.info.active or self.directory.readers_of(entry):
            if (timer := self._idle.pop(run, None)) is not None:
                timer.cancel()
        elif run not in self._idle:
            clock = self._hub.clock
            self._idle[run] = clock.call_at(clock.time() + entry.grace, self._leave, run)

    def _leave(self, run: str) -> None:
        self._idle.pop(run, None)
        if (producer := self._producers.get(run)) is not None:
            producer.stop(RunState.CANCELLED)

    # Readers.

    @asynccontextmanager
    async def reading(self, info: RunInfo) -> AsyncIterator[None]:
        """Count a reader from the beginning of the block to its end."""
        await self.open()
        self.join(info)
        try:
            yield
        finally:
            self.leave(info)

    def join(self, info: RunInfo) -> None:
        """Count a reader, and let other processes know of the first one here. The node must be open."""
        run = info.run
        entry = self.directory.get(run)
        self._readers[run] = self._readers.get(run, 0) + 1
        self._left.clear()
        if entry is not None and entry.policy == "cancel" and run not in self._counted:
            self._counted[run] = info
            self._announce()

    def leave(self, info: RunInfo) -> None:
        """Count a reader no longer, and let other processes know if it was the last one here."""
        run = info.run
        self._readers[run] -= 1
        if not self._readers[run]:
            del self._readers[run]
            if self._counted.pop(run, None) is not None:
                self._announce()
        if not self._readers:
            self._left.set()

    def _announce(self) -> None:
        if self._counted.keys() != self._announced.keys() and self._announcing is None and not self._closing:
            self._announcing = self._loop.create_task(self._announce_readers(), name="tickertape runs, readers")

    async def _announce_readers(self) -> None:
        """Publish which runs have readers here, until the log has it as it is."""
        try:
            while changed := self._counted.keys() ^ self._announced.keys():
                known = {**self._announced, **self._counted}
                here = {run: run in self._counted for run in sorted(changed)[:MAX_BATCH]}
                await self._hub.publish_many(
                    Draft(f"{CONTROL}/{known[run].name}", {"run": run, "node": self.id, "here": value}, event=READERS)
                    for run, value in here.items()
                )
                for run, value in here.items():
                    if value:
                        self._announced[run] = known[run]
                    else:
                        del self._announced[run]
        except TickertapeError as error:  # tried again at the next beat
            logger.debug("the readers here were not announced: %s", error)
        finally:
            self._announcing = None
