"""The requests to JetStream about one stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import nats.errors
import nats.js.errors
from nats.js.api import ConsumerConfig, DeliverPolicy, StreamConfig, StreamInfo

from .connection import Inbox, NatsConnection, NoStream, Refused
from .messages import Message, parse

T = TypeVar("T")

_HEARTBEAT: Final = 2.0
"""Seconds between heartbeats of a consumer. The driver makes it again if two of them are missing."""

_INACTIVE: Final = 2.0
"""Seconds after which the server removes a consumer that is not read."""

_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""Bytes that wait in the driver: as many as a hub's window holds."""

_WRONG_LAST_SEQUENCE: Final = 10071
_NAME_IN_USE: Final = 10058
_NO_MESSAGE: Final = 10037
_NOT_DELETED: Final = 10057


class Link:
    """A connection, and the requests about one stream over it; the caller limits their time.

    Arguments:
        connection: the connection.
        stream: the name of the stream.
    """

    def __init__(self, connection: NatsConnection, stream: str) -> None:
        self.connection = connection
        self._jetstream = connection.jetstream
        self._stream = stream

    async def _ask(self, request: Awaitable[T], action: str) -> T:
        return await self.connection.ask(request, f"{action} stream {self._stream!r} of {self.connection.where}")

    async def info(self) -> StreamInfo | None:
        """Return the server's description of the stream, or ``None`` if there is no such stream."""
        try:
            return await self._ask(self._jetstream.stream_info(self._stream), "describe")
        except nats.js.errors.NotFoundError:
            return None

    async def create(self, config: StreamConfig) -> None:
        """Create the stream. Does nothing if another process creates it at the same moment."""
        try:
            await self._ask(self._jetstream.add_stream(config), "create")
        except Refused as error:
            if error.code != _NAME_IN_USE:
                raise

    async def update(self, config: StreamConfig) -> None:
        """Change the stream's configuration."""
        await self._ask(self._jetstream.update_stream(config), "change")

    async def purge(self, sequence: int) -> None:
        """Remove the messages before ``sequence``."""
        await self._ask(self._jetstream.purge_stream(self._stream, seq=sequence), "trim")

    async def delete(self, sequence: int) -> None:
        """Remove a message. Does nothing if it is gone."""
        try:
            await self._ask(self._jetstream.delete_msg(self._stream, sequence), "trim")
        except nats.js.errors.NotFoundError:
            pass
        except Refused as error:
            if error.code not in (_NO_MESSAGE, _NOT_DELETED):
                raise

    async def get(self, sequence: int) -> Message | None:
        """Return a message, or ``None`` if it is not there."""
        try:
            raw = await self._ask(self._jetstream.get_msg(self._stream, sequence), "read")
        except nats.js.errors.NotFoundError:
            return None
        except Refused as error:
            if error.code == _NO_MESSAGE:
                return None
            raise
        return parse(sequence, raw.time.timestamp(), raw.subject or "", raw.headers, raw.data or b"")

    async def publish(self, subject: str, data: bytes, headers: dict[str, str], after: int) -> bool:
        """Store a message right after the sequence ``after``; return False if another message was stored there before.

        Raises:
            NoStream: no stream listens to the subject.
            ConnectionLost: it may be stored or not.
            BrokerError: the server refused it.
        """
        expected = {"Nats-Expected-Stream": self._stream, "Nats-Expected-Last-Sequence": f"{after}"}
        request = self._jetstream.publish(subject, data, headers={**headers, **expected})
        try:
            await self._ask(request, "append to")
        except Refused as error:
            if error.code == _WRONG_LAST_SEQUENCE:
                return False
            raise
        return True

    @asynccontextmanager
    async def consume(self, sequence: int, *, headers_only: bool = False) -> AsyncIterator[Inbox[Message]]:
        """Read messages in order with the driver's ordered consumer, while new ones arrive.

        It may deliver messages before ``sequence`` again, if the driver makes it again before the first one.

        Arguments:
            sequence: the first message.
            headers_only: True to read no data.

        Returns:
            The inbox.
        """
        inbox = self.connection.open_inbox(_convert)
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=sequence,
            headers_only=headers_only or None,
            inactive_threshold=_INACTIVE,
        )
        request = self._jetstream.subscribe(
            "",
            stream=self._stream,
            cb=inbox.deliver,
            config=config,
            ordered_consumer=True,
            idle_heartbeat=_HEARTBEAT,
            pending_bytes_limit=_QUEUED_BYTES,
        )
        try:
            subscription = await self._ask(request, "read")
        except nats.js.errors.NotFoundError as error:
            raise NoStream(f"stream {self._stream!r} of {self.connection.where} was deleted") from error
        try:
            yield inbox
        finally:
            with suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()


def _convert(raw: Any) -> Message:
    metadata = raw.metadata
    return parse(metadata.sequence.stream, metadata.timestamp.timestamp(), raw.subject, raw.headers, raw.data)
