"""Read one subject of NATS: as it is published, or from a JetStream stream."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from typing import Any, Final

import nats.js.errors
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from ..broker import NatsURL
from ..broker.nats import Inbox, NatsConnection, Refused
from ..errors import BrokerError

logger = logging.getLogger("tickertape.sources")

_LOOK: Final = 10.0
"""Seconds after which lost messages are reported if no more arrive."""

_QUEUED: Final = 1000
"""Messages that wait in the driver for a slow log, and as many again in an inbox."""

_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""Bytes that wait in the driver: as many as a hub's window holds."""

_PULLED: Final = 100
"""Messages requested from a durable consumer at a time, to be stored together."""

_EXPIRES: Final = 20.0
"""Seconds that the server keeps such a request. Until then, its pings show that it is alive."""

_SLACK: Final = 5.0
"""Seconds more until the request is sent again."""

_MADE_BYTES: Final = 1024 * 1024 * 1024
"""Bytes that a stream created here keeps. After that, it drops its oldest messages, read or not."""

_NAME_IN_USE: Final = 10058

_ASK_AGAIN: Final = frozenset({"404", "408"})
"""Statuses that end a request: there are no messages, or its time is over."""


class SubjectReader:
    """Read one subject over a separate connection, until anything fails.

    Arguments:
        url: the servers and the credentials.
        timeout: seconds for an answer.
    """

    def __init__(self, url: NatsURL, timeout: float) -> None:
        self._connection = NatsConnection(url, timeout)
        self._inbox: Inbox[Any] = self._connection.open_inbox(lambda message: message)

    async def connect(self, timeout: float) -> None:
        """Connect to one of the servers; raise ``BrokerError`` if none accepts the connection."""
        await self._connection.connect(timeout)

    async def close(self) -> None:
        """Close the connection, and the driver's subscriptions with it."""
        await self._connection.close()

    async def follow(self, subject: str, queue: str) -> AsyncGenerator[list[Any], None]:
        """Yield messages as they are published, and log how many were dropped because they came too fast.

        Arguments:
            subject: the subject, perhaps with ``*`` and ``>``.
            queue: the name under which subscribers share the messages; ``""`` to get all of them.
        """
        client = self._connection.client
        await client.subscribe(
            subject, queue, cb=self._inbox.deliver, pending_msgs_limit=_QUEUED, pending_bytes_limit=_QUEUED_BYTES
        )
        await self._connection.ask(client.flush(), "subscribe")
        reported = 0
        while True:
            messages = await self._inbox.take(_LOOK)
            dropped = self._connection.dropped - reported
            if dropped:
                logger.warning("lost %d messages of %s: they came too fast", dropped, subject)
                reported += dropped
            if messages:
                yield messages

    async def find_stream(self, subject: str, create: str | None) -> tuple[str, str]:
        """Return the name of the stream that holds a subject, and a name that no later stream shares.

        Arguments:
            subject: the subject.
            create: the name under which the stream is created if there is none; ``None`` to create none.

        Raises:
            BrokerError: there is no stream, or it cannot be created.
        """
        jetstream, where = self._connection.jetstream, self._connection.where
        find = jetstream.find_stream_name_by_subject(subject)
        try:
            stream: str = await self._connection.ask(find, f"find the stream of {subject!r} on {where}")
        except nats.js.errors.NotFoundError:
            if create is None:
                raise BrokerError(f"no stream of {where} holds {subject!r}: create one, or pass stream=") from None
            stream = create
            config = StreamConfig(name=stream, subjects=[subject], max_bytes=_MADE_BYTES)
            try:
                await self._connection.ask(jetstream.add_stream(config), f"create stream {stream!r} of {where}")
            except Refused as error:
                if error.code != _NAME_IN_USE:  # else another process creates it at the same moment
                    raise
        info = await self._connection.ask(jetstream.stream_info(stream), f"describe stream {stream!r} of {where}")
        # Sequences start over when a stream is deleted and created again.
        created = f"-{int(info.created.timestamp() * 1_000_000):x}" if info.created else ""
        return stream, stream + created

    async def pull(self, stream: str, subject: str, durable: str) -> AsyncGenerator[list[Any], None]:
        """Yield the messages that a durable consumer has not seen acknowledged. It is created if necessary.

        The driver's own ``fetch`` would wait until a whole batch is there, and would not notice that the
        consumer was deleted.

        Arguments:
            stream: the stream that holds the subject.
            subject: the subject.
            durable: the consumer's name.

        Raises:
            BrokerError: another consumer has that name, or it cannot be created, or it was deleted at the same time.
        """
        await self._bind(stream, subject, durable)
        client = self._connection.client
        inbox = client.new_inbox()
        await client.subscribe(inbox, cb=self._inbox.deliver)
        request = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        body = json.dumps({"batch": _PULLED, "expires": int(_EXPIRES * 1e9)}).encode()
        wanted = 0
        while True:
            if wanted <= 0:
                await self._connection.ask(client.publish(request, body, reply=inbox), "request messages")
                wanted = _PULLED
            answers = await self._inbox.take(_EXPIRES + _SLACK)
            messages = []
            for answer in answers:
                status = (answer.headers or {}).get("Status")
                if status is None or answer.data:
                    messages.append(answer)
                elif status in _ASK_AGAIN:
                    wanted = 0
                else:
                    reason = (answer.headers or {}).get("Description", "no description")
                    raise BrokerError(f"lost the consumer {durable!r} of stream {stream!r}: {status} {reason}")
            wanted = wanted - len(messages) if answers else 0
            if messages:
                yield messages
                # They are stored: the feed asks for more.
                await self._connection.ask(_acknowledge(messages), "acknowledge messages")

    async def _bind(self, stream: str, subject: str, durable: str) -> None:
        jetstream = self._connection.jetstream
        action = f"create the consumer {durable!r} of stream {stream!r} of {self._connection.where}"
        config = ConsumerConfig(durable_name=durable, filter_subject=subject, ack_policy=AckPolicy.EXPLICIT)
        try:
            found = (await self._connection.ask(jetstream.consumer_info(stream, durable), action)).config
        except nats.js.errors.NotFoundError:
            found = (await self._connection.ask(jetstream.add_consumer(stream, config), action)).config
        if found.filter_subject != subject or found.deliver_subject or found.ack_policy != AckPolicy.EXPLICIT:
            expected = f"expected the consumer {durable!r} of stream {stream!r} to pull and acknowledge {subject!r}"
            raise BrokerError(f"{expected}, got another consumer of that name: {found.filter_subject!r}")


async def _acknowledge(messages: list[Any]) -> None:
    for message in messages:
        await message.ack()
