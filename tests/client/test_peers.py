"""Our client beside others on the same bytes; the page that says so is true."""

from __future__ import annotations

import gc
import logging

import pytest

from support.peers import CASES, CLIENTS, PAGE, Case, header, run, table


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_ours_does_as_the_standard_says(case: Case) -> None:
    assert case.holds(run("tickertape", case))


# The peers leave sockets to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_table_is_what_the_clients_do(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    step = "next step: PYTHONPATH=tests python -m support.peers"
    if header() not in PAGE.read_text():
        pytest.skip(f"the page is about other versions of the peers than are installed; {step}")
    written = PAGE.read_text().partition("<!-- table -->\n")[2].partition("<!-- end -->")[0]
    now = table()
    gc.collect()  # here, where their sockets are expected, and not in a later test
    assert written == now, step


def test_every_client_has_a_column() -> None:
    first = next(line for line in PAGE.read_text().splitlines() if line.startswith("| | "))
    assert [name for name in CLIENTS if name not in first] == []
