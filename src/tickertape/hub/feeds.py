"""Feeds: publish the items of a source, across failures of the source and of the log.

The next item is requested after the previous one is stored. So the code after a ``yield`` of the source
runs when its item is safe: acknowledge a message there, or save a position. After a failure, items that
were not acknowledged are read again; their keys make them appear once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from ..errors import EventTooLargeError, InvalidEventError, TickertapeError
from ..timing import Clock, backoff, sleep
from ..wire import MAX_KEY_LENGTH, Cursor, Draft

logger = logging.getLogger("tickertape.hub")

T_co = TypeVar("T_co", covariant=True)

Source: TypeAlias = AsyncIterable[Any] | Callable[[], AsyncIterable[Any]]
"""An async iterable that can be iterated several times, or a function that returns a new one."""

Field: TypeAlias = str | Callable[[Any], Any]
"""A part of an item: the name of a field, a column or a key of a mapping, or a function of the item."""

MAX_NAME_LENGTH: Final = 100
"""Characters of a feed's name: the key of an item has room for as many again."""

_FIRST_PAUSE: Final = 0.5
"""Seconds until a source that failed is read again. The pause doubles with each failure in a row."""

_LONGEST_PAUSE: Final = 30.0
"""Seconds between attempts to read a source, at most."""

_LONGEST_PAUSE_OF_LOG: Final = 5.0
"""Seconds between attempts to store an item, at most. A log serves many, so it is repaired sooner than a source."""

_STABLE: Final = 60.0
"""Seconds without a failure after which the next failure counts as the first in a row."""

_MAX_ITEMS: Final = 500
"""Items stored together: as many as a log on a server stores in one round trip."""

_MAX_SIZE: Final = 512 * 1024
"""Bytes stored together: half of what NATS takes by default, the least of all logs. A larger item is stored alone."""

_PATIENCE: Final = 5.0
"""Seconds that a stopped source has to end, so that no source keeps a server from exiting."""


# Items.


class Batch(tuple[T_co, ...]):
    """Items that a source yields together. They are stored next to each other, all or none.

    ::

        yield Batch(rows)

    A batch of more than 500 items, or of more than 512 KiB of data, is stored in several such parts.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Batch of {len(self)}>"


def field_reader(field: Field) -> Callable[[Any], Any]:
    """Return a function that returns a field of an item.

    Arguments:
        field: a function, which is returned unchanged, or a name. A name is looked up among the keys of a
            mapping, else among the attributes, else as ``item[name]``, as the rows of ``sqlite3`` and asyncpg need.
    """
    return field if callable(field) else lambda item: _read_field(item, field)


def _read_field(item: Any, name: str) -> Any:
    if isinstance(item, Mapping):
        return item[name]
    try:
        return getattr(item, name)
    except AttributeError:
        if hasattr(item, "__getitem__") and not isinstance(item, str | bytes | tuple | list):
            return item[name]
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The rules that make an event of an item; the arguments of :meth:`Hub.feed`."""

    name: str
    topic: str | Callable[[Any], str]
    event: str | Callable[[Any], str | None] | None
    key: Field | None
    data: Callable[[Any], Any] | None

    def find_key(self, item: Any) -> str:
        """Return the key under which an item is published. Without a ``key`` rule, every call returns a new one.

        Raises:
            InvalidEventError: the item's key is neither text nor a number.
            Exception: any error of the ``key`` function.
        """
        if self.key is None:
            return secrets.token_hex(16)
        value = field_reader(self.key)(item)
        text = "" if value is None else str(value)
        kind: Any = type(value)
        if not text or (kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__):
            raise InvalidEventError(f"expected a key that is text or a number, got {value!r}")
        key = f"{self.name}:{text}"
        if len(key) > MAX_KEY_LENGTH:
            key = f"{self.name}:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
        return key

    def fields(self, item: Any) -> tuple[str, Any, str | None]:
        """Return an item's topic, data and event type."""
        topic = self.topic(item) if callable(self.topic) else self.topic
        event = self.event(item) if callable(self.event) else self.event
        return topic, item if self.data is None else self.data(item), event


