"""One timer of the event loop for all timers of a hub."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from ..timing import Clock, Timer

__all__ = ["Wheel"]

logger = logging.getLogger("tickertape.hub")

_SPOKE: Final = 0.25
"""Seconds between two turns: heartbeats and timeouts of seconds need no finer clock."""


class Wheel:
    """A coarse clock: callbacks come up to a quarter of a second late, and cost one timer together.

    Arguments:
        clock: what turns the wheel; an event loop, or a fake clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spokes: dict[int, list[_Spin]] = {}
        self._turned = int(clock.time() / _SPOKE)
        self._timer: Timer | None = None
        self._every: list[Callable[[], Any]] = []
        self._stopped = False

    def time(self) -> float:
        """Return the present moment, in seconds."""
        return self._clock.time()

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call ``callback`` soon after the moment ``when``."""
        spin = _Spin(callback, args)
        spoke = max(int(when / _SPOKE) + 1, self._turned + 1)
        self._spokes.setdefault(spoke, []).append(spin)
        return spin

    def start(self, *every: Callable[[], Any]) -> None:
        """Begin to turn; call each of ``every`` at each turn."""
        self._every = list(every)
        self._timer = self._clock.call_at(self._clock.time() + _SPOKE, self._turn)

    def stop(self) -> None:
        """Stand still once the callbacks that are to come have come: streams that end may need them."""
        self._every = []
        self._stopped = True

    def _turn(self) -> None:
        self._timer = None
        if not self._stopped or self._spokes:
            self._timer = self._clock.call_at(self._clock.time() + _SPOKE, self._turn)
        now = int(self._clock.time() / _SPOKE)
        due = [spin for spoke in range(self._turned + 1, now + 1) for spin in self._spokes.pop(spoke, ())]
        self._turned = now
        callbacks: list[Callable[[], Any]] = [*self._every, *due]
        for callback in callbacks:
            try:
                callback()
            except Exception:
                logger.exception("a timer failed")


class _Spin:
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
