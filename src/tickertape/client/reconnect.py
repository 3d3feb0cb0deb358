"""``Reconnector``, the state machine of a client that never loses its place.

It does no I/O, has no clock and no randomness of its own: a shell asks :meth:`~Reconnector.next` what
to do, does it, and reports what came of it. Both shells, asynchronous and synchronous, are loops
around this. It follows WHATWG HTML, "Server-sent events": "announce the connection", "reestablish
the connection", "fail the connection".

::

    waiting ──Connect──► requesting ──200──► streaming
       ▲  ▲                 │  │  ▲              │
       │  └──5xx, 429, lost─┘  └──┘ redirect     │
       └──────────────ended, lost, silent────────┘        any ──204, other, close──► closed
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto
from typing import Final

from ..errors import ClientError, ContentTypeError, GaveUpError, RedirectError, StatusError
from ..wire import ServerSentEvent
from .actions import (
    Action,
    Closed,
    Connect,
    Emit,
    Follow,
    Notify,
    Opened,
    Read,
    Reconnecting,
    Save,
    Sleep,
    State,
    Statistics,
    Stop,
)
from .inbox import Failure, Gap, Inbox, Place
from .policy import Policy
from .timing import STABLE, Backoff, Silence, retry_after

__all__ = ["Reconnector", "id_header"]

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TOO_MANY_REQUESTS: Final = 429

_UNSENDABLE: Final = frozenset(b"\v\f")


def id_header(id: str | None) -> bytes | None:
    """Return the value of ``Last-Event-ID``; ``None`` if there is nothing to send.

    An id may have what HTTP cannot carry: the spaces around it are stripped, as Fetch does, and one
    with a vertical tab or a form feed is not sent at all, since every attempt would fail by it.
    """
    value = (id or "").encode().strip(b" \t")
    return value if value and _UNSENDABLE.isdisjoint(value) else None


class _Phase(Enum):
    WAITING = auto()
    REQUESTING = auto()
    STREAMING = auto()
    CLOSED = auto()


class Reconnector:
    """Decide what a client does next.

    Arguments:
        policy: how it tries again, and when it stops.
        headers: of every request; ``Last-Event-ID`` is added to them.
        random: gives a float from 0 to 1, as :func:`random.random`.

    All times are seconds of one monotonic clock, handed in as ``now``.
    """

    def __init__(
        self, policy: Policy, *, headers: Iterable[tuple[str, bytes]] = (), random: Callable[[], float]
    ) -> None:
        self.policy = policy
        self.state = State.CONNECTING
        self.last_event_id: str | None = None
        """The place: the id of the last event that the user is done with."""

        # Of the source.
        self._headers = tuple(headers)
        self._phase = _Phase.WAITING
        self._backoff = Backoff(policy.retry, policy.max_delay, random)
        self._silence = Silence(policy.silence)
        self._outbox: deque[Action] = deque()
        self._emitted: ServerSentEvent | None = None  # with the user, not yet done with
        self._due: float | None = None  # when the next attempt may start; at once if None

        # Of the attempts in a row that are not yet made good.
        self._failures = 0  # since the last stable connection: for the delay
        self._fruitless = 0  # since the last event: for giving up
        self._fruitless_since = 0.0

        # Of the attempt in progress.
        self._inbox = Inbox(max_event_size=policy.max_event_size)
        self._redirects = 0
        self._opened_at: float | None = None
        self._waiting_since = 0.0
        self._events_before = 0

        # For the statistics.
        self._attempts = self._connections = self._reconnects = 0
        self._events = self._gaps = self._duplicates = self._heartbeats = 0

    def statistics(self) -> Statistics:
        """Return what has happened so far."""
        return Statistics(
            attempts=self._attempts,
            connections=self._connections,
            reconnects=self._reconnects,
            events=self._events,
            duplicates=self._duplicates,
            gaps=self._gaps,
            heartbeats=self._heartbeats,
        )

    # What to do.

    def next(self, now: float) -> Action:
        """Return what is to be done next; after :class:`Stop` it is that again."""
        while not self._outbox:
            self._advance(now)
        return self._outbox.popleft()

    def commit(self) -> Save | None:
        """Take note that the user is done with the event last emitted; return what is to be stored."""
        event, self._emitted = self._emitted, None
        if event is None or event.id is None:
            return None
        return self._move(event.id)

    def _advance(self, now: float) -> None:
        match self._phase:
            case _Phase.STREAMING:
                self._deliver(now)
            case _Phase.WAITING if self._due is not None and now < self._due:
                self._outbox.append(Sleep(self._due - now))
            case _Phase.WAITING:
                self._connect(now)
            case _Phase.CLOSED:
                self._outbox.append(Stop(None))
            case _Phase.REQUESTING:
                raise RuntimeError("expected a report on the request in progress, got a call of next()")

    def _connect(self, now: float) -> None:
        self._phase = _Phase.REQUESTING
        if not self._attempts:
            self._fruitless_since = now
        self._attempts += 1
        self._redirects = 0
        self._events_before = self._events
        resumed_after = self.last_event_id if self.policy.deduplicate else None
        self._inbox = Inbox(max_event_size=self.policy.max_event_size, resumed_after=resumed_after)
        self._outbox.append(Connect(self._request_headers(), self._silence.deadline()))

    def _request_headers(self) -> tuple[tuple[str, bytes], ...]:
        value = id_header(self.last_event_id)
        return (*self._headers, ("Last-Event-ID", value)) if value else self._headers

    def _deliver(self, now: float) -> None:
        match self._inbox.take():
            case None:
                self._waiting_since = now
                self._outbox.append(Read(self._silence.deadline()))
            case Place(id):
                self._save(self._move(id))
            case Failure(error, final):
                self._stop(error) if final else self._lost(now, str(error), error)
            case Gap() as gap:
                self._gaps += 1
                self._outbox.append(Notify(gap))
                self._emitted = gap
                if self.policy.yield_gaps:
                    self._outbox.append(Emit(gap))
                else:
                    self._save(self.commit())
            case event:
                self._events += 1
                self._emitted = event
                self._outbox.append(Emit(event))

    def _move(self, id: str) -> Save | None:
        if id == (self.last_event_id or ""):
            return None
        self.last_event_id = id
        return Save(id)

    def _save(self, save: Save | None) -> None:
        if save is not None:
            self._outbox.append(save)

    # What came of it.

    def responded(
        self,
        status: int,
        headers: Mapping[str, str],
        *,
        now: float,
        wall: float,
        url: str = "",
        detail: str = "",
    ) -> None:
        """Take the head of a response.

        Arguments:
            headers: names in lower case.
            wall: seconds since the epoch, for dates in ``Retry-After``.
            url: what was asked for; for messages, so without credentials.
            detail: what the server said about an error, shortened.
        """
        error = StatusError(status, url, detail)
        if status == 200:
            self._open(headers, now, url)
        elif status == 204:
            self._stop(None)
        elif status in _REDIRECTS:
            self._redirect(status, headers.get("location", "").strip())
        elif status >= 500 or status == _TOO_MANY_REQUESTS:
            self._lost(now, f"status {status}", error, at_least=retry_after(headers, wall))
        else:
            self._stop(error)

    def received(self, data: bytes, now: float) -> None:
        """Take bytes of the stream."""
        heartbeats, duplicates = self._inbox.feed(data)
        self._heartbeats += heartbeats
        self._duplicates += duplicates
        if self._inbox.retry is not None:
            self._backoff.honour(self._inbox.retry)
        self._silence.saw(now - self._waiting_since, heartbeats > 0)

    def ended(self, now: float) -> None:
        """Take note that the server has ended the stream in good order."""
        # One that has brought an event has done its work: servers that answer polls end like this all day.
        self._lost(now, "the stream ended", None, is_failure=self._events == self._events_before)

    def failed(self, error: Exception, now: float) -> None:
        """Take note that the connection broke or never came to be."""
        self._lost(now, f"{type(error).__name__}: {error}".rstrip(": "), error)

    def silent(self, now: float) -> None:
        """Take note that nothing came within the time that the last action gave."""
        seconds = self._silence.deadline()
        self._silence.forget()
        error = ClientError(f"expected bytes within {seconds:g} s, got none")
        self._lost(now, f"silence for {seconds:g} s", error)

    def interrupted(self) -> None:
        """Take note that the work was broken off for a reason of the user's own: the next attempt is at once."""
        if self._phase is not _Phase.CLOSED:
            self._leave()
            self._due = None

    def close(self) -> None:
        """Stop, whatever is going on."""
        if self._phase is not _Phase.CLOSED:
            self._stop(None)

    def _open(self, headers: Mapping[str, str], now: float, url: str) -> None:
        content_type = headers.get("content-type", "")
        if content_type.partition(";")[0].strip().lower() != "text/event-stream":
            self._stop(ContentTypeError(content_type, url))
            return
        self._phase = _Phase.STREAMING
        self.state = State.OPEN
        self._connections += 1
        self._opened_at = now
        self._outbox.append(Notify(Opened(url, headers, self._attempts)))

    def _redirect(self, status: int, location: str) -> None:
        self._redirects += 1
        if location and self._redirects <= self.policy.max_redirects:
            self._outbox.append(Follow(self._silence.deadline()))
        else:
            self._stop(RedirectError(status, location, self._redirects))

    def _lost(
        self, now: float, reason: str, error: Exception | None, *, at_least: float = 0.0, is_failure: bool = True
    ) -> None:
        """Leave the attempt: wait for the next one, or give up."""
        stable = self._opened_at is not None and now - self._opened_at >= STABLE
        if stable or not is_failure:
            self._failures = 0
        if stable or self._events > self._events_before:
            self._fruitless, self._fruitless_since = 0, now
        else:
            self._fruitless += 1
        delay = self._backoff.delay(self._failures, at_least)
        self._failures += is_failure
        self._leave()
        if self._is_enough(now + delay):
            gave_up = GaveUpError(self._fruitless, now - self._fruitless_since, reason)
            gave_up.__cause__ = error
            self._stop(gave_up)
            return
        self._due = now + delay
        self._reconnects += 1
        self._outbox.append(Notify(Reconnecting(reason, delay, self._fruitless, error)))

    def _is_enough(self, then: float) -> bool:
        attempts, seconds = self.policy.max_attempts, self.policy.give_up_after
        if attempts is not None and self._fruitless >= attempts:
            return True
        return seconds is not None and then - self._fruitless_since > seconds

    def _leave(self) -> None:
        self._phase = _Phase.WAITING
        self.state = State.CONNECTING
        self._opened_at = None

    def _stop(self, error: Exception | None) -> None:
        self._phase = _Phase.CLOSED
        self.state = State.CLOSED
        self._outbox.append(Notify(Closed(error)))
        self._outbox.append(Stop(error))
