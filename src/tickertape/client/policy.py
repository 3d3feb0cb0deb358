"""``Policy``: when a client reconnects, how long it waits, and when it gives up. All of it is pure.

The delays follow WHATWG HTML, "reestablish the connection": wait the reconnection time, and longer if attempts failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, Literal, TypeAlias, TypedDict

from ..timing import backoff

DEFAULT_RETRY: Final = 3.0
"""Seconds to wait until the server sends ``retry:``. WHATWG HTML proposes "a few seconds"; Chrome waits 3."""

DEFAULT_MAX_DELAY: Final = 30.0
"""Seconds. A server that is up again is found within half a minute."""

DEFAULT_MAX_EVENT_SIZE: Final = 8 * 1024 * 1024
"""Bytes. A hub accepts 1 MiB of data. With ``data: `` before each of its lines that is at most seven times as much."""

DEFAULT_MAX_REDIRECTS: Final = 20
"""Redirects in a row: the limit of the Fetch standard."""

MIN_RETRY: Final = 0.5
"""Shortest delay in seconds that a server can ask for: Firefox's limit. With 0 a client would spin."""

MAX_RETRY: Final = 300.0
"""Longest delay in seconds that ``retry:`` can ask for. Any restart fits in; a longer one is as good as stopping."""

MAX_RETRY_AFTER: Final = 3600.0
"""Longest delay in seconds that ``Retry-After`` can ask for. Maintenance takes an hour; a wrong clock may add years."""

STABLE: Final = 60.0
"""Seconds. After a connection of this length the delays start over: two times the default cap of the delays."""

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
"""Methods that may be repeated without asking the user (RFC 9110, 9.2.2; RFC 10008)."""

_LONGEST_NUMBER: Final = 18
"""Digits that are read of a number of seconds. Longer numbers are above every limit."""

