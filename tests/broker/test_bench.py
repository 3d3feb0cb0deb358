"""The benchmark of the brokers: it measures, and its figures add up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from bench.brokers import SHAPES, Delays, Effort, Rates, Shape, delay_line, measure, rate_line
from bench.brokers_stores import KINDS, Bare, Contest

from tickertape.wire import Draft

from .private_servers import require

LITTLE = Effort(rounds=1, turn=0.001, deliveries=2)
SMALL = (Shape(1, 1, 1), Shape(2, 1, 1), Shape(2, 30, 2))


@pytest.mark.parametrize("name", KINDS)
async def test_measure(name: str, tmp_path: Path) -> None:
    require(KINDS[name].absent() or None)
    async with KINDS[name].enter(tmp_path) as contest:
        rates, delays = await measure(contest, LITTLE, SMALL)
    bare = contest.bare
    assert [each.shape for each in rates] == [
        shape for shape in SMALL if bare or shape.publishers == shape.bare_publishers
    ]
    assert all(each.ours > 0 for each in rates)
    assert len(delays.ours) == 2
    assert len(delays.bare) == (2 if bare and bare.follow else 0)
    if bare:
        assert all(each.way in bare.ways for each in rates)
        # One round: the median of the ratios is the ratio of the medians.
        assert [each.ratio for each in rates] == pytest.approx([each.ours / (each.bare or 0) for each in rates])


async def test_events_that_were_not_stored(tmp_path: Path) -> None:
    async def publish(drafts: Sequence[Draft]) -> None:
        await asyncio.sleep(LITTLE.turn)

    async def stored() -> int:
        return 1

    liar = Contest(f"sqlite:///{tmp_path}/log.db", Bare({"nothing": publish}, stored, publish, None))
    with pytest.raises(AssertionError, match=r"expected \d+ events in the bare log, as acknowledged, got 1"):
        await measure(liar, LITTLE, SMALL)


@pytest.mark.parametrize(
    ("name", "ratio", "end"),
    [
        ("Redis", 0.5, "0.50  PASS 0.5"),
        ("Redis", 0.49, "0.49  short of 0.5"),
        ("memory", None, "1,000"),
    ],
)
def test_rate_line(name: str, ratio: float | None, end: str) -> None:
    (shape,) = (shape for shape in SHAPES if shape.publishers == 1 and shape.batch > 1)
    bare = None if ratio is None else 1000 / ratio
    assert rate_line(name, Rates(shape, 1000, "way", bare, ratio)).endswith(end)


def test_delay_line() -> None:
    delays = Delays(ours=[0.002] * 10, bare=[0.001] * 10)
    assert delay_line("Redis", delays).split() == ["Redis", "2.00", "2.00", "1.00", "1.00", "2.00", "2.00"]
