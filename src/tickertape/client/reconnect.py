"""``Reconnector``, the state machine of a client that resumes where it stopped.

It does no I/O and has neither a clock nor randomness. A shell asks :meth:`~Reconnector.next` for the next
action, does it, and reports the result. Both shells, asynchronous and synchronous, are loops around it. It follows
WHATWG HTML, "Server-sent events": "announce the connection", "reestablish the connection", "fail the connection".

::

    waiting ──Connect──► requesting ──200──► streaming
       ▲  ▲                 │  │  ▲              │
       │  └──5xx, 429, lost─┘  └──┘ redirect     │
       └──────────────ended, lost, silent────────┘        any ──stream:end, 204, other, close──► closed
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, StrEnum, auto
from typing import Final, NamedTuple, TypeAlias

from ..errors import ClientError, ContentTypeError, GaveUpError, RedirectError, StatusError
from ..wire import EXPIRED_EVENT, End, Gap, ReceivedEvent, StreamOpen, TopicsChange
from .http import excerpt
from .inbox import Comment, Failure, Inbox, Position
from .policy import STABLE, Delays, Policy, Silence, retry_after

MAX_ID_SIZE: Final = 4 * 1024
"""Bytes of an event id. Servers refuse a request with headers above 8 to 16 KiB, so a client that sent back a
longer id could never reconnect."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_UNAUTHORIZED: Final = 401
_TOO_MANY_REQUESTS: Final = 429

_UNSENDABLE: Final = frozenset(b"\v\f")


class State(StrEnum):
    """The state of a source. The names are those of the browser's ``readyState``."""

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSED = "closed"


class Opened(NamedTuple):
    """A stream has begun."""

    url: str
    """Its URL, after redirects, without credentials and query."""
    headers: Mapping[str, str]
    """Of the response, names in lower case."""
    attempt: int
    """The number of this attempt since the source was made, from 1."""


class Reconnecting(NamedTuple):
    """A connection ended or an attempt failed, and another attempt follows."""

    reason: str
    """The cause, in words."""
    delay: float
    """Seconds until the next attempt."""
    failures: int
    """Attempts in a row without an event."""
    error: Exception | None
    """The error; ``None`` if the server ended the stream cleanly."""


class Closed(NamedTuple):
    """A source is closed permanently."""

    error: Exception | None
    """The exception that the iteration raises; ``None`` if it just ends (``stream:end``, 204, or ``close()``)."""
    end: End | None = None
    """The notice with which the stream ended; ``None`` if there was none."""


class Statistics(NamedTuple):
    """Counts since a source was made."""

    attempts: int
    """Requests for the stream; redirects are not counted."""
    connections: int
    """Attempts that opened a stream."""
    reconnects: int
    """Waits for another attempt."""
    events: int
    """Events yielded to the user."""
    duplicates: int
    """Events dropped because they had been delivered before."""
    gaps: int
    """Notices that events are missing."""
    heartbeats: int
    """Comments."""


Notice: TypeAlias = Opened | Gap | TopicsChange | Comment | Reconnecting | Closed


class Connect(NamedTuple):
    """Send the request. Report ``responded`` or ``failed``, or ``silent`` after ``seconds``."""

    headers: tuple[tuple[str, bytes], ...]
    seconds: float | None
    refused: bool = False
    """True if the server has just refused the last credentials."""


class Follow(NamedTuple):
    """Follow the redirect of the response. Report as for :class:`Connect`."""

    seconds: float | None


class Read(NamedTuple):
    """Wait for bytes. Report ``received``, ``ended`` or ``failed``, or ``silent`` after ``seconds``."""

    seconds: float | None


class Sleep(NamedTuple):
    """Wait until a time of the clock, without a connection, and ask again."""

    until: float


class Emit(NamedTuple):
    """Yield the event to the user."""

    event: ReceivedEvent


class Save(NamedTuple):
    """Store the last event id: all events up to it are handled."""

    id: str


class Notify(NamedTuple):
    """Log the notice and call the user's hook."""

    notice: Notice


class Warn(NamedTuple):
    """Log a warning."""

    text: str


class Stop(NamedTuple):
    """Release everything, and raise the error if there is one."""

    error: Exception | None


Action: TypeAlias = Connect | Follow | Read | Sleep | Emit | Save | Notify | Warn | Stop


