"""The half of a hub that takes events in: published one by one, in batches, from threads, and by feeds."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, overload

from ..broker import Broker, Cursor, Draft, SQLConnection, TransactionalBroker
from ..errors import BrokerError, HubClosedError
from .drafting import make_draft

__all__ = ["Publishing"]

logger = logging.getLogger("tickertape.hub")


class Publishing(ABC):
    """Append events to a log.

    Arguments:
        broker: the log.
        max_event_size: the greatest number of bytes of an event's data.
    """

    def __init__(self, broker: Broker, max_event_size: int) -> None:
        self.max_event_size = max_event_size
        self._broker = broker
        self._loop: asyncio.AbstractEventLoop | None = None
        self._soon: set[asyncio.Task[list[Cursor]]] = set()
        self._published = 0

    @abstractmethod
    def _check_open(self) -> None:
        """Raise ``HubClosedError`` unless events can be taken."""

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
        # Checked here as well: one that the wire cannot carry would stop every hub on the log.
        batch = [self.draft(draft.topic, draft.data, event=draft.event, key=draft.key) for draft in drafts]
        return await self._append(batch)

    async def _append(self, batch: list[Draft]) -> list[Cursor]:
        self._check_open()
        cursors = await self._broker.append(batch) if batch else []
        self._published += len(batch)
        return cursors

    def draft(self, topic: str, data: Any = "", *, event: str | None = None, key: str | None = None) -> Draft:
        """Check an event and return it as :meth:`publish_many` takes it; arguments and errors as of :meth:`publish`."""
        return make_draft(topic, data, event, key, self.max_event_size)

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


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
