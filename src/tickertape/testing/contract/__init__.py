"""The contract of a log, as tests that you can run over your own broker. Needs pytest, and no plugin of it.

Describe how a log of yours is made and what your broker cannot do, and subclass :class:`BrokerContract`::

    class JournalLog(Log):
        traits = Traits(shared=False)

        def __init__(self, directory: Path) -> None:
            self.path = directory / "log"

        def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
            return JournalBroker(self.path, retention=retention)


    class TestJournal(BrokerContract):
        log = JournalLog

pytest collects one test for each check. Checks of a feature that the traits deny are skipped with a reason;
if there is a check that the feature is refused clearly, it runs instead.
"""

from __future__ import annotations

import pytest

_PARTS = ("steps", "appending", "reading", "rules", "tails", "epochs")
# Before they are imported, so that a check that fails shows the values that it compared.
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from .checks import CHECKS, Check, Log, Traits  # noqa: E402 - see above
from .suite import BrokerContract  # noqa: E402

__all__ = ["CHECKS", "BrokerContract", "Check", "Log", "Traits"]
