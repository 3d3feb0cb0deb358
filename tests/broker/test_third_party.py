"""The contract in the hands of others: who keeps it passes, and who breaks it fails at the check about that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tickertape.testing.contract import CHECKS, BrokerContract

from .third_party.broken import BROKEN, Broken
from .third_party.shelf import ShelfLog

HASTE = 0.5
"""Seconds that a broken broker is waited for: what never comes need not be waited for long."""


class TestShelf(BrokerContract):
    log = ShelfLog


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken.kind.__name__}-{broken.check}")
async def test_a_broken_promise_fails_the_check_about_it(broken: Broken, tmp_path: Path) -> None:
    (check,) = (check for check in CHECKS if check.name == broken.check)
    assert check.applies(broken.traits)
    with pytest.raises((AssertionError, TimeoutError)):
        await check.run(broken.log(tmp_path), HASTE)


def test_every_check_has_a_broker_that_fails_it() -> None:
    assert {check.name for check in CHECKS} - {broken.check for broken in BROKEN} == {
        "two_processes_with_many_publishers_make_one_order"  # what is on a shelf, no other process can break
    }