# Feeds.


class FeedState(StrEnum):
    """The state of a feed.

    ``waiting`` until its hub opens · ``running`` · ``retrying`` after a failure of the source or of the
    log · ``ended`` with its source · ``failed`` at an item (``on_error="stop"``) · ``stopped``.
    """

    WAITING = "waiting"
    RUNNING = "running"
    RETRYING = "retrying"
    ENDED = "ended"
    FAILED = "failed"
    STOPPED = "stopped"


class FeedStatistics(NamedTuple):
    """The state of a feed, and its counters since it was declared.

    Attributes:
        state: the current state.
        published: items stored, including those that the log already had.
        skipped: items that can never be published; each is logged.
        failures: failures of the source and of the log, and the item at which a feed failed.
        restarts: times that the source was read again after a failure.
        last_error: the last failure, or the reason why the last item was skipped; ``None`` before the first.
    """

    state: FeedState
    published: int
    skipped: int
    failures: int
    restarts: int
    last_error: str | None


class _UnfitItem(Exception):
    """An item can never be published, and the feed must not skip it."""


class Feed:
    """Publish the items of a source; returned by :meth:`Hub.feed`.

    Attributes:
        name: the name in logs and statistics, and the prefix of each item's key.
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
        """Return the current state and the counters."""
        return FeedStatistics(
            self._state, self._published, self._skipped, self._failures, self._restarts, self._last_error
        )

    @property
    def active(self) -> bool:
        """True while the feed reads its source, or is going to."""
        return self._state in (FeedState.WAITING, FeedState.RUNNING, FeedState.RETRYING)

    def start(self, clock: Clock) -> None:
        """Start reading, unless the feed was stopped. The hub calls this when it is open."""
        if self._task is None and self.active:
            self._task = asyncio.get_running_loop().create_task(self._run(clock), name=f"tickertape feed {self.name}")

    def cancel(self) -> None:
        """Stop soon, without waiting: no further item is published, except those being stored now."""
        if self.active:
            self._state = FeedState.STOPPED
            if self._task is not None:  # cancelled once: a source that is closing must not be interrupted again
                self._task.cancel()

    async def stop(self) -> None:
        """Stop reading and wait until the source is closed; may be called twice. An item being stored may be lost."""
        self.cancel()
        task = self._task
        if task is None or task.done() or task is asyncio.current_task():
            return
        _, pending = await asyncio.wait([task], timeout=_PATIENCE)
        if pending:
            logger.error("feed %r was stopped, but its source still runs after %g s", self.name, _PATIENCE)

    # Reading.

    async def _run(self, clock: Clock) -> None:
        in_a_row = 0
        while self.active:
            began = clock.time()
            self._enter(FeedState.RUNNING)
            try:
                await self._read(clock)
            except _UnfitItem:
                self._enter(FeedState.FAILED)
                return
            except Exception as error:
                if self._state is FeedState.STOPPED:
                    return
                in_a_row = 1 if clock.time() - began >= _STABLE else in_a_row + 1
                await self._back_off("source", error, in_a_row, _LONGEST_PAUSE, clock)
                self._restarts += 1
            else:
                self._enter(FeedState.ENDED)
                logger.info("feed %r ended with its source", self.name)
                return

    def _enter(self, state: FeedState) -> None:
        if self._state is not FeedState.STOPPED:  # a source may ignore that it was cancelled
            self._state = state

    async def _read(self, clock: Clock) -> None:
        iterator = self._iterate()
        try:
            async for item in iterator:
                await self._publish(item, clock)
                if not self.active:
                    break
        finally:
            # After an error, `async for` leaves the iterator open until it is collected.
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

    def _iterate(self) -> AsyncIterator[Any]:
        source: Any = self._source
        iterable = source if hasattr(source, "__aiter__") else source()
        if not hasattr(iterable, "__aiter__"):
            if asyncio.iscoroutine(iterable):
                iterable.close()
            raise TypeError(f"expected a function that returns an async iterable, it returned {iterable!r}")
        iterator: AsyncIterator[Any] = aiter(iterable)
        if iterator is self._iterator:
            raise TypeError("the source returned the iterator that failed before: it must return a new one")
        self._iterator = iterator
        return iterator

    async def _back_off(self, what: str, error: Exception, in_a_row: int, longest: float, clock: Clock) -> None:
        """Count and log a failure, and wait."""
        self._enter(FeedState.RETRYING)
        self._failures += 1
        self._last_error = _describe(error)
        pause = backoff(in_a_row, self._random, first=_FIRST_PAUSE, cap=longest)
        trace = in_a_row == 1 and not isinstance(error, TickertapeError | OSError)
        logger.error(
            "the %s of feed %r failed, retrying in %.1f s: %s", what, self.name, pause, self._last_error, exc_info=trace
        )
        await sleep(clock, pause)

    # Storing.

    async def _publish(self, item: Any, clock: Clock) -> None:
        """Store an item, or a batch of items in parts that a log takes."""
        part: list[Draft] = []
        size = 0
        for each in item if isinstance(item, Batch) else (item,):
            draft = self._make_draft(each)
            if draft is None:
                continue
            weight = len(draft.topic) + draft.size
            if part and (len(part) >= _MAX_ITEMS or size + weight > _MAX_SIZE):
                await self._store(part, clock)
                part, size = [], 0
            part.append(draft)
            size += weight
        if part:
            await self._store(part, clock)
        await asyncio.sleep(0)  # a source and a log that never wait would block the loop

    def _make_draft(self, item: Any) -> Draft | None:
        """Return the draft of an item, or ``None`` if the item is skipped."""
        key = None
        try:
            key = self._shape.find_key(item)
            topic, data, event = self._shape.fields(item)
            return self._draft(topic, data, event=event, key=key)
        except Exception as error:
            self._reject(key, error)
            return None

    def _reject(self, key: str | None, error: Exception) -> None:
        """Count and log an item that can never be published; raise ``_UnfitItem`` if it must not be skipped."""
        self._last_error = _describe(error)
        item = "an item without a key" if key is None else f"item {key!r}"
        trace = not isinstance(error, TickertapeError)
        if not self._skip:
            self._failures += 1
            logger.error("feed %r stopped at %s: %s", self.name, item, self._last_error, exc_info=trace)
            raise _UnfitItem from error
        self._skipped += 1
        logger.error("feed %r skipped %s: %s", self.name, item, self._last_error, exc_info=trace)

    async def _store(self, drafts: Sequence[Draft], clock: Clock) -> None:
        """Append until it succeeds. The keys make that safe, even if the answer to an append was lost."""
        in_a_row = 0
        while True:
            try:
                await self._append(list(drafts))
            except EventTooLargeError as error:
                await self._store_less(drafts, error, clock)
                return
            except Exception as error:
                if self._state is FeedState.STOPPED:
                    raise
                in_a_row += 1
                await self._back_off("log", error, in_a_row, _LONGEST_PAUSE_OF_LOG, clock)
            else:
                self._published += len(drafts)
                self._enter(FeedState.RUNNING)
                return

    async def _store_less(self, drafts: Sequence[Draft], error: EventTooLargeError, clock: Clock) -> None:
        """Append the halves of a batch that the log refuses as too large; reject a single item."""
        middle = len(drafts) // 2
        if middle:
            await self._store(drafts[:middle], clock)
            await self._store(drafts[middle:], clock)
        else:
            self._reject(drafts[0].key, error)


def _check_source(source: Source) -> Source:
    if hasattr(source, "__anext__"):
        raise TypeError(
            "expected a source that can be iterated several times, as a generator function without its brackets, "
            f"got {source!r}"
        )
    if not hasattr(source, "__aiter__") and not callable(source):
        raise TypeError(f"expected an async iterable, or a function that returns one, got {source!r}")
    return source


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
