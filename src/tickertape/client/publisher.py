"""``Publisher`` and ``SyncPublisher``: publish to a hub over HTTP exactly once, over any network.

An attempt may be repeated whenever its result is unknown, because each event carries an idempotency key. A hub
appends an event with the same key once, and answers with the first cursor.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from random import random as system_random
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote
from uuid import uuid4

import httpx2

from ..errors import ClientError, GaveUpError, PublishError
from ..timing import Clock, sleep
from ..wire import Draft, check_topic
from .clock import Sleeper, ThreadClock
from .http import (
    Answer,
    AsyncAuth,
    Auth,
    HeaderList,
    credential_headers,
    excerpt,
    header_list,
    merged,
    publish_error,
    without_secrets,
)
from .policy import Delays, retry_after
from .source import FAILURES

DEFAULT_MAX_ATTEMPTS: Final = 8
"""With delays up to 30 s this is about half a minute: long enough to survive a hub's restart, short enough to
report an outage."""

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds for each step of one attempt. A hub answers within milliseconds of its disk."""

DEFAULT_MAX_DELAY: Final = 30.0
"""Seconds up to which the delays grow, as those of the sources."""

_FIRST_DELAY: Final = 1.0
"""Seconds. The first delay is random up to this: an overloaded hub has recovered by then."""

_TRANSIENT: Final = frozenset({429, 502, 503, 504})
"""The hub is overloaded or not ready, or a proxy cannot reach it."""


class PublisherStatistics(NamedTuple):
    """Counts since a publisher was made."""

    published: int
    """Events that the hub has stored."""
    requests: int
    retries: int


class Publication(NamedTuple):
    """Events in transit to a hub."""

    url: httpx2.URL
    body: bytes
    """The request's body."""
    events: int
    """The number of records that the hub stores, and cursors that it answers with."""
    max_attempts: int | None
    delays: Delays
    began: float
    """The time of the first attempt."""

    def next_step(self, answer: Answer | Exception, attempt: int, *, now: float, wall: float) -> list[str] | float:
        """Return the cursors of the stored events, or the seconds to wait before the next attempt.

        Arguments:
            answer: the result of the last attempt; an exception if it got no response.
            attempt: its number, from 1.
            now: seconds of the same clock as ``began``.
            wall: seconds since 1970, for dates in ``Retry-After``.

        Raises:
            PublishError: the hub refused the events.
            GaveUpError: the last of ``max_attempts`` failed.
            ClientError: the response is not a hub's.
        """
        at_least = 0.0
        if isinstance(answer, Answer):
            if answer.status not in _TRANSIENT:
                return _cursors(answer, self.events)
            at_least = retry_after(answer.headers, wall)
            answer = _refusal(answer)
        if self.max_attempts is not None and attempt >= self.max_attempts:
            reason = excerpt(str(answer)) or type(answer).__name__
            raise GaveUpError(attempt, now - self.began, reason) from answer
        return self.delays.delay(attempt - 1, at_least)


def _refusal(answer: Answer) -> PublishError:
    return publish_error(answer.status, answer.body, answer.headers.get("content-type", ""))


def _cursors(answer: Answer, events: int) -> list[str]:
    if 300 <= answer.status < 400:
        # Following it would turn the request into a GET, and a page that it leads to would look like a success.
        location = excerpt(answer.headers.get("location", "nowhere"))
        raise PublishError(answer.status, f"a redirect to {location!r}")
    if not 200 <= answer.status < 300:
        raise _refusal(answer)
    try:
        content = json.loads(answer.body)
    except (ValueError, RecursionError):
        content = None
    cursors: Any = content.get("cursors", [content.get("cursor")]) if isinstance(content, dict) else None
    if not isinstance(cursors, list) or len(cursors) != events or not all(isinstance(each, str) for each in cursors):
        start = answer.body[:100].decode("utf-8", "replace")
        raise ClientError(f"expected {events} cursors in the hub's response, got {start!r}")
    return cursors


