"""``Feed``: bring the items of a source into the log, whatever becomes of the source and of the log.

The next item is asked for when the one before is stored. So the code behind a ``yield`` of the source
runs when its item is safe: there it acknowledges a message, or remembers how far it has come. Whatever
fails in between happens again, and the keys of the items make them appear once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

from ..errors import TickertapeError
from ..timing import Clock, backoff, sleep
from ..wire import Cursor, Draft
from .items import Batch, Shape

__all__ = ["Feed", "FeedState", "FeedStatistics", "Source"]

logger = logging.getLogger("tickertape.hub")

Source: TypeAlias = AsyncIterable[Any] | Callable[[], AsyncIterable[Any]]
"""What gives a fresh iterator of items each time it is asked for one."""

_FIRST_PAUSE: Final = 0.5
"""Seconds until a source that failed is read again; twice as many after each failure in a row."""

_LONGEST_PAUSE: Final = 30.0
"""Seconds: a source that is away for long is asked no more often, and missed no longer."""

_LONGEST_PAUSE_OF_LOG: Final = 5.0
"""Seconds between attempts to store an item that is in hand: the log serves many, and is back soon."""

_STABLE: Final = 60.0
"""Seconds after which a failure is the first in a row again."""

_MAX_ITEMS: Final = 500
"""Items stored together: what the logs on servers take in one trip."""

_MAX_SIZE: Final = 1024 * 1024
"""Characters stored together, for the same reason; an item that is larger goes alone."""

_PATIENCE: Final = 5.0
"""Seconds in which a source lets go of what it holds; no source keeps a server from exiting."""


class FeedState(StrEnum):
    """What a feed does.

    ``waiting`` for its hub to open · ``running`` · ``retrying``, after a failure of the source or of
    the log · ``ended`` with its source · ``failed``, at an item, as ``on_error="stop"`` asks · ``stopped``.
    """

    WAITING = "waiting"
    RUNNING = "running"
    RETRYING = "retrying"
    ENDED = "ended"
    FAILED = "failed"
    STOPPED = "stopped"


class FeedStatistics(NamedTuple):
    """What a feed does now, and did since it was declared.

    Attributes:
        state: what it does.
        published: items stored, with those that the log had already.
        skipped: items that can never be published, each of them logged.
        failures: of the source and of the log; and the item that ended a feed.
        restarts: how often the source was read anew.
        last_error: the last failure or the reason why an item was skipped, in words; ``None`` before the first.
    """

    state: FeedState
    published: int
    skipped: int
    failures: int
    restarts: int
    last_error: str | None


class _Unfit(Exception):
    """An item that can never be published has come, and is not to be skipped."""


class Feed:
    """Read a source and publish its items; made by :meth:`Hub.feed`.

    Attributes:
        name: in logs and statistics, and before each item's key.
    """

    def __init__(
        self,
        source: Source,
        shape: Shape,
        *,
        skip: bool,
        draft: Callable[..., Draft],
        append: Callable[[list[Draft]], Awaitable[list[Cursor]]],
        random: Callable[[], float],
    ) -> None:
        self.name = shape.name
        self._source = _check_source(source)
        self._shape = shape
        self._skip = skip
        self._draft = draft
        self._append = append
        self._random = random
        self._state = FeedState.WAITING
        self._published = self._skipped = self._failures = self._restarts = 0
        self._last_error: str | None = None
        self._iterator: AsyncIterator[Any] | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Feed {self.name!r} {self._state} published={self._published} failures={self._failures}>"

    def statistics(self) -> FeedStatistics:
        """Return what the feed does now, and did since it was declared."""
        return FeedStatistics(
            self._state, self._published, self._skipped, self._failures, self._restarts, self._last_error
        )

    @property
    def active(self) -> bool:
        """Whether it reads its source, or will."""
        return self._state in (FeedState.WAITING, FeedState.RUNNING, FeedState.RETRYING)

    def start(self, clock: Clock) -> None:
        """Begin to read, unless it was stopped; the hub does it when it is open."""
        if self._task is None and self.active:
            self._task = asyncio.get_running_loop().create_task(self._run(clock), name=f"tickertape feed {self.name}")

    def cancel(self) -> None:
        """Stop soon; from here on nothing is published but what is under way."""
        if self.active:
            self._state = FeedState.STOPPED
            if self._task is not None:  # once: a source that lets go is not to be disturbed
                self._task.cancel()

    async def stop(self) -> None:
        """Read no more, and let the source go; may be called twice. What is under way may be stored or not."""
        self.cancel()
        task = self._task
        if task is None or task.done() or task is asyncio.current_task():
            return
        _, late = await asyncio.wait([task], timeout=_PATIENCE)
        if late:
            logger.error("the feed %r was stopped, and its source goes on after %g s", self.name, _PATIENCE)

    # Reading.

    async def _run(self, clock: Clock) -> None:
        in_a_row = 0
        while self.active:
            began = clock.time()
            self._enter(FeedState.RUNNING)
            try:
                await self._read(clock)
            except _Unfit:
                self._enter(FeedState.FAILED)
                return
            except Exception as error:
                if self._state is FeedState.STOPPED:
                    return
                in_a_row = 1 if clock.time() - began >= _STABLE else in_a_row + 1
                await self._give_time("the source", error, in_a_row, _LONGEST_PAUSE, clock)
                self._restarts += 1
            else:
                self._enter(FeedState.ENDED)
                logger.info("the feed %r has ended with its source", self.name)
                return

    def _enter(self, state: FeedState) -> None:
        if self._state is not FeedState.STOPPED:  # also when its source goes on all the same
            self._state = state

    async def _read(self, clock: Clock) -> None:
        iterator = self._iterate()
        try:
            async for item in iterator:
                await self._take(item, clock)
                if not self.active:
                    break
        finally:
            # What `async for` leaves open on an error would be closed when it is collected, by chance.
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

    def _iterate(self) -> AsyncIterator[Any]:
        source: Any = self._source
        iterable = source if hasattr(source, "__aiter__") else source()
        if not hasattr(iterable, "__aiter__"):
            if asyncio.iscoroutine(iterable):
                iterable.close()
            raise TypeError(f"expected a function that returns an async iterable, got {iterable!r} of it")
        iterator: AsyncIterator[Any] = aiter(iterable)
        if iterator is self._iterator:
            raise TypeError("expected a source that can be iterated anew, got the iterator that has failed before")
        self._iterator = iterator
        return iterator

    async def _give_time(self, what: str, error: Exception, in_a_row: int, longest: float, clock: Clock) -> None:
        """Count and tell a failure, and wait a moment."""
        self._enter(FeedState.RETRYING)
        self._failures += 1
        self._last_error = _words(error)
        pause = backoff(in_a_row, self._random, first=_FIRST_PAUSE, cap=longest)
        trace = in_a_row == 1 and not isinstance(error, TickertapeError | OSError)
        logger.error(
            "%s of the feed %r failed, again in %.1f s: %s", what, self.name, pause, self._last_error, exc_info=trace
        )
        await sleep(clock, pause)

    # Storing.

    async def _take(self, item: Any, clock: Clock) -> None:
        """Store an item, or a batch of them in parts that the log takes."""
        part: list[Draft] = []
        size = 0
        for each in item if isinstance(item, Batch) else (item,):
            draft = self._make(each)
            if draft is None:
                continue
            weight = len(draft.topic) + len(draft.data)
            if part and (len(part) >= _MAX_ITEMS or size + weight > _MAX_SIZE):
                await self._store(part, clock)
                part, size = [], 0
            part.append(draft)
            size += weight
        if part:
            await self._store(part, clock)
        await asyncio.sleep(0)  # a source and a log that never wait would leave no time for anyone else

    def _make(self, item: Any) -> Draft | None:
        """Return what is to be published of an item; ``None`` if that can never be."""
        key = None
        try:
            key = self._shape.find_key(item)
            topic, data, event = self._shape.fields(item)
            return self._draft(topic, data, event=event, key=key)
        except Exception as error:
            self._last_error = _words(error)
            known = f"an item of the feed {self.name!r}, of unknown key," if key is None else f"the item {key!r}"
            trace = not isinstance(error, TickertapeError)
            if self._skip:
                self._skipped += 1
                logger.error("%s was skipped: %s", known, self._last_error, exc_info=trace)
                return None
            self._failures += 1
            logger.error("the feed %r has stopped at %s: %s", self.name, known, self._last_error, exc_info=trace)
            raise _Unfit from error

    async def _store(self, part: list[Draft], clock: Clock) -> None:
        """Append until it is done: the keys make that safe, also if an answer was lost."""
        in_a_row = 0
        while True:
            try:
                await self._append(part)
            except Exception as error:
                if self._state is FeedState.STOPPED:
                    raise
                in_a_row += 1
                await self._give_time("the log", error, in_a_row, _LONGEST_PAUSE_OF_LOG, clock)
            else:
                self._published += len(part)
                self._enter(FeedState.RUNNING)
                return


def _check_source(source: Source) -> Source:
    if hasattr(source, "__anext__"):
        raise TypeError(
            f"expected a source that can be iterated anew, as a generator function without its brackets, got {source!r}"
        )
    if not hasattr(source, "__aiter__") and not callable(source):
        raise TypeError(f"expected an async iterable, or a function that returns one, got {source!r}")
    return source


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
