"""Subjects of NATS that hold no log of ours: followed as they are published, or from a JetStream stream."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import nats.errors
import nats.js.errors
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from ...errors import BrokerError
from .link import Feed, Link

__all__ = ["SubjectLink"]

_QUEUED: Final = 1000
"""Messages that the driver holds, beside those that wait here."""

_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""Bytes of them: as many as a hub's window holds."""

_PULLED: Final = 100
"""Messages asked of a durable consumer at a time, to be stored together."""

_EXPIRES: Final = 20.0
"""Seconds that the server keeps such a request, in which its pings tell whether it is alive."""

_SLACK: Final = 5.0
"""Seconds more, until it is asked again."""

_MADE_BYTES: Final = 1024 * 1024 * 1024
"""Bytes that a stream keeps that is made here: it drops its oldest messages then, read or not."""

_ASK_AGAIN: Final = frozenset({"404", "408"})
"""Statuses that end a request: there are no messages, or its time is over."""


class SubjectLink(Link):
    """A connection for one subject.

    Attributes:
        lost: messages that came faster than they were read, and are gone; durable consumers lose none.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__("", timeout)
        self.lost = 0

    async def _hear(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            self.lost += 1
        else:
            await super()._hear(error)

    @asynccontextmanager
    async def follow(self, subject: str, queue: str) -> AsyncIterator[Feed[Any]]:
        """Have messages delivered as they are published.

        Arguments:
            subject: which; with ``*`` and ``>`` as NATS has them.
            queue: a name under which subscribers share the messages; ``""`` to get all of them.
        """
        feed: Feed[Any] = Feed(0)
        self._feeds.add(feed)
        limits: dict[str, Any] = {"pending_msgs_limit": _QUEUED, "pending_bytes_limit": _QUEUED_BYTES}
        try:
            subscription = await self._ask(self._client.subscribe(subject, queue, cb=feed.put, **limits))
            await self._ask(self._client.flush())  # refused or not, it is known to the server now
            try:
                yield feed
            finally:
                with suppress(nats.errors.Error, OSError):
                    await subscription.unsubscribe()
        finally:
            self._feeds.discard(feed)

    async def find_stream(self, subject: str, make: str | None) -> str:
        """Return a name for the life of the stream that holds a subject.

        Arguments:
            subject: which.
            make: the name under which it is made if there is none; ``None`` not to.

        Raises:
            BrokerError: there is none, or it cannot be made.
        """
        try:
            self._stream = await self._ask(self._jetstream.find_stream_name_by_subject(subject))
        except nats.js.errors.NotFoundError:
            if make is None:
                said = f"expected a stream that holds {subject!r} at {self._where}, got none: make one, or give stream="
                raise BrokerError(said) from None
            self._stream = make
            await self.create(StreamConfig(name=make, subjects=[subject], max_bytes=_MADE_BYTES))
        except nats.js.errors.APIError as error:
            raise self._refused("find", error) from error
        info = await self.info()
        if info is None:
            raise BrokerError(f"expected the stream {self._stream!r} at {self._where}, got none: it was deleted")
        # Sequences begin anew when a stream is deleted and made again.
        return f"{self._stream}-{int(info.created.timestamp() * 1_000_000):x}" if info.created else self._stream

    @asynccontextmanager
    async def pull(self, subject: str, durable: str) -> AsyncIterator[AsyncGenerator[list[Any], None]]:
        """Give the messages that a durable consumer has not seen acknowledged; it is made if there is none.

        Arguments:
            subject: which; in the stream that was found.
            durable: the consumer's name.

        Raises:
            BrokerError: the consumer is another one's, or cannot be made, or was deleted meanwhile.
        """
        await self._bind(subject, durable)
        feed: Feed[Any] = Feed(0)
        self._feeds.add(feed)
        try:
            inbox = self._client.new_inbox()
            subscription = await self._ask(self._client.subscribe(inbox, cb=feed.put))
            try:
                yield self._pulled(feed, inbox, f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{durable}")
            finally:
                with suppress(nats.errors.Error, OSError):
                    await subscription.unsubscribe()
        finally:
            self._feeds.discard(feed)

    async def _bind(self, subject: str, durable: str) -> None:
        config = ConsumerConfig(durable_name=durable, filter_subject=subject, ack_policy=AckPolicy.EXPLICIT)
        try:
            try:
                found = (await self._ask(self._jetstream.consumer_info(self._stream, durable))).config
            except nats.js.errors.NotFoundError:
                found = (await self._ask(self._jetstream.add_consumer(self._stream, config))).config
        except nats.js.errors.APIError as error:
            raise self._refused(f"make the consumer {durable!r} of", error) from error
        if found.filter_subject != subject or found.deliver_subject or found.ack_policy != AckPolicy.EXPLICIT:
            said = f"a consumer {durable!r} to pull and acknowledge {subject!r} from the stream {self._stream!r}"
            raise BrokerError(f"expected {said}, got another one of that name: {found.filter_subject!r}")

    async def _pulled(self, feed: Feed[Any], inbox: str, request: str) -> AsyncGenerator[list[Any], None]:
        body = json.dumps({"batch": _PULLED, "expires": int(_EXPIRES * 1e9)}).encode()
        wanted = 0
        while True:
            if wanted <= 0:
                await self._ask(self._client.publish(request, body, reply=inbox))
                wanted = _PULLED
            answers = await feed.take(_EXPIRES + _SLACK)
            messages = []
            for answer in answers:
                status = (answer.headers or {}).get("Status")
                if status is None or answer.data:
                    messages.append(answer)
                elif status in _ASK_AGAIN:
                    wanted = 0
                else:
                    said = (answer.headers or {}).get("Description", "no answer")
                    raise BrokerError(f"lost the consumer of the stream {self._stream!r}: {status} {said}")
            wanted = wanted - len(messages) if answers else 0
            if messages:
                yield messages