class _BasePublisher:
    """The common part of the asynchronous and the synchronous publisher: everything but the waiting."""

    def __init__(
        self,
        url: str | httpx2.URL,
        *,
        headers: Mapping[str, str] | None,
        timeout: float | None,
        max_attempts: int | None,
        max_delay: float,
        random: Callable[[], float],
        new_key: Callable[[], str] | None,
    ) -> None:
        if max_attempts is not None and max_attempts < 1:
            raise ValueError(f"expected max_attempts to be 1 or more or None, got {max_attempts!r}")
        base = httpx2.URL(url)
        self.url = base.copy_with(path=f"{base.path.rstrip('/')}/events")
        self.max_attempts = max_attempts
        self._timeout = httpx2.Timeout(timeout)
        self._headers = merged([("Content-Type", b"application/json")], header_list(headers))
        self._delays = Delays(_FIRST_DELAY, max_delay, random)
        self._new_key = new_key or (lambda: uuid4().hex)
        self._closed = False
        self._lock = threading.Lock()
        self._published = self._requests = self._retries = 0

    def __repr__(self) -> str:
        url = without_secrets(self.url)
        return f"<{type(self).__name__} {url} published={self._published} retries={self._retries}>"

    def statistics(self) -> PublisherStatistics:
        """Return the counts since the publisher was made."""
        return PublisherStatistics(self._published, self._requests, self._retries)

    def _publication(self, drafts: list[Draft], now: float, *, many: bool) -> Publication:
        events = [_fields(draft, self._new_key) for draft in drafts]
        body = json.dumps(events if many else events[0]).encode()
        return Publication(self.url, body, len(events), self.max_attempts, self._delays, now)

    def _end(self, topic: str, reason: str, now: float) -> Publication:
        path = f"{self.url.path.removesuffix('events')}topics/{quote(check_topic(topic))}/end"
        body = json.dumps({"reason": reason}).encode()
        return Publication(self.url.copy_with(path=path), body, 1, self.max_attempts, self._delays, now)

    def _request(
        self, client: httpx2.AsyncClient | httpx2.Client, publication: Publication, own: HeaderList
    ) -> httpx2.Request:
        headers = [(name.encode(), value) for name, value in merged(self._headers, own)]
        url, body = publication.url, publication.body
        return client.build_request("POST", url, content=body, headers=headers, timeout=self._timeout)

    def _count(self, *, requests: int = 0, retries: int = 0, published: int = 0) -> None:
        if self._closed and not published:
            raise RuntimeError("the publisher is closed")
        with self._lock:
            self._requests += requests
            self._retries += retries
            self._published += published


