"""Resources of the soak's processes: growth is a fault, and so is more than a limit."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["MIB", "Sample", "grown_files", "most_used", "resource_faults"]

MIB: Final = 1 << 20

MOST_MEMORY: Final = 128 * MIB
MOST_DESCRIPTORS: Final = 200
MOST_THREADS: Final = 40

AGE: Final = 4
"""Samples of a process, one a second, before it is compared with others of its kind: they are killed early."""

GENERATIONS: Final = 9
"""Processes of a kind that must have reached this age."""


class Sample(NamedTuple):
    """The resources of a process at one time."""

    memory: int
    descriptors: int
    threads: int


def _growth(values: list[int], slack: int) -> str:
    """Return a sentence if the values of the last third are greater than those of the second."""
    third = len(values) // 3
    before, after = statistics.median(values[third : 2 * third]), statistics.median(values[-third:])
    return f"grew from {before:,.0f} to {after:,.0f} bytes" if after > 1.3 * before + slack else ""


def grown_files(sizes: list[int], slack: int) -> list[str]:
    """Return a fault if the files grew.

    In a short run the events of a third are fewer bytes than ``slack``, so it could find nothing.
    """
    grown = _growth(sizes, slack) if len(sizes) >= 60 else ""
    return [f"the files of the log {grown}"] if grown else []


def resource_faults(samples: Mapping[tuple[str, int], list[Sample]]) -> list[str]:
    """Return the faults of processes, by kind and number, in the order in which they were started."""
    faults = []
    kinds: dict[str, list[int]] = {}
    for (kind, pid), found in samples.items():
        memory = [each.memory for each in found]
        if len(memory) >= 60 and (grown := _growth(memory, 16 * MIB)):
            faults.append(f"the memory of process {pid} {grown}")
        if len(memory) >= AGE:
            kinds.setdefault(kind, []).append(memory[AGE - 1])
    for kind, at_age in kinds.items():
        if len(at_age) >= GENERATIONS and (grown := _growth(at_age, 8 * MIB)):
            faults.append(f"the memory of each new {kind} {grown}")
    most = most_used(samples)
    if most.memory > MOST_MEMORY:
        faults.append(f"a process had {most.memory / MIB:.0f} MiB of memory")
    if most.descriptors > MOST_DESCRIPTORS:
        faults.append(f"a process had {most.descriptors} descriptors")
    if most.threads > MOST_THREADS:
        faults.append(f"a process had {most.threads} threads")
    return faults


def most_used(samples: Mapping[tuple[str, int], list[Sample]]) -> Sample:
    """Return the most that any process used."""
    every = [each for found in samples.values() for each in found] or [Sample(0, 0, 0)]
    return Sample(*(max(column) for column in zip(*every, strict=True)))
