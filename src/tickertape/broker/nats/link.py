"""A connection to NATS, and the requests to JetStream over it. It is used until it fails; then another one is made."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy, StreamConfig, StreamInfo

from ...errors import BrokerError
from .messages import Message, parse

__all__ = ["ConnectionLost", "Inbox", "Link", "NoStream"]

logger = logging.getLogger("tickertape.broker")

T = TypeVar("T")

_PING: Final = 10
"""Seconds between two pings: a server whose machine is gone is noticed after two of them."""

_HEARTBEAT: Final = 2.0
"""Seconds between heartbeats of a consumer. The driver makes it again if two of them are missing."""

_INACTIVE: Final = 2.0
"""Seconds after which the server removes a consumer that nobody reads."""

_CLOSING: Final = 1.0
"""Seconds for a connection to be closed in order."""

_QUEUED: Final = 1000
"""Messages that wait for a slow reader. More wait in the driver."""

_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""Bytes that wait in the driver: as many as a hub's window holds. It drops what is beyond that."""

_TAKEN: Final = 500
"""Messages returned at a time."""

_WRONG_LAST_SEQUENCE: Final = 10071
_NAME_IN_USE: Final = 10058
_NO_MESSAGE: Final = 10037


class NoStream(BrokerError):
    """No stream listens to the subject of a request."""


class ConnectionLost(BrokerError):
    """The connection was lost: an outstanding request may have taken effect or not."""


