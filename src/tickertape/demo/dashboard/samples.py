"""Compute a sample, which the page receives, from two readings. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from ...hub import HubStatistics
from .readings import Reading

Sample: TypeAlias = dict[str, Any]
"""A sample as JSON: see :func:`make_sample`."""

Snapshot: TypeAlias = tuple[Reading, HubStatistics]
"""The machine and the hub at the same time."""

_MAX_CLOCK_DIFFERENCE: Final = 2.0
"""Seconds by which the two clocks may differ between two readings. More means that the wall clock was set or that the
machine was suspended."""


def is_continuous(before: Reading, now: Reading, max_interval: float) -> bool:
    """Return True if rates between two readings are meaningful, so that the page may connect them with a line.

    Arguments:
        before: the earlier reading.
        now: the later reading.
        max_interval: seconds between the readings at most.
    """
    elapsed = now.monotonic - before.monotonic
    return 0 < elapsed <= max_interval and abs(now.at - before.at - elapsed) <= _MAX_CLOCK_DIFFERENCE


def make_sample(before: Snapshot | None, now: Snapshot) -> Sample:
    """Return the sample of a snapshot. Rates are computed since ``before``, or None without it.

    ``after`` is the time of the previous sample. If the last sample of a client has another time, the client has
    missed samples, and the line on its page has a gap.
    """
    (reading, hub), (old, old_hub) = now, before or (None, None)
    seconds = reading.monotonic - old.monotonic if old else 0.0
    return {
        "host": reading.host,
        "at": reading.at,
        "after": old.at if old else None,
        "cpu": _processor(old.cores if old else None, reading.cores),
        "memory": reading.memory and {"used": reading.memory[0], "total": reading.memory[1]},
        "load": reading.load and [round(average, 2) for average in reading.load],
        "network": _pair("in", "out", old.network if old else None, reading.network, seconds),
        "disk": _pair("read", "write", old.disks if old else None, reading.disks, seconds),
        "processes": reading.processes,
        "busiest": reading.busiest and [process._asdict() for process in reading.busiest],
        "hub": {
            "subscribers": hub.subscribers,
            "events": _rate(old_hub.published if old_hub else None, hub.published, seconds),
            "deliveries": _rate(old_hub.delivered if old_hub else None, hub.delivered, seconds),
            "drops": _rate(_dropped(old_hub) if old_hub else None, _dropped(hub), seconds),
        },
    }


def _processor(
    before: Sequence[tuple[float, float]] | None, now: Sequence[tuple[float, float]] | None
) -> dict[str, Any] | None:
    if now is None:
        return None
    if before is None or len(before) != len(now):  # a core was added or removed
        return {"total": None, "cores": [None] * len(now)}
    used = [
        (busy - old_busy, total - old_total) for (busy, total), (old_busy, old_total) in zip(now, before, strict=True)
    ]
    total = sum(busy for busy, _ in used), sum(total for _, total in used)
    return {"total": _per_cent(*total), "cores": [_per_cent(*core) for core in used]}


def _per_cent(busy: float, total: float) -> float | None:
    return round(min(max(100 * busy / total, 0.0), 100.0), 1) if total > 0 else None


def _pair(
    first: str,
    second: str,
    before: Mapping[str, tuple[int, int]] | None,
    now: Mapping[str, tuple[int, int]] | None,
    seconds: float,
) -> dict[str, float] | None:
    """Return the sum of the rates of all devices that are in both readings. A new device has no previous counters."""
    if before is None or now is None or seconds <= 0:
        return None
    pairs = [(now[name], before[name]) for name in now.keys() & before.keys()]
    return {
        label: round(sum(max(counts[at] - old[at], 0) for counts, old in pairs) / seconds, 1)
        for at, label in enumerate((first, second))
    }


def _rate(before: int | None, now: int, seconds: float) -> float | None:
    return round((now - before) / seconds, 1) if before is not None and seconds > 0 else None


def _dropped(hub: HubStatistics) -> int:
    """Return the number of skipped events and of subscribers disconnected for being slow."""
    return hub.superseded + hub.disconnects.get("slow_consumer", 0) + hub.disconnects.get("send_timeout", 0)
