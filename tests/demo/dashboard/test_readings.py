"""``SystemReader`` on this machine."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import psutil
import pytest

from tickertape.demo.dashboard.readings import Busiest, SystemReader
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
