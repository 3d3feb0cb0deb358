"""A connection to NATS that reads one subject: as it is published, or from a JetStream stream."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig, StreamInfo

from ..errors import BrokerError

__all__ = ["SubjectReader"]

logger = logging.getLogger("tickertape.sources")

_LOOK: Final = 10.0
"""Seconds after which lost messages are reported if no more arrive."""

_PING: Final = 10
"""Seconds between two pings: a server whose machine is gone is noticed after two of them."""

_CLOSING: Final = 1.0
"""Seconds for a connection to be closed in order."""

_QUEUED: Final = 1000
"""Messages that wait here for a slow log, and as many again in the driver."""

_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""Bytes that wait in the driver: as many as a hub's window holds."""

_PULLED: Final = 100
"""Messages requested from a durable consumer at a time, to be stored together."""

_EXPIRES: Final = 20.0
"""Seconds that the server keeps such a request. Meanwhile, its pings show that it is alive."""

_SLACK: Final = 5.0
"""Seconds more until the request is sent again."""

_MADE_BYTES: Final = 1024 * 1024 * 1024
"""Bytes that a stream created here keeps. After that, it drops its oldest messages, read or not."""

_NAME_IN_USE: Final = 10058

_ASK_AGAIN: Final = frozenset({"404", "408"})
"""Statuses that end a request: there are no messages, or its time is over."""


class SubjectReader:
    """Read one subject over a connection of its own; used by one reader, until anything fails.

    Arguments:
        where: the server in words.
        timeout: seconds for an answer.
    """

    def __init__(self, where: str, timeout: float) -> None:
        self._where = where
        self._timeout = timeout
        self._client = Client()
        self._jetstream: Any = self._client.jetstream(timeout=timeout)
        self._queue: asyncio.Queue[Any] = asyncio.Queue(_QUEUED)
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._errors: list[str] = []  # reported by the driver while it connects
        self._dropped = 0  # messages that the driver dropped since the last report

    async def connect(self, servers: list[str], timeout: float, **options: Any) -> None:
        """Connect to one of the servers.

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
        except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
            reasons = "; ".join(dict.fromkeys(self._errors)) or _describe(error)
            raise BrokerError(f"cannot connect to {self._where}: {reasons}") from error

    async def _report(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            self._dropped += 1
        else:
            self._errors.append(_describe(error))

    async def _closed(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)

    async def close(self) -> None:
        """Close the connection, and the driver's subscriptions with it."""
        with suppress(nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(_CLOSING):
                await self._client.close()

    async def _take(self, timeout: float) -> list[Any]:
        """Return the next messages, or an empty list if none arrives within ``timeout`` seconds."""
        get = asyncio.ensure_future(self._queue.get())
        try:
            await asyncio.wait((get, self._gone), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not get.done():
                if self._gone.done():
                    raise BrokerError(f"lost the connection to {self._where}")
                return []
            messages = [get.result()]
        finally:
            get.cancel()
        while not self._queue.empty():
            messages.append(self._queue.get_nowait())
        return messages

    @contextmanager
    def _translate_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except nats.js.errors.APIError as error:
            raise BrokerError(f"cannot {action} on {self._where}: {error.description or error}") from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise BrokerError(f"lost the connection to {self._where}: {_describe(error)}") from error

    # Messages as they are published.

    async def follow(self, subject: str, queue: str) -> AsyncGenerator[list[Any], None]:
        """Yield messages as they are published, and log how many were dropped because they came too fast.

        Arguments:
            subject: the subject, perhaps with ``*`` and ``>``.
            queue: the name under which subscribers share the messages; ``""`` to get all of them.
        """
        limits: dict[str, Any] = {"pending_msgs_limit": _QUEUED, "pending_bytes_limit": _QUEUED_BYTES}
        with self._translate_errors("subscribe"):
            async with asyncio.timeout(self._timeout):
                await self._client.subscribe(subject, queue, cb=self._queue.put, **limits)
                await self._client.flush()
        while True:
            messages = await self._take(_LOOK)
            if self._dropped:
                logger.warning("lost %d messages of %s: they came too fast", self._dropped, subject)
                self._dropped = 0
            if messages:
                yield messages

    # Messages of a stream.

    async def find_stream(self, subject: str, create: str | None) -> tuple[str, str]:
        """Return the name of the stream that holds a subject, and a name that no later stream shares.

        Arguments:
            subject: the subject.
            create: the name under which the stream is created if there is none; ``None`` to create none.

        Raises:
            BrokerError: there is no stream, or it cannot be created.
        """
        with self._translate_errors(f"find the stream of {subject!r}"):
            try:
                stream = await self._jetstream.find_stream_name_by_subject(subject)
            except nats.js.errors.NotFoundError:
                if create is None:
                    missing = f"no stream of {self._where} holds {subject!r}"
                    raise BrokerError(f"{missing}: create one, or pass stream=") from None
                stream = create
                await self._create_stream(StreamConfig(name=stream, subjects=[subject], max_bytes=_MADE_BYTES))
            info: StreamInfo = await self._jetstream.stream_info(stream)
        # Sequences start over when a stream is deleted and created again.
        created = f"-{int(info.created.timestamp() * 1_000_000):x}" if info.created else ""
        return stream, stream + created

    async def _create_stream(self, config: StreamConfig) -> None:
        """Create a stream. Does nothing if another process creates it at the same moment."""
        try:
            await self._jetstream.add_stream(config)
        except nats.js.errors.APIError as error:
            if error.err_code != _NAME_IN_USE:
                raise

    async def pull(self, stream: str, subject: str, durable: str) -> AsyncGenerator[list[Any], None]:
        """Yield the messages that a durable consumer has not seen acknowledged. It is created if necessary.

        The driver's own ``fetch`` would wait until a whole batch is there, and would not notice that the
        consumer was deleted.

        Arguments:
            stream: the stream that holds the subject.
            subject: the subject.
            durable: the consumer's name.

        Raises:
            BrokerError: another consumer has that name, or it cannot be created, or it was deleted meanwhile.
        """
        inbox = self._client.new_inbox()
        with self._translate_errors(f"create the consumer {durable!r} of stream {stream!r}"):
            await self._bind(stream, subject, durable)
            await self._client.subscribe(inbox, cb=self._queue.put)
        request = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        body = json.dumps({"batch": _PULLED, "expires": int(_EXPIRES * 1e9)}).encode()
        wanted = 0
        while True:
            if wanted <= 0:
                with self._translate_errors("request messages"):
                    await self._client.publish(request, body, reply=inbox)
                wanted = _PULLED
            answers = await self._take(_EXPIRES + _SLACK)
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
                with self._translate_errors("acknowledge messages"):  # stored: the feed asks for more
                    for message in messages:
                        await message.ack()

    async def _bind(self, stream: str, subject: str, durable: str) -> None:
        config = ConsumerConfig(durable_name=durable, filter_subject=subject, ack_policy=AckPolicy.EXPLICIT)
        try:
            found = (await self._jetstream.consumer_info(stream, durable)).config
        except nats.js.errors.NotFoundError:
            found = (await self._jetstream.add_consumer(stream, config)).config
        if found.filter_subject != subject or found.deliver_subject or found.ack_policy != AckPolicy.EXPLICIT:
            expected = f"expected the consumer {durable!r} of stream {stream!r} to pull and acknowledge {subject!r}"
            raise BrokerError(f"{expected}, got another consumer of that name: {found.filter_subject!r}")


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not error.args:
        return "no answer in time"
    return str(error) or type(error).__name__
