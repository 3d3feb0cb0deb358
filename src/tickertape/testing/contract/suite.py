"""``BrokerContract``, the base class of a broker's tests."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

import pytest

from . import appending, epochs, reading, rules, tails
from .checks import CHECKS, PATIENCE, Check, Log

PARTS = (appending, reading, rules, tails, epochs)
"""The modules with checks; their import fills ``CHECKS``."""


class BrokerContract:
    """Run the contract over a broker: one test for each check.

    Attributes:
        log: your subclass of :class:`Log`; each test creates one in a new directory.
        patience: seconds after which a check fails if it waits for something. On an idle machine nothing takes
            one second. A broker that fails a check takes as long to fail.
    """

    log: ClassVar[type[Log]]
    patience: ClassVar[float] = PATIENCE

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test for each check, and skip those that do not apply."""
        if "check" not in metafunc.fixturenames:
            return
        traits = self.log.traits
        cases = []
        for check in CHECKS:
            if not check.without or check.applies(traits):
                skip = () if check.applies(traits) else (pytest.mark.skip(reason=check.reason),)
                cases.append(pytest.param(check, id=check.name, marks=skip))
        metafunc.parametrize("check", cases)

    def test_contract(self, check: Check, tmp_path: Path) -> None:
        """Run one check."""
        with asyncio.Runner() as runner:
            runner.run(check.run(self.log(tmp_path), self.patience))
