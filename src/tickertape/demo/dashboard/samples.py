"""From two readings to a sample: what the page is sent. Pure functions, with no clock of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from ...hub import HubStatistics
from .readings import Reading

__all__ = ["Look", "Sample", "follows", "make_sample"]

Sample: TypeAlias = dict[str, Any]
"""As it goes over the wire: see :func:`make_sample`."""

Look: TypeAlias = tuple[Reading, HubStatistics]
"""The machine and the hub, at one moment."""

_APART: Final = 2.0
"""Seconds by which the two clocks may differ over a sample; more, and one was set or the machine slept."""


def follows(before: Reading, now: Reading, longest: float) -> bool:
    """Tell whether rates between two readings mean something, and a line may be drawn from one to the other.

    Arguments:
        before: the earlier one.
        now: the later one.
        longest: seconds that may lie between them.
    """
    elapsed = now.moment - before.moment
    return 0 < elapsed <= longest and abs(now.at - before.at - elapsed) <= _APART


def make_sample(before: Look | None, now: Look) -> Sample:
    """Return what is told of ``now``; rates are since ``before``, and ``None`` without it.

    ``after`` is the moment of the sample before. A reader that holds another one as its last has
    missed some, and knows by that alone where the line has to break.
    """
    (reading, hub), (old, old_hub) = now, before or (None, None)
    seconds = reading.moment - old.moment if old else 0.0
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
    if before is None or len(before) != len(now):  # a core came or went
        return {"total": None, "cores": [None] * len(now)}
    spent = [
        (busy - old_busy, total - old_total) for (busy, total), (old_busy, old_total) in zip(now, before, strict=True)
    ]
    whole = sum(busy for busy, _ in spent), sum(total for _, total in spent)
    return {"total": _per_cent(*whole), "cores": [_per_cent(*core) for core in spent]}


def _per_cent(busy: float, total: float) -> float | None:
    return round(min(max(100 * busy / total, 0.0), 100.0), 1) if total > 0 else None


def _pair(
    first: str,
    second: str,
    before: Mapping[str, tuple[int, int]] | None,
    now: Mapping[str, tuple[int, int]] | None,
    seconds: float,
) -> dict[str, float] | None:
    """Add up the rates of all devices that were there before and are now: one that comes brings its past along."""
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
    """Count what subscribers were not given, and those who were cut off for it."""
    return hub.superseded + hub.disconnects.get("slow_consumer", 0) + hub.disconnects.get("send_timeout", 0)