def id_header(id: str | None) -> bytes | None:
    """Return the value of ``Last-Event-ID``; ``None`` if there is nothing to send.

    HTTP cannot carry every id. Spaces around it are stripped, as Fetch does. An id with a vertical tab or a form
    feed is not sent at all, because every attempt would fail.
    """
    value = (id or "").encode().strip(b" \t")
    return value if value and _UNSENDABLE.isdisjoint(value) else None


def is_too_long(id: str) -> bool:
    """Return True if an id is above :data:`MAX_ID_SIZE`."""
    return len(id) > MAX_ID_SIZE // 4 and len(id.encode()) > MAX_ID_SIZE


class _Phase(Enum):
    WAITING = auto()
    REQUESTING = auto()
    STREAMING = auto()
    CLOSED = auto()


class Reconnector:
    """Decide what a client does next.

    Arguments:
        policy: when to reconnect, how long to wait, and when to give up.
        headers: of every request; ``Last-Event-ID`` is added to them.
        renews_credentials: status 401 on a reconnect is worth one more attempt, with fresh credentials.
        until: returns True for the last event to yield.
        mark: the data of an event that ends the stream and is not yielded; ``None`` for no such event.
        comments: notify of comments.
        random: returns a float from 0 to 1, as :func:`random.random`.

    All times are seconds of one monotonic clock, passed in as ``now``.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        headers: Iterable[tuple[str, bytes]] = (),
        renews_credentials: bool = False,
        until: Callable[[ReceivedEvent], bool] | None = None,
        mark: str | None = None,
        comments: bool = False,
        random: Callable[[], float],
    ) -> None:
        self.policy = policy
        self.state = State.CONNECTING
        self.last_event_id: str | None = None
        """The id of the last event that the user has handled."""
        self.end: End | None = None
        """The notice with which the stream ended."""
        self.subscription: str | None = None
        """The id with which the open stream can be changed, if the server has sent it."""

        # Of the source.
        self._headers = tuple(headers)
        self._renews_credentials = renews_credentials
        self._until = until
        self._mark = mark
        self._comments = comments
        self._phase = _Phase.WAITING
        self._delays = Delays(policy.retry, policy.max_delay, random)
        self._silence = Silence(policy.silence)
        self._outbox: deque[Action] = deque()
        self._emitted: ReceivedEvent | None = None  # yielded to the user, not yet handled
        self._due: float | None = None  # time of the next attempt; at once if None
        self._is_complete = False  # the last event is emitted
        self._warned = False  # about an id that is too long

        # Of the failed attempts in a row.
        self._failures = 0  # since the last stable connection: for the delay
        self._fruitless = 0  # since the last event: for giving up
        self._fruitless_since = 0.0
        self._renewing = False  # this attempt was made because of a 401, or since the credentials have expired
        self._expired = False  # the hub has sent a notice of that

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
        """Return the counts so far."""
        return Statistics(
            attempts=self._attempts,
            connections=self._connections,
            reconnects=self._reconnects,
            events=self._events,
            duplicates=self._duplicates,
            gaps=self._gaps,
            heartbeats=self._heartbeats,
        )

    # The next action.

    def next(self, now: float) -> Action:
        """Return the next action. After :class:`Stop` it is that again."""
        while not self._outbox:
            self._advance(now)
        return self._outbox.popleft()

    def commit(self) -> Save | None:
        """Record that the user has handled the event emitted last. Return the id to store."""
        event, self._emitted = self._emitted, None
        if event is None or event.id is None:
            return None
        return self._move(event.id)

    def _advance(self, now: float) -> None:
        match self._phase:
            case _Phase.STREAMING if self._is_complete:
                self._stop(None)
            case _Phase.STREAMING:
                self._deliver(now)
            case _Phase.WAITING if self._due is not None and now < self._due:
                self._outbox.append(Sleep(self._due))
            case _Phase.WAITING:
                self._connect(now)
            case _Phase.CLOSED:
                self._outbox.append(Stop(None))
            case _Phase.REQUESTING:
                raise RuntimeError("next() was called before the result of the request was reported")

    def _connect(self, now: float) -> None:
        self._phase = _Phase.REQUESTING
        if not self._attempts:
            self._fruitless_since = now
        self._attempts += 1
        self._redirects = 0
        self._events_before = self._events
        resumed_after = self.last_event_id if self.policy.deduplicate else None
        self._inbox = Inbox(
            max_event_size=self.policy.max_event_size, comments=self._comments, resumed_after=resumed_after
        )
        self._renewing = self._renewing or (self._expired and self._renews_credentials)
        self._expired = False
        self._outbox.append(Connect(self._request_headers(), self._silence.deadline(), self._renewing))

    def _request_headers(self) -> tuple[tuple[str, bytes], ...]:
        value = id_header(self.last_event_id)
        if value is None and self.last_event_id:
            self._outbox.append(
                Warn(f"cannot resume: no HTTP header can carry the id {excerpt(repr(self.last_event_id))}")
            )
        return (*self._headers, ("Last-Event-ID", value)) if value else self._headers

    def _deliver(self, now: float) -> None:
        match self._inbox.take():
            case None:
                self._waiting_since = now
                self._outbox.append(Read(self._silence.deadline()))
            case Comment() as comment:
                self._outbox.append(Notify(comment))
            case Position(id):
                self._warn_of_long_id(id)
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
            case End(final=True) as end:
                self.end = self._emitted = end
                self._save(self.commit())
                self._stop(None)
            case StreamOpen() as opened:
                self.subscription = opened.subscription
            case TopicsChange() as change:
                self._outbox.append(Notify(change))
                self._emitted = change
                self._save(self.commit())
            case event if event.event == EXPIRED_EVENT:
                self._expired = True
            case event:
                self._deliver_event(event)

    def _deliver_event(self, event: ReceivedEvent) -> None:
        self._emitted = event
        self._warn_of_long_id(event.id)
        if event.data == self._mark:
            self._save(self.commit())
            self._stop(None)
            return
        self._events += 1
        self._outbox.append(Emit(event))
        # Last, so that an exception of the user's function does not cost the event.
        self._is_complete = self._until is not None and self._until(event)

    def _warn_of_long_id(self, id: str | None) -> None:
        if id is not None and not self._warned and is_too_long(id):
            self._warned = True
            text = (
                f"ignores an event id of {len(id.encode())} bytes, above {MAX_ID_SIZE}; it resumes from the id before"
            )
            self._outbox.append(Warn(text))

    def _move(self, id: str) -> Save | None:
        if id == (self.last_event_id or "") or is_too_long(id):
            return None
        self.last_event_id = id
        return Save(id)

    def _save(self, save: Save | None) -> None:
        if save is not None:
            self._outbox.append(save)

    # Its result.

    def responded(
        self,
        status: int,
        headers: Mapping[str, str],
        *,
        now: float,
        wall: float,
        url: str = "",
        target: str = "",
        detail: str = "",
    ) -> None:
        """Process the head of a response.

        Arguments:
            headers: names in lower case.
            wall: seconds since 1970, for dates in ``Retry-After``.
            url: of the request; for messages, so without credentials.
            target: the absolute URL of a redirect; ``""`` if the ``Location`` is missing or not a URL.
            detail: the server's words about an error, shortened.
        """
        if status == 200:
            self._open(headers, now, url)
        elif status == 204:
            self._stop(None)
        elif status in _REDIRECTS:
            self._redirect(status, headers.get("location", "").strip(), target)
        else:
            self._refused(StatusError(status, url, detail), retry_after(headers, wall), now)

    def received(self, data: bytes, now: float) -> None:
        """Process bytes of the stream."""
        heartbeats, duplicates = self._inbox.feed(data)
        self._heartbeats += heartbeats
        self._duplicates += duplicates
        if self._inbox.retry is not None:
            self._delays.set_retry(self._inbox.retry)
        self._silence.saw(now - self._waiting_since, heartbeats > 0)

    def ended(self, now: float) -> None:
        """Process the clean end of the stream."""
        if self.policy.reconnect == "never" or (self.policy.reconnect == "errors" and not self._expired):
            self._stop(None)
            return
        # After an event it is no failure: a server that answers polls ends every stream like this.
        reason = "the credentials have expired" if self._expired else "the stream ended"
        self._lost(now, reason, None, is_failure=self._events == self._events_before)

    def failed(self, error: Exception, now: float) -> None:
        """Process a connection that broke or could not be made."""
        self._lost(now, excerpt(f"{type(error).__name__}: {error}").rstrip(": "), error)

    def silent(self, now: float) -> None:
        """Process that nothing came within the seconds of the last action."""
        seconds = self._silence.deadline()
        self._silence.forget()
        reason = f"no bytes for {seconds:g} s"
        self._lost(now, reason, ClientError(reason))

    def interrupted(self) -> None:
        """Process that the user's own program interrupted the work. The next attempt follows at once."""
        if self._phase is not _Phase.CLOSED:
            self._leave()
            self._due = None

    @property
    def is_waiting(self) -> bool:
        """True if the next request is not made yet."""
        return self._phase is _Phase.WAITING

    def restart(self, now: float, reason: str) -> None:
        """Process that the user wants another connection at once. Events that are not emitted yet are dropped."""
        if self._phase is _Phase.CLOSED or self._is_complete or not self._attempts:
            return
        self._outbox = deque(each for each in self._outbox if not isinstance(each, (Connect, Follow, Read, Sleep)))
        self._failures = 0
        self._reconnect(now, 0.0, reason, None)

    def close(self) -> None:
        """Stop, in any state."""
        if self._phase is not _Phase.CLOSED:
            self._stop(None)

    def _open(self, headers: Mapping[str, str], now: float, url: str) -> None:
        content_type = headers.get("content-type", "")
        if content_type.partition(";")[0].strip().lower() != "text/event-stream":
            self._stop(ContentTypeError(excerpt(content_type), url))
            return
        self._phase = _Phase.STREAMING
        self.state = State.OPEN
        self._connections += 1
        self._opened_at = now
        self._renewing = False
        self._outbox.append(Notify(Opened(url, headers, self._attempts)))

    def _redirect(self, status: int, location: str, target: str) -> None:
        self._redirects += 1
        can_follow = bool(location) and target.startswith(("http://", "https://"))
        if can_follow and self._redirects <= self.policy.max_redirects:
            self._outbox.append(Follow(self._silence.deadline()))
        else:
            self._stop(RedirectError(status, excerpt(location), self._redirects, too_many=can_follow))

    def _refused(self, error: StatusError, at_least: float, now: float) -> None:
        if error.status >= 500 or error.status == _TOO_MANY_REQUESTS:
            self._lost(now, f"status {error.status}", error, at_least=at_least)
        elif error.status == _UNAUTHORIZED and self._renews_credentials and self._connections and not self._renewing:
            self._renewing = True
            self._reconnect(now, 0.0, "status 401", error)
        else:
            self._stop(error)

    def _lost(
        self, now: float, reason: str, error: Exception | None, *, at_least: float = 0.0, is_failure: bool = True
    ) -> None:
        """End the attempt: wait for the next one, or give up."""
        stable = self._opened_at is not None and now - self._opened_at >= STABLE
        if stable or not is_failure:
            self._failures = 0
        if stable or self._events > self._events_before:
            self._fruitless, self._fruitless_since = 0, now
        else:
            self._fruitless += 1
        delay = self._delays.delay(self._failures, at_least)
        self._failures += is_failure
        if self._must_give_up(now + delay):
            gave_up = GaveUpError(max(self._fruitless, 1), now - self._fruitless_since, reason, error)
            gave_up.__cause__ = error
            self._stop(gave_up)
        else:
            self._reconnect(now, delay, reason, error)

    def _must_give_up(self, then: float) -> bool:
        attempts, seconds = self.policy.max_attempts, self.policy.give_up_after
        if self.policy.reconnect == "never" or (attempts is not None and self._fruitless >= attempts):
            return True
        return seconds is not None and then - self._fruitless_since > seconds

    def _reconnect(self, now: float, delay: float, reason: str, error: Exception | None) -> None:
        self._leave()
        self._due = now + delay
        self._reconnects += 1
        self._outbox.append(Notify(Reconnecting(reason, delay, self._fruitless, error)))

    def _leave(self) -> None:
        self._phase = _Phase.WAITING
        self.state = State.CONNECTING
        self.subscription = None
        self._opened_at = None

    def _stop(self, error: Exception | None) -> None:
        self._phase = _Phase.CLOSED
        self.state = State.CLOSED
        self.subscription = None
        self._outbox.append(Notify(Closed(error, self.end)))
        self._outbox.append(Stop(error))
