"""The policy for the garbage collector: what it freezes, and when it collects."""

from __future__ import annotations

import gc
import mmap
import weakref
from collections.abc import Iterator

import pytest

from tickertape.server.gc_policy import GROWTH, LONGEST, MARGIN, PAUSE_FACTOR, Schedule, gc_policy, memory_of_process

MIB = 1 << 20


class Node:
    """An object that may be part of a cycle."""

    other: Node | None = None


def cycle() -> tuple[Node, weakref.ref[Node]]:
    node = Node()
    node.other = node
    return node, weakref.ref(node)


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


async def test_only_the_start_is_frozen() -> None:
    before = gc.get_threshold()
    async with gc_policy():
        frozen = gc.get_freeze_count()
        assert frozen > 1000
        assert gc.get_threshold()[:2] == before[:2]
        objects = [cycle() for _ in range(10_000)]
        gc.collect()
        assert gc.get_freeze_count() <= frozen
        assert len(objects) == 10_000
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before


async def test_old_cycles_are_collected() -> None:
    """Objects that survived full collections, and die as a cycle later, beside many living objects."""
    async with gc_policy():
        living: list[list[int]] = [[] for _ in range(100_000)]
        node, alive = cycle()
        gc.collect()
        gc.collect()
        del node
        gc.collect()
        assert alive() is None
        assert len(living) == 100_000


async def test_no_automatic_full_collections() -> None:
    async with gc_policy():
        before = gc.get_stats()
        objects: list[list[int]] = [[] for _ in range(200_000)]
        after = gc.get_stats()
        assert after[1]["collections"] > before[1]["collections"]  # of young objects
        assert after[2]["collections"] == before[2]["collections"]
        assert len(objects) == 200_000


@pytest.mark.parametrize(
    ("now", "memory", "due"),
    [
        (1, 100 * MIB, False),
        (1, int(100 * MIB * GROWTH + MARGIN), False),
        (1, int(100 * MIB * GROWTH + MARGIN) + 1, True),
        (LONGEST - 1, 0, False),
        (LONGEST, 0, True),
        (1, None, False),
        (LONGEST, None, True),
    ],
)
def test_schedule(now: float, memory: int | None, due: bool) -> None:
    assert Schedule(0, 100 * MIB).is_due(now, memory) is due


def test_schedule_where_memory_is_unknown() -> None:
    schedule = Schedule(0, None)
    assert not schedule.is_due(1, 10**12)
    assert schedule.is_due(LONGEST, None)


def test_schedule_limits_the_share_of_time() -> None:
    schedule = Schedule(0, 0)
    assert schedule.is_due(10, 10**12)
    schedule.collected(10, 12, 0)
    assert not schedule.is_due(12 + 2 * PAUSE_FACTOR - 1, 10**12)
    assert schedule.is_due(12 + 2 * PAUSE_FACTOR, 10**12)


def test_memory_of_process() -> None:
    before = memory_of_process()
    if before is None:
        pytest.skip("the system has no /proc")
    with mmap.mmap(-1, 64 * MIB) as block:  # not from the heap, which may have as much free memory
        for _ in range(64):
            block.write(b"x" * MIB)
        after = memory_of_process()
    assert after is not None
    assert 60 * MIB < after - before < 100 * MIB
