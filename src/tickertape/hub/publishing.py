"""The half of a hub that takes events in: published one by one, in batches, from threads, and by feeds."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Literal, overload

from ..broker import Broker, SQLConnection, TransactionalBroker
from ..errors import BrokerError, EventTooLargeError, HubClosedError
from ..timing import Clock
from ..wire import Cursor, Draft
from .feeds import MAX_NAME_LENGTH, Feed, Field, Shape, Source

__all__ = ["Publishing"]

logger = logging.getLogger("tickertape.hub")


class Publishing(ABC):
    """Append events to a log.

    Arguments:
        broker: the log.
        max_event_size: the greatest number of bytes of an event's data.
        random: gives numbers from 0 to 1, for jitter.
    """

    def __init__(self, broker: Broker, max_event_size: int, random: Callable[[], float]) -> None:
        self.max_event_size = max_event_size
        self.random = random
        self._broker = broker
        self._loop: asyncio.AbstractEventLoop | None = None
        self._soon: set[asyncio.Task[list[Cursor]]] = set()
        self._published = 0
        self._feeds: dict[str, Feed] = {}
        self._replaced_feeds: list[Feed] = []
        self._feeding: Clock | None = None  # while feeds run

    @abstractmethod
    def _check_open(self) -> None:
        """Raise ``HubClosedError`` unless events can be taken."""

    # One by one, and in batches.

    @overload
    async def publish(
        self, topic: str, data: Any = "", *, event: str | None = None, key: str | None = None, connection: None = None
    ) -> Cursor: ...

    @overload
    async def publish(
        self,
        topic: str,
        data: Any = "",
        *,
        event: str | None = None,
        key: str | None = None,
        connection: SQLConnection,
    ) -> str: ...

    async def publish(
        self,
        topic: str,
        data: Any = "",
        *,
        event: str | None = None,
        key: str | None = None,
        connection: SQLConnection | None = None,
    ) -> Cursor | str:
        """Append one event to the log and return its cursor; it is stored before it is delivered.

        Arguments:
            topic: where: segments between slashes, as ``orders/42``.
            data: the payload: ``str`` as text, ``bytes`` as UTF-8 text, a Pydantic model or anything
                else as JSON.
            event: the event type; types that start with ``stream:`` are the hub's own.
            key: makes it safe to publish again: while the log keeps the event, the same key appends
                nothing and returns the first cursor.
            connection: the caller's own connection to the database that holds the log, with a
                transaction open: the event exists if, and only if, that transaction commits. There
                is no cursor until then; what is returned is the event's key.

        Raises:
            InvalidTopicError: the topic breaks the syntax.
            InvalidEventError: the data or the event type cannot be sent.
            EventTooLargeError: the data is over ``max_event_size``.
            HubClosedError: the hub is not open.
            BrokerError: the event was not stored, or that is not known; or the log is in no database.
        """
        draft = self.draft(topic, data, event=event, key=key)
        if connection is None:
            return (await self._append([draft]))[0]
        self._check_open()
        if not isinstance(self._broker, TransactionalBroker):
            kind = type(self._broker).__name__
            raise BrokerError(f"expected a broker whose log is in the caller's database (postgresql://), got {kind}")
        keys = await self._broker.append_with(connection, [draft])
        self._published += 1
        return keys[0]

    async def publish_many(self, drafts: Iterable[Draft]) -> list[Cursor]:
        """Append several events next to each other, all or none; see :meth:`draft` and :meth:`publish`."""
        batch = list(drafts)
        for draft in batch:
            self._check_size(draft)
        return await self._append(batch)

    def _check_size(self, draft: Draft) -> Draft:
        if draft.size > self.max_event_size:
            raise EventTooLargeError(draft.size, self.max_event_size)
        return draft

    async def _append(self, batch: list[Draft]) -> list[Cursor]:
        self._check_open()
        cursors = await self._broker.append(batch) if batch else []
        self._published += len(batch)
        return cursors

    def draft(self, topic: str, data: Any = "", *, event: str | None = None, key: str | None = None) -> Draft:
        """Check an event and return it as :meth:`publish_many` takes it; arguments and errors as of :meth:`publish`."""
        return self._check_size(Draft(topic, data, event=event, key=key))

    def publish_sync(
        self, topic: str, data: Any = "", *, event: str | None = None, key: str | None = None, timeout: float = 10.0
    ) -> Cursor:
        """Publish from another thread, and wait for the cursor; as :meth:`publish`.

        Arguments:
            timeout: seconds to wait.

        Raises:
            TimeoutError: it took longer; the event may be published all the same.
        """
        self._check_open()
        if self._loop is None or _running_loop() is self._loop:
            raise HubClosedError("expected a call from another thread, got one from the hub's loop: await publish()")
        draft = self.draft(topic, data, event=event, key=key)
        future = asyncio.run_coroutine_threadsafe(self._append([draft]), self._loop)
        try:
            return future.result(timeout)[0]
        except TimeoutError:
            future.cancel()
            raise

    def publish_soon(
        self, topic: str, data: Any = "", *, event: str | None = None, key: str | None = None
    ) -> asyncio.Task[list[Cursor]]:
        """Publish from synchronous code that runs in the hub's loop; await the task to be sure, or do not.

        What is wrong with the event is raised at once; what goes wrong later is logged.
        """
        self._check_open()
        draft = self.draft(topic, data, event=event, key=key)
        task = asyncio.get_running_loop().create_task(self._append([draft]))
        self._soon.add(task)
        task.add_done_callback(self._published_soon)
        return task

    def _published_soon(self, task: asyncio.Task[list[Cursor]]) -> None:
        self._soon.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("an event was not published: %s", task.exception())

    # From sources.

    def feed(
        self,
        topic: str | Callable[[Any], str],
        source: Source,
        *,
        key: Field | None,
        event: str | Callable[[Any], str | None] | None = None,
        data: Callable[[Any], Any] | None = None,
        name: str | None = None,
        on_error: Literal["skip", "stop"] = "skip",
    ) -> Feed:
        """Publish what a source gives, from when the hub is open until it closes.

        The next item is asked for when the one before is in the log. A source that fails is read
        anew after 0.5 to 30 seconds, longer after each failure in a row; while the log is away, the
        item in hand is kept and tried again. Keys make what is read twice appear once, also when
        several hubs on one log run the same feed. Every failure is logged and counted.

        Arguments:
            topic: where the items go, or a function of the item.
            source: an async iterable that can be iterated anew, or a function that returns one: an
                async generator function, :class:`tickertape.sources.Poll`. A :class:`Batch` that it
                gives is stored as a whole.
            key: what tells one item from another: the name of a field, or a function of the item;
                text or a number. ``None`` for a source whose items have nothing of the kind: what
                was given and not acknowledged before a failure may then appear twice.
            event: the event type, or a function of the item.
            data: a function that gives the payload of the item; by default it is the item itself.
            name: of the feed, in logs and before each key, the same in every process; by default
                the topic. Needed if that is a function. Another name makes other keys.
            on_error: what to do with an item that can never be published, since it has a wrong
                topic, is too large, or a function of yours raises: ``"skip"`` logs and counts it and
                goes on, ``"stop"`` ends the feed there, and what follows is not read.

        Raises:
            ValueError: a name is missing, too long, or that of another feed; or ``on_error`` is neither.
            TypeError: the source cannot be iterated anew.
            InvalidTopicError: the topic breaks the syntax.
            InvalidEventError: the event type cannot be sent.
        """
        shape = Shape(name=self._name_of_feed(topic, name), topic=topic, event=event, key=key, data=data)
        if on_error not in ("skip", "stop"):
            raise ValueError(f"expected on_error to be 'skip' or 'stop', got {on_error!r}")
        self.draft("any" if callable(topic) else topic, event=None if callable(event) else event)
        feed = Feed(source, shape, skip=on_error == "skip", draft=self.draft, append=self._append, random=self.random)
        replaced = self._feeds.get(feed.name)
        if replaced is not None:
            self._replaced_feeds.append(replaced)
        self._feeds[feed.name] = feed
        if self._feeding is not None:
            feed.start(self._feeding)
        return feed

    def _name_of_feed(self, topic: object, name: str | None) -> str:
        found = topic if name is None else name
        if not isinstance(found, str):
            raise ValueError("expected a name for a feed whose topic is a function, got none: name=")
        if not 0 < len(found) <= MAX_NAME_LENGTH:
            raise ValueError(
                f"expected a name of 1 to {MAX_NAME_LENGTH} characters for a feed, got {len(found)}: name="
            )
        other = self._feeds.get(found)
        if other is not None and other.active:
            raise ValueError(f"expected a name of its own for each feed, got {found!r} again: name=")
        return found

    def _start_feeds(self, clock: Clock) -> None:
        self._feeding = clock
        for feed in self._feeds.values():
            feed.start(clock)

    async def _stop_feeds(self) -> None:
        self._feeding = None
        feeds = [*self._feeds.values(), *self._replaced_feeds]
        self._replaced_feeds = []
        for feed in feeds:  # all at once, before one of them finds the hub closed
            feed.cancel()
        await asyncio.gather(*(feed.stop() for feed in feeds))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
