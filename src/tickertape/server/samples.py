"""``Sampler``: the state of all workers, once a second while a client reads it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from prometheus_client.core import Metric

from ..timing import Clock

INTERVAL: Final = 1.0
"""Seconds between two samples."""

KEPT: Final = 300
"""Samples that are kept for a page that is opened: five minutes."""

_RATES: Final = {
    "opened": "tickertape_streams_opened_total",
    "closed": "tickertape_streams_closed_total",
    "published": "tickertape_events_published_total",
    "delivered": "tickertape_events_delivered_total",
    "bytes": "tickertape_delivered_bytes_total",
    "gaps": "tickertape_gaps_total",
    "superseded": "tickertape_events_superseded_total",
    "errors": "tickertape_broker_errors_total",
    "refused": "tickertape_limits_total",
    "cpu": "process_cpu_seconds_total",
}
"""Counters of which a sample has the growth in a second, for all workers together."""

_TOTALS: Final = {
    "closed": ("tickertape_streams_closed_total", "reason"),
    "gaps": ("tickertape_gaps_total", "reason"),
    "errors": ("tickertape_broker_errors_total", "operation"),
    "limits": ("tickertape_limits_total", "limit"),
}
"""Counters of which a sample has the values by a label, without those that are 0."""

_LATENCY: Final = "tickertape_delivery_latency_seconds_bucket"

Sample: TypeAlias = dict[str, Any]
"""The state at one moment: numbers, and objects of numbers."""


class Series(NamedTuple):
    """The name of a number: of which process, and which labels it has."""

    name: str
    process: str
    labels: tuple[tuple[str, str], ...]


class Counts(NamedTuple):
    """All numbers of all workers at a moment.

    Attributes:
        values: the numbers.
        at: the time, in seconds of a clock that never goes back.
    """

    values: Mapping[Series, float]
    at: float

    @classmethod
    def of(cls, families: Iterable[Metric], at: float) -> Counts:
        """Return the numbers in families whose samples have the label ``process``."""
        values: dict[Series, float] = {}
        for family in families:
            for sample in family.samples:
                labels = dict(sample.labels)
                process = labels.pop("process", "")
                values[Series(sample.name, process, (*labels.items(),))] = sample.value
        return cls(values, at)

    def by(self, name: str, label: str) -> Counter[str]:
        """Return the sums of a metric over all processes, by the values of a label, without those that are 0."""
        sums: Counter[str] = Counter()
        for series, value in self.values.items():
            if series.name == name and value:
                sums[dict(series.labels)[label]] += int(value)
        return sums

    def all(self, name: str) -> list[float]:
        """Return the values of a metric: of all processes and all labels."""
        return [value for series, value in self.values.items() if series.name == name]

    def growth(self, name: str, before: Counts) -> dict[Series, float]:
        """Return the growth of a counter since then. A new worker has started from 0."""
        return {
            series: max(0.0, value - before.values.get(series, 0.0))
            for series, value in self.values.items()
            if series.name == name
        }


def sample_of(counts: Counts, before: Counts, now: float) -> Sample:
    """Return the rates between two moments, and the state at the second.

    Arguments:
        counts: the numbers at the end.
        before: the numbers at the beginning.
        now: the time of the end, in seconds since the Unix epoch.
    """
    seconds = max(counts.at - before.at, 0.001)
    rates = {key: sum(counts.growth(name, before).values()) / seconds for key, name in _RATES.items()}
    buckets: Counter[float] = Counter()
    for series, value in counts.growth(_LATENCY, before).items():
        buckets[float(dict(series.labels)["le"])] += int(value)
    return {
        "time": round(now, 3),
        "workers": len({series.process for series in counts.values if series.process}),
        "restarts": int(sum(counts.all("tickertape_worker_restarts_total"))),
        "streams": counts.by("tickertape_streams_active", "way"),
        "lag": int(max(counts.all("tickertape_log_lag_events"), default=0)),
        "kept": int(max(counts.all("tickertape_window_events"), default=0)),
        "topics": int(max(counts.all("tickertape_topics"), default=0)),
        "memory": int(sum(counts.all("process_resident_memory_bytes"))),
        "rates": {key: round(value, 3) for key, value in rates.items()},
        "latency": {"p50": quantile(buckets, 0.5), "p99": quantile(buckets, 0.99)},
        "totals": {key: counts.by(name, label) for key, (name, label) in _TOTALS.items()},
    }


def quantile(buckets: Mapping[float, int], share: float) -> float | None:
    """Return a quantile of a histogram, as ``histogram_quantile`` of Prometheus estimates it; ``None`` without values.

    Arguments:
        buckets: the number of values up to each bound, the infinite one included.
        share: 0.5 for the median.
    """
    total = max(buckets.values(), default=0)
    if not total:
        return None
    low, below = 0.0, 0
    for bound, count in sorted(buckets.items()):
        if count >= share * total:
            if bound == float("inf"):
                return low
            return round(low + (bound - low) * (share * total - below) / (count - below), 6)
        low, below = bound, count
    raise AssertionError("the last bound has all values")


class Sampler:
    """Take samples for all pages that are open, one a second.

    Arguments:
        collect: returns the metrics of all workers.
        clock: returns times that never go back.
    """

    def __init__(self, collect: Callable[[], Awaitable[Iterable[Metric]]], clock: Callable[[], Clock]) -> None:
        self._collect = collect
        self._clock = clock
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._before: Counts | None = None
        self._lock = asyncio.Lock()

    async def after(self, time: float) -> list[Sample]:
        """Return the kept samples after a time, with a new one if the newest is old enough."""
        async with self._lock:
            if self._before is None or self._clock().time() - self._before.at > INTERVAL / 2:
                await self._take()
        return [sample for sample in self._samples if sample["time"] > time]

    async def _take(self) -> None:
        before, self._before = self._before, Counts.of(await self._collect(), self._clock().time())
        # After a time without readers, there are no rates of the last second.
        if before is None or self._before.at - before.at > 5 * INTERVAL:
            self._samples.clear()
            return
        self._samples.append(sample_of(self._before, before, time.time()))
