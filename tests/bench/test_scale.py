"""The benchmark of many connections: a small run counts all deliveries, its limits hold, the page shows the results."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

import pytest
from bench.pages import section
from bench.reader import compiler
from bench.scale import measure as measure_module
from bench.scale.measure import Plan, check, limited, measure
from bench.scale.report import charts, markdown

ROOT: Final = Path(__file__).parents[2]

RESULTS: Final = json.loads((ROOT / "docs" / "scale.json").read_text("utf-8"))

SMALL: Final = Plan(events=2, silent=0.1)

needs_linux = pytest.mark.skipif(
    compiler() is None or not Path("/proc/net/sockstat").exists(), reason="no C compiler, or no Linux"
)


@needs_linux
@pytest.mark.parametrize("workers", [1, 2])
def test_small_run(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two programs read; one of two workers is lost, and its clients return."""
    monkeypatch.setattr(measure_module, "HOME", tmp_path)
    monkeypatch.setattr(measure_module, "PER_READER", 16)
    found = measure(workers, 31, SMALL)
    assert (found.received, found.lost) == (62, 0)
    assert sum(found.held) == 31
    assert len(found.held) == workers
    assert found.delivery > 0
    assert found.connect > 0
    assert 0 < found.p50 <= found.p99 <= found.longest
    assert found.workers_memory > 31 * found.connection_memory
    assert (found.returned > 0) == (found.returning > 0) == (workers == 2)


@pytest.mark.parametrize(
    ("connections", "workers", "message"),
    [(1 << 22, 1 << 10, "of free memory"), (1 << 30, 1, "descriptors")],
)
def test_machine_too_small(connections: int, workers: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_module, "NEEDED", 1 << 30)
    with pytest.raises(RuntimeError, match=message):
        check(connections, workers)


def test_limit() -> None:
    with pytest.raises(TimeoutError, match="within 0 s"), limited(0.01):
        time.sleep(10)


def test_page_shows_the_results() -> None:
    """The section and the charts are those of the stored results."""
    page = (ROOT / "docs" / "performance.md").read_text("utf-8")
    assert section(page, "scale").strip() == markdown(RESULTS).strip()
    for name, chart in charts(RESULTS).items():
        assert (ROOT / "docs" / "images" / name).read_text("utf-8") == chart


def test_goal_was_reached() -> None:
    """The page claims 100,000 connections, and loses no event."""
    most = max(RESULTS["measured"], key=lambda row: int(row["connections"]))
    assert most["connections"] == 100_000
    assert all(row["lost"] == 0 for row in RESULTS["measured"])
