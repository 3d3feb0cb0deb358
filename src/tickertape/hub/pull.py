"""``PullOutput``, which serves a subscription to a reader: an iterator in this process, or a portable response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, ClassVar, Self

from ..asgi import DisconnectReason
from ..errors import SlowConsumerError
from ..wire import Cursor, End, Gap, ReceivedEvent, TopicsChange
from .delivery import Delivery, Slice
from .statistics import Way
from .subscription import SubscriberInfo, Subscription
from .window import Entry


class HubEvent(ReceivedEvent):
    """An event of a hub's log: its ``id`` is its cursor, and it has a ``topic``."""

    __slots__ = ("topic",)

    topic: str

    def __init__(self, topic: str, data: str, *, event: str | None = None, id: str | None = None) -> None:
        super().__init__(data, event=event, id=id)
        object.__setattr__(self, "topic", topic)

    def _key(self) -> tuple[Any, ...]:
        return (*super()._key(), self.topic)

    def __repr__(self) -> str:
        return f"HubEvent({self.topic!r}, {self.data!r}, event={self.event!r}, id={self.id!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.topic, self.data, self.event, self.id)


def _rebuild(topic: str, data: str, event: str | None, id: str | None) -> HubEvent:
    return HubEvent(topic, data, event=event, id=id)


def events_of(found: Slice, epoch: str) -> list[HubEvent | End]:
    """Return the events of a slice, and the ends of topics between them."""
    return [_event_of(entry, f"{epoch}-{entry.offset}", found.end) for entry in found.entries]


def _event_of(entry: Entry, id: str, end: int | None) -> HubEvent | End:
    record = entry.record
    if entry.ends_topic:
        return End.create(record.data, id, final=record.offset == end)
    return HubEvent(record.topic, record.data, event=record.event, id=id)


class PullOutput:
    """Iterate over the events of a subscription; :meth:`Hub.subscribe` yields it.

    Yields a :class:`HubEvent` for each event, a :class:`Gap` where some are no longer kept, and an :class:`End` where
    a topic ends. If it was opened with ``changeable=True``, it yields a :class:`TopicsChange` for each change of its
    topics. It has no queue: events that are not read yet stay in the log.

    Attributes:
        id: the id for :meth:`Hub.change`; ``None`` without ``changeable=True``.

    Raises:
        SlowConsumerError: the next events are no longer kept, and ``on_overflow`` is ``"disconnect"``.
        BrokerError: the log cannot be read.
    """

    __slots__ = ("_delivery", "_events", "_waiting", "id", "subscription")

    way: ClassVar[Way] = "pull"

    def __init__(self, delivery: Delivery, subscription: Subscription, id: str | None = None) -> None:
        self.subscription = subscription
        self.id = id
        delivery.begin(subscription, self)
        self._delivery = delivery
        self._events: list[HubEvent | End | Gap | TopicsChange] = []  # the current slice, last event first
        self._waiting: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<PullOutput {self.subscription!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[HubEvent | End | Gap | TopicsChange]:
        return self

    async def __anext__(self) -> HubEvent | End | Gap | TopicsChange:
        while not self._events:
            found = await self.next_slice()
            if found is None:
                raise StopAsyncIteration
            self._events = [*reversed(events_of(found, self._delivery.window.epoch))]
            if found.gap is not None:
                self._events.append(found.gap)
            if found.change is not None:
                self._events.insert(0, found.change)
        return self._events.pop()

    @property
    def info(self) -> SubscriberInfo:
        """The description of the subscriber."""
        return self.subscription.info

    @property
    def cursor(self) -> Cursor:
        """The cursor after which the next events follow. Those of the current slice count as read."""
        return Cursor(self._delivery.window.epoch, self.subscription.cursor)

    @property
    def gap(self) -> Gap | None:
        """The gap that comes first, if the subscription could not start where it was asked to."""
        return self.subscription.gap

    @property
    def reason(self) -> DisconnectReason | None:
        """The reason why the subscription ended; ``None`` while it is open."""
        return self.subscription.reason

    def close(self) -> None:
        """End the subscription; may be called twice."""
        self._delivery.end(self.subscription, DisconnectReason.CLIENT_CLOSED)

    async def next_slice(self, *, until: float | None = None) -> Slice | None:
        """Return the next events and gaps as soon as there are any; ``None`` if the subscription has ended.

        Arguments:
            until: the time of the hub's clock at which an empty slice is returned; ``None`` to wait without end.

        Raises:
            SlowConsumerError: the next events are no longer kept.
            BrokerError: the log cannot be read.
        """
        subscription, delivery = self.subscription, self._delivery
        while subscription.reason is None:
            gap = subscription.take_gap()
            if gap is not None:
                return Slice(b"", subscription.cursor, [], gap)
            changed = delivery.take_change(subscription)
            if changed is not None:
                delivery.count_sent(subscription, changed)
                return changed
            if delivery.is_over(subscription):
                delivery.end(subscription, DisconnectReason.ENDED)
                return None
            if delivery.is_ahead(subscription.cursor):
                subscription.caught_up = True
                waiting = self._waiting = asyncio.get_running_loop().create_future()
                subscription.audience.waiters[self] = None
                timer = None if until is None else delivery.clock.call_at(until, self.wake)
                try:
                    await waiting
                except BaseException:
                    subscription.audience.waiters.pop(self, None)
                    raise
                finally:
                    self._waiting = None
                    if timer is not None:
                        timer.cancel()
                timed_out = until is not None and delivery.clock.time() >= until
                if timed_out and delivery.is_ahead(subscription.cursor):
                    break
                continue
            found: Slice | None
            if delivery.in_window(subscription):
                found = delivery.next_slice(subscription, delivery.window.newest)
            else:
                found = await self._fetch_slice()
            if found is None or subscription.reason is not None:
                continue
            subscription.cursor = found.upto
            delivery.count_sent(subscription, found)
            if found.entries or found.gap is not None:
                return found
            if until is not None and delivery.clock.time() >= until:
                break  # not after another wait: a log with many events for others would have moved on by then
            await asyncio.sleep(0)  # a long part of the log without matching events must not hold the loop
        return None if subscription.reason is not None else Slice(b"", subscription.cursor, [])

    async def _fetch_slice(self) -> Slice | None:
        try:
            return await self._delivery.fetch_slice(self.subscription)
        except SlowConsumerError:
            self._delivery.end(self.subscription, DisconnectReason.SLOW_CONSUMER)
            raise

    # Called by the audience and the delivery.

    @property
    def live(self) -> bool:
        """True while the reader waits for the next event."""
        return self._waiting is not None and not self._waiting.done()

    def skip_to(self, offset: int) -> None:
        """Wake up: up to ``offset`` the log has nothing for this reader."""
        self.subscription.cursor = max(self.subscription.cursor, offset)
        self.wake()

    def settle(self) -> bool:
        """Move the cursor of a reader that waits to the head, and wake it."""
        if self._waiting is not None and not self._waiting.done():
            self.skip_to(self._delivery.position)
        return True

    def wake(self) -> None:
        """Continue if the reader waits."""
        if self._waiting is not None and not self._waiting.done():
            # At once: until the reader runs, its cursor must not be moved with those of the waiting ones.
            self.subscription.audience.waiters.pop(self, None)
            self._waiting.set_result(None)

    def ended(self) -> None:
        """End the iteration if the reader waits."""
        self.wake()
