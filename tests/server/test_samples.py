"""Samples: rates of all workers together, of workers that come and go, and quantiles as Prometheus estimates them."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families as parse

from tickertape.server.samples import KEPT, Counts, Sample, Sampler, quantile, sample_of
from tickertape.testing import FakeClock

BEFORE = """
tickertape_events_delivered_total{process="1"} 100
tickertape_events_delivered_total{process="2"} 50
tickertape_streams_active{process="1",way="direct"} 3
tickertape_streams_active{process="2",way="direct"} 4
tickertape_streams_active{process="2",way="pull"} 0
tickertape_streams_closed_total{process="1",reason="expired"} 2
tickertape_streams_closed_total{process="1",reason="ended"} 0
tickertape_log_lag_events{process="1"} 5
tickertape_log_lag_events{process="2"} 1
process_resident_memory_bytes{process="1"} 1000
process_resident_memory_bytes{process="2"} 2000
tickertape_worker_restarts_total{worker="1"} 1
tickertape_worker_restarts_total{worker="2"} 0
"""


def counts(text: str, at: float) -> Counts:
    return Counts.of(parse(text), at)


def test_state_of_all_workers() -> None:
    sample = sample_of(counts(BEFORE, 12.0), counts(BEFORE, 10.0), 1_000.0)
    expected = {"time": 1_000.0, "workers": 2, "restarts": 1, "streams": {"direct": 7}, "lag": 5, "memory": 3000}
    assert {name: sample[name] for name in expected} == expected
    assert sample["totals"]["closed"] == {"expired": 2}
    assert not any(sample["rates"].values())
    assert sample["latency"] == {"p50": None, "p99": None}


@pytest.mark.parametrize(
    ("after", "rate"),
    [
        pytest.param({"1": 140, "2": 50}, 20.0, id="one worker"),
        pytest.param({"1": 110, "2": 60}, 10.0, id="two workers"),
        pytest.param({"1": 110, "3": 30}, 20.0, id="a worker was replaced"),
        pytest.param({"1": 0, "2": 60}, 5.0, id="a counter that began again"),
    ],
)
def test_rates(after: dict[str, int], rate: float) -> None:
    text = "\n".join(
        f'tickertape_events_delivered_total{{process="{process}"}} {value}' for process, value in after.items()
    )
    assert sample_of(counts(text + "\n", 12.0), counts(BEFORE, 10.0), 0.0)["rates"]["delivered"] == rate


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ({}, 0.5, None),
        ({0.1: 0, float("inf"): 0}, 0.5, None),
        ({0.1: 4, 0.2: 4, float("inf"): 4}, 0.5, 0.05),
        ({0.1: 0, 0.2: 4, float("inf"): 4}, 0.5, 0.15),
        ({0.1: 2, 0.2: 4, float("inf"): 4}, 0.99, 0.198),
        ({0.1: 0, 0.2: 0, float("inf"): 4}, 0.5, 0.2),
    ],
)
def test_quantile(buckets: dict[float, int], share: float, expected: float | None) -> None:
    assert quantile(buckets, share) == expected


class Source:
    """Metrics that a test counts up."""

    def __init__(self) -> None:
        self.published = 0
        self.reads = 0

    async def collect(self) -> list[Metric]:
        self.reads += 1
        return [*parse(f'tickertape_events_published_total{{process="1"}} {self.published}\n')]


def rates(samples: list[Sample]) -> list[Any]:
    return [sample["rates"]["published"] for sample in samples]


async def test_one_sample_for_all_readers() -> None:
    clock, source = FakeClock(), Source()
    sampler = Sampler(source.collect, lambda: clock)
    assert await sampler.after(0) == []  # a rate needs two moments
    clock.advance(1)
    source.published = 3
    first = await sampler.after(0)
    assert rates(first) == [3.0]
    assert await sampler.after(0) == first
    assert await sampler.after(first[0]["time"]) == []
    assert source.reads == 2


async def test_kept_samples() -> None:
    clock, source = FakeClock(), Source()
    sampler = Sampler(source.collect, lambda: clock)
    for _ in range(KEPT + 2):
        source.published += 1
        clock.advance(1)
        samples = await sampler.after(0)
    assert rates(samples) == [1.0] * KEPT
    clock.advance(60)  # without a reader
    assert await sampler.after(0) == []
    clock.advance(1)
    assert len(await sampler.after(0)) == 1
