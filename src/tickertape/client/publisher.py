"""``Publisher`` and ``SyncPublisher``: publish to a hub over HTTP, once, whatever the network does."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from random import random as system_random
from typing import Any, Self

import httpx2

from .clock import AsyncClock, SyncClock, SystemAsyncClock, SystemSyncClock
from .headers import AsyncAuth, Auth, credential_headers
from .publishing import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_MAX_DELAY,
    DEFAULT_TIMEOUT,
    Draft,
    Exchange,
    Pause,
    Publishing,
    Reply,
)
from .source import FAILURES

__all__ = ["Publisher", "SyncPublisher"]


class Publisher(Publishing):
    """Publish events to a hub.

    Arguments:
        url: of the hub; events go to ``{url}/events``.
        headers: of each request.
        auth: called before each attempt, a function or a coroutine function; gives a bearer token or
            a mapping of headers.
        client: the ``httpx2.AsyncClient`` to use; it is not closed with the publisher.
        timeout: seconds for each step of an attempt (connect, send, wait); ``None`` for no limit.
        max_attempts: of one publication; ``None`` for no limit.
        max_delay: seconds up to which the delays between them grow.
        clock: takes the place of the system's clocks in tests.
        random: gives a float from 0 to 1; spreads the delays.
        new_key: gives a new idempotency key.

    An attempt is repeated after connection errors and after status 429, 502, 503 and 504, honouring
    ``Retry-After``. That is safe: each event has a key, by which the hub knows it again.
    """

    def __init__(
        self,
        url: str | httpx2.URL,
        *,
        headers: Mapping[str, str] | None = None,
        auth: AsyncAuth | None = None,
        client: httpx2.AsyncClient | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        max_attempts: int | None = DEFAULT_MAX_ATTEMPTS,
        max_delay: float = DEFAULT_MAX_DELAY,
        clock: AsyncClock | None = None,
        random: Callable[[], float] = system_random,
        new_key: Callable[[], str] | None = None,
    ) -> None:
        self._clock: AsyncClock = clock or SystemAsyncClock()
        super().__init__(
            url,
            headers=headers,
            timeout=timeout,
            max_attempts=max_attempts,
            max_delay=max_delay,
            random=random,
            new_key=new_key,
            now=self._clock.now,
            wall=self._clock.wall,
        )
        self._auth = auth
        self._client = client
        self._own_client: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def publish(self, topic: str, data: Any = "", *, event: str | None = None, key: str | None = None) -> str:
        """Publish one event and return its cursor; then the hub has stored it.

        Arguments:
            topic: where to.
            data: the payload, as in :class:`~tickertape.ServerSentEvent`.
            event: the event type.
            key: idempotency key; made up if left out.

        Raises:
            InvalidEventError: the event is not one that the format can carry.
            PublishError: the hub refuses it.
            GaveUpError: it could not be brought to the hub; whether an attempt got through is not known.
        """
        (cursor,) = await self._run(self._exchange([Draft(topic, data, event, key)], many=False))
        return cursor

    async def publish_many(self, drafts: Iterable[Draft]) -> list[str]:
        """Publish events in order and all at once, and return their cursors; raises as :meth:`publish`."""
        return await self._run(self._exchange(drafts, many=True))

    async def aclose(self) -> None:
        """Let go of the connections. Again is no error."""
        self._closed = True
        client, self._own_client = self._own_client, None
        if client is not None:
            await client.aclose()

    async def _run(self, exchange: Exchange) -> list[str]:
        answer: Reply | Exception | None = None
        while True:
            try:
                step = exchange.send(answer)
            except StopIteration as end:
                return list(end.value)
            if isinstance(step, Pause):
                answer = None
                await self._clock.sleep(step.seconds)
            else:
                answer = await self._send(step.body)

    async def _send(self, body: bytes) -> Reply | Exception:
        try:
            credentials = self._auth() if self._auth is not None else None
            own = credential_headers(await credentials if inspect.isawaitable(credentials) else credentials)
            response = await self._http_client().post(
                self.url,
                content=body,
                headers=self._request_headers(own),
                timeout=self._timeout,
                follow_redirects=False,
            )
        except httpx2.UnsupportedProtocol:
            raise
        except FAILURES as error:
            return error
        return Reply(response.status_code, dict(response.headers), response.content)

    def _http_client(self) -> httpx2.AsyncClient:
        if self._client is not None:
            return self._client
        if self._own_client is None:
            self._own_client = httpx2.AsyncClient()
        return self._own_client


class SyncPublisher(Publishing):
    """Publish events to a hub, without asyncio; the arguments are those of :class:`Publisher`.

    Arguments:
        auth: a function.
        client: an ``httpx2.Client``; it is not closed with the publisher.

    Threads may share one.
    """

    def __init__(
        self,
        url: str | httpx2.URL,
        *,
        headers: Mapping[str, str] | None = None,
        auth: Auth | None = None,
        client: httpx2.Client | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        max_attempts: int | None = DEFAULT_MAX_ATTEMPTS,
        max_delay: float = DEFAULT_MAX_DELAY,
        clock: SyncClock | None = None,
        random: Callable[[], float] = system_random,
        new_key: Callable[[], str] | None = None,
    ) -> None:
        self._clock: SyncClock = clock or SystemSyncClock()
        super().__init__(
            url,
            headers=headers,
            timeout=timeout,
            max_attempts=max_attempts,
            max_delay=max_delay,
            random=random,
            new_key=new_key,
            now=self._clock.now,
            wall=self._clock.wall,
        )
        if inspect.iscoroutinefunction(auth):
            raise TypeError(f"expected auth to be a plain function, got the coroutine function {auth!r}")
        self._auth = auth
        self._client = client
        self._own_client: httpx2.Client | None = None
        self._wake = threading.Event()  # ends a pause

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def publish(self, topic: str, data: Any = "", *, event: str | None = None, key: str | None = None) -> str:
        """Publish one event and return its cursor, as :meth:`Publisher.publish`."""
        (cursor,) = self._run(self._exchange([Draft(topic, data, event, key)], many=False))
        return cursor

    def publish_many(self, drafts: Iterable[Draft]) -> list[str]:
        """Publish events in order and all at once, as :meth:`Publisher.publish_many`."""
        return self._run(self._exchange(drafts, many=True))

    def close(self) -> None:
        """Let go of the connections. Again is no error."""
        self._closed = True
        self._wake.set()
        with self._lock:
            client, self._own_client = self._own_client, None
        if client is not None:
            client.close()

    def _run(self, exchange: Exchange) -> list[str]:
        answer: Reply | Exception | None = None
        while True:
            try:
                step = exchange.send(answer)
            except StopIteration as end:
                return list(end.value)
            if isinstance(step, Pause):
                answer = None
                self._clock.sleep(step.seconds, self._wake)
            else:
                answer = self._send(step.body)

    def _send(self, body: bytes) -> Reply | Exception:
        try:
            own = credential_headers(self._auth() if self._auth is not None else None)
            response = self._http_client().post(
                self.url,
                content=body,
                headers=self._request_headers(own),
                timeout=self._timeout,
                follow_redirects=False,
            )
        except httpx2.UnsupportedProtocol:
            raise
        except FAILURES as error:
            return error
        return Reply(response.status_code, dict(response.headers), response.content)

    def _http_client(self) -> httpx2.Client:
        if self._client is not None:
            return self._client
        with self._lock:
            if self._own_client is None:
                self._own_client = httpx2.Client()
            return self._own_client
