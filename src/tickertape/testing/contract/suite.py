"""The class that a broker's tests inherit from."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

import pytest

from . import appending, following, lives
from .checks import CHECKS, PATIENCE, Check, Log, Traits

__all__ = ["CHECKS", "PARTS", "BrokerContract", "Check", "Log", "Traits"]

PARTS = (appending, following, lives)
"""Importing them is what fills ``CHECKS``."""


class BrokerContract:
    """Hold a broker to the contract: one test for each check.

    Attributes:
        log: your kind of log; each test makes one, in a directory of its own.
        patience: seconds until what must come is given up. None of it takes one, on a machine that is
            not busy; a broker that fails a check takes as long to fail.
    """

    log: ClassVar[type[Log]]
    patience: ClassVar[float] = PATIENCE

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make the tests, those that do not apply as skipped ones."""
        if "check" not in metafunc.fixturenames:
            return
        traits = self.log.traits
        cases = []
        for check in CHECKS:
            if not check.stands_in or check.applies(traits):
                skip = () if check.applies(traits) else (pytest.mark.skip(reason=check.reason),)
                cases.append(pytest.param(check, id=check.name, marks=skip))
        metafunc.parametrize("check", cases)

    def test_contract(self, check: Check, tmp_path: Path) -> None:
        """Run one check."""
        with asyncio.Runner() as runner:
            runner.run(check.run(self.log(tmp_path), self.patience))
