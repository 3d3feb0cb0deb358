"""``Subscription``: a subscriber that asks for what comes next, in this process or for a portable response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

from ..asgi import DisconnectReason
from ..errors import SlowConsumerError
from ..wire import ServerSentEvent
from .delivery import Delivery, Range
from .subscriber import OverflowPolicy, Start, Subscriber, SubscriberInfo
from .window import Entry

__all__ = ["HubEvent", "Subscription"]


class HubEvent(ServerSentEvent):
    """An event of a hub's log: its ``id`` is its cursor, and it knows its ``topic``."""

    __slots__ = ("topic",)

    topic: str

    def __init__(self, entry: Entry, epoch: str) -> None:
        record = entry.record
        super().__init__(record.data, event=record.event, id=f"{epoch}-{record.offset}")
        object.__setattr__(self, "topic", record.topic)


class Subscription(Subscriber):
    """Iterate over the events of a hub's topics; made by :meth:`Hub.subscribe`.

    Gives a :class:`HubEvent` for each event, and ``stream:gap`` as a ``ServerSentEvent`` where some
    are missing. It holds a cursor, not a queue: what is not asked for stays in the log.

    Raises:
        SlowConsumerError: the log has moved on beyond the cursor, and ``on_overflow`` is
            ``"disconnect"``.
    """

    __slots__ = ("_events", "_waiting")

    def __init__(
        self,
        delivery: Delivery,
        info: SubscriberInfo,
        start: Start,
        policy: OverflowPolicy,
        on_end: Callable[[Subscriber], Any],
    ) -> None:
        super().__init__(delivery, info, start, policy, on_end)
        self._waiting: asyncio.Future[None] | None = None
        self._events: list[ServerSentEvent] = []

    def __repr__(self) -> str:
        state = self.reason or "open"
        return f"<Subscription {self.info.id} {self.info.topics} cursor={self.cursor} {state}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[ServerSentEvent]:
        return self

    async def __anext__(self) -> ServerSentEvent:
        while not self._events:
            found = await self.next_range()
            if found is None:
                raise StopAsyncIteration
            if found.gap is not None:
                self._events.append(found.gap)
            self._events += [HubEvent(entry, self._delivery.window.epoch) for entry in found.entries]
            self._events.reverse()
        return self._events.pop()

    async def next_range(self) -> Range | None:
        """Return the next events and gaps, as soon as there are any; ``None`` when the subscription was closed.

        Raises:
            SlowConsumerError: the cursor fell off the log.
            BrokerError: the log cannot be read.
        """
        behind = self._caught_up
        while self.reason is None:
            newest = self._delivery.window.newest
            if self.gap is not None:
                gap, self.gap = self.gap, None
                return Range(b"", self.cursor, [], gap)
            if self.cursor >= newest:
                self._caught_up = True
                await self._wait()
                behind = False
                continue
            try:
                found = self._next_in_window(newest, behind=behind) if self._in_window() else await self._fetch()
            except SlowConsumerError:
                self.end(DisconnectReason.SLOW_CONSUMER)
                raise
            if found is None or self.reason is not None:
                continue
            self.cursor = found.upto
            self._delivery.counters.delivered += len(found.entries)
            if found.entries or found.gap is not None:
                return found
        return None

    async def _wait(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        self.audience.waiters[self] = None
        try:
            await self._waiting
        finally:
            self._waiting = None
            self.audience.waiters.pop(self, None)

    def wake(self) -> None:
        """Look again what lies behind the cursor."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def end(self, reason: DisconnectReason) -> None:
        """Leave the hub; who waits for the next event is woken."""
        super().end(reason)
        self.wake()

    def close(self) -> None:
        """End the subscription; may be called twice."""
        self.end(DisconnectReason.CLIENT_CLOSED)
