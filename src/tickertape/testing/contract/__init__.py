"""The contract of a log, as tests that any broker can be held to. Needs pytest, and no plugin of it.

Say how a log of yours is made, and what your broker cannot do; subclass :class:`BrokerContract`::

    class JournalLog(Log):
        traits = Traits(shared=False)

        def __init__(self, directory: Path) -> None:
            self.path = directory / "log"

        def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
            return JournalBroker(self.path, retention=retention)


    class TestJournal(BrokerContract):
        log = JournalLog

pytest finds one test for each check. Those about something that the traits deny are skipped, and say so;
those that ask for the clear refusal stand in their place.
"""

from __future__ import annotations

import pytest

# Before they are imported: a check that fails then shows the values that it compared.
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in ("steps", "appending", "following", "lives")))

from .suite import CHECKS, BrokerContract, Check, Log, Traits  # noqa: E402 - see above

__all__ = ["CHECKS", "BrokerContract", "Check", "Log", "Traits"]
