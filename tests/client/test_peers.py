"""Our client and others on the same bytes, compared with the page about them."""

from __future__ import annotations

import gc
import logging

import pytest

from support.peers import CASES, CLIENTS, PAGE, Case, header, run, table


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tickertape_follows_the_standard(case: Case) -> None:
    assert case.holds(run("tickertape", case))


# The peers leave sockets to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_table_is_current(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    step = "next step: PYTHONPATH=tests python -m support.peers"
    if header() not in PAGE.read_text():
        pytest.skip(f"the page is about other versions of the peers than are installed; {step}")
    written = PAGE.read_text().partition("<!-- table -->\n")[2].partition("<!-- end -->")[0]
    now = table()
    gc.collect()  # now, because a later test would fail by the warnings about their sockets
    assert written == now, step


def test_every_client_has_a_column() -> None:
    first = next(line for line in PAGE.read_text().splitlines() if line.startswith("| | "))
    assert [name for name in CLIENTS if name not in first] == []
