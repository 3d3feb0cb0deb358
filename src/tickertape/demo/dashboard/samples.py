"""Read this machine, and compute from two readings the sample that the page receives."""

from __future__ import annotations

import asyncio
import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import psutil

from ...hub import HubStatistics

logger = logging.getLogger("tickertape.demo")

PROCESSES_EVERY: Final = 5.0
"""Seconds between two scans of all processes. A scan takes about 0.1 ms per process, and a server has hundreds."""

_SECOND_SCAN: Final = 0.5
"""Seconds between the first two scans. The first one has no CPU times to compare with."""

_BUSIEST: Final = 5
"""Number of processes in a reading."""


class Process(NamedTuple):
    """One process: ``cpu`` in per cent of one core since the last scan, ``memory`` in bytes."""

    name: str
    cpu: float
    memory: int


class Reading(NamedTuple):
    """One reading of the machine. A value that is not available is None.

    Attributes:
        host: the name of the machine.
        at: seconds since the Unix epoch.
        monotonic: seconds of a monotonic clock.
        cores: for each core, busy seconds and total seconds.
        memory: bytes in use, and total bytes.
        load: load averages of 1, 5 and 15 minutes.
        network: for each interface, bytes received and sent.
        disks: for each disk, bytes read and written.
        processes: the number of processes.
        busiest: the processes that used most CPU time, or None between two scans.
    """

    host: str
    at: float
    monotonic: float
    cores: Sequence[tuple[float, float]] | None = None
    memory: tuple[int, int] | None = None
    load: tuple[float, float, float] | None = None
    network: Mapping[str, tuple[int, int]] | None = None
    disks: Mapping[str, tuple[int, int]] | None = None
    processes: int | None = None
    busiest: Sequence[Process] | None = None


class SystemReader:
    """Read this machine with psutil. A value that psutil cannot read is None.

    Arguments:
        probes: functions that read the values, by the names of the fields of :class:`Reading`.
    """

    def __init__(self, probes: Mapping[str, Callable[[], Any]] | None = None) -> None:
        self._host = platform.node()
        self._probes: Mapping[str, Callable[[], Any]] = probes or {**_PROBES, "busiest": Busiest()}
        self._failed: set[str] = set()

    async def __call__(self) -> Reading:
        """Take a reading in a thread, because a call to the kernel may block."""
        return await asyncio.to_thread(self.read)

    def read(self) -> Reading:
        """Take a reading in this thread."""
        reading = Reading(self._host, round(time.time(), 3), time.monotonic())
        return reading._replace(**{name: self._call(name, probe) for name, probe in self._probes.items()})

    def _call(self, name: str, probe: Callable[[], Any]) -> Any:
        # Containers hide files and platforms lack functions, with many different errors.
        try:
            return probe()
        except Exception as error:
            if name not in self._failed:
                self._failed.add(name)
                logger.warning("the dashboard cannot read %s: %r", name, error)
            return None


def _cores() -> list[tuple[float, float]]:
    return [_busy_and_total(times._asdict()) for times in psutil.cpu_times(percpu=True)]


def _busy_and_total(times: Mapping[str, float]) -> tuple[float, float]:
    # On Linux, guest time is also part of user time.
    total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    return total - times["idle"] - times.get("iowait", 0.0), total


def _memory() -> tuple[int, int]:
    memory = psutil.virtual_memory()
    return memory.total - memory.available, memory.total


def _network() -> dict[str, tuple[int, int]]:
    """Return the counters of all interfaces but the loopback, which carries the traffic of this dashboard itself."""
    counters = psutil.net_io_counters(pernic=True)
    return {name: (of.bytes_recv, of.bytes_sent) for name, of in counters.items() if not name.lower().startswith("lo")}


def _disks() -> dict[str, tuple[int, int]]:
    counters = psutil.disk_io_counters()  # the sum of the disks: with a value per name, partitions would count twice
    if counters is None:
        raise LookupError("there are no disks")
    return {"all": (counters.read_bytes, counters.write_bytes)}


class Busiest:
    """Find the processes that used most CPU time since the previous scan, every ``PROCESSES_EVERY`` seconds.

    Arguments:
        now: a monotonic clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._scanned = False
        self._due = now()

    def __call__(self) -> list[Process] | None:
        """Scan all processes if a scan is due, else return None. The first scan returns None too."""
        now = self._now()
        if now < self._due:
            return None
        found = [
            Process(of.info["name"] or "?", of.info["cpu_percent"], of.info["memory_info"].rss)
            for of in psutil.process_iter(["name", "cpu_percent", "memory_info"])
            if of.info["memory_info"] is not None  # None without permission
        ]
        first, self._scanned = not self._scanned, True
        self._due = now + (_SECOND_SCAN if first else PROCESSES_EVERY)
        if first:
            return None
        return sorted(found, key=lambda process: (process.cpu, process.memory), reverse=True)[:_BUSIEST]


_PROBES: Final[Mapping[str, Callable[[], Any]]] = {
    "cores": _cores,
    "memory": _memory,
    "load": psutil.getloadavg,
    "network": _network,
    "disks": _disks,
    "processes": lambda: len(psutil.pids()),
}


# Samples: pure functions.

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
