"""The clients of npm against our hub: they resume after every restart of it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from support.command import HubProgram, hub_program
from support.npm import installed
from support.servers import Program, until
from tickertape.client import Publisher

RESTARTS = 4


@pytest.fixture(scope="session")
def folder(pytestconfig: pytest.Config) -> Path:
    """Return the folder with the packages of the lock file."""
    return installed(pytestconfig)


def lines(program: Program) -> list[dict[str, Any]]:
    return [json.loads(line) for line in program.output.splitlines(keepends=True) if line.endswith("\n")]


async def publish(hub: HubProgram, expected: list[str], count: int) -> list[str]:
    """Publish this number of events, and return their cursors."""
    async with Publisher(hub.url) as publisher:
        data = [str(len(expected) + number) for number in range(count)]
        cursors = [await publisher.publish("ticks/1", text, event="tick") for text in data]
    expected += data
    return cursors


@pytest.mark.parametrize("client", ["eventsource", "eventsource-client"])
async def test_exactly_once_while_hub_restarts(client: str, folder: Path, tmp_path: Path) -> None:
    rng = random.Random(client)
    expected: list[str] = []
    cursors: list[str] = []
    with hub_program(broker=f"sqlite:///{tmp_path / 'log.db'}") as hub:
        program = Program(["node", str(folder / "listen.mjs"), client, f"{hub.url}/events?topic=ticks/*"])

        def data() -> list[str]:
            return [line["data"] for line in lines(program) if "data" in line]

        try:
            await program.says('{"open":true}')
            for _ in range(RESTARTS):
                cursors += await publish(hub, expected, rng.randint(1, 30))
                hub.kill()  # whether all has been read by then is left to chance
                hub.start()
                cursors += await publish(hub, expected, rng.randint(1, 5))
            await until(lambda: len(data()) >= len(expected), lambda: f"{expected}, got {program.output}")
            assert data() == expected
            assert [line["id"] for line in lines(program) if "data" in line] == cursors
            assert [line for line in lines(program) if "gap" in line] == []
        finally:
            program.close()


@pytest.mark.parametrize("client", ["eventsource", "eventsource-client"])
async def test_gap_is_an_event(client: str, folder: Path) -> None:
    expected: list[str] = []
    with hub_program() as hub:
        program = Program(["node", str(folder / "listen.mjs"), client, f"{hub.url}/events?topic=ticks/*"])
        try:
            await program.says('{"open":true}')
            await publish(hub, expected, 1)
            await program.says('"data":"0"')
            hub.kill()
            hub.start()
            await program.says('\\"reason\\": \\"reset\\"')
        finally:
            program.close()
