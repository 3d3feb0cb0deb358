"""The memory broker: filtered reads, which share the event loop with everything else."""

from __future__ import annotations

import asyncio
import time

from tickertape.broker import MemoryBroker
from tickertape.wire import Draft


async def test_filter_is_called_once_for_each_topic() -> None:
    broker = MemoryBroker()
    asked: list[str] = []

    def topics(topic: str) -> bool:
        asked.append(topic)
        return topic == "t/3"

    await broker.append([Draft(f"t/{number % 10}", "x") for number in range(20_000)])
    assert len((await broker.read(0, 10_000, topics)).records) == 2_000
    assert sorted(asked) == [f"t/{number}" for number in range(10)]


async def test_filtered_read_lets_others_run() -> None:
    """During a long read, others append and the log is trimmed; the page has the state at the time of the call."""

    def topics(topic: str) -> bool:
        time.sleep(0.0005)
        return True

    broker = MemoryBroker()
    await broker.append([Draft(f"t/{number}", "x") for number in range(500)])
    state = await broker.state()
    reading = asyncio.create_task(broker.read(0, 1000, topics))
    await asyncio.sleep(0)
    assert not reading.done()
    await broker.append([Draft("t", "new")])
    broker.trim(keep=10)
    page = await reading
    assert page.state == state
    assert [record.offset for record in page.records] == list(range(1, 501))