class Publisher(_BasePublisher):
    """Publish events to a hub.

    Arguments:
        url: of the hub; events go to ``{url}/events``.
        headers: of each request.
        auth: a function or a coroutine function that is called before each attempt. It returns a bearer
            token or a mapping of headers.
        client: the ``httpx2.AsyncClient`` to use. The publisher does not close it.
        timeout: seconds for each step of an attempt (connect, send, wait); ``None`` for no limit.
        max_attempts: of one publication; ``None`` for no limit.
        max_delay: seconds up to which the delays between them grow.
        clock: replaces the clock of the event loop in tests, for example by a :class:`~tickertape.testing.FakeClock`.
        random: returns a float from 0 to 1; spreads the delays.
        new_key: returns a new idempotency key.

    An attempt is repeated after a connection error and after status 429, 502, 503 and 504, not before
    ``Retry-After``. This is safe, because each event has an idempotency key.
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
        clock: Clock | None = None,
        random: Callable[[], float] = system_random,
        new_key: Callable[[], str] | None = None,
    ) -> None:
        super().__init__(
            url,
            headers=headers,
            timeout=timeout,
            max_attempts=max_attempts,
            max_delay=max_delay,
            random=random,
            new_key=new_key,
        )
        self._clock = clock
        self._auth = auth
        self._client = client
        self._own_client: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def publish(self, topic: str, data: Any = "", *, event: str | None = None, key: str | None = None) -> str:
        """Publish one event and return its cursor. Then the hub has stored it.

        Arguments:
            topic: the topic.
            data: the payload, as in :class:`~tickertape.ServerSentEvent`.
            event: the event type.
            key: the idempotency key; a random one if left out.

        Raises:
            InvalidEventError: the event stream format cannot carry the event.
            InvalidTopicError: the topic breaks the syntax.
            PublishError: the hub refused the event.
            GaveUpError: the last attempt failed. An earlier one may have been successful.
        """
        (cursor,) = await self._publish([Draft(topic, data, event=event, key=key)], many=False)
        return cursor

    async def end(self, topic: str, *, reason: str = "ended") -> str:
        """End a topic, as :meth:`Hub.end`, and return the cursor of its end. If it has ended, nothing changes.

        Arguments:
            topic: the topic.
            reason: a text for its readers, of 1 to 200 characters.

        Raises as :meth:`publish`.
        """
        (cursor,) = await self._store(lambda now: self._end(topic, reason, now))
        return cursor

    async def publish_many(self, drafts: Iterable[Draft]) -> list[str]:
        """Publish events in order, all or none, and return their cursors. Raises as :meth:`publish`."""
        events = list(drafts)
        return await self._publish(events, many=True) if events else []

    async def aclose(self) -> None:
        """Close the connections. May be called again."""
        self._closed = True
        client, self._own_client = self._own_client, None
        if client is not None:
            await client.aclose()

    async def _publish(self, drafts: list[Draft], *, many: bool) -> list[str]:
        cursors = await self._store(lambda now: self._publication(drafts, now, many=many))
        self._count(published=len(cursors))
        return cursors

    async def _store(self, make: Callable[[float], Publication]) -> list[str]:
        clock = self._clock or asyncio.get_running_loop()
        publication = make(clock.time())
        attempt = 0
        while True:
            attempt += 1
            self._count(requests=1, retries=attempt > 1)
            answer = await self._send(publication)
            step = publication.next_step(answer, attempt, now=clock.time(), wall=time.time())
            if isinstance(step, list):
                return step
            await sleep(clock, step)

    async def _send(self, publication: Publication) -> Answer | Exception:
        try:
            credentials = self._auth() if self._auth is not None else None
            own = credential_headers(await credentials if inspect.isawaitable(credentials) else credentials)
            client = self._http_client()
            response = await client.send(self._request(client, publication, own), follow_redirects=False)
        except httpx2.UnsupportedProtocol:
            raise
        except FAILURES as error:
            return error
        return Answer(response.status_code, dict(response.headers), response.content)

    def _http_client(self) -> httpx2.AsyncClient:
        if self._client is not None:
            return self._client
        if self._own_client is None:
            self._own_client = httpx2.AsyncClient()
        return self._own_client


class SyncPublisher(_BasePublisher):
    """Publish events to a hub, without asyncio. The arguments are those of :class:`Publisher`.

    Arguments:
        auth: a function.
        client: an ``httpx2.Client``. The publisher does not close it.
        clock: replaces the system's clock in tests.

    Threads may share a publisher.
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
        clock: Clock | None = None,
        random: Callable[[], float] = system_random,
        new_key: Callable[[], str] | None = None,
    ) -> None:
        super().__init__(
            url,
            headers=headers,
            timeout=timeout,
            max_attempts=max_attempts,
            max_delay=max_delay,
            random=random,
            new_key=new_key,
        )
        if inspect.iscoroutinefunction(auth):
            raise TypeError(f"a SyncPublisher cannot call the coroutine function {auth!r}: use Publisher")
        self._own_clock = ThreadClock()
        self._clock: Clock = clock or self._own_clock
        self._sleeper = Sleeper(self._clock)
        self._auth = auth
        self._client = client
        self._own_client: httpx2.Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def publish(self, topic: str, data: Any = "", *, event: str | None = None, key: str | None = None) -> str:
        """Publish one event and return its cursor, as :meth:`Publisher.publish`."""
        (cursor,) = self._publish([Draft(topic, data, event=event, key=key)], many=False)
        return cursor

    def end(self, topic: str, *, reason: str = "ended") -> str:
        """End a topic and return the cursor of its end, as :meth:`Publisher.end`."""
        (cursor,) = self._store(lambda now: self._end(topic, reason, now))
        return cursor

    def publish_many(self, drafts: Iterable[Draft]) -> list[str]:
        """Publish events in order, all or none, as :meth:`Publisher.publish_many`."""
        events = list(drafts)
        return self._publish(events, many=True) if events else []

    def close(self) -> None:
        """Close the connections. May be called again."""
        self._closed = True
        self._sleeper.wake()
        self._own_clock.close()
        with self._lock:
            client, self._own_client = self._own_client, None
        if client is not None:
            client.close()

    def _publish(self, drafts: list[Draft], *, many: bool) -> list[str]:
        cursors = self._store(lambda now: self._publication(drafts, now, many=many))
        self._count(published=len(cursors))
        return cursors

    def _store(self, make: Callable[[float], Publication]) -> list[str]:
        clock = self._clock
        publication = make(clock.time())
        attempt = 0
        while True:
            attempt += 1
            self._count(requests=1, retries=attempt > 1)
            answer = self._send(publication)
            step = publication.next_step(answer, attempt, now=clock.time(), wall=time.time())
            if isinstance(step, list):
                return step
            self._sleeper.sleep_until(clock.time() + step)

    def _send(self, publication: Publication) -> Answer | Exception:
        try:
            own = credential_headers(self._auth() if self._auth is not None else None)
            client = self._http_client()
            response = client.send(self._request(client, publication, own), follow_redirects=False)
        except httpx2.UnsupportedProtocol:
            raise
        except FAILURES as error:
            return error
        return Answer(response.status_code, dict(response.headers), response.content)

    def _http_client(self) -> httpx2.Client:
        if self._client is not None:
            return self._client
        with self._lock:
            if self._own_client is None:
                self._own_client = httpx2.Client()
            return self._own_client


def _fields(draft: Draft, new_key: Callable[[], str]) -> dict[str, str]:
    fields = {"topic": draft.topic, "data": draft.data}
    if draft.event is not None:
        fields["event"] = draft.event
    fields["key"] = new_key() if draft.key is None else draft.key
    return fields
