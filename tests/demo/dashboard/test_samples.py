"""``SystemReader`` on this machine, and samples computed from two readings."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

import psutil
import pytest

from tickertape.demo.dashboard.samples import Busiest, Process, Reading, SystemReader, is_continuous, make_sample
from tickertape.hub import HubStatistics
from tickertape.testing import FakeClock


async def test_reading() -> None:
    before = time.time(), time.monotonic()
    reading = await SystemReader()()
    assert before[0] - 0.001 <= reading.at <= time.time()
    assert before[1] <= reading.monotonic <= time.monotonic()
    assert reading.host
    assert reading.cores is not None
    assert len(reading.cores) == psutil.cpu_count()
    assert all(0 <= busy <= total for busy, total in reading.cores)
    assert reading.memory is not None
    assert 0 < reading.memory[0] < reading.memory[1]
    assert reading.load is not None
    assert len(reading.load) == 3
    assert reading.network is None or "lo" not in reading.network
    assert reading.processes is not None
    assert reading.processes > 1


async def test_reading_in_thread() -> None:
    reading = await SystemReader({"processes": threading.get_ident})()
    assert reading.processes != threading.get_ident()


def test_busy_core() -> None:
    reader = SystemReader()
    before, end = reader.read(), time.process_time() + 0.1
    while time.process_time() < end:
        pass
    after = reader.read()
    assert before.cores is not None
    assert after.cores is not None
    assert sum(busy for busy, _ in after.cores) - sum(busy for busy, _ in before.cores) >= 0.05


def test_busiest_processes() -> None:
    clock = FakeClock()
    scan = Busiest(clock.time)
    scans = []
    for _ in range(25):
        scans.append(scan())
        clock.advance(0.5)
    assert [at / 2 for at, found in enumerate(scans) if found is not None] == [0.5, 5.5, 10.5]
    for busiest in filter(None, scans):
        assert 0 < len(busiest) <= 5
        assert busiest == sorted(busiest, key=lambda process: (process.cpu, process.memory), reverse=True)
        assert all(process.name and process.memory >= 0 for process in busiest)


def test_unavailable_value(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        raise PermissionError("no such file for you")

    reader = SystemReader({"memory": broken, "processes": os.getpid})
    for _ in range(3):
        reading = reader.read()
        assert (reading.memory, reading.processes) == (None, os.getpid())
    [message] = caplog.messages
    assert message == "the dashboard cannot read memory: PermissionError('no such file for you')"


FIRST = Reading("host", 1000.0, 10.0)


def hub(published: int = 0, delivered: int = 0, superseded: int = 0, **disconnects: int) -> HubStatistics:
    nothing = HubStatistics._make([0] * len(HubStatistics._fields))
    return nothing._replace(
        subscribers=2, published=published, delivered=delivered, superseded=superseded, disconnects=disconnects
    )


def sample(before: dict[str, Any], after: dict[str, Any], seconds: float = 2.0) -> dict[str, Any]:
    """Return the sample of two readings."""
    now = FIRST._replace(at=FIRST.at + seconds, monotonic=FIRST.monotonic + seconds, **after)
    return make_sample((FIRST._replace(**before), hub()), (now, hub()))


@pytest.mark.parametrize(
    ("before", "after", "total", "cores"),
    [
        ([(1.0, 10.0), (5.0, 10.0)], [(2.0, 12.0), (5.0, 12.0)], 25.0, [50.0, 0.0]),
        ([(1.0, 10.0)], [(3.0, 12.0)], 100.0, [100.0]),
        ([(1.0, 10.0)], [(1.0, 10.0)], None, [None]),  # the counters did not change
        ([(1.0, 10.0)], [(0.9, 12.0)], 0.0, [0.0]),  # idle time may decrease
        ([(1.0, 10.0)], [(4.0, 12.0)], 100.0, [100.0]),
        ([(1.0, 10.0)], [(2.0, 12.0), (5.0, 12.0)], None, [None, None]),  # a core was added
        (None, [(2.0, 12.0)], None, [None]),
    ],
)
def test_cpu(before: Any, after: Any, total: float | None, cores: list[float | None]) -> None:
    assert sample({"cores": before}, {"cores": after})["cpu"] == {"total": total, "cores": cores}


@pytest.mark.parametrize(
    ("before", "after", "rates"),
    [
        ({"eth0": (100, 0)}, {"eth0": (300, 50)}, {"in": 100.0, "out": 25.0}),
        ({"eth0": (0, 0), "eth1": (0, 0)}, {"eth0": (10, 2), "eth1": (30, 4)}, {"in": 20.0, "out": 3.0}),
        (
            {"eth0": (100, 0)},
            {"eth0": (104, 0), "vpn": (10**12, 10**12)},
            {"in": 2.0, "out": 0.0},
        ),  # a device was added
        ({"eth0": (100, 0), "vpn": (10**12, 0)}, {"eth0": (104, 0)}, {"in": 2.0, "out": 0.0}),  # a device was removed
        ({"eth0": (10**12, 10)}, {"eth0": (0, 20)}, {"in": 0.0, "out": 5.0}),  # a counter was reset
        ({}, {}, {"in": 0.0, "out": 0.0}),
        (None, {"eth0": (1, 1)}, None),
        ({"eth0": (1, 1)}, None, None),
    ],
)
def test_network_rates(before: Any, after: Any, rates: Any) -> None:
    assert sample({"network": before}, {"network": after})["network"] == rates


def test_rates_use_monotonic_clock() -> None:
    before = FIRST._replace(disks={"all": (0, 0)})
    now = FIRST._replace(at=0.0, monotonic=FIRST.monotonic + 3, disks={"all": (3000, 600)})
    assert make_sample((before, hub()), (now, hub()))["disk"] == {"read": 1000.0, "write": 200.0}


def test_hub_rates() -> None:
    later = FIRST._replace(monotonic=FIRST.monotonic + 2)
    before = hub(10, 100, superseded=1, client_closed=5)
    made = make_sample((FIRST, before), (later, hub(14, 140, superseded=2, slow_consumer=2, send_timeout=1)))
    assert made["hub"] == {"subscribers": 2, "events": 2.0, "deliveries": 20.0, "drops": 2.0}


def test_first_sample() -> None:
    reading = FIRST._replace(
        cores=[(1.0, 2.0)],
        memory=(1, 4),
        load=(0.123, 0.456, 0.789),
        network={"eth0": (1, 1)},
        processes=7,
        busiest=[Process("init", 1.5, 4096)],
    )
    assert json.loads(json.dumps(make_sample(None, (reading, hub(3, 4))))) == {
        "host": "host",
        "at": 1000.0,
        "after": None,
        "cpu": {"total": None, "cores": [None]},
        "memory": {"used": 1, "total": 4},
        "load": [0.12, 0.46, 0.79],
        "network": None,
        "disk": None,
        "processes": 7,
        "busiest": [{"name": "init", "cpu": 1.5, "memory": 4096}],
        "hub": {"subscribers": 2, "events": None, "deliveries": None, "drops": None},
    }


def test_sample_has_time_of_previous() -> None:
    assert sample({}, {})["after"] == FIRST.at


@pytest.mark.parametrize(
    ("elapsed", "wall_elapsed", "expected"),
    [
        (1.0, 1.0, True),
        (3.0, 3.0, True),
        (1.0, 2.5, True),  # the wall clock is adjusted slowly
        (3.1, 3.1, False),  # the process was stopped
        (1.0, 3600.0, False),  # suspended
        (1.0, -3600.0, False),  # the wall clock was set back
        (3600.0, 3600.0, False),  # suspended, and both clocks count that
        (0.0, 0.0, False),
    ],
)
def test_is_continuous(elapsed: float, wall_elapsed: float, expected: bool) -> None:
    now = FIRST._replace(monotonic=FIRST.monotonic + elapsed, at=FIRST.at + wall_elapsed)
    assert is_continuous(FIRST, now, max_interval=3.0) is expected
