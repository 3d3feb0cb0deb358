"""Processes that are killed while they produce runs: every reader gets what was produced, and one end in time."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing, closing
from pathlib import Path
from typing import Any, Final

import pytest

from broker.private_servers import require
from broker.test_hub import LOGS
from support.run_producer import EACH
from support.runs import Source, read
from support.servers import START, TESTS, Program, until
from tickertape import Hub
from tickertape.runs import Runs
from tickertape.testing.contract import Log

PROMISE: Final = 10.0
"""Seconds from the end of a process to the end that readers get."""

NAMES: Final = ("job/a", "job/b", "job/c")
"""Runs of as many processes, which are killed one after the other."""

READERS: Final = 3
"""Of each run in this process."""

BROKERS: Final = [name for name in LOGS if name != "memory"]


@pytest.fixture
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    kind, absent = LOGS[request.param]
    require(absent())
    log = kind(tmp_path)
    yield log
    await log.remove()


def program(stack: ExitStack, log: Any, role: str, *arguments: str) -> Program:
    command = [sys.executable, "-m", "support.run_producer", log.url, role, *arguments]
    return stack.enter_context(closing(Program(command, {"PYTHONPATH": str(TESTS)})))


async def kill(process: Program) -> None:
    process.process.send_signal(signal.SIGKILL)
    await until(lambda: process.process.poll() is not None, lambda: "the end of the process")


async def timed(reading: asyncio.Task[list[str]]) -> tuple[list[str], float]:
    """Return what a reader got, and when."""
    seen = await reading
    return seen, time.monotonic()


def read_elsewhere(process: Program) -> list[tuple[str, list[str]]]:
    """Return what the readers of a process got, each with the name of its run."""
    lines = [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]
    return [(line["name"], line["seen"]) for line in lines]


async def ends_of(hub: Hub) -> Counter[str]:
    """Return the number of ends in each topic of the log."""
    ends: Counter[str] = Counter()
    after = 0
    while True:
        _, records = await hub.read(after, 1000, lambda topic: topic.startswith(("run/", "runs/")))
        ends.update(record.topic for record in records if record.event == "run:end")
        if not records:
            return ends
        after = records[-1].offset


@pytest.mark.parametrize("log", BROKERS, indirect=True)
async def test_killed_producers(log: Log) -> None:
    with ExitStack() as stack:
        elsewhere = program(stack, log, "read", *NAMES)
        producers = [program(stack, log, "produce", name) for name in NAMES]
        async with Hub(log.broker()) as hub:
            runs = Runs(hub)
            for name, producer in zip(NAMES, producers, strict=True):
                await producer.says(f"[started {name}]", within=START)
            await until(
                lambda: elsewhere.output.count("[reading") == EACH * len(NAMES),
                lambda: f"readers, got:\n{elsewhere.output}",
                within=START,
            )
            found = {name: await runs.get(name) for name in NAMES}
            readings = {
                name: [asyncio.create_task(timed(asyncio.create_task(read(found[name])))) for _ in range(READERS)]
                for name in NAMES
            }
            await asyncio.sleep(0.2)
            killed: dict[str, float] = {}
            for name, producer in zip(NAMES, producers, strict=True):
                await kill(producer)
                killed[name] = time.monotonic()
                await asyncio.sleep(0.7)  # at other moments between two signs of life
            longest = 0.0
            seen: dict[str, list[list[str]]] = {name: [] for name in NAMES}
            async with asyncio.timeout(2 * PROMISE):
                for name, tasks in readings.items():
                    for items, when in await asyncio.gather(*tasks):
                        longest = max(longest, when - killed[name])
                        seen[name].append(items)
            await until(
                lambda: elsewhere.process.poll() is not None, lambda: f"the readers' ends, got:\n{elsewhere.output}"
            )
            for name, items in read_elsewhere(elsewhere):
                seen[name].append(items)
            for name, lists in seen.items():
                assert len(lists) == READERS + EACH
                produced = [f"{number}" for number in range(len(lists[0]) - 1)]
                assert len(produced) > 10
                assert lists == [[*produced, "orphaned"]] * len(lists)
                run = found[name]
                assert run is not None
                assert await read(run) == lists[0], "a reader that comes later"
            assert longest < PROMISE
            ends = await ends_of(hub)
            assert sorted(ends.values()) == [1] * 2 * len(NAMES), ends
            source = Source()
            source.give("again", None)
            assert await read(await runs.start(NAMES[0], source)) == ["again", "done"]
    print(f"\n{len(NAMES)} producers killed; the last reader had the end after {longest:.1f} s")  # noqa: T201


@pytest.mark.parametrize("log", BROKERS, indirect=True)
async def test_killed_replacement(log: Log, tmp_path: Path) -> None:
    """The process that replaces a run is killed before it stores the end of the old one."""
    trigger = tmp_path / "go"
    with ExitStack() as stack:
        replacing = program(stack, log, "replace", "job", str(trigger))
        async with Hub(log.broker()) as hub:
            runs = Runs(hub)
            await replacing.says("[replacing]", within=START)
            old = await runs.open("job")
            await old.append("one", "two")
            readings = [asyncio.create_task(read(old)) for _ in range(READERS)]
            trigger.touch()
            await until(lambda: replacing.process.poll() is not None, lambda: "a killed process", within=START)
            assert replacing.process.returncode == -signal.SIGKILL
            killed = time.monotonic()
            async with asyncio.timeout(PROMISE):
                assert await asyncio.gather(*readings) == [["one", "two", "cancelled"]] * READERS
                new = await runs.get("job")
                assert new is not None
                assert new.id != old.id
                assert await read(new) == ["orphaned"]
            assert time.monotonic() - killed < PROMISE
            ends = await ends_of(hub)
            assert ends == {old.info.topic: 1, new.info.topic: 1, "runs/job": 2}
            source = Source()
            source.give("again", None)
            assert await read(await runs.start("job", source)) == ["again", "done"]


async def test_killed_reader(tmp_path: Path) -> None:
    """A run whose last reader dies with its process is cancelled, after the time in which another may join."""
    log = LOGS["sqlite"][0](tmp_path)
    with ExitStack() as stack:
        async with Hub(log.broker()) as hub:
            source = Source()
            source.give(*map(str, range(20)))
            run = await Runs(hub).start("job", source, on_disconnect="cancel", grace=2)
            elsewhere = program(stack, log, "read", "job")
            async with aclosing(run.events()) as events:  # until the other process has readers
                await anext(events)
                await until(lambda: elsewhere.output.count("[reading job]") == EACH, lambda: "readers", within=START)
            await asyncio.sleep(3.0)
            assert run.info.active
            await kill(elsewhere)
            async with asyncio.timeout(PROMISE + 2):
                assert (await run.wait()).state == "cancelled"
            assert source.finished.is_set()
