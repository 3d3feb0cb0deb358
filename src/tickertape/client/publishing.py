"""``publication``, the state machine of a publisher: what to send, when to send it again, what the answer means.

It may send again after any doubt, since each event carries an idempotency key: a hub appends the
same key once and answers with the first cursor.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import uuid4

import httpx2

from ..errors import ClientError, GaveUpError, PublishError
from ..wire import ServerSentEvent
from .headers import HeaderList, header_list, merged, shown
from .problem import publish_error
from .timing import Backoff, retry_after

__all__ = ["Draft", "Exchange", "Pause", "PublisherStatistics", "Publishing", "Reply", "Send", "publication"]

DEFAULT_MAX_ATTEMPTS: Final = 8
"""With delays up to 30 s that is half a minute on average: a restart of the hub is waited for, an outage told."""

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds for each step of one attempt: a hub answers within milliseconds of its disk."""

DEFAULT_MAX_DELAY: Final = 30.0
"""Seconds up to which the delays grow, as those of the sources."""

_FIRST_DELAY: Final = 1.0
"""Seconds up to which the first delay is spread: a full hub has caught its breath by then."""

_AGAIN: Final = frozenset({429, 502, 503, 504})
"""Too much, or not ready; and what a proxy answers when it is the hub that cannot be reached."""


class Draft(NamedTuple):
    """An event to publish."""

    topic: str
    data: Any = ""
    """``str`` is sent as text, anything else as JSON, as in :class:`~tickertape.ServerSentEvent`."""
    event: str | None = None
    key: str | None = None
    """Idempotency key: of all events with the same one, the hub keeps the first. Made up if left out."""


class PublisherStatistics(NamedTuple):
    """What a publisher has done since it was made."""

    published: int
    """Events that the hub has stored."""
    requests: int
    retries: int


class Send(NamedTuple):
    """Send this body; answer with a :class:`Reply`, or with the error that the network gave."""

    body: bytes


class Pause(NamedTuple):
    """Let this time pass."""

    seconds: float


class Reply(NamedTuple):
    """An answer of the hub."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Exchange: TypeAlias = Generator[Send | Pause, Reply | Exception | None, list[str]]


class Publishing:
    """What the asynchronous and the synchronous publisher have in common: all but the waiting."""

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
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        if max_attempts is not None and max_attempts < 1:
            raise ValueError(f"expected max_attempts to be 1 or more or None, got {max_attempts!r}")
        base = httpx2.URL(url)
        self.url = base.copy_with(path=f"{base.path.rstrip('/')}/events")
        self.max_attempts = max_attempts
        self._timeout = httpx2.Timeout(timeout)
        self._headers = merged([("Content-Type", b"application/json")], header_list(headers))
        self._backoff = Backoff(_FIRST_DELAY, max_delay, random)
        self._new_key = new_key or (lambda: uuid4().hex)
        self._now = now
        self._wall = wall
        self._closed = False
        self._lock = threading.Lock()
        self._published = self._requests = self._retries = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {shown(self.url)} published={self._published} retries={self._retries}>"

    def statistics(self) -> PublisherStatistics:
        """Return what the publisher has done since it was made."""
        return PublisherStatistics(self._published, self._requests, self._retries)

    def _exchange(self, drafts: Iterable[Draft], *, many: bool) -> Exchange:
        events = [_fields(draft, self._new_key) for draft in drafts]
        if not events:
            return []
        body = json.dumps(events if many else events[0]).encode()
        exchange = publication(
            body,
            len(events),
            backoff=self._backoff,
            max_attempts=self.max_attempts,
            now=self._now,
            wall=self._wall,
        )
        cursors = yield from self._counted(exchange)
        with self._lock:
            self._published += len(cursors)
        return cursors

    def _counted(self, exchange: Exchange) -> Exchange:
        answer: Reply | Exception | None = None
        while True:
            try:
                step = exchange.send(answer)
            except StopIteration as end:
                return list(end.value)
            if self._closed:
                raise RuntimeError("expected an open publisher, got a closed one")
            with self._lock:
                self._requests += isinstance(step, Send)
                self._retries += isinstance(step, Pause)
            answer = yield step

    def _request_headers(self, credentials: HeaderList) -> list[tuple[bytes, bytes]]:
        return [(name.encode(), value) for name, value in merged(self._headers, credentials)]


def publication(
    body: bytes,
    count: int,
    *,
    backoff: Backoff,
    max_attempts: int | None,
    now: Callable[[], float],
    wall: Callable[[], float],
) -> Exchange:
    """Publish a body with so many events in it, and return their cursors.

    Raises:
        PublishError: the hub refuses it.
        GaveUpError: it could not be brought to the hub in ``max_attempts``.
        ClientError: the answer is not that of a hub.
    """
    began = now()
    attempts = 0
    while True:
        answer = yield Send(body)
        attempts += 1
        if isinstance(answer, Reply) and answer.status not in _AGAIN:
            return _cursors(answer, count)
        error, at_least = _trouble(answer, wall())
        if max_attempts is not None and attempts >= max_attempts:
            raise GaveUpError(attempts, now() - began, str(error) or type(error).__name__) from error
        yield Pause(backoff.delay(attempts - 1, at_least))


def _trouble(answer: Reply | Exception | None, wall: float) -> tuple[Exception, float]:
    """Return the error in an answer that may be better next time, and the seconds it asks to wait."""
    if isinstance(answer, Reply):
        error = publish_error(answer.status, answer.body, answer.headers.get("content-type", ""))
        return error, retry_after(answer.headers, wall)
    assert answer is not None, "a Send is answered"
    return answer, 0.0


def _cursors(reply: Reply, count: int) -> list[str]:
    if 300 <= reply.status < 400:
        # Most clients would make a GET of it and call that a success.
        raise PublishError(reply.status, f"a redirect to {reply.headers.get('location', 'nowhere')!r}")
    if not 200 <= reply.status < 300:
        raise publish_error(reply.status, reply.body, reply.headers.get("content-type", ""))
    try:
        answer = json.loads(reply.body)
    except ValueError:
        answer = None
    cursors: Any = answer.get("cursors", [answer.get("cursor")]) if isinstance(answer, dict) else None
    if not isinstance(cursors, list) or len(cursors) != count or not all(isinstance(one, str) for one in cursors):
        excerpt = reply.body[:100].decode("utf-8", "replace")
        raise ClientError(f"expected {count} cursors in the answer of a hub, got {excerpt!r}")
    return cursors


def _fields(draft: Draft, new_key: Callable[[], str]) -> dict[str, str]:
    # Checked and turned into text by the same rules as everywhere; the hub sends text as it is.
    event = ServerSentEvent("null" if draft.data is None else draft.data, event=draft.event)
    fields = {"topic": draft.topic, "data": event.data or ""}
    if draft.event is not None:
        fields["event"] = draft.event
    fields["key"] = new_key() if draft.key is None else draft.key
    return fields
