"""The contract of a log, as checks that any broker can be held to, from here or from elsewhere.

A check is an asynchronous function of a :class:`Log`. It uses nothing of a test framework; run it in
whichever you have::

    @pytest.mark.parametrize("check", applicable(TRAITS), ids=lambda check: check.__name__)
    async def test_contract(check: Check) -> None:
        await check(MyLog())        # a log of its own for each check: no records, no keys

What a broker cannot do it says in its :class:`Traits`. A trait never makes a check pass over what it
cannot do: another check stands in its place, which asks for the clear refusal.
"""

from __future__ import annotations

from . import contract_appending, contract_following, contract_lives
from .contract_base import CHECKS, PATIENCE, Check, Log, Traits, applicable, collect, tailing

__all__ = ["CHECKS", "PATIENCE", "Check", "Log", "Traits", "applicable", "collect", "tailing"]

PARTS = (contract_appending, contract_following, contract_lives)
"""Importing them is what fills ``CHECKS``."""
