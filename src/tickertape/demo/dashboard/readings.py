"""What this machine says of itself: counters that only rise, and figures of the moment."""

from __future__ import annotations

import asyncio
import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import psutil

__all__ = ["PROCESSES_EVERY", "Busiest", "Process", "Reader", "Reading"]

logger = logging.getLogger("tickertape.demo")

PROCESSES_EVERY: Final = 5.0
"""Seconds between two looks at all processes: each takes about 0.1 ms, and a server has hundreds."""

_SECOND_LOOK: Final = 0.5
"""Seconds after the first one, which cannot tell yet who is busy."""

_BUSIEST: Final = 5
"""Processes that are told: as many as are read at a glance."""


class Process(NamedTuple):
    """One process; ``cpu`` is per cent of one core since the last look, ``memory`` is bytes."""

    name: str
    cpu: float
    memory: int


class Reading(NamedTuple):
    """One look at the machine; ``None`` stands for what it did not say.

    Attributes:
        host: its name.
        at: seconds since the Unix epoch.
        moment: seconds of a clock that never goes back.
        cores: of each, seconds in which it was busy, and seconds in all.
        memory: bytes in use, and in all.
        load: processes that run or want to, on average of 1, 5 and 15 minutes.
        network: bytes received and sent, of each interface.
        disks: bytes read and written, of each disk.
        processes: their number.
        busiest: those that took most of the processor; ``None`` also between two looks at them.
    """

    host: str
    at: float
    moment: float
    cores: Sequence[tuple[float, float]] | None = None
    memory: tuple[int, int] | None = None
    load: tuple[float, float, float] | None = None
    network: Mapping[str, tuple[int, int]] | None = None
    disks: Mapping[str, tuple[int, int]] | None = None
    processes: int | None = None
    busiest: Sequence[Process] | None = None


class Reader:
    """Read this machine's figures with psutil; a figure that cannot be had is left out.

    Arguments:
        probes: where figures come from, by their names in :class:`Reading`.
    """

    def __init__(self, probes: Mapping[str, Callable[[], Any]] | None = None) -> None:
        self._host = platform.node()
        self._probes: Mapping[str, Callable[[], Any]] = probes or {**_PROBES, "busiest": Busiest()}
        self._failed: set[str] = set()

    async def __call__(self) -> Reading:
        """Take a reading, in a thread: the kernel may let one wait, and the loop must not."""
        return await asyncio.to_thread(self.read)

    def read(self) -> Reading:
        """Take a reading here and now."""
        reading = Reading(self._host, round(time.time(), 3), time.monotonic())
        return reading._replace(**{name: self._ask(name, probe) for name, probe in self._probes.items()})

    def _ask(self, name: str, probe: Callable[[], Any]) -> Any:
        # Containers hide files and platforms lack functions, each in its own way: any error will do.
        try:
            return probe()
        except Exception as error:
            if name not in self._failed:
                self._failed.add(name)
                logger.warning("the dashboard does without %s: %r", name, error)
            return None


def _cores() -> list[tuple[float, float]]:
    return [_busy_and_total(times._asdict()) for times in psutil.cpu_times(percpu=True)]


def _busy_and_total(times: Mapping[str, float]) -> tuple[float, float]:
    # Guests' time is part of the user's already, on Linux, where it is told.
    total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    return total - times["idle"] - times.get("iowait", 0.0), total


def _memory() -> tuple[int, int]:
    memory = psutil.virtual_memory()
    return memory.total - memory.available, memory.total


def _network() -> dict[str, tuple[int, int]]:
    """Leave the loopback out: what a machine says to itself, this dashboard say, goes nowhere."""
    counters = psutil.net_io_counters(pernic=True)
    return {name: (of.bytes_recv, of.bytes_sent) for name, of in counters.items() if not name.lower().startswith("lo")}


def _disks() -> dict[str, tuple[int, int]]:
    counters = psutil.disk_io_counters()  # whole disks together: by name, partitions would count twice
    if counters is None:
        raise LookupError("there are no disks")
    return {"all": (counters.read_bytes, counters.write_bytes)}


class Busiest:
    """Find the processes that took most of the processor since the look before, now and then.

    Arguments:
        now: seconds, of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._looked = False
        self._due = now()

    def __call__(self) -> list[Process] | None:
        """Look at them if it is time; the first look has none before it, and gives nothing."""
        now = self._now()
        if now < self._due:
            return None
        found = [
            Process(of.info["name"] or "?", of.info["cpu_percent"], of.info["memory_info"].rss)
            for of in psutil.process_iter(["name", "cpu_percent", "memory_info"])
            if of.info["memory_info"] is not None  # else it is one that we may not look at
        ]
        first, self._looked = not self._looked, True
        self._due = now + (_SECOND_LOOK if first else PROCESSES_EVERY)
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
