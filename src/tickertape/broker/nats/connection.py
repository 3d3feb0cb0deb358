"""A connection to NATS. It is used until it fails; then another one is made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar
from weakref import WeakSet

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from ...errors import BrokerError
from ..urls import NatsURL

logger = logging.getLogger("tickertape.broker")

T = TypeVar("T")

_PING: Final = 10
"""Seconds between two pings: a server whose machine is gone is noticed after two of them."""

_CLOSING: Final = 1.0
"""Seconds for a connection to be closed in order."""

_QUEUED: Final = 1000
"""Messages that wait for a slow reader. More wait in the driver, which drops those over its limits."""

_TAKEN: Final = 500
"""Messages returned at a time."""


class NoStream(BrokerError):
    """No stream listens to the subject of a request, or the stream was deleted."""


class ConnectionLost(BrokerError):
    """The connection was lost: an outstanding request may have taken effect or not."""


class Refused(BrokerError):
    """JetStream refused a request.

    Attributes:
        code: its error code.
    """

    def __init__(self, sentence: str, code: int | None) -> None:
        super().__init__(sentence, code)  # both, so that it can be copied
        self.code = code

    def __str__(self) -> str:
        return str(self.args[0])


class Inbox(Generic[T]):
    """Messages that wait to be read.

    Arguments:
        convert: converts a message of the driver, or raises ``BrokerError``.
    """

    def __init__(self, convert: Callable[[Any], T]) -> None:
        self._convert = convert
        self._queue: asyncio.Queue[T | BrokerError] = asyncio.Queue(_QUEUED)
        self._error: BrokerError | None = None

    async def deliver(self, message: Any) -> None:
        """Add a message of the driver, when there is room."""
        try:
            item: T | BrokerError = self._convert(message)
        except BrokerError as error:
            item = error
        await self._queue.put(item)

    def fail(self, error: BrokerError) -> None:
        """Make ``take`` raise an error after the messages before it."""
        while self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(error)

    async def take(self, timeout: float) -> list[T]:
        """Return the next messages, or an empty list if none comes within ``timeout`` seconds.

        Raises:
            BrokerError: the connection is lost, or the next message cannot be converted.
        """
        taken: list[T] = []
        try:
            async with asyncio.timeout(timeout):
                item = self._error or await self._queue.get()
        except TimeoutError:
            return taken
        while not isinstance(item, BrokerError):
            taken.append(item)
            if self._queue.empty() or len(taken) >= _TAKEN:
                return taken
            item = self._queue.get_nowait()
        self._error = item
        if not taken:
            raise item
        return taken


class NatsConnection:
    """One connection.

    Arguments:
        url: the servers and the credentials.
        timeout: seconds after which the driver gives up a request.

    Attributes:
        where: the servers in words.
        client: the driver's connection.
        jetstream: the driver's requests to JetStream.
        dropped: messages that the driver dropped because they came faster than they were read.
    """

    def __init__(self, url: NatsURL, timeout: float) -> None:
        self.where = f"NATS at {url.hosts}"
        self.client = Client()
        self.jetstream: Any = self.client.jetstream(timeout=timeout)
        self.dropped = 0
        self._url = url
        self._inboxes: WeakSet[Inbox[Any]] = WeakSet()
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connected = False
        self._errors: list[Exception] = []  # reported by the driver while it connects

    @property
    def alive(self) -> bool:
        """True until the connection is lost or closed."""
        return not self._lost.done()

    async def connect(self, timeout: float) -> None:
        """Connect to one of the servers, which the driver tries in random order.

        Arguments:
            timeout: seconds for each.

        Raises:
            BrokerError: no server accepts the connection.
        """
        options: dict[str, Any] = {**self._url.credentials, "connect_timeout": timeout}  # typed as int, used as float
        try:
            async with asyncio.timeout(timeout * len(self._url.servers)):
                await self.client.connect(
                    self._url.servers,
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
            await self._end()
            errors = self._errors if isinstance(error, nats.errors.NoServersError) else [*self._errors, error]
            silence = f"no answer within {timeout:g} s"
            reasons = [
                silence if isinstance(each, TimeoutError) and not each.args else describe(each) for each in errors
            ]
            raise BrokerError(f"cannot connect to {self.where}: {'; '.join(dict.fromkeys(reasons))}") from error
        except BaseException:
            await self._end()
            raise
        self._connected = True

    async def _report(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            self.dropped += 1
        elif not self._connected:
            self._errors.append(error)
        logger.debug("NATS: %s", describe(error))

    async def _closed(self) -> None:
        if self._connected and self.alive:
            self._lost.set_result(None)
            for inbox in self._inboxes:
                inbox.fail(ConnectionLost(f"lost the connection to {self.where}"))

    async def close(self) -> None:
        """Close the connection. Waiting requests and readers get an error."""
        await self._closed()
        await self._end()

    async def _end(self) -> None:
        with suppress(nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(_CLOSING):
                await self.client.close()

    def open_inbox(self, convert: Callable[[Any], T]) -> Inbox[T]:
        """Return an inbox that fails with the connection."""
        inbox = Inbox(convert)
        self._inboxes.add(inbox)
        return inbox

    async def ask(self, request: Awaitable[T], action: str) -> T:
        """Wait for an answer, or until the connection is lost; the driver would wait on.

        Arguments:
            request: a request of the driver.
            action: what it does, after "cannot".

        Raises:
            nats.js.errors.NotFoundError: the stream, the message or the consumer does not exist.
            Refused: JetStream refused the request.
            NoStream: JetStream does not answer, or no stream listens to the subject.
            ConnectionLost: there was no answer.
        """
        answer = asyncio.ensure_future(request)
        try:
            await asyncio.wait((answer, self._lost), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ConnectionLost(f"lost the connection to {self.where}")
            return answer.result()
        except (nats.js.errors.NoStreamResponseError, nats.js.errors.ServiceUnavailableError) as error:
            raise NoStream(f"JetStream does not answer at {self.where}: {describe(error)}") from error
        except nats.js.errors.NotFoundError:
            raise
        except nats.js.errors.APIError as error:
            raise Refused(f"cannot {action}: {error.description or error}", error.err_code) from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            await self.close()
            raise ConnectionLost(f"lost the connection to {self.where}: {describe(error)}") from error
        finally:
            answer.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await answer


def describe(error: Exception) -> str:
    """Return an error of the driver in words."""
    return str(error) or type(error).__name__