class Inbox:
    """Messages of a consumer that wait to be read.

    Attributes:
        waiting: the number of messages that were stored when the consumer was made; 0 unless it was asked for.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self._queue: asyncio.Queue[Message | BrokerError] = asyncio.Queue(_QUEUED)
        self._error: BrokerError | None = None

    async def deliver(self, raw: Any) -> None:
        """Add a message of the driver, when there is room."""
        metadata = raw.metadata
        sequence, time = metadata.sequence.stream, metadata.timestamp.timestamp()
        try:
            await self._queue.put(parse(sequence, time, raw.subject, raw.headers, raw.data))
        except BrokerError as error:
            await self._queue.put(error)

    def fail(self, error: BrokerError) -> None:
        """Make ``take`` raise an error after the messages before it."""
        while self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(error)

    async def take(self, timeout: float) -> list[Message]:
        """Return the next messages, or an empty list if none comes within ``timeout`` seconds."""
        if self._error is not None:
            raise self._error
        taken: list[Message] = []
        try:
            async with asyncio.timeout(timeout):
                item = await self._queue.get()
        except TimeoutError:
            return taken
        while not isinstance(item, BrokerError):
            taken.append(item)
            if self._queue.empty() or len(taken) >= _TAKEN:
                return taken
            item = self._queue.get_nowait()
        self._error = item
        return taken or await self.take(timeout)


class Link:
    """One connection.

    The caller limits the time of its requests. If the server does not answer in time, close the link.

    Arguments:
        stream: the name of the stream.
        where: the server in words.
        timeout: seconds after which the driver gives up a request; the caller's limit comes first.
    """

    def __init__(self, stream: str, where: str, timeout: float) -> None:
        self._stream = stream
        self._where = where
        self._client = Client()
        self._jetstream: Any = self._client.jetstream(timeout=2 * timeout)
        self._inboxes: set[Inbox] = set()
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connected = False
        self._errors: list[str] = []  # reported by the driver while it connects

    @property
    def alive(self) -> bool:
        """True until the connection is lost or closed."""
        return not self._lost.done()

    @property
    def max_payload(self) -> int:
        """The greatest number of bytes of a message, headers included."""
        return int(self._client.max_payload)

    async def connect(self, servers: list[str], timeout: float, **options: Any) -> None:
        """Connect to one of the servers, which the driver tries in random order.

        Arguments:
            servers: their URLs.
            timeout: seconds for each.
            options: credentials, as :meth:`nats.aio.client.Client.connect` takes them.

        Raises:
            BrokerError: no server accepts the connection.
        """
        options |= {"connect_timeout": timeout}  # typed as int, used as float
        try:
            async with asyncio.timeout(timeout * len(servers)):
                await self._client.connect(
                    servers,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,  # else the driver tries without end
                    reconnect_time_wait=0,
                    ping_interval=_PING,
                    error_cb=self._report,
                    closed_cb=self._closed,
                    name="tickertape",
                    **options,
                )
        except (nats.errors.Error, OSError, TimeoutError, ssl.SSLError, ValueError) as error:
            await self._end()
            if not (self._errors and isinstance(error, nats.errors.NoServersError)):
                self._errors.append(_describe(error))
            reasons = "; ".join(dict.fromkeys(self._errors))
            raise BrokerError(f"cannot connect to {self._where}: {reasons}") from error
        except BaseException:
            await self._end()
            raise
        self._connected = True

    async def _report(self, error: Exception) -> None:
        if not self._connected:
            self._errors.append(_describe(error))
        logger.debug("NATS: %s", _describe(error))

    async def _closed(self) -> None:
        if self._connected and self.alive:
            self._lost.set_result(None)
            for inbox in self._inboxes:
                inbox.fail(ConnectionLost(f"lost the connection to {self._where}"))

    async def close(self) -> None:
        """Close the connection. Waiting requests and readers get an error."""
        await self._closed()
        await self._end()

    async def _end(self) -> None:
        with suppress(nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(_CLOSING):
                await self._client.close()

    # Requests.

    async def _ask(self, request: Awaitable[T], action: str) -> T:
        """Wait for an answer, or until the connection is lost; the driver would wait on."""
        answer = asyncio.ensure_future(request)
        try:
            await asyncio.wait((answer, self._lost), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ConnectionLost(f"lost the connection to {self._where}")
            return answer.result()
        except (nats.js.errors.NoStreamResponseError, nats.js.errors.ServiceUnavailableError) as error:
            raise NoStream(f"JetStream does not answer at {self._where}: {_describe(error)}") from error
        except nats.js.errors.NotFoundError:
            raise
        except nats.js.errors.APIError as error:
            reason = error.description or error
            raise _Refused(f"cannot {action} stream {self._stream!r} of {self._where}: {reason}", error) from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            await self.close()
            raise ConnectionLost(f"lost the connection to {self._where}: {_describe(error)}") from error
        finally:
            answer.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await answer

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
        except _Refused as error:
            if error.code != _NAME_IN_USE:
                raise

    async def update(self, config: StreamConfig) -> None:
        """Change the stream's configuration."""
        await self._ask(self._jetstream.update_stream(config), "change")

    async def purge(self, sequence: int) -> None:
        """Remove the messages before ``sequence``."""
        await self._ask(self._jetstream.purge_stream(self._stream, seq=sequence), "trim")

    async def get(self, sequence: int) -> Message | None:
        """Return a message, or ``None`` if it is not there."""
        try:
            raw = await self._ask(self._jetstream.get_msg(self._stream, sequence), "read")
        except nats.js.errors.NotFoundError:
            return None
        except _Refused as error:
            if error.code == _NO_MESSAGE:
                return None
            raise
        return parse(sequence, raw.time.timestamp(), raw.subject or "", raw.headers, raw.data or b"")

    async def publish(self, subject: str, data: bytes, headers: dict[str, str], after: int) -> int | None:
        """Store a message right after the sequence ``after``.

        Returns:
            The sequence of the message, or ``None`` if another message was stored there before.

        Raises:
            NoStream: no stream listens to the subject.
            ConnectionLost: it may be stored or not.
            BrokerError: the server refused it.
        """
        expected = {"Nats-Expected-Stream": self._stream, "Nats-Expected-Last-Sequence": f"{after}"}
        try:
            stored = await self._ask(
                self._jetstream.publish(subject, data, headers={**headers, **expected}), "append to"
            )
        except _Refused as error:
            if error.code == _WRONG_LAST_SEQUENCE:
                return None
            raise
        return int(stored.seq)

    # Reading.

    @asynccontextmanager
    async def consume(
        self, sequence: int, *, subject: str = "", bodies: bool = True, count: bool = False
    ) -> AsyncIterator[Inbox]:
        """Read messages in order with the driver's ordered consumer, while new ones arrive.

        It may deliver messages before ``sequence`` again, if it is made again before the first one.

        Arguments:
            sequence: the first message.
            subject: only messages published to it.
            bodies: True to read the data too.
            count: True to set the inbox's ``waiting``.
        """
        inbox = Inbox()
        self._inboxes.add(inbox)
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=sequence,
            headers_only=None if bodies else True,
            inactive_threshold=_INACTIVE,
        )
        try:
            subscription = await self._ask(
                self._jetstream.subscribe(
                    subject,
                    stream=self._stream,
                    cb=inbox.deliver,
                    config=config,
                    ordered_consumer=True,
                    idle_heartbeat=_HEARTBEAT,
                    pending_bytes_limit=_QUEUED_BYTES,
                ),
                "read",
            )
            try:
                if count:
                    found = await self._ask(subscription.consumer_info(), "read")
                    inbox.waiting = (found.num_pending or 0) + found.delivered.consumer_seq
                yield inbox
            finally:
                with suppress(nats.errors.Error, OSError):
                    await subscription.unsubscribe()
        except nats.js.errors.NotFoundError as error:
            raise NoStream(f"stream {self._stream!r} of {self._where} was deleted") from error
        finally:
            self._inboxes.discard(inbox)


class _Refused(BrokerError):
    def __init__(self, sentence: str, error: nats.js.errors.APIError) -> None:
        super().__init__(sentence)
        self.code = error.err_code


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not error.args:
        return "no answer in time"
    return str(error) or type(error).__name__