Reconnect: TypeAlias = Literal["always", "errors", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Define when a client reconnects, how long it waits, and when it gives up.

    Arguments:
        reconnect: ``"always"``, also after the server ended the stream; ``"errors"``, only after a lost
            connection, status 429 or 5xx; ``"never"``. ``None`` means ``"always"`` for idempotent methods such as GET
            and ``"errors"`` for the others, so that a POST that ended cleanly is not repeated (RFC 9110, 9.2.2).
        retry: seconds to wait before a reconnect, until the server sends ``retry:``.
        max_delay: seconds up to which the delays grow. A longer ``retry:`` or ``Retry-After`` is still honoured.
        silence: seconds without a byte after which a connection counts as lost; ``"learned"`` for a
            deadline learned from the server's heartbeats; ``None`` for no deadline.
        max_attempts: attempts in a row without an event, after which to give up; ``None`` for no limit.
        give_up_after: seconds of failing attempts without an event, after which to give up; ``None`` for no limit.
        max_redirects: redirects in a row that are followed.
        max_event_size: bytes that one event may take; ``None`` for no limit.
        deduplicate: drop events that a hub repeats after a resume. Only streams of a hub qualify: the ids of
            other servers are opaque.
        yield_gaps: yield gap notices among the events, each as a :class:`~tickertape.client.Gap`.

    Raises:
        ValueError: a limit is out of its range.
    """

    reconnect: Reconnect | None = None
    retry: float = DEFAULT_RETRY
    max_delay: float = DEFAULT_MAX_DELAY
    silence: float | Literal["learned"] | None = "learned"
    max_attempts: int | None = None
    give_up_after: float | None = None
    max_redirects: int = DEFAULT_MAX_REDIRECTS
    max_event_size: int | None = DEFAULT_MAX_EVENT_SIZE
    deduplicate: bool = True
    yield_gaps: bool = False

    def __post_init__(self) -> None:
        if self.reconnect not in (None, "always", "errors", "never"):
            raise ValueError(f"expected reconnect to be 'always', 'errors' or 'never', got {self.reconnect!r}")
        for name in ("retry", "max_delay", "silence", "max_attempts", "give_up_after", "max_event_size"):
            value = getattr(self, name)
            if value is None and name not in {"retry", "max_delay"}:
                continue
            if value == "learned" and name == "silence":
                continue
            # A comparison that NaN fails, unlike `value <= 0`.
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
                raise ValueError(f"expected {name} to be a number greater than 0, got {value!r}")
        if self.max_redirects < 0:
            raise ValueError(f"expected max_redirects to be 0 or more, got {self.max_redirects!r}")


class PolicyOptions(TypedDict, total=False):
    """The arguments of :class:`Policy`, as keywords of the sources."""

    reconnect: Reconnect | None
    retry: float
    max_delay: float
    silence: float | Literal["learned"] | None
    max_attempts: int | None
    give_up_after: float | None
    max_redirects: int
    max_event_size: int | None
    deduplicate: bool
    yield_gaps: bool


class Delays:
    """Compute the delay before the next attempt.

    Arguments:
        initial: reconnection time in seconds, until the server sends one.
        cap: seconds up to which the delays grow.
        random: returns a float from 0 to 1, as :func:`random.random`.
    """

    def __init__(self, initial: float, cap: float, random: Callable[[], float]) -> None:
        self.initial = initial
        self.cap = cap
        self.random = random
        self.retry: float | None = None

    def set_retry(self, milliseconds: int) -> None:
        """Use the reconnection time that the server sent, from now on."""
        clamped = min(milliseconds, int(MAX_RETRY * 1000))  # as integers: a float may be too small for it
        self.retry = max(MIN_RETRY, clamped / 1000)

    def delay(self, failures: int, at_least: float = 0.0) -> float:
        """Return the seconds to wait after a number of failures in a row; 0 failures after a clean end.

        The server's ``retry:`` is the shortest delay, and without failures the exact one: so a server
        can spread its clients over time. If the server sent none, the first delay is already random.
        """
        base = self.initial if self.retry is None else self.retry
        floor = min(MIN_RETRY, base) if self.retry is None else base
        ceiling = max(floor, backoff(failures + 1, self.random, first=base, cap=self.cap, jitter=0.0))
        return max(floor + self.random() * (ceiling - floor), at_least)


class Silence:
    """Learn from a server's heartbeats how long a living connection may be silent.

    Arguments:
        given: a fixed number of seconds; ``"learned"``; or ``None`` for no deadline.

    A silence is time spent waiting for bytes. The time of the user's handler is not part of it: bytes that arrive
    during it are read without waiting.
    """

    LEAST: Final = 30.0
    """Seconds: two heartbeats of the usual 15 s. Networks do stall for some seconds."""

    UNLEARNED: Final = 300.0
    """Seconds, until a heartbeat was seen. No common proxy keeps a silent connection that long (nginx and
    Amazon's 60 s, Cloudflare's 100 s, Azure's 230 s), so it is dead far more often than quiet."""

    FACTOR: Final = 3
    """A deadline is this many times the longest gap: one heartbeat may be late, another one lost in a stall."""

    def __init__(self, given: float | Literal["learned"] | None) -> None:
        self.given = given
        self._has_heartbeats = False
        self._longest = 0.0

    def saw(self, gap: float, heartbeat: bool) -> None:
        """Record that bytes arrived after ``gap`` seconds, and whether they had a comment in them."""
        self._has_heartbeats = self._has_heartbeats or heartbeat
        self._longest = max(self._longest, gap)

    def forget(self) -> None:
        """Learn again, after the deadline was missed: the server may have another heartbeat now."""
        self._has_heartbeats = False
        self._longest = 0.0

    def deadline(self) -> float | None:
        """Return the seconds of silence after which the connection counts as lost."""
        if self.given != "learned":
            return self.given
        if not self._has_heartbeats:
            return self.UNLEARNED
        return max(self.LEAST, self.FACTOR * self._longest)


def retry_after(headers: Mapping[str, str], wall: float) -> float:
    """Return the seconds that a response asks to wait, 0 if it does not.

    Arguments:
        headers: of the response, names in lower case.
        wall: seconds since 1970 by our clock. The response's own ``Date`` is preferred: it comes from
            the same clock as the date in ``Retry-After``.

    Follows RFC 9110, "Retry-After".
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(min(int(value[:_LONGEST_NUMBER]), MAX_RETRY_AFTER))
    until = _timestamp(value)
    if until is None:
        return 0.0
    since = _timestamp(headers.get("date", ""))
    return min(max(until - (wall if since is None else since), 0.0), MAX_RETRY_AFTER)


def _timestamp(value: str) -> float | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC).timestamp()
