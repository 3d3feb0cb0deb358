"""``Policy``, what a client is told about trying again, with the default of each limit and its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypedDict

__all__ = [
    "DEFAULT_MAX_DELAY",
    "DEFAULT_MAX_EVENT_SIZE",
    "DEFAULT_MAX_REDIRECTS",
    "DEFAULT_RETRY",
    "Policy",
    "PolicyOptions",
]

DEFAULT_RETRY: Final = 3.0
"""Seconds to wait until the server says otherwise: what WHATWG HTML proposes ("a few seconds") and Chrome does."""

DEFAULT_MAX_DELAY: Final = 30.0
"""Seconds up to which the waits grow: a server that came back is found within half a minute."""

DEFAULT_MAX_EVENT_SIZE: Final = 8 * 1024 * 1024
"""Bytes. A hub takes 1 MiB of data; with ``data: `` before each of its lines that is seven times as much at most."""

DEFAULT_MAX_REDIRECTS: Final = 20
"""Redirects in a row: the limit of the Fetch standard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Say how a client tries again, and when it stops trying.

    Arguments:
        retry: seconds to wait before a reconnect while the server has given no ``retry:``.
        max_delay: seconds up to which the waits grow; a longer ``retry:`` or ``Retry-After`` is still honoured.
        silence: seconds without a byte after which a connection counts as lost; ``"learned"`` for a
            deadline learned from the server's heartbeats; ``None`` for no deadline.
        max_attempts: attempts in a row that bring no event, after which to give up; ``None`` for no limit.
        give_up_after: seconds without an event, while attempts fail, after which to give up; ``None`` for
            no limit.
        max_redirects: redirects in a row that are followed.
        max_event_size: bytes that one event may take; ``None`` for no limit.
        deduplicate: whether to drop events that a resumed stream repeats, when their ids are cursors.
        yield_gaps: whether gaps are given among the events, each as a :class:`~tickertape.client.Gap`.

    Raises:
        ValueError: a limit is out of its range.
    """

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

    retry: float
    max_delay: float
    silence: float | Literal["learned"] | None
    max_attempts: int | None
    give_up_after: float | None
    max_redirects: int
    max_event_size: int | None
    deduplicate: bool
    yield_gaps: bool
