"""``Wheel``, one timer of the event loop for all timers of a hub."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from ..timing import Clock, Timer

logger = logging.getLogger("tickertape.hub")

_SLOT: Final = 0.25
"""Seconds between two turns: heartbeats and timeouts take seconds and need no finer clock."""


class Wheel:
    """A coarse clock. Callbacks run up to a quarter of a second late, and need only one timer together.

    Arguments:
        clock: the clock that turns the wheel: an event loop, or a fake clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots: dict[int, list[_Callback]] = {}
        self._turned = int(clock.time() / _SLOT)
        self._timer: Timer | None = None
        self._every: list[Callable[[], Any]] = []
        self._stopped = False

    def time(self) -> float:
        """Return the current time, in seconds."""
        return self._clock.time()

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call ``callback(*args)`` soon after the time ``when``."""
        entry = _Callback(callback, args)
        slot = max(int(when / _SLOT) + 1, self._turned + 1)
        self._slots.setdefault(slot, []).append(entry)
        return entry

    def start(self, *every: Callable[[], Any]) -> None:
        """Begin to turn, and call each of ``every`` at each turn."""
        self._every = list(every)
        self._timer = self._clock.call_at(self._clock.time() + _SLOT, self._turn)

    def stop(self) -> None:
        """Stop after the pending callbacks have run: streams that are ending may need them."""
        self._every = []
        self._stopped = True

    def _turn(self) -> None:
        self._timer = None
        if not self._stopped or self._slots:
            self._timer = self._clock.call_at(self._clock.time() + _SLOT, self._turn)
        now = int(self._clock.time() / _SLOT)
        due = [entry for slot in range(self._turned + 1, now + 1) for entry in self._slots.pop(slot, ())]
        self._turned = now
        callbacks: list[Callable[[], Any]] = [*self._every, *due]
        for callback in callbacks:
            try:
                callback()
            except Exception:
                logger.exception("a timer failed")


class _Callback:
    __slots__ = ("_args", "_callback")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._callback: Callable[..., Any] | None = callback
        self._args = args

    def __call__(self) -> None:
        if self._callback is not None:
            self._callback(*self._args)

    def cancel(self) -> None:
        self._callback = None
        self._args = ()
