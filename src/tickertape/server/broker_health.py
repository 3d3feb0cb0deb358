"""``BrokerHealth``, which remembers failures of the broker, for readiness and for the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ..errors import BrokerError, EventTooLargeError

logger = logging.getLogger("tickertape.server")

UNREADY_FOR: Final = 10.0
"""Seconds after a refused write for which the server is not ready. A load balancer asks more often, and sends traffic
elsewhere. Afterwards the server must be ready again, because only a write can show that the broker stores again."""

REPEAT_AFTER: Final = 60.0
"""Seconds between two log lines about the same error."""

_APART: Final = 5.0
"""Seconds between two log lines about different errors."""


class BrokerHealth:
    """Failures of the broker in this process.

    Arguments:
        now: a monotonic clock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._refusal: BrokerError | None = None
        self._refused_at = 0.0
        self._logged: str | None = None
        self._logged_at = 0.0
        self._unlogged = 0
        self._failing = False
        self._recovery_logged_at = float("-inf")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Record whether the broker stores the events of the context."""
        try:
            yield
        except EventTooLargeError:  # also of the broker, whose failure it is not
            raise
        except BrokerError as error:
            self.write_failed(error)
            raise
        self.write_succeeded()

    def write_failed(self, error: BrokerError) -> None:
        """Record that the broker did not store events."""
        self._refusal, self._refused_at = error, self._now()

    def write_succeeded(self) -> None:
        """Record that the broker stored events, and log the end of an outage: once per minute if it comes and goes."""
        self._refusal = None
        if self._failing and self._now() - self._recovery_logged_at >= REPEAT_AFTER:
            logger.warning("the broker works again%s", self._others())
            self._recovery_logged_at = self._now()
        self._failing = False

    @property
    def refusal(self) -> BrokerError | None:
        """The error of the last write, if it failed a short time ago."""
        return self._refusal if self._now() - self._refused_at < UNREADY_FOR else None

    def log(self, request: str, error: BrokerError) -> None:
        """Log that a request has failed: each error once, then once per minute with the number of failed requests."""
        self._failing = True
        text, since = str(error), self._now() - self._logged_at
        if self._logged is None or since >= (REPEAT_AFTER if text == self._logged else _APART):
            logger.error("%s failed: %s%s", request, error, self._others())
            self._logged, self._logged_at = text, self._now()
        else:
            self._unlogged += 1

    def _others(self) -> str:
        count, self._unlogged = self._unlogged, 0
        return f" ({count} more requests have failed)" if count else ""
