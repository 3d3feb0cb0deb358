"""``Hub``: publish to topics, subscribe to topic patterns, resume without silent loss."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import json
import logging
import os
import random
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from time import perf_counter
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, Protocol, Self, overload

from ..asgi import (
    DEFAULT_HEARTBEAT,
    DEFAULT_SEND_TIMEOUT,
    ASGIApp,
    DisconnectReason,
    HasScope,
    Scope,
    get_last_event_id,
    open_streams,
)
from ..broker import (
    DEFAULT_RETENTION,
    Broker,
    DiscardingBroker,
    LogState,
    MemoryBroker,
    Page,
    Record,
    Retention,
    SQLConnection,
    TopicFilter,
    TransactionalBroker,
    create_broker,
)
from ..browser import client_script
from ..errors import BrokerError, EventTooLargeError, HubClosedError
from ..timing import Clock, check_limit, check_seconds, sleep
from ..wire import (
    EXPIRED,
    HEARTBEAT,
    MAX_TOPICS,
    Cursor,
    Draft,
    Patterns,
    check_patterns,
    check_topic,
    compile_patterns,
)
from .change import Changes, Request
from .delivery import Delivery
from .direct import DirectOutput
from .feeds import MAX_NAME_LENGTH, Feed, Field, Shape, Source
from .grants import EVERYTHING, Access, Grant, ImmediateAccess
from .log import Follower, Last, Start, check_last, find_start, start_in_window
from .presence import Presence
from .pull import PullOutput
from .response import Chunks, Filter, HubResponse, Map, Shaping, opening_block
from .statistics import HubStatistics
from .subscription import Overflow, OverflowPolicy, Subscription, check_overflow
from .tracing import Tracing
from .wheel import Wheel

logger = logging.getLogger("tickertape.hub")

DEFAULT_RETRY: Final = 3.0
"""Seconds until a client reconnects: the default of browsers."""

DEFAULT_DRAIN_WINDOW: Final = 5.0
"""Seconds over which a stopping hub ends its streams at most, so that clients do not all reconnect at once."""

DEFAULT_MAX_EVENT_SIZE: Final = 1024 * 1024
"""Bytes of an event's data: the default limit of decoders."""

_RETRY_JITTER: Final = 0.2
"""The part by which reconnection times differ: clients that were lost together reconnect apart."""

_USUAL_TYPE: Final = 255
"""Bytes of an event type that do not count for the size of its event: as long as a topic may be."""

_HISTORY_STEP: Final = 16
"""Events that are read first for a page of the history whose bytes have a limit. Each step reads twice as many."""

_MAX_HISTORY_STEP: Final = 64
"""Events of such a step at most: nothing is known about their size before they are read."""

_DRAIN_STEP: Final = 0.002
"""Seconds of the drain window for each stream: 500 reconnects a second are easy, and a single stream ends at once."""

_LAST_EVENTS: Final = 5.0
"""Seconds for which a closing hub waits for events that were published soon, if the log does not take them."""

_LAST_WORDS: Final = 0.1
"""Seconds after the end of the last stream after which a hub that has opened itself closes."""

_MAX_LAG: Final = 5000
"""Events that this hub has appended and its follower has not yet seen. Beyond them publishers wait: a quick one must
not delay the events of the others, nor push the log past the follower. A batch that is larger goes alone."""

_MAX_AT_ONCE: Final = 250
"""Such events that are appended without waiting: then others have their turn."""

_SMALL_BATCH: Final = 100
"""Events of a batch that need not wait for another batch to be stored."""

_LAG_PATIENCE: Final = 1.0
"""Seconds for which a publisher waits at most: a follower that makes no progress is no reason to refuse events."""

_READERS_PAUSE: Final = 0.25
"""Seconds between two looks of a publisher that waits for slow readers: the resolution of the hub's clock."""

_RECENT: Final = 0.05
"""Seconds for which a reader of recent records waits for the follower, which mostly has them in a millisecond."""

_MAX_RECENT: Final = 1_000
"""Records that are searched in memory at once."""

_PLAIN: Final = Shaping()

_AGE_JITTER: Final = 0.2
"""The part by which the ages of streams differ: clients that came together leave apart."""

REVOCATIONS: Final = "hub-access/revocations"
"""The topic of the records that end the streams of a user, on all hubs of a log."""

_MAX_RETRY: Final = 24 * 3600.0
"""Seconds: no client should stay away for more than a day."""


class Companion(Protocol):
    """An object that works on a hub's log, and is closed before it."""

    async def close(self) -> None:
        """Stop, while the log can still be written."""


