"""Every broker is held to the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from .brokers import BROKERS, IN_CI, Kind
from .contract import Check, applicable

CASES = [
    pytest.param(kind, check, id=f"{kind.name}-{check.__name__}")
    for kind in BROKERS
    for check in applicable(kind.traits)
]


@pytest.mark.parametrize(("kind", "check"), CASES)
async def test_broker_keeps_the_contract(kind: Kind, check: Check, tmp_path: Path) -> None:
    reason = kind.absent()
    if reason is not None:
        (pytest.fail if IN_CI else pytest.skip)(f"{kind.name}: {reason}")
    async with kind.make(kind.traits, tmp_path) as log:
        await check(log)
