"""The policy for the collector: what lives long is looked at once, and all is as before at the end."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from tickertape.server.garbage import look_at_everything, steady


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


async def test_what_is_there_at_the_start_is_frozen() -> None:
    before = gc.get_threshold(), list(gc.callbacks)
    async with steady():
        frozen = gc.get_freeze_count()
        assert frozen > 1000
        assert gc.get_threshold() != before[0]
    assert gc.get_freeze_count() == 0
    assert (gc.get_threshold(), list(gc.callbacks)) == before


async def test_what_survives_a_full_collection_is_not_looked_at_again() -> None:
    async with steady():
        node, alive = cycle()
        gc.collect()
        frozen = gc.get_freeze_count()
        gc.collect()
        assert gc.get_freeze_count() >= frozen
        del node
        gc.collect()
        assert alive() is not None  # a frozen cycle ...
        assert look_at_everything(few=10**9)  # ... is found when all is looked at
        assert alive() is None


async def test_young_cycles_are_found_as_ever() -> None:
    async with steady():
        node, alive = cycle()
        del node
        gc.collect()
        assert alive() is None


async def test_with_many_objects_nobody_looks_at_them_all() -> None:
    async with steady():
        many = [[] for _ in range(70_000)]  # type: ignore[var-annotated]
        gc.collect()
        frozen = gc.get_freeze_count()
        assert frozen > len(many)
        assert look_at_everything() is False
        assert gc.get_freeze_count() == frozen