class Hub:
    """Publish events to topics, and deliver them to every subscriber, in one order, from a log.

    Arguments:
        broker: the log: a URL (``memory://``, ``sqlite:///log.db``, …) or a broker.
        retention: the limits of a log that the URL creates, and of the part that is kept in memory.
        heartbeat: seconds of silence after which a stream gets a comment; ``None`` for never.
        send_timeout: seconds after which a subscriber that takes nothing is dropped; ``None`` for never.
        retry: seconds after which clients should reconnect, plus or minus a fifth.
        max_event_size: the greatest number of bytes of an event's data.
        max_topics: the greatest number of patterns of a subscription.
        drain_window: the longest time over which streams end when the server stops, in seconds.
        max_age: seconds after which a stream ends, less up to a fifth, so that its client reconnects; ``None`` for
            never. Behind a load balancer, this moves clients to servers that were added.
        access: finds the grant of a request, as ``async def access(request) -> Grant``; ``None`` to allow everything.
            Streams are refused that it does not cover. For your other endpoints, call :meth:`authorize`.
        tracing: observes publishing and the opening of streams; ``None`` for nothing.
        clock: the clock for timers; by default the running event loop.
        random: returns numbers from 0 to 1, for jitter.

    Open it with ``async with``, or as the lifespan of an application: ``FastAPI(lifespan=hub.lifespan)``.
    Where there is no lifespan, it opens itself on first use, and closes when the server of its streams stops.
    A hub belongs to the event loop in which it was opened; :meth:`publish_sync` is for other threads. If
    it was given a URL, it can be opened again after it was closed.

    Raises:
        ValueError: an option is out of its range.
        BrokerError: the URL is wrong.
    """

    _warned: ClassVar = False
    """The warning about several workers was logged; once is enough for all hubs of a process."""

    def __init__(
        self,
        broker: str | Broker = "memory://",
        *,
        retention: Retention = DEFAULT_RETENTION,
        heartbeat: float | None = DEFAULT_HEARTBEAT,
        send_timeout: float | None = DEFAULT_SEND_TIMEOUT,
        retry: float = DEFAULT_RETRY,
        max_event_size: int = DEFAULT_MAX_EVENT_SIZE,
        max_topics: int = MAX_TOPICS,
        drain_window: float = DEFAULT_DRAIN_WINDOW,
        max_age: float | None = None,
        access: Access | None = None,
        tracing: Tracing | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.heartbeat = check_limit("heartbeat", heartbeat)
        self.send_timeout = check_limit("send_timeout", send_timeout)
        self.retry = check_seconds("retry", retry, most=_MAX_RETRY)
        self.max_event_size = _check_count("max_event_size", max_event_size)
        self.max_topics = _check_count("max_topics", max_topics)
        self.drain_window = check_seconds("drain_window", drain_window)
        self.max_age = check_limit("max_age", max_age)
        self.access = access
        self.tracing = tracing
        self.random = random
        self.presence = Presence()
        self._url = broker if isinstance(broker, str) else None
        self._retention = retention
        self._broker = create_broker(broker, retention=retention) if isinstance(broker, str) else broker
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._opening: asyncio.Future[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._closed = False
        self._managed = False  # someone opens and closes it; else it does so itself
        self._draining = False
        self._wheel: Wheel | None = None
        self._delivery: Delivery | None = None
        self._follower: Follower | None = None
        self._published = 0
        self._appended: Cursor | None = None  # the newest record of this hub
        self._appending = 0  # events that are being stored
        self._publishing: set[asyncio.Task[Cursor]] = set()
        self._feeds: dict[str, Feed] = {}
        self._replaced_feeds: list[Feed] = []
        self._companions: list[Companion] = []
        self._watchers: list[tuple[str, Callable[[Record], None]]] = []
        self._changes: Changes | None = None
        self._closers: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        state = "closed" if self._delivery is None else "draining" if self._draining else "open"
        return f"<Hub {self._broker!r} {state}>"

    # Opening and closing.

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Open the hub while an application runs: pass it as the ``lifespan`` of Starlette or FastAPI."""
        async with self:
            yield

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect to the log and begin to follow it. If that fails, nothing stays open.

        While the hub is closing, this waits until it is closed.

        Raises:
            HubClosedError: the hub is open already, or its broker, which was not given as a URL, was closed.
            BrokerError: the log cannot be reached.
        """
        if self._closing is not None:
            await asyncio.wait([self._closing])
        managed, self._managed = self._managed, True
        if not managed and self._opening is not None:
            await asyncio.wait([self._opening])
        if not managed and self._delivery is not None:
            self._check_loop()
            return  # it has opened itself before, and is closed by its user from now on
        if self._delivery is not None or self._opening is not None:
            raise HubClosedError("hub is already open")
        await self._open()

    async def _open(self) -> None:
        if self._closed and self._url is None:
            raise HubClosedError(
                "the broker of this hub is closed: create a new hub, or give it a URL so that it can be opened again"
            )
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        opening = self._opening = self._loop.create_future()
        wheel = Wheel(self._clock or self._loop)
        follower = Follower(self._broker, self._retention, wheel, self.random)
        try:
            delivery = await follower.start(await self._broker.open(), self.presence)
        except BaseException:
            await self._close_broker()
            raise
        finally:
            self._opening = None
            opening.set_result(None)
        delivery.watch(REVOCATIONS, self._revoked)
        for topic, watcher in self._watchers:
            delivery.watch(topic, watcher)
        shared = not (self._url is not None and isinstance(self._broker, MemoryBroker))
        self._changes = Changes(self, self._broker, delivery, self._append_one, shared=shared)
        self._wheel, self._follower, self._delivery = wheel, follower, delivery
        self._published = 0
        wheel.start(self._beat, self._check)
        for feed in self._feeds.values():
            feed.start(wheel)
        self._warn_about_workers()

    async def _ready(self) -> Delivery:
        """Return the delivery; open the hub first if no program does."""
        self._check_loop()
        while self._delivery is None and not self._managed:
            if self._opening is not None:
                await asyncio.wait([self._opening])
            elif self._closing is not None:
                await asyncio.wait([self._closing])
            else:
                await self._open()
        return self.delivery

    def _check_loop(self) -> None:
        """Forget a loop that is closed, if the hub had opened itself there; refuse to work in another one."""
        if self._loop is None or self._loop is asyncio.get_running_loop():
            return
        if self._delivery is None and self._opening is None:
            return
        if self._managed or not self._loop.is_closed():
            raise HubClosedError("the hub belongs to another event loop: from other threads, use publish_sync()")
        self._delivery = self._wheel = self._follower = self._opening = self._closing = None
        self._draining = False
        self._companions, self._publishing = [], set()
        self.presence = Presence()
        if self._url is not None:
            self._broker = create_broker(self._url, retention=self._retention)

    async def close(self) -> None:
        """End all streams and close the log, and return when that is done; may be called twice.

        A hub that is being opened is closed afterwards. If the caller is cancelled, the hub closes all the same.
        """
        open_streams.discard(self)
        if self._opening is not None:
            await asyncio.wait([self._opening])
        if self._closing is None and self._delivery is not None:
            if self._companions or self._publishing:
                self._draining = True
                self._closing = asyncio.get_running_loop().create_task(self._finish_work(), name="tickertape close")
            else:
                self._end_streams()
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _finish_work(self) -> None:
        """Wait until companions have stopped, and events that were published soon are stored; then end the streams."""
        companions, self._companions = self._companions, []
        try:
            await asyncio.gather(*(companion.close() for companion in companions))
            if self._publishing:
                await asyncio.wait(set(self._publishing), timeout=_LAST_EVENTS)
        finally:
            self._end_streams()
        if self._closing is not None:
            await self._closing

    def _end_streams(self) -> None:
        """End all streams at once, and begin to close the log."""
        delivery, wheel, follower = self._delivery, self._wheel, self._follower
        if delivery is None or wheel is None or follower is None:
            return
        self._draining = True
        self._delivery = None
        for subscription in self.presence.subscriptions:
            self._finish(delivery, subscription)
        delivery.close()
        if self._changes is not None:
            self._changes.close()
        wheel.stop()
        self._closing = asyncio.get_running_loop().create_task(
            self._close_log(self._cancel_feeds(), follower), name="tickertape close"
        )

    async def _close_log(self, feeds: list[Feed], follower: Follower) -> None:
        try:
            await asyncio.gather(*(feed.stop() for feed in feeds))
            await follower.stop()
        finally:
            try:
                await self._close_broker()
            finally:
                self._draining = False
                self._closing = None

    async def _close_broker(self) -> None:
        try:
            await self._broker.close()
        finally:
            self._closed = True
            if self._url is not None:
                self._broker = create_broker(self._url, retention=self._retention)

    def _warn_about_workers(self) -> None:
        """Warn if this process looks like one of several workers, and the log is in its memory."""
        gunicorn = os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn")
        multiprocessing = sys.modules.get("multiprocessing")  # imported already in a process that it started
        spawned = multiprocessing is not None and multiprocessing.parent_process() is not None
        worker = gunicorn or (spawned and "--reload" not in sys.argv)
        if worker and isinstance(self._broker, MemoryBroker) and not Hub._warned:
            Hub._warned = True
            logger.warning(
                "memory:// keeps events in one process: if the server runs several workers, subscribers of the "
                "others will not get them. Use sqlite:///, redis://, postgresql:// or nats:// instead"
            )

    async def check(self) -> LogState:
        """Return the state of the log, asked for from end to end; for a health endpoint.

        Raises:
            HubClosedError: the hub is closed or draining.
            BrokerError: the log cannot be reached, or the hub has lost its connection to it.
        """
        await self._ready()
        self._check_accepting()
        state = await self._broker.state()
        if self._follower is None or not self._follower.healthy:
            raise BrokerError("the hub has lost its log and is reconnecting")
        return state

    @property
    def draining(self) -> bool:
        """True while the hub is ending its streams. It accepts no subscriptions then."""
        return self._draining

    @property
    def clock(self) -> Clock:
        """One coarse clock for all timers of this hub's streams."""
        if self._wheel is None:
            raise HubClosedError("hub was never opened")
        return self._wheel

    @property
    def epoch(self) -> str:
        """The current epoch of the log."""
        return self.delivery.window.epoch

    @property
    def delivery(self) -> Delivery:
        """The delivery of an open hub, for servers of its streams.

        Raises:
            HubClosedError: the hub is not open.
        """
        if self._delivery is None:
            raise HubClosedError("hub is closed: open it with `async with hub`, or as the lifespan of your application")
        return self._delivery

    def _check_accepting(self) -> None:
        if self._draining:
            raise HubClosedError("hub is draining")
        _ = self.delivery

    # Publishing. An event is stored in the log first; the follower then brings it to the delivery.

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
        """Append one event to the log and return its cursor. It is stored before it is delivered.

        Arguments:
            topic: segments between slashes, as ``orders/42``.
            data: the payload: ``str`` as text, ``bytes`` as UTF-8 text, anything else as JSON.
            event: the event type; types that start with ``stream:`` are reserved.
            key: makes it safe to publish again. While the log keeps the event, the same key appends
                nothing and returns the first cursor.
            connection: your own connection to the database that holds the log, with an open transaction.
                The event exists if, and only if, that transaction commits. There is no cursor until
                then, so the event's key is returned.

        Raises:
            InvalidTopicError: the topic breaks the syntax.
            InvalidEventError: the data or the event type cannot be sent.
            EventTooLargeError: the data is over ``max_event_size``.
            HubClosedError: the hub is not open.
            BrokerError: the event was not stored, or that is unknown; or the log is in no database.
        """
        draft = self.draft(topic, data, event=event, key=key)
        if connection is None:
            return await self._append_one(draft)
        await self._ready()
        if not isinstance(self._broker, TransactionalBroker):
            kind = type(self._broker).__name__
            raise BrokerError(f"connection= needs a log in your own database (postgresql://), and this one is a {kind}")
        with self._traced_publish([draft]):
            keys = await self._broker.append_with(connection, [draft])
        self._published += 1
        return keys[0]

    async def publish_many(self, drafts: Iterable[Draft]) -> list[Cursor]:
        """Append several events next to each other, all or none; see :meth:`draft` and :meth:`publish`."""
        return await self._append([self._check_size(draft) for draft in drafts])

    def publish_now(self, draft: Draft) -> bool:
        """Append one event without waiting, if the log allows it (``memory://``) and its follower keeps up.

        Return whether it was appended. If not, use :meth:`publish_many`.

        Raises:
            EventTooLargeError: the data is over ``max_event_size``.
        """
        delivery, broker = self._delivery, self._broker
        if delivery is None or not isinstance(broker, MemoryBroker) or self._lag(delivery, 1) >= _MAX_AT_ONCE:
            return False
        began = perf_counter()
        with suppress(BrokerError):
            (self._appended,) = broker.append_now([self._check_size(draft)])
            self._published += 1
            delivery.counters.append_seconds.observe(perf_counter() - began)
            delivery.appended(self._appended.offset, began)
            return True
        return False

    def publish_soon(
        self, topic: str, data: Any = "", *, event: str | None = None, key: str | None = None
    ) -> asyncio.Task[Cursor]:
        """Publish from synchronous code that runs in the hub's loop. Await the task for the cursor.

        An invalid event raises at once; a later failure is logged.
        """
        if self._managed:
            _ = self.delivery
        draft = self.draft(topic, data, event=event, key=key)
        task = asyncio.get_running_loop().create_task(self._append_one(draft))
        self._publishing.add(task)
        task.add_done_callback(self._published_soon)
        return task

    def _published_soon(self, task: asyncio.Task[Cursor]) -> None:
        self._publishing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("an event was not published: %s", task.exception())

    def publish_sync(
        self, topic: str, data: Any = "", *, event: str | None = None, key: str | None = None, timeout: float = 10.0
    ) -> Cursor:
        """Publish from another thread, and wait for the cursor; otherwise as :meth:`publish`.

        Arguments:
            timeout: seconds to wait.

        Raises:
            TimeoutError: the event was not stored in time; it may be published all the same.
            HubClosedError: the hub is not open, or it was opened in another process than this one.
        """
        _ = self.delivery
        if os.getpid() != self._process:
            raise HubClosedError(
                "the hub was opened in another process: open it after the fork, or publish over HTTP with SyncPublisher"
            )
        if self._loop is None or _running_loop() is self._loop:
            raise HubClosedError("publish_sync() blocks: in the hub's own loop, use `await hub.publish()`")
        draft = self.draft(topic, data, event=event, key=key)
        future = asyncio.run_coroutine_threadsafe(self._append([draft]), self._loop)
        try:
            return future.result(timeout)[0]
        except TimeoutError:
            future.cancel()
            raise TimeoutError(f"the event was not stored within {timeout:g} s") from None

    def draft(self, topic: str, data: Any = "", *, event: str | None = None, key: str | None = None) -> Draft:
        """Check an event, and return it for :meth:`publish_many`. Arguments and errors as of :meth:`publish`."""
        return self._check_size(Draft(topic, data, event=event, key=key))

    def _check_size(self, draft: Draft) -> Draft:
        size = draft.size + max(0, len((draft.event or "").encode()) - _USUAL_TYPE)
        if size > self.max_event_size:
            raise EventTooLargeError(size, self.max_event_size)
        return draft

    async def _append_one(self, draft: Draft) -> Cursor:
        return (await self._append([draft]))[0]

    def _traced_publish(self, drafts: list[Draft]) -> AbstractContextManager[Any]:
        tracing = self.tracing
        return nullcontext() if tracing is None else tracing.publishing([draft.topic for draft in drafts])

    def _traced_opening(self, patterns: Patterns) -> AbstractContextManager[Any]:
        return nullcontext() if self.tracing is None else self.tracing.opening(patterns)

    async def _append(self, drafts: list[Draft]) -> list[Cursor]:
        if not drafts:
            await self._ready()
            return []
        with self._traced_publish(drafts):
            return await self._store(drafts)

    async def _store(self, drafts: list[Draft]) -> list[Cursor]:
        delivery = await self._ready()
        count = len(drafts)
        began = perf_counter()
        await self._wait_for_follower(delivery, count)
        self._appending += count
        appending = perf_counter()
        try:
            cursors = await self._broker.append(drafts)
            self._appended = cursors[-1]
            self._published += count
            delivery.counters.append_seconds.observe(perf_counter() - appending)
            delivery.appended(cursors[-1].offset, began)
        except BrokerError:
            delivery.counters.errors["append"] += 1
            raise
        finally:
            self._appending -= count
            delivery.report_progress()
        return cursors

    def _lag(self, delivery: Delivery, count: int) -> int:
        """Return the number of events of this hub that have not been followed yet.

        For a batch, those that are being stored count as well: batches wait here, one after the other, so
        that single events need not wait for all of them in the queue of the store.
        """
        last, window = self._appended, delivery.window
        stored = last.offset - window.newest if last is not None and last.epoch == window.epoch else 0
        return stored + (self._appending if count > _SMALL_BATCH else 0)

    async def _wait_for_follower(self, delivery: Delivery, count: int) -> None:
        """Wait until the follower has caught up so far that ``count`` more events are within the limit."""
        until: float | None = None
        while (lag := self._lag(delivery, count)) > 0 and lag + count > _MAX_LAG and self._delivery is delivery:
            now = self.clock.time()
            until = now + _LAG_PATIENCE if until is None else until
            if now >= until or self._follower is None or not self._follower.healthy:
                return
            await delivery.wait_for_progress(until - now)

    async def wait_for_readers(self, within: float) -> bool:
        """Wait until no subscriber is about to lose events; call it before you publish, to slow down with your readers.

        A subscriber is about to lose events if it was caught up before, the oldest eighth of the events in memory are
        the next that it gets, and seven eighths of the retention (``events`` or ``bytes``) are in use. It counts if its
        ``on_overflow`` is ``"disconnect"``. Only subscribers of this process are known.

        Arguments:
            within: seconds to wait at most.

        Returns:
            False if a subscriber is still about to lose events.
        """
        delivery = await self._ready()
        if not delivery.is_losing():
            return True
        delivery.counters.delayed += 1
        until = self.clock.time() + within
        while delivery.is_losing():
            left = until - self.clock.time()
            if left <= 0:
                return False
            await sleep(self.clock, min(left, _READERS_PAUSE))
            if self._delivery is not delivery:
                break
        return True

    async def end(self, topic: str, *, reason: str = "ended") -> Cursor:
        """End a topic: its readers get the events before the end, then ``stream:end``, and their streams are closed.

        The end is a record in the log, so it works from any process on it, and after a restart. A stream ends when all
        its topics have ended; one with a wildcard does not end. A stream that continues gets ``stream:topic-end`` for
        each topic. A client that reconnects after the end gets 204, which stops an ``EventSource``.

        If an event is published to the topic later, it is open again: no event that was stored is withheld. So a topic
        is ended as long as its newest record is its end. If it has ended already, nothing is stored.

        Arguments:
            topic: the topic.
            reason: a text for its readers, of 1 to 200 characters.

        Returns:
            The cursor of the end.

        Raises:
            InvalidTopicError: the topic breaks the syntax.
            InvalidEventError: the reason is not as described.
            HubClosedError: the hub is not open.
            BrokerError: the end was not stored, or that is unknown; you may call it again.
        """
        draft = Draft.end(topic, reason)
        delivery = await self._ready()
        state = await self._broker.state()
        if await self._has_seen(delivery, Cursor(state.epoch, state.newest)):
            window = delivery.window
            if (ended := window.ended.get(topic)) is not None:
                return Cursor(window.epoch, ended)
            if newest := window.newest_of(topic):
                # Two processes that end it at the same time store one end.
                draft = draft.replace(key=f"end-{newest}-{hashlib.sha256(topic.encode()).hexdigest()}")
        cursor = await self._append_one(draft)
        await self._has_seen(delivery, cursor)  # clients that connect from now on get 204
        return cursor

    async def _has_seen(self, delivery: Delivery, cursor: Cursor) -> bool:
        """Wait until the hub has seen a record; return False if that takes too long, or the log has been reset."""
        until = self.clock.time() + _LAG_PATIENCE
        while delivery.window.epoch == cursor.epoch and delivery.window.newest < cursor.offset:
            left = until - self.clock.time()
            if left <= 0 or self._delivery is not delivery:
                return False
            await delivery.wait_for_progress(left)
        return delivery.window.epoch == cursor.epoch

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
        """Publish the items of a source while the hub is open.

        The next item is requested when the one before is stored. If the source fails, it is read again
        after 0.5 to 30 seconds, longer after each failure in a row. If the log is unreachable, the current
        item is kept and tried again. Keys let items that are read twice appear once, also when
        several hubs on one log run the same feed. Every failure is logged and counted.

        Arguments:
            topic: the topic of the items, or a function of the item.
            source: an async iterable that can be iterated again, or a function that returns one: an
                async generator function, :class:`tickertape.sources.Poll`. If it yields a :class:`Batch`,
                that is stored as a whole.
            key: identifies an item: the name of a field, or a function of the item; text or a number.
                ``None`` if items have nothing of the kind: after a failure, an item that was stored but
                not acknowledged may then appear twice.
            event: the event type, or a function of the item.
            data: a function that returns the payload of an item; by default the item itself.
            name: the name of the feed in logs and before each key, the same in every process; by default
                the topic. Needed if the topic is a function. Another name makes other keys.
            on_error: the treatment of an item that can never be published, because its topic is invalid, it
                is too large, or your function raises: ``"skip"`` logs and counts it and continues,
                ``"stop"`` ends the feed there.

        Raises:
            ValueError: a name is missing, too long, or that of another feed; or ``on_error`` is invalid.
            TypeError: the source cannot be iterated again.
            InvalidTopicError: the topic breaks the syntax.
            InvalidEventError: the event type cannot be sent.
        """
        shape = Shape(name=self._name_feed(topic, name), topic=topic, event=event, key=key, data=data)
        if on_error not in ("skip", "stop"):
            raise ValueError(f"expected on_error to be 'skip' or 'stop', got {on_error!r}")
        self.draft("any" if callable(topic) else topic, event=None if callable(event) else event)
        feed = Feed(source, shape, skip=on_error == "skip", draft=self.draft, append=self._append, random=self.random)
        replaced = self._feeds.get(feed.name)
        if replaced is not None:
            self._replaced_feeds.append(replaced)
        self._feeds[feed.name] = feed
        if self._delivery is not None and self._wheel is not None:
            feed.start(self._wheel)
        return feed

    def _name_feed(self, topic: object, name: str | None) -> str:
        found = topic if name is None else name
        if not isinstance(found, str):
            raise ValueError("a feed whose topic is a function needs a name: name=")
        if not 0 < len(found) <= MAX_NAME_LENGTH:
            raise ValueError(f"expected a name of 1 to {MAX_NAME_LENGTH} characters, got {len(found)}: name=")
        other = self._feeds.get(found)
        if other is not None and other.active:
            raise ValueError(f"there is another feed with the name {found!r}: name=")
        return found

    def _cancel_feeds(self) -> list[Feed]:
        """Cancel all feeds at once, before one of them finds the hub closed."""
        feeds = [*self._feeds.values(), *self._replaced_feeds]
        self._replaced_feeds = []
        for feed in feeds:
            feed.cancel()
        return feeds

    # Subscribing.

    @asynccontextmanager
    async def subscribe(
        self,
        topics: str | Iterable[str],
        *,
        last_event_id: str | None = None,
        last: Last = None,
        on_overflow: Overflow = "disconnect",
        user: Any = None,
        grant: Grant | None = None,
        changeable: bool = False,
    ) -> AsyncIterator[PullOutput]:
        """Subscribe in this process: enter with ``async with``, and iterate with ``async for``.

        Arguments:
            topics: a pattern or several: ``*`` for one segment, ``**`` for any number.
            last_event_id: the cursor after which to start.
            last: without a cursor, the number of past events to start with; ``"all"`` for all that are kept.
            on_overflow: the treatment of a reader that is too slow: ``"disconnect"``, ``"skip"`` or ``"latest"``.
            user: a value for :attr:`presence` and :meth:`disconnect`; by default the user of the grant.
            grant: the rights of the reader. When they end, the subscription ends; its ``reason`` is then ``expired`` or
                ``revoked``. By default, all rights without end.
            changeable: the output has an :attr:`~PullOutput.id` with which :meth:`change` changes the topics.

        Raises:
            AccessError: the grant does not cover all topics.
            InvalidTopicError: a pattern breaks the syntax, or there are too many.
            ValueError: ``last`` or ``on_overflow`` is not as described.
            BrokerError: the log cannot be read.
        """
        patterns = check_patterns(topics, limit=self.max_topics)
        policy = check_overflow(on_overflow)
        if grant is not None:
            grant.check_subscribe(patterns)
            user = grant.user if user is None else user
        start = await self.find_start(patterns, last_event_id, check_last(last))
        subscription = self.subscribe_at(start, patterns, policy, user)
        if grant is not None and grant.until is not None:
            self.limit_right(subscription, grant.until)
        output = PullOutput(self.delivery, subscription, self.presence.name(subscription) if changeable else None)
        try:
            yield output
        finally:
            output.close()

    async def change(
        self,
        id: str,
        *,
        add: str | Iterable[str] = (),
        remove: str | Iterable[str] = (),
        last: int = 0,
        grant: Grant | None = None,
    ) -> Cursor:
        """Change the topics of an open stream, without a new connection. Nothing is lost and nothing is repeated.

        The stream has all events of its topics from before up to the cursor that is returned, and gets all events of
        its new topics after it. It is the stream's own position: one that is behind gets events of the added topics
        from there on, in order with the others. The client gets the notice ``stream:topics``
        (:class:`~tickertape.TopicsChange`) with this cursor as its id, before the next event.

        The stream may be served by another process on the same log. This waits for its answer, at most 2 s.

        Arguments:
            id: the id of the subscription, from ``stream:open`` or :attr:`PullOutput.id`.
            add: patterns to add. Those that the stream has are ignored.
            remove: patterns to remove, as they were added. Others are ignored.
            last: the number of past events of the added topics to send before the notice, 0 to 1,000, at most 256 KiB.
                Events of topics that the stream has had until now are left out. They have no id.
            grant: the rights of the request. They must cover the added topics, and the stream ends when they end. A
                stream of another user is not found. ``None`` if your application has checked the request.

        Raises:
            InvalidTopicError: a pattern breaks the syntax, or the stream would have no topics or too many.
            ValueError: ``last`` is out of its range.
            AccessError: the grant does not cover the added topics.
            SubscriptionNotFoundError: no open stream has this id, or it has another user.
            SubscriptionBusyError: the client has not read the notices of its last 32 changes.
            HubClosedError: the hub is closed.
            BrokerError: the log cannot be reached.
        """
        await self._ready()
        request = Request.create(id, add, remove, last, grant)
        assert self._changes is not None, "an open hub has it"
        return await self._changes.change(request)

    async def stream(
        self,
        topics: str | Iterable[str],
        *,
        request: HasScope | Scope | None = None,
        last_event_id: str | None = None,
        last: Last = None,
        on_overflow: Overflow = "disconnect",
        user: Any = None,
        grant: Grant | None = None,
        filter: Filter | None = None,
        map: Map | None = None,
        envelope: Literal["topic"] | None = None,
        heartbeat: float | Literal["hub"] | None = "hub",
        retry: float | None = None,
        changeable: bool = False,
    ) -> AsyncGenerator[bytes]:
        """Yield an event stream as bytes, for frameworks that bring their own streaming response.

        It begins with the cursor and the reconnection time, has comments while nothing happens, gaps where events
        are no longer kept, and it ends when the server stops, or after the end of the last topic. Close it with
        ``aclose()`` when the client leaves; most frameworks do. If it yields nothing, all topics had ended before:
        answer 204, which stops an ``EventSource``.

        Arguments:
            topics: a pattern or several: ``*`` for one segment, ``**`` for any number.
            request: the request, or an ASGI scope: its ``Last-Event-ID`` counts, and when its server stops, the
                stream ends. For a server without scopes, ``{"server": (host, port)}`` of its listening socket.
            last_event_id: the cursor after which to start, instead of the request's.
            last, on_overflow, user, grant, filter, map, envelope, heartbeat, retry,
            changeable: as of :meth:`response`.

        Raises:
            AccessError: the grant does not cover all topics.
            InvalidTopicError: a pattern breaks the syntax, or there are too many.
            ValueError: an option is out of its range.
            HubClosedError: the hub is closed or draining.
            BrokerError: the log cannot be read.
            Exception: raised by ``filter`` or ``map``.
        """
        shaping = self._check_shaping(filter, map, envelope, heartbeat, retry)
        patterns, policy = check_patterns(topics, limit=self.max_topics), check_overflow(on_overflow)
        if request is None:
            request = {}
        scope = request if isinstance(request, Mapping) else request.scope
        if grant is None:
            grant = EVERYTHING if self.access is None else await self.access(request)
        grant.check_subscribe(patterns)
        user = grant.user if user is None else user
        if last_event_id is None:
            last_event_id = get_last_event_id(request)
        start = await self.find_start(patterns, last_event_id, check_last(last))
        if self.is_over(start, patterns):
            return
        subscription = self.subscribe_at(start, patterns, policy, user, shaping)
        self.limit_age(subscription, grant.until)
        output = PullOutput(self.delivery, subscription)
        guard = _Guard(self)
        open_streams.add_foreign(guard, dict(scope))
        try:
            own_id = self.presence.name(subscription) if changeable else None
            opening = opening_block(subscription, self.epoch, self.retry_block(shaping.retry), own_id)
            async for chunk in Chunks(self, output, opening, shaping, heartbeat=shaping.heartbeat):
                yield chunk
        finally:
            open_streams.discard(guard)
            output.close()

    def response(
        self,
        request: HasScope | Scope,
        topics: str | Iterable[str],
        *,
        last: Last = None,
        on_overflow: Overflow = "disconnect",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        user: Any = None,
        grant: Grant | None = None,
        filter: Filter | None = None,
        map: Map | None = None,
        envelope: Literal["topic"] | None = None,
        heartbeat: float | Literal["hub"] | None = "hub",
        retry: float | None = None,
        changeable: bool = False,
        background: Callable[[], Awaitable[Any]] | None = None,
        on_disconnect: Callable[[DisconnectReason], Any] | None = None,
    ) -> HubResponse:
        """Return a response that streams the events of ``topics`` to the client.

        Arguments:
            request: the request; its ``Last-Event-ID`` is the cursor after which to start.
            topics: a pattern or several: ``*`` for one segment, ``**`` for any number.
            last: for a client without a ``Last-Event-ID``, the number of past events to start with; ``"all"`` for all
                that are kept.
            on_overflow: the treatment of a client that reads too slowly: ``"disconnect"``, ``"skip"`` or ``"latest"``.
            headers: more headers; one of the same name replaces ours.
            user: a value for :attr:`presence` and :meth:`disconnect`; by default the user of the grant.
            grant: the rights of the request; by default, what the hub's ``access`` returns for it. If they do not
                cover all topics, the response is 401 or 403. When they end, the stream ends.
            filter: called with each :class:`HubEvent`; returns false for those that this client does not get.
            map: called with each event; returns the data that the client gets instead, or a ``ServerSentEvent``
                for another type too. The id stays the event's.
            envelope: ``"topic"`` sends ``{"topic": …, "data": …}`` as the data, which both are text; for patterns.
            heartbeat: seconds of silence after which this client gets a comment, > 0; ``None`` for never.
            retry: seconds after which this client should reconnect, plus or minus a fifth.
            changeable: the client gets the id of its subscription in ``stream:open``, after the first block, and
                :meth:`change` can change the topics of the stream.
            background: called and awaited when the stream is over, such as Starlette's ``BackgroundTask``.
            on_disconnect: called (and awaited, if it returns an awaitable) with the :class:`DisconnectReason` when
                the stream is over.

        With ``filter``, ``map``, ``heartbeat`` or ``retry``, the hub does not take over the connection, and encodes
        each event for this client alone: it costs several times as much CPU and memory as another.

        Raises:
            InvalidTopicError: a pattern breaks the syntax, or there are too many.
            TypeError: a callback is not callable.
            ValueError: an option is out of its range.
        """
        if not (on_disconnect is None or callable(on_disconnect)):
            raise TypeError(f"expected on_disconnect to be callable, or None, got {on_disconnect!r}")
        return HubResponse(
            self,
            request,
            check_patterns(topics, limit=self.max_topics),
            get_last_event_id(request),
            last=check_last(last),
            policy=check_overflow(on_overflow),
            headers=headers,
            user=user,
            grant=grant,
            shaping=self._check_shaping(filter, map, envelope, heartbeat, retry),
            changeable=changeable,
            background=background,
            on_disconnect=on_disconnect,
        )

    def _check_shaping(
        self,
        filter: Filter | None,
        map: Map | None,
        envelope: Literal["topic"] | None,
        heartbeat: float | Literal["hub"] | None,
        retry: float | None,
    ) -> Shaping:
        for name, value in (("filter", filter), ("map", map)):
            if not (value is None or callable(value)):
                raise TypeError(f"expected {name} to be callable, or None, got {value!r}")
        if envelope not in (None, "topic"):
            raise ValueError(f"expected envelope to be 'topic' or None, got {envelope!r}")
        heartbeat = self.heartbeat if heartbeat == "hub" else check_limit("heartbeat", heartbeat)
        if retry is not None:
            retry = check_seconds("retry", retry, most=_MAX_RETRY)
        return Shaping(envelope is not None, filter, map, heartbeat, retry)

    @staticmethod
    def asgi_client() -> ASGIApp:
        """Return an ASGI application that serves ``tickertape.js``, the client for pages.

        Its path must end in ``tickertape.js``: ``app.add_route("/tickertape.js", hub.asgi_client())`` in Starlette and
        FastAPI, or ``app.mount("/js", hub.asgi_client())`` for ``/js/tickertape.js``.
        """
        return client_script()

    async def find_start(self, patterns: Patterns, last_event_id: str | None, last: Last) -> Start:
        """Return the position at which a subscription starts; for servers of its streams.

        Raises:
            HubClosedError: the hub is closed or draining.
            BrokerError: the log cannot be read.
        """
        with self._traced_opening(patterns):
            await self._ready()
            self._check_accepting()
            return await find_start(self._broker, self.delivery, patterns, last_event_id, last)

    def is_over(self, start: Start, patterns: Patterns) -> bool:
        """Return True if nothing follows a start: all patterns are topics, and all of them ended before it."""
        end = self.delivery.window.end_of(patterns)
        return end is not None and start.gap is None and start.cursor >= end

    def subscribe_at(
        self, start: Start, patterns: Patterns, policy: OverflowPolicy, user: Any, shaping: Shaping = _PLAIN
    ) -> Subscription:
        """Register a subscription that has no output yet; for servers of its streams.

        Raises:
            HubClosedError: the hub is closed or draining.
        """
        self._check_accepting()
        subscription = self.delivery.subscribe(
            patterns, start.cursor, start.gap, policy, user, shaping.envelope, shaping.form
        )
        subscription.noted = start.noted
        return subscription

    def open_direct(
        self,
        patterns: Patterns,
        last_event_id: str | None,
        last: Last,
        policy: OverflowPolicy,
        envelope: bool = False,
        grant: Grant = EVERYTHING,
        changeable: bool = False,
    ) -> tuple[bytes, DirectOutput] | None:
        """Register a subscription that is written to a socket; for servers that own their connections.

        The grant must cover the patterns.

        Return its first block and its output. Return ``None`` if the start can only be found by a search in the log,
        or if nothing follows it.

        Raises:
            HubClosedError: the hub is closed or draining.
        """
        self._check_accepting()
        delivery = self.delivery
        start = start_in_window(delivery, last_event_id, last)
        if start is None or self.is_over(start, patterns):
            return None
        with self._traced_opening(patterns):
            subscription = delivery.subscribe(patterns, start.cursor, start.gap, policy, grant.user, envelope)
        self.limit_age(subscription, grant.until)
        own_id = self.presence.name(subscription) if changeable else None
        opening = opening_block(subscription, delivery.window.epoch, self.retry_block(), own_id)
        return opening, DirectOutput(delivery, subscription, self.drain)

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        """Return a page of the log, as :meth:`Broker.read` does; for programs that keep their own records in it.

        Raises:
            HubClosedError: the hub is closed.
            BrokerError: the log cannot be read.
        """
        await self._ready()
        return await self._broker.read(after, limit, topics)

    async def read_recent(self, after: int, upto: Cursor, topics: TopicFilter) -> list[Record] | None:
        """Return records from memory; for programs that keep their own records in the log.

        Arguments:
            after: the offset after which to start.
            upto: the cursor of a record that is in the log. The hub sees it in a moment, if it has not yet.
            topics: the topics to return.

        Returns:
            The records up to that one; ``None`` if they are not in memory, or too many: read the log then.
        """
        delivery = await self._ready()
        with suppress(TimeoutError):
            async with asyncio.timeout(_RECENT):
                while delivery.window.newest < upto.offset and delivery.window.epoch == upto.epoch:
                    await delivery.next_progress()
        window = delivery.window
        if window.epoch != upto.epoch or window.newest < upto.offset or upto.offset - after > _MAX_RECENT:
            return None
        return window.records(after, upto.offset, topics)

    def attach(self, companion: Companion) -> None:
        """Close an object with the hub, before the log is closed."""
        self._companions.append(companion)

    def subscribers(self, topic: str | None = None) -> int:
        """Return the number of subscribers, or of those that get the events of ``topic``."""
        if self._delivery is None and not self._managed:
            return 0  # not used yet
        return self.delivery.count(None if topic is None else check_topic(topic))

    def topics(
        self,
        *,
        after: str = "",
        limit: int | None = None,
        within: str | Iterable[str] | None = None,
        search: str = "",
    ) -> dict[str, int]:
        """Return the topics with records in the window, sorted, each with the number of its subscribers.

        Arguments:
            after: the topic after which to start.
            limit: the greatest number of topics.
            within: patterns of the topics to return; ``None`` for all, also those of the hub itself.
            search: a text that the topics contain.
        """
        delivery = self.delivery
        wanted = None if within is None else compile_patterns(check_patterns(within, limit=None))
        found = (
            topic
            for topic in delivery.window.topics
            if topic > after and search in topic and (wanted is None or wanted(topic))
        )
        page = sorted(found) if limit is None else heapq.nsmallest(limit, found)
        return {topic: delivery.count(topic) for topic in page}

    async def history(
        self,
        topics: str | Iterable[str],
        *,
        after: str | None = None,
        last: int | None = None,
        limit: int = 100,
        max_bytes: int | None = None,
    ) -> tuple[list[tuple[Cursor, Record]], str | None]:
        """Return kept events, oldest first.

        Arguments:
            topics: a pattern or several.
            after: the text of the cursor after which to start; by default, with the oldest.
            last: the number of newest events to return, at least 1; in place of all other options.
            limit: the greatest number of events.
            max_bytes: the greatest number of bytes of their data, unless the first event alone has more. ``None`` means
                no limit.

        Returns:
            The records with their cursors, and the reason of the gap after ``after``, if there is one.

        Raises:
            InvalidTopicError: a pattern breaks the syntax.
            ValueError: ``last`` is not as described, or there is another option.
            HubClosedError: the hub is closed.
            BrokerError: the log cannot be read.
        """
        patterns = check_patterns(topics, limit=self.max_topics)
        if last is not None and (after is not None or max_bytes is not None):
            raise ValueError("expected last alone, got after or max_bytes too")
        delivery = await self._ready()
        if last is not None:
            limit = _check_count("last", last)
            state = await self._broker.state()
            await self._has_seen(delivery, Cursor(state.epoch, state.newest))
            newest = await find_start(self._broker, delivery, patterns, None, last)
            after = str(Cursor(self.epoch, newest.cursor))
        epoch = self.epoch
        cursor = None if after is None else Cursor.parse(after)
        start = cursor.offset if cursor is not None and cursor.epoch == epoch else 0
        wanted = compile_patterns(patterns)
        step = limit if max_bytes is None else min(limit, _HISTORY_STEP)
        state, records = await self._broker.read(start, step, wanted)
        known = cursor is not None and cursor.epoch == state.epoch and cursor.offset <= state.newest
        if start and not known:
            state, records = await self._broker.read(0, step, wanted)
        found = list(records)
        while max_bytes is not None and len(records) == step and len(found) < limit:
            if sum(map(_size_of, found)) >= max_bytes:
                break
            step = min(2 * step, _MAX_HISTORY_STEP, limit - len(found))
            page, records = await self._broker.read(found[-1].offset, step, wanted)
            if page.epoch != state.epoch:
                break
            found += records
        if max_bytes is not None:
            found = [*_within(found, max_bytes)]
        gap = None
        if after is not None and last is None:
            gap = "reset" if not known else "expired" if state.lost_upto(start, patterns) > start else None
        return [(Cursor(state.epoch, record.offset), record) for record in found], gap

    async def discard(self, topic: str, upto: str) -> None:
        """Remove the events of a topic up to a cursor from the log, before its limits do.

        Only a topic with a separate rule can lose events in this way (:class:`~tickertape.broker.Retention`), and
        those that resume before ``upto`` get a gap. Does nothing for others, or if the broker cannot do it.

        Arguments:
            topic: the topic.
            upto: the cursor of the newest event to remove.

        Raises:
            InvalidTopicError: the topic breaks the syntax.
            HubClosedError: the hub is closed.
            BrokerError: the log cannot be reached.
        """
        delivery = await self._ready()
        cursor = Cursor.parse(upto)
        if cursor is None or cursor.epoch != delivery.window.epoch:
            return
        delivery.window.discard(check_topic(topic), cursor.offset)
        if isinstance(self._broker, DiscardingBroker):
            await self._broker.discard(topic, cursor.offset)

    # Access, and the end of streams whose right has ended.

    async def authorize(self, request: Any) -> Grant:
        """Return the grant of a request; one for everything if the hub has no access control.

        Raises:
            UnauthorizedError: the request has an invalid credential.
        """
        return EVERYTHING if self.access is None else await self.access(request)

    def authorize_now(self, scope: Scope) -> Grant | None:
        """Return the grant of a request if the hub's access can tell without waiting; else ``None``.

        Raises:
            UnauthorizedError: the request has an invalid credential.
        """
        access: Any = self.access
        if access is None:
            return EVERYTHING
        return access.decide(scope) if isinstance(access, ImmediateAccess) else None

    async def disconnect(self, *, user: str | int) -> None:
        """End all streams of a user, on all hubs of this log, within a second.

        They end with the notice ``stream:expired`` and the reason ``revoked``. A client that reconnects
        is served if its credential is still valid: to refuse it, see :class:`tickertape.access.Revocations`.

        Arguments:
            user: the user of the streams' grants, or the value that was passed as ``user=``.

        Raises:
            ValueError: the user is neither a str nor an int.
            BrokerError: the record was not stored.
        """
        if isinstance(user, bool) or not isinstance(user, (str, int)):
            raise ValueError(f"expected user to be a str or an int, got {user!r}")
        await self.publish(REVOCATIONS, {"user": user}, event="access:disconnect")

    def _revoked(self, record: Record) -> None:
        try:
            user = json.loads(record.data)["user"]
        except (ValueError, KeyError, TypeError):
            return
        delivery = self._delivery
        if delivery is None or not isinstance(user, (str, int)):
            return
        for subscription in self.presence.subscriptions:
            if subscription.user == user:
                self._finish(delivery, subscription, DisconnectReason.REVOKED)

    def watch(self, topic: str, watcher: Callable[[Record], None]) -> None:
        """Call ``watcher`` with each new record of a topic; for programs that keep their own records in the log.

        When the log was lost and found again, it may get some records a second time.
        """
        self._watchers.append((topic, watcher))
        if self._delivery is not None:
            self._delivery.watch(topic, watcher)

    def limit_age(self, subscription: Subscription, until: float | None) -> None:
        """End a stream at ``until``, in seconds since the Unix epoch, and when it is as old as ``max_age``."""
        delivery, now = self.delivery, self.clock.time()
        if until is not None:
            self.limit_right(subscription, until)
        if self.max_age is not None:
            age = self.max_age * (1 - _AGE_JITTER * self.random())
            delivery.expire_at(subscription, now + age, DisconnectReason.MAX_AGE)

    def limit_right(self, subscription: Subscription, until: float) -> None:
        """End a stream at ``until``, in seconds since the Unix epoch, because the right to it ends."""
        when = self.clock.time() + until - time.time()
        self.delivery.expire_at(subscription, when, DisconnectReason.EXPIRED)

    def last_block(self, reason: DisconnectReason | None, retry: float | None = None) -> bytes:
        """Return the last bytes of a stream that the hub ends: a notice if there is one, and a reconnection time."""
        if reason is DisconnectReason.EXPIRED or reason is DisconnectReason.REVOKED:
            return EXPIRED[reason] + self.retry_block(retry)
        return self.retry_block(retry)

    # Ending.

    def drain(self, within: float | None = None) -> float:
        """Accept no more subscriptions, and end all streams. Return the seconds that this may take.

        Streams end one after the other, so that their clients do not all reconnect at once: over 2 ms for each
        stream, at most over ``drain_window``. Events are accepted until the hub is closed.

        Arguments:
            within: seconds that the server grants, if these are fewer.
        """
        delivery = self._delivery
        subscriptions = self.presence.subscriptions
        window = self.drain_window if within is None else min(self.drain_window, within)
        spread = min(window, _DRAIN_STEP * (len(subscriptions) - 1)) if subscriptions else 0.0
        if self._draining or delivery is None:
            return spread
        self._draining = True
        logger.info("draining %d subscribers over %.1f s", len(subscriptions), spread)
        now = self.clock.time()
        for subscription in subscriptions:
            if spread:
                self.clock.call_at(now + self.random() * spread, self._finish, delivery, subscription)
            else:
                self._finish(delivery, subscription)
        if not self._managed:
            self.clock.call_at(now + spread + _LAST_WORDS, self._close_soon)
        return spread

    def _close_soon(self) -> None:
        """Close a hub that has opened itself: the server of its streams has stopped."""
        if not self._managed and self._delivery is not None and self._loop is not None:
            task = self._loop.create_task(self.close(), name="tickertape close")
            self._closers.add(task)
            task.add_done_callback(self._closers.discard)

    def retry_block(self, seconds: float | None = None) -> bytes:
        """Return a block with a reconnection time, another one for each client; by default, around the hub's."""
        spread = 1 + _RETRY_JITTER * (2 * self.random() - 1)
        return b"retry: %d\n\n" % int((self.retry if seconds is None else seconds) * spread * 1000)

    def _finish(
        self,
        delivery: Delivery,
        subscription: Subscription,
        reason: DisconnectReason = DisconnectReason.DRAINING,
    ) -> None:
        if isinstance(subscription.output, DirectOutput):
            subscription.output.finish(self.last_block(reason), reason)
        else:
            delivery.end(subscription, reason)

    def statistics(self) -> HubStatistics:
        """Return the state of the hub, and its counters since it was opened."""
        window, counters = self.delivery.window, self.delivery.counters
        return HubStatistics(
            subscribers=len(self.presence),
            streams=dict(counters.active),
            topics=len(window.topics),
            window_events=len(window),
            window_bytes=window.bytes,
            lag=max(self._lag(self.delivery, 0), 0) + window.newest - self.delivery.position,
            published=self._published,
            opened=counters.opened,
            changed=counters.changed,
            delivered=counters.delivered,
            delivered_bytes=counters.delivered_bytes,
            superseded=counters.superseded,
            delayed=counters.delayed,
            skipped=counters.skipped,
            gaps=dict(counters.gaps),
            disconnects=dict(counters.disconnects),
            broker_errors=dict(counters.errors),
            stream_seconds=counters.stream_seconds.snapshot(),
            append_seconds=counters.append_seconds.snapshot(),
            read_seconds=counters.read_seconds.snapshot(),
            delivery_seconds=counters.delivery_seconds.snapshot(),
            feeds={name: feed.statistics() for name, feed in self._feeds.items()},
        )

    # Regular work.

    def _beat(self) -> None:
        if self._delivery is not None and self.heartbeat is not None:
            self._delivery.beat(HEARTBEAT, self.heartbeat)

    def _check(self) -> None:
        delivery = self._delivery
        if delivery is None:
            return
        if self.send_timeout is not None:
            delivery.check(self.send_timeout)
        for subscription, reason in delivery.take_expired():
            self._finish(delivery, subscription, reason)


class _Guard:
    """Drains a hub when the server of a stream stops. Each stream has one, since it has no other object of its own."""

    __slots__ = ("_hub",)

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def drain(self) -> float:
        """End the streams of the hub, and return within how many seconds."""
        return self._hub.drain()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _size_of(record: Record) -> int:
    data = record.data
    return len(data) if data.isascii() else len(data.encode("utf-8", "surrogatepass"))


def _within(records: Iterable[Record], max_bytes: int) -> Iterator[Record]:
    """Yield the first record, and those after it as long as the data of all has at most so many bytes."""
    size = 0
    for number, record in enumerate(records):
        size += _size_of(record)
        if number and size > max_bytes:
            return
        yield record


def _check_count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"expected {name} to be an int of at least 1, got {value!r}")
    return value
