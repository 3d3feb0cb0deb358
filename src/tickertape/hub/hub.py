"""``Hub``: publish to topics, subscribe to patterns of them, resume without silent loss."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from ..asgi import (
    DEFAULT_HEARTBEAT,
    DEFAULT_SEND_TIMEOUT,
    DisconnectReason,
    HasScope,
    Scope,
    get_last_event_id,
    open_streams,
)
from ..broker import DEFAULT_RETENTION, Broker, LogState, Record, Retention, create_broker
from ..errors import BrokerError, HubClosedError
from ..timing import Clock
from ..wire import HEARTBEAT, Cursor, ServerSentEvent, check_topic
from .defaults import (
    DEFAULT_DRAIN_WINDOW,
    DEFAULT_MAX_EVENT_SIZE,
    DEFAULT_RETRY,
)
from .delivery import Delivery
from .direct import DirectSubscriber
from .following import Follower
from .presence import Presence
from .publishing import Publishing
from .response import HubResponse
from .starting import find_start
from .statistics import HubStatistics
from .subscriber import OverflowPolicy, Start, Subscriber, SubscriberInfo
from .subscription import Subscription
from .topics import MAX_TOPICS, Patterns, check_patterns, matches
from .wheel import Wheel

__all__ = ["Hub", "SubscriptionRequest"]

logger = logging.getLogger("tickertape.hub")

_JITTER: Final = 0.2
"""Part by which reconnection times differ, so that clients which were lost together return apart."""


class SubscriptionRequest(NamedTuple):
    """A subscription that is checked and has its place, and needs someone to be served."""

    info: SubscriberInfo
    start: Start
    policy: OverflowPolicy


class Hub(Publishing):
    """Publish events to topics and bring them to every subscriber, in one order, from a log.

    Arguments:
        broker: the log, as a URL (``memory://``) or a broker.
        retention: how much is kept, in a log that the URL makes and in memory.
        heartbeat: seconds of silence after which a stream gets a comment; ``None`` for never.
        send_timeout: seconds after which a subscriber that takes nothing is dropped; ``None`` for never.
        retry: seconds after which clients are told to reconnect, give or take a fifth.
        max_event_size: the greatest number of bytes of an event's data.
        max_topics: the greatest number of patterns of a subscription.
        drain_window: seconds over which streams are ended when the server stops.
        clock: where timers are set; by default the running event loop.
        random: gives numbers from 0 to 1, for jitter.

    Open it with ``async with``, or as the lifespan of an application: ``FastAPI(lifespan=hub.lifespan)``.
    A hub belongs to the event loop in which it was opened; :meth:`publish_sync` is for other threads.
    """

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
        clock: Clock | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        log = create_broker(broker, retention=retention) if isinstance(broker, str) else broker
        super().__init__(log, max_event_size, random)
        self.heartbeat = heartbeat
        self.send_timeout = send_timeout
        self.retry = retry
        self.max_topics = max_topics
        self.drain_window = drain_window
        self.presence = Presence()
        self.draining = False
        self._retention = retention
        self._given_clock = clock
        self._ids = itertools.count(1)
        self._wheel: Wheel | None = None
        self._delivery: Delivery | None = None
        self._follower: Follower | None = None

    def __repr__(self) -> str:
        state = "closed" if self._delivery is None else "draining" if self.draining else "open"
        return f"<Hub {self._broker!r} {state}>"

    # Opening and closing.

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Be open while an application runs: give it as the ``lifespan`` of Starlette or FastAPI."""
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
        """Connect to the log and begin to follow it.

        Raises:
            BrokerError: the log cannot be reached.
        """
        if self._delivery is not None:
            raise HubClosedError("expected a hub that is not open yet, got one that is: a hub is opened once")
        self._loop = asyncio.get_running_loop()
        self._wheel = Wheel(self._given_clock or self._loop)
        self._follower = Follower(self._broker, self._retention, self._wheel, self.random)
        self._delivery = await self._follower.start(await self._broker.open())
        self._wheel.start(self._beat, self._check)
        self._start_feeds(self._wheel)

    async def close(self) -> None:
        """End all streams and let go of the log; may be called twice."""
        open_streams.discard(self)
        if self._delivery is None:
            return
        self.draining = True
        delivery, self._delivery = self._delivery, None
        for subscriber in list(delivery.subscribers):
            self._finish(subscriber)
        delivery.close()
        if self._wheel is not None:
            self._wheel.stop()
        await self._stop_feeds()
        if self._follower is not None:
            await self._follower.stop()
        await self._broker.close()

    async def check(self) -> LogState:
        """Ask the log for its state, from end to end: what a health endpoint calls.

        Raises:
            HubClosedError: the hub is closed or draining.
            BrokerError: the log cannot be reached, or the hub has lost touch with it.
        """
        if self._delivery is None or self.draining:
            raise HubClosedError("expected an open hub, got one that is " + ("draining" if self.draining else "closed"))
        state = await self._broker.state()
        if self._follower is None or not self._follower.healthy:
            raise BrokerError("expected a hub that follows its log, got one that is connecting to it again")
        return state

    # Subscribing.

    @asynccontextmanager
    async def subscribe(
        self,
        *topics: str,
        last_event_id: str | None = None,
        last: int | None = None,
        on_overflow: str = OverflowPolicy.DISCONNECT,
        user: Any = None,
    ) -> AsyncIterator[Subscription]:
        """Enter with ``async with``, and iterate over the subscription with ``async for``.

        Arguments:
            topics: patterns: ``*`` for one segment, ``**`` for any number.
            last_event_id: the cursor to go on from.
            last: without a cursor, the number of past events to start with.
            on_overflow: what to do when it is read too slowly: ``"disconnect"``, ``"skip"`` or ``"latest"``.
            user: who it is, for :attr:`presence`.

        Raises:
            InvalidTopicError: a pattern breaks the syntax, or there are too many.
            BrokerError: the log cannot be read.
        """
        patterns = check_patterns(topics, limit=self.max_topics)
        subscription = self.serve(await self.request(patterns, last_event_id, last, OverflowPolicy(on_overflow), user))
        try:
            yield subscription
        finally:
            subscription.close()

    def response(
        self,
        request: HasScope | Scope,
        topics: str | Iterable[str],
        *,
        last: int | None = None,
        on_overflow: str = OverflowPolicy.DISCONNECT,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        user: Any = None,
    ) -> HubResponse:
        """Return a response that streams the events of ``topics`` to the client.

        Arguments:
            request: what is answered; its ``Last-Event-ID`` tells where to go on.
            topics: a pattern or several: ``*`` for one segment, ``**`` for any number.
            last: for a client without a ``Last-Event-ID``, the number of past events to start with.
            on_overflow: what to do when the client reads too slowly: ``"disconnect"``, ``"skip"`` or ``"latest"``.
            headers: more headers; one of the same name takes the place of ours.
            user: who it is, for :attr:`presence`.

        Raises:
            InvalidTopicError: a pattern breaks the syntax, or there are too many.
        """
        patterns = check_patterns(topics, limit=self.max_topics)
        last_event_id = get_last_event_id(request)
        return HubResponse(self, patterns, last_event_id, last, OverflowPolicy(on_overflow), headers, user)

    async def request(
        self,
        patterns: Patterns,
        last_event_id: str | None,
        last: int | None,
        policy: OverflowPolicy,
        user: Any,
    ) -> SubscriptionRequest:
        """Find the place where a subscription starts; for those who serve it."""
        delivery = self._opened()
        start = await find_start(self._broker, delivery, patterns, last_event_id, last)
        return SubscriptionRequest(SubscriberInfo(next(self._ids), patterns, time.time(), user), start, policy)

    def serve(self, request: SubscriptionRequest) -> Subscription:
        """Serve a subscription to whoever asks it for events."""
        if self.draining:
            raise HubClosedError("expected an open hub, got one that is draining")
        subscription = Subscription(self._opened(), *request, self.presence.leave)
        self.presence.join(subscription)
        return subscription

    def serve_direct(self, subscription: Subscription) -> DirectSubscriber:
        """Go on serving a subscription as the protocol of its own connection."""
        start = Start(subscription.cursor, subscription.gap)
        return DirectSubscriber(
            self._opened(), subscription.info, start, subscription.policy, self.presence.leave, self.drain
        )

    def subscribers(self, topic: str | None = None) -> int:
        """Return the number of subscribers, or of those who get what is published to ``topic``."""
        return self._opened().count(None if topic is None else check_topic(topic))

    def topics(self, *, after: str = "", limit: int | None = None) -> dict[str, int]:
        """Return the topics with records in the window, sorted, each with the number of its subscribers.

        Arguments:
            after: the topic behind which to start.
            limit: the greatest number of topics.
        """
        delivery = self._opened()
        topics = (topic for topic in delivery.window.topics if topic > after)
        page = sorted(topics) if limit is None else heapq.nsmallest(limit, topics)
        return {topic: delivery.count(topic) for topic in page}

    async def history(
        self, *topics: str, after: str | None = None, limit: int = 100
    ) -> tuple[list[tuple[Cursor, Record]], str | None]:
        """Return kept events, oldest first.

        Arguments:
            topics: patterns.
            after: the text of the cursor to start behind; by default, with the oldest.
            limit: the greatest number of events.

        Returns:
            The records with their cursors, and the reason of the gap before them, if there is one.
        """
        patterns = check_patterns(topics, limit=self.max_topics)
        self._opened()
        cursor = None if after is None else Cursor.parse(after)
        start = cursor.offset if cursor is not None and cursor.epoch == self.epoch else 0
        state, records = await self._broker.read(start, limit, lambda topic: matches(patterns, topic))
        known = cursor is not None and cursor.epoch == state.epoch and cursor.offset <= state.newest
        if start and not known:
            state, records = await self._broker.read(0, limit, lambda topic: matches(patterns, topic))
        gap = None
        if after is not None:
            gap = "reset" if not known else "expired" if start + 1 < state.oldest else None
        return [(Cursor(state.epoch, record.offset), record) for record in records], gap

    # Ending.

    def drain(self) -> float:
        """Take no more subscriptions, and end all streams; return the seconds that this may take.

        Events are taken until the hub is closed: requests under way may publish their last ones.
        """
        if not self.draining and self._delivery is not None:
            self.draining = True
            logger.info("draining %d subscribers over %.1f s", len(self._delivery.subscribers), self.drain_window)
            now = self.clock.time()
            for subscriber in self._delivery.subscribers:
                self.clock.call_at(now + self.random() * self.drain_window, self._finish, subscriber)
        return self.drain_window

    def jittered_retry(self) -> bytes:
        """Return a block that tells a client when to reconnect, each client another time."""
        spread = 1 + _JITTER * (2 * self.random() - 1)
        return ServerSentEvent(retry=int(self.retry * spread * 1000)).encode()

    def _finish(self, subscriber: Subscriber) -> None:
        if isinstance(subscriber, DirectSubscriber):
            subscriber.finish(self.jittered_retry(), DisconnectReason.DRAINING)
        else:
            subscriber.end(DisconnectReason.DRAINING)

    def statistics(self) -> HubStatistics:
        """Return what the hub holds now, and what it did since it was opened."""
        delivery = self._opened()
        counters = delivery.counters
        return HubStatistics(
            subscribers=len(delivery.subscribers),
            topics=len(delivery.window.topics),
            window_events=len(delivery.window),
            window_bytes=delivery.window.bytes,
            published=self._published,
            delivered=counters.delivered,
            superseded=counters.superseded,
            gaps=dict(counters.gaps),
            disconnects=dict(counters.disconnects),
            feeds={name: feed.statistics() for name, feed in self._feeds.items()},
        )

    @property
    def clock(self) -> Clock:
        """One coarse clock for all timers of this hub's streams."""
        if self._wheel is None:
            raise HubClosedError("expected an open hub, got one that was never opened")
        return self._wheel

    @property
    def epoch(self) -> str:
        """The life of the log that this hub follows."""
        return self._opened().window.epoch

    def _check_open(self) -> None:
        self._opened()

    def _opened(self) -> Delivery:
        if self._delivery is None:
            raise HubClosedError("expected an open hub, got one that is closed: use `async with hub` or its lifespan")
        return self._delivery

    # Turning the wheel.

    def _beat(self) -> None:
        if self._delivery is not None and self.heartbeat is not None:
            self._delivery.beat(HEARTBEAT, self.heartbeat)

    def _check(self) -> None:
        if self._delivery is not None and self.send_timeout is not None:
            self._delivery.check(self.send_timeout)
