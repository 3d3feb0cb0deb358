"""What this machine says of itself."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import psutil
import pytest

from tickertape.demo.dashboard import Reader
from tickertape.demo.dashboard.readings import Busiest
from tickertape.testing import FakeClock


async def test_a_reading_of_this_machine() -> None:
    before = time.time(), time.monotonic()
    reading = await Reader()()
    assert before[0] - 0.001 <= reading.at <= time.time()
    assert before[1] <= reading.moment <= time.monotonic()
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


async def test_it_is_taken_in_a_thread_of_its_own() -> None:
    reading = await Reader({"processes": threading.get_ident})()
    assert reading.processes != threading.get_ident()


def test_busy_cores_are_seen() -> None:
    reader = Reader()
    before, end = reader.read(), time.process_time() + 0.1
    while time.process_time() < end:
        pass
    after = reader.read()
    assert before.cores is not None
    assert after.cores is not None
    assert sum(busy for busy, _ in after.cores) - sum(busy for busy, _ in before.cores) >= 0.05


def test_the_busiest_processes_are_looked_at_now_and_then() -> None:
    clock = FakeClock()
    look = Busiest(clock.time)
    looks = []
    for _ in range(25):
        looks.append(look())
        clock.advance(0.5)
    assert [at / 2 for at, found in enumerate(looks) if found is not None] == [0.5, 5.5, 10.5]
    for busiest in filter(None, looks):
        assert 0 < len(busiest) <= 5
        assert busiest == sorted(busiest, key=lambda process: (process.cpu, process.memory), reverse=True)
        assert all(process.name and process.memory >= 0 for process in busiest)


def test_what_cannot_be_had_is_left_out_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        raise PermissionError("no such file for you")

    reader = Reader({"memory": broken, "processes": os.getpid})
    for _ in range(3):
        reading = reader.read()
        assert (reading.memory, reading.processes) == (None, os.getpid())
    [told] = caplog.messages
    assert told == "the dashboard does without memory: PermissionError('no such file for you')"
