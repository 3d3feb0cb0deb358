"""When to try again, and how long silence is still life: pure functions of what was seen.

The delays follow WHATWG HTML, "reestablish the connection": wait the reconnection time, then, if
attempts failed, some more. The "some more" is exponential with full jitter (Brooker, "Exponential
Backoff And Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, Literal

__all__ = ["MAX_RETRY", "MAX_RETRY_AFTER", "MIN_RETRY", "STABLE", "Backoff", "Silence", "retry_after"]

MIN_RETRY: Final = 0.5
"""Least seconds between attempts that a server can ask for: Firefox's limit. With 0 a client would spin."""

MAX_RETRY: Final = 300.0
"""Most seconds that ``retry:`` can ask for: time for any restart; more would be as good as stopping for ever."""

MAX_RETRY_AFTER: Final = 3600.0
"""Most seconds that ``Retry-After`` can ask for: maintenance takes an hour; a wrong clock may say years."""

STABLE: Final = 60.0
"""Seconds that a connection must live for the delays to start over: two times the default cap of the delays."""

_MOST_DOUBLINGS: Final = 32
"""Far over any cap, far under what overflows a float."""

_LONGEST_NUMBER: Final = 18
"""Digits of a number of seconds that is read; all longer ones are beyond every limit."""


class Backoff:
    """Compute the delay before the next attempt.

    Arguments:
        initial: reconnection time, in seconds, while the server has given none.
        cap: seconds up to which the delays grow.
        random: gives a float from 0 to 1, as :func:`random.random`.
    """

    def __init__(self, initial: float, cap: float, random: Callable[[], float]) -> None:
        self.initial = initial
        self.cap = cap
        self.random = random
        self.retry: float | None = None

    def honour(self, milliseconds: int) -> None:
        """Keep the reconnection time that the server has given, for all reconnects to come."""
        clamped = min(milliseconds, int(MAX_RETRY * 1000))  # as integers: a float may be too small for it
        self.retry = max(MIN_RETRY, clamped / 1000)

    def delay(self, failures: int, at_least: float = 0.0) -> float:
        """Return the seconds to wait after so many failures in a row, 0 for the end of a good connection.

        A server's ``retry:`` is waited in full: it is the floor, and without failures also the
        ceiling, so a server that spreads its clients by it has its way. Where the server has said
        nothing, the clients of one server spread themselves from the first attempt on.
        """
        base = self.initial if self.retry is None else self.retry
        floor = min(MIN_RETRY, base) if self.retry is None else base
        ceiling = max(floor, min(self.cap, base * 2.0 ** min(failures, _MOST_DOUBLINGS)))
        return max(floor + self.random() * (ceiling - floor), at_least)


def retry_after(headers: Mapping[str, str], wall: float) -> float:
    """Return the seconds that a response asks to wait, 0 if it does not say.

    Arguments:
        headers: of the response, names in lower case.
        wall: seconds since the epoch by our clock. The response's own ``Date`` is preferred: it is
            read from the clock that also made the date in ``Retry-After``.

    Follows RFC 9110, "Retry-After".
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(min(int(value[:_LONGEST_NUMBER]), MAX_RETRY_AFTER))
    until = _date(value)
    if until is None:
        return 0.0
    since = _date(headers.get("date", ""))
    return min(max(until - (wall if since is None else since), 0.0), MAX_RETRY_AFTER)


def _date(value: str) -> float | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC).timestamp()


class Silence:
    """Learn from a server's heartbeats how long its silence may last.

    Arguments:
        given: seconds that are taken instead of what can be learned; ``"learned"``; ``None`` for no deadline.

    What counts as a gap is the time spent waiting for bytes. Time that a slow handler takes is no
    silence of the server's, and what came meanwhile is read without waiting.
    """

    LEAST: Final = 30.0
    """Seconds: two heartbeats of the usual 15 s; networks do stall for some seconds."""

    UNLEARNED: Final = 300.0
    """Seconds while no heartbeat was seen: no common proxy keeps a silent connection so long (nginx and
    Amazon's 60 s, Cloudflare's 100 s, Azure's 230 s), so by then it is dead far more often than quiet."""

    FACTOR: Final = 3
    """Longest gaps in a deadline: one heartbeat may be late, a second one lost with its connection's stall."""

    def __init__(self, given: float | Literal["learned"] | None) -> None:
        self.given = given
        self._beats = False
        self._longest = 0.0

    def saw(self, gap: float, heartbeat: bool) -> None:
        """Take note of bytes that came after a gap of so many seconds, and whether a comment was in them."""
        self._beats = self._beats or heartbeat
        self._longest = max(self._longest, gap)

    def forget(self) -> None:
        """Start over: the silence broke the deadline, so the server may have got another heartbeat."""
        self._beats = False
        self._longest = 0.0

    def deadline(self) -> float | None:
        """Return the seconds of silence after which the connection counts as lost."""
        if self.given != "learned":
            return self.given
        if not self._beats:
            return self.UNLEARNED
        return max(self.LEAST, self.FACTOR * self._longest)
