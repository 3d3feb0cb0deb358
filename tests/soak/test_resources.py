"""The soak finds a process that uses too much, and memory or files that grow."""

from __future__ import annotations

import pytest

from soak.resources import MIB, Sample, grown_files, resource_faults

USUAL = Sample(60 * MIB, 35, 4)


def workers(memory: list[int]) -> dict[tuple[str, int], list[Sample]]:
    """Return the samples of one worker after another, each killed after 5 seconds."""
    return {("worker", pid): [USUAL._replace(memory=each)] * 5 for pid, each in enumerate(memory)}


@pytest.mark.parametrize(
    ("samples", "fault"),
    [
        ({("worker", 7): [USUAL] * 90}, ""),
        (workers([60 * MIB] * 12), ""),
        (workers([60 * MIB] * 6 + [62 * MIB] * 6), ""),
        ({("supervisor", 1): [Sample(30 * MIB, 9, 1)] * 9, **workers([60 * MIB] * 12)}, ""),
        ({("worker", 7): [USUAL, USUAL._replace(memory=129 * MIB)]}, "a process had 129 MiB of memory"),
        ({("worker", 7): [USUAL._replace(descriptors=201)]}, "a process had 201 descriptors"),
        ({("worker", 7): [USUAL._replace(threads=41)]}, "a process had 41 threads"),
        ({("worker", 7): [USUAL] * 40 + [USUAL._replace(memory=100 * MIB)] * 20}, "the memory of process 7 grew"),
        (workers([60 * MIB] * 8 + [100 * MIB] * 4), "the memory of each new worker grew"),
    ],
)
def test_resources(samples: dict[tuple[str, int], list[Sample]], fault: str) -> None:
    found = resource_faults(samples)
    assert len(found) == bool(fault)
    assert all(each.startswith(fault) for each in found)


def test_files() -> None:
    assert grown_files([5 * MIB] * 90, 2 * MIB) == []
    assert grown_files([5 * MIB] * 60 + [9 * MIB] * 30, 2 * MIB)[0].startswith("the files of the log grew")
