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
from bench.scale.plan import Demand, Figures, plan
from bench.scale.plan import markdown as plan_markdown
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


MEASURED: Final = Figures(delivery=10e-6, silent=2e-6, returning=200e-6, connection=8 * 1024, worker=64 << 20)


@pytest.mark.parametrize(
    ("demand", "limited_by", "nodes", "each"),
    [
        # 8 cores × (0.5 − 10 × 157 µs) ÷ 12 µs = 332,286, and 320,000 of 8 workers
        (Demand(1_000_000), "workers", 5, 200_000),
        (Demand(1_000_000, held=1 << 20), "CPU", 5, 200_000),
        (Demand(1_000_000, held=1 << 20, events=3.0), "CPU", 10, 100_000),
        # 1 GiB in use at most, and 1 GiB − 8 × 96 MiB for connections of 16 KiB
        (Demand(100_000, memory=2 << 30, waiting=8 * 1024, window=32 << 20), "memory", 8, 12_500),
        # 50 Mbit/s ÷ (1,000 + 90) × 8 bits
        (Demand(20_000, network=100e6, size=1_000), "network", 5, 4_000),
    ],
    ids=["workers", "CPU", "events", "memory", "network"],
)
def test_plan(demand: Demand, limited_by: str, nodes: int, each: int) -> None:
    found = plan(demand, MEASURED)
    assert min(found.limits, key=lambda name: found.limits[name]) == limited_by
    assert (found.nodes, found.each) == (nodes, each)
    assert found.after_loss <= min(found.limits.values())


def test_reconnects_of_a_plan() -> None:
    """200,000 clients of 200 µs return to four nodes of 8 cores, half of which are free, within 0.4 of `retry`."""
    found = plan(Demand(1_000_000, drain=50.0), MEASURED)
    assert found.storm == pytest.approx(40 / 32)
    assert found.retry == pytest.approx(40 / 32 / 0.4 / 0.5)
    assert found.everyone == pytest.approx(200 / 40)
    assert found.arrivals == pytest.approx(4_000)
    assert found.broker == pytest.approx(40 * 10 * 32e-6)


@pytest.mark.parametrize("demand", [Demand(1, memory=1 << 30), Demand(1, published=1e4)], ids=["memory", "log"])
def test_impossible_plan(demand: Demand) -> None:
    with pytest.raises(ValueError, match="room for a connection"):
        plan(demand, MEASURED)


def test_page_shows_the_plan() -> None:
    page = (ROOT / "docs" / "operations" / "planning.md").read_text("utf-8")
    assert section(page, "plan").strip() == plan_markdown(RESULTS).strip()
