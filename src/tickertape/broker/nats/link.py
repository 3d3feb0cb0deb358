"""A connection to NATS, and what is asked of JetStream over it. It is used until it fails, then made anew."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from math import ceil
from typing import Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import urlsplit

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig, StreamInfo

from ...errors import BrokerError
from .messages import Message, parse

__all__ = ["Feed", "Link", "NoStream", "Outcome"]

logger = logging.getLogger("tickertape.broker")

T = TypeVar("T")

_PING: Final = 10
"""Seconds between two pings: a server whose machine is gone is noticed after two of them."""

_CLOSING: Final = 1.0
"""Seconds for a connection to be closed in order."""

_QUEUED: Final = 1000
"""Messages that wait for a slow reader; more wait in the connection, up to its limits."""

_DRAINED: Final = 500
"""Messages given at a time."""

_INACTIVE: Final = 5.0
"""Seconds after which the server forgets a consumer whose reader is gone."""

_WRONG_LAST_SEQUENCE: Final = 10071
_NAME_IN_USE: Final = 10058
_NO_MESSAGE: Final = 10037


class NoStream(BrokerError):
    """Nothing on the server listens to what was published."""


class Outcome(NamedTuple):
    """What became of a message: the sequence under which it is stored; ``None`` if another was first."""

    sequence: int | None


class Feed(Generic[T]):
    """The messages that a consumer delivers, waiting to be read."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting  # how many were there when it began
        self._messages: deque[T | BrokerError] = deque()
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, message: T | BrokerError) -> None:
        """Add a message, when there is room."""
        await self._room.wait()
        self.force(message)

    def force(self, message: T | BrokerError) -> None:
        """Add a message, or why there are no more."""
        self._messages.append(message)
        self._filled.set()
        if len(self._messages) >= _QUEUED:
            self._room.clear()

    async def take(self, timeout: float) -> list[T]:
        """Return the next messages; none if none came within ``timeout`` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._filled.wait()
        taken: list[T] = []
        while self._messages and len(taken) < _DRAINED:
            message = self._messages[0]
            if isinstance(message, BrokerError):
                if not taken:
                    raise message
                break
            taken.append(message)
            self._messages.popleft()
        if not self._messages:
            self._filled.clear()
        self._room.set()
        return taken


class Link:
    """One connection.

    Arguments:
        stream: the stream that is asked about.
        timeout: seconds for an answer. When one does not come, the connection is given up.
    """

    def __init__(self, stream: str, timeout: float) -> None:
        self._stream = stream
        self._timeout = timeout
        self._client = Client()
        self._jetstream: Any = None
        self._feeds: set[Feed[Any]] = set()
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._where = ""
        self._connected = False
        self._errors: list[Exception] = []  # what the driver told while it connected

    @property
    def alive(self) -> bool:
        """Whether it can be used."""
        return not self._lost.done()

    @property
    def max_payload(self) -> int:
        """Bytes of a message, headers included, that the server takes."""
        return int(self._client.max_payload)

    async def connect(self, servers: list[str], timeout: float, **options: Any) -> None:
        """Connect to one of some servers, tried in random order.

        Arguments:
            servers: their URLs.
            timeout: seconds for each.
            options: credentials, as :meth:`nats.aio.client.Client.connect` takes them.

        Raises:
            BrokerError: none lets us in, or it has no JetStream.
        """
        failed = []
        for server in random.sample(servers, len(servers)):
            self._where = urlsplit(server).netloc.rpartition("@")[2]
            self._client = Client()
            self._errors.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._client.connect(
                        server,
                        allow_reconnect=False,
                        max_reconnect_attempts=1,  # or it tries one server until the time is over
                        reconnect_time_wait=0,
                        connect_timeout=ceil(timeout),  # the driver counts whole seconds; ours is the one above
                        ping_interval=_PING,
                        error_cb=self._hear,
                        closed_cb=self._closed,
                        name="tickertape",
                        **options,
                    )
            except (nats.errors.Error, OSError, TimeoutError, ssl.SSLError, ValueError) as error:
                told = [error, *self._errors][-1]
                silent = isinstance(told, TimeoutError) and not told.args
                said = f"no answer within {timeout:g} s" if silent else _words(told)
                failed.append(f"{self._where}: {said}")
                await self._end()
                continue
            except BaseException:
                await self._end()
                raise
            self._connected = True
            self._jetstream = self._client.jetstream(timeout=2 * self._timeout)  # ours comes first
            return
        raise BrokerError("cannot connect to NATS at " + "; ".join(failed))

    async def _hear(self, error: Exception) -> None:
        if not self._connected:
            self._errors.append(error)
        logger.debug("NATS: %s", _words(error))

    async def _closed(self) -> None:
        if not self._connected:
            return
        if self.alive:
            self._lost.set_result(None)
        for feed in self._feeds:
            feed.force(BrokerError(f"lost the connection to NATS at {self._where}"))

    async def close(self) -> None:
        """Give the connection up; whoever waits for something is told."""
        await self._end()
        await self._closed()

    async def _end(self) -> None:
        with suppress(nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(_CLOSING):
                await self._client.close()

    # Asking.

    async def _ask(self, request: Awaitable[T]) -> T:
        """Await an answer, but not beyond the connection's end: the driver would."""
        answer = asyncio.ensure_future(request)
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.wait((answer, self._lost), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise BrokerError(f"lost the connection to NATS at {self._where} while it was asked")
            return answer.result()
        except nats.js.errors.APIError:
            raise
        except (nats.errors.Error, OSError, TimeoutError) as error:
            if isinstance(error, nats.js.errors.NoStreamResponseError | nats.js.errors.ServiceUnavailableError):
                raise NoStream(f"expected JetStream to answer at {self._where}, got none: {_words(error)}") from error
            await self.close()
            raise BrokerError(f"expected an answer of NATS at {self._where}, got none: {_words(error)}") from error
        finally:
            answer.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await answer

    async def info(self) -> StreamInfo | None:
        """Return what the server says about the stream, ``None`` if there is none."""
        try:
            return await self._ask(self._jetstream.stream_info(self._stream))
        except nats.js.errors.NotFoundError:
            return None
        except nats.js.errors.APIError as error:
            raise self._refused("look at", error) from error

    async def create(self, config: StreamConfig) -> None:
        """Make the stream; does nothing if another makes it at the same moment."""
        try:
            await self._ask(self._jetstream.add_stream(config))
        except nats.js.errors.APIError as error:
            if error.err_code != _NAME_IN_USE:
                raise self._refused("make", error) from error

    async def update(self, config: StreamConfig) -> None:
        """Change the stream's configuration."""
        try:
            await self._ask(self._jetstream.update_stream(config))
        except nats.js.errors.APIError as error:
            raise self._refused("change", error) from error

    async def purge(self, upto: int) -> None:
        """Remove what stands before the sequence ``upto``."""
        try:
            await self._ask(self._jetstream.purge_stream(self._stream, seq=upto))
        except nats.js.errors.APIError as error:
            raise self._refused("trim", error) from error

    async def get(self, sequence: int) -> Message | None:
        """Return a message, ``None`` if it is not there."""
        try:
            raw = await self._ask(self._jetstream.get_msg(self._stream, sequence))
        except nats.js.errors.NotFoundError:
            return None
        except nats.js.errors.APIError as error:
            if error.err_code == _NO_MESSAGE:
                return None
            raise self._refused("read", error) from error
        return parse(sequence, raw.time.timestamp(), raw.headers, raw.data or b"")

    async def publish(self, subject: str, data: bytes, headers: dict[str, str], last: int) -> Outcome:
        """Store a message right behind the one with the sequence ``last``.

        Raises:
            NoStream: nothing listens to the subject.
            BrokerError: the server refused it, or it is not known what became of it.
        """
        expected = {"Nats-Expected-Stream": self._stream, "Nats-Expected-Last-Sequence": f"{last}"}
        try:
            stored = await self._ask(
                self._jetstream.publish(subject, data, timeout=2 * self._timeout, headers={**headers, **expected})
            )
        except nats.js.errors.APIError as error:
            if error.err_code == _WRONG_LAST_SEQUENCE:
                return Outcome(None)
            raise self._refused("append to", error) from error
        return Outcome(stored.seq)

    def _refused(self, action: str, error: nats.js.errors.APIError) -> BrokerError:
        return BrokerError(
            f"cannot {action} the stream {self._stream!r} at {self._where}: {error.description or error}"
        )

    # Following.

    @asynccontextmanager
    async def consume(
        self, sequence: int, *, subject: str | None = None, bodies: bool = True
    ) -> AsyncIterator[Feed[Message]]:
        """Have messages delivered, in order, as they come.

        Arguments:
            sequence: the first one.
            subject: only those published to it.
            bodies: whether their data is wanted too.
        """
        feed: Feed[Message] = Feed(0)

        async def deliver(message: Any) -> None:
            await feed.put(_read(message))

        self._feeds.add(feed)
        inbox = self._client.new_inbox()
        subscription = await self._ask(self._client.subscribe(inbox, cb=deliver))
        name = ""
        try:
            config = ConsumerConfig(
                deliver_subject=inbox,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=sequence,
                ack_policy=AckPolicy.NONE,
                filter_subject=subject,
                headers_only=None if bodies else True,
                inactive_threshold=_INACTIVE,
                mem_storage=True,
            )
            try:
                found = await self._ask(self._jetstream.add_consumer(self._stream, config))
            except nats.js.errors.APIError as error:
                raise self._refused("follow", error) from error
            name = found.name
            feed.waiting = found.num_pending or 0
            yield feed
        finally:
            self._feeds.discard(feed)
            with suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()
                if name:
                    await self._client.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{name}")


def _read(message: Any) -> Message | BrokerError:
    try:
        metadata = message.metadata
        return parse(metadata.sequence.stream, metadata.timestamp.timestamp(), message.headers, message.data)
    except BrokerError as error:
        return error


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
