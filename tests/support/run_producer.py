"""A process that produces, reads or replaces runs, and that a test may kill: ``run_producer LOG ROLE NAME…``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from tickertape import Hub
from tickertape.broker import Broker, create_broker
from tickertape.runs import RunEvent, Runs
from tickertape.wire import Cursor, Draft

__all__ = ["EACH", "Killed"]

EACH = 2
"""Readers of each run in a process that reads."""


def say(text: str) -> None:
    """Write a line for the test."""
    print(text, flush=True)  # noqa: T201


async def count() -> AsyncIterator[str]:
    """Produce the numbers until the process is killed."""
    number = 0
    while True:
        yield f"{number}"
        number += 1
        await asyncio.sleep(0.002)


async def produce(log: str, *names: str) -> None:
    async with Hub(log) as hub:
        runs = Runs(hub)
        for name in names:
            await runs.start(name, count)
            say(f"[started {name}]")
        await asyncio.Event().wait()


async def read(runs: Runs, name: str) -> None:
    """Read a run from its beginning, and report the progress and the whole."""
    while (run := await runs.get(name)) is None:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    seen: list[str] = []
    async with aclosing(run.events()) as events:
        async for event in events:
            seen.append(event.data if isinstance(event, RunEvent) else str(getattr(event, "state", "gap")))
            if len(seen) == 10:
                say(f"[reading {name}]")
    say(json.dumps({"name": name, "seen": seen}))


async def read_all(log: str, *names: str) -> None:
    async with Hub(log) as hub:
        runs = Runs(hub)
        await asyncio.gather(*(read(runs, name) for name in names for _ in range(EACH)))


class Killed:
    """A broker whose process is killed after the record that starts a run, for which it waits until a file exists."""

    def __init__(self, broker: Broker, trigger: Path) -> None:
        self._broker = broker
        self._trigger = trigger
        self._stored = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        """Append drafts; after the start of a run, kill the process instead."""
        if self._stored:
            os.kill(os.getpid(), signal.SIGKILL)
        if any(draft.event == "run:start" for draft in drafts):
            say("[replacing]")
            while not self._trigger.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            self._stored = True
        return await self._broker.append(drafts)


async def replace(log: str, name: str, trigger: str) -> None:
    broker: Any = Killed(create_broker(log), Path(trigger))
    async with Hub(broker) as hub:
        await Runs(hub).start(name, count, replace=True)


if __name__ == "__main__":
    roles: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
        "produce": produce,
        "read": read_all,
        "replace": replace,
    }
    asyncio.run(roles[sys.argv[2]](sys.argv[1], *sys.argv[3:]))
