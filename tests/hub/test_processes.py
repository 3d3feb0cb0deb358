"""A hub and the processes of its server: forks, and workers that do not share their memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FORK = """
import asyncio, os, sys, time
from tickertape import Hub

async def main():
    async with Hub() as hub:
        await asyncio.to_thread(hub.publish_sync, "t", "x")
        child = os.fork()
        if not child:
            began = time.monotonic()
            try:
                hub.publish_sync("t", "y")
            except Exception as error:
                print(type(error).__name__, error, time.monotonic() - began < 5, flush=True)
            os._exit(0)
        os.waitpid(child, 0)

asyncio.run(main())
"""

WORKERS = """
import asyncio, logging, multiprocessing, sys
from tickertape import Hub

async def work(url):
    for _ in range(2):
        async with Hub(url):
            pass

def worker(url):
    logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
    asyncio.run(work(url))

if __name__ == "__main__":
    worker(sys.argv[1]) if sys.argv[2] == "alone" else None
    if sys.argv[2] == "spawned":
        process = multiprocessing.get_context("spawn").Process(target=worker, args=(sys.argv[1],))
        process.start()
        process.join()
"""


def run(program: str, *arguments: str, directory: Path, **environment: str) -> str:
    script = directory / "program.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | environment,
    )
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork()")
def test_publish_sync_in_a_fork(tmp_path: Path) -> None:
    """It is refused at once: the loop of the hub runs in another process."""
    output = run(FORK, directory=tmp_path)
    assert output.startswith("HubClosedError the hub was opened in another process: open it after the fork")
    assert output.rstrip().endswith("True")


@pytest.mark.parametrize(
    ("url", "start", "environment", "warnings"),
    [
        ("memory://", "spawned", {}, 1),
        ("memory://", "alone", {}, 0),
        ("memory://", "alone", {"SERVER_SOFTWARE": "gunicorn/23.0.0"}, 1),
        ("sqlite:///{directory}/log.db", "spawned", {}, 0),
    ],
)
def test_memory_in_workers(url: str, start: str, environment: dict[str, str], warnings: int, tmp_path: Path) -> None:
    """A log in memory reaches only the subscribers of its own process, so a worker warns once."""
    output = run(WORKERS, url.format(directory=tmp_path), start, directory=tmp_path, **environment)
    assert output.count("memory:// keeps events in one process") == warnings
