"""Answers that outlive a connection or a process: runs beside other libraries for it, in the same tests.

Two server processes share one Redis: the answer is produced in the first. Each case prints what a reader got.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from ..processes import free_port, wait_for

__all__ = ["main"]

HERE: Final = Path(__file__).parent
REDIS: Final = os.environ.get("TICKERTAPE_TEST_REDIS", "redis://127.0.0.1:6379/0")

CHUNKS: Final = 20
PACE: Final = 0.1
"""Seconds between two chunks of an answer."""

PATIENCE: Final = 15.0
"""Seconds for which a reader waits for more, or for the end."""

_WORD: Final = re.compile(r"word(\d+)\.")
_ID: Final = re.compile(r"^id: (\S+)$", re.MULTILINE)
_END: Final = re.compile(r'^event: stream:end\ndata: .*?"reason": ?"(\w+)"', re.MULTILINE)


@dataclass
class Reading:
    """The part of an answer that a reader has, over all its connections.

    Attributes:
        text: the events.
        ending: how the last connection ended: the reason that the stream gave, ``"end"`` for an end without a reason,
            ``"cut"``, a status, or ``"no end"`` if there was none in time.
        seconds: the time to that.
    """

    text: str = ""
    ending: str = ""
    seconds: float = 0.0

    @property
    def words(self) -> list[int]:
        return [int(number) for number in _WORD.findall(self.text)]

    @property
    def last_id(self) -> str | None:
        ids = _ID.findall(self.text)
        return ids[-1] if ids else None

    @property
    def characters(self) -> int:
        return len(self.text)

    def verdict(self, wanted: int = CHUNKS) -> str:
        words = self.words
        if words == [*range(wanted)]:
            return f"all {wanted}"
        repeated = len(words) - len(set(words))
        return f"{len(set(words))} of {wanted}" + (f", {repeated} twice" if repeated else "")


@dataclass
class Contender:
    """A library: how its server is started, and how a reader asks it for the rest of an answer."""

    name: str
    command: list[str]
    rest: Callable[[Reading], dict[str, Any]]
    can_stop: bool
    absent: Callable[[], str]
    prefix: str = field(default_factory=lambda: f"bench-{secrets.token_hex(6)}")


def _python_absent(module: str) -> str:
    return "" if importlib.util.find_spec(module) else f"pip install {module.replace('_', '-')}"


def _node_absent() -> str:
    installed = (HERE / "node_modules" / "resumable-stream").is_dir() and shutil.which("node")
    return "" if installed else "npm install --prefix bench/resumable"


def contenders() -> list[Contender]:
    python = [sys.executable, "-m", "bench.resumable.servers"]
    return [
        Contender(
            "tickertape",
            [*python, "tickertape"],
            lambda reading: {"headers": {"last-event-id": reading.last_id} if reading.last_id else {}},
            True,
            lambda: "",
        ),
        Contender(
            "fastapi-resumable-stream",
            [*python, "fastapi-resumable-stream"],
            lambda reading: {"params": {"after": len(reading.words)}},
            True,
            lambda: _python_absent("fastapi_resumable_stream"),
        ),
        Contender(
            "resumable-stream",
            ["node", str(HERE / "vercel.mjs")],
            lambda reading: {"params": {"after": reading.characters}},
            False,
            _node_absent,
        ),
    ]


class Pair:
    """Two server processes of a contender."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.client = httpx.AsyncClient(timeout=httpx.Timeout(PATIENCE, connect=5.0))
        self.programs: list[subprocess.Popen[bytes]] = []
        self.urls: list[str] = []
        self._ids = 0

    def start(self) -> None:
        port = free_port()
        command = [*self.contender.command, str(port), self.contender.prefix]
        self.programs.append(subprocess.Popen(command, env={**os.environ, "REDIS_URL": REDIS}))
        wait_for(port)
        self.urls.append(f"http://127.0.0.1:{port}")

    def new_id(self) -> str:
        self._ids += 1
        return f"answer{self._ids}"

    async def begin(self, id: str, reading: Reading, *, chunks: int = CHUNKS, until: int | None = None) -> None:
        """Start an answer in the first process, and read it."""
        query = {"id": id, "chunks": chunks, "pace": PACE}
        await self._read("POST", f"{self.urls[0]}/start", reading, until, params=query)

    async def resume(self, id: str, reading: Reading, *, server: int = 1, until: int | None = None) -> None:
        """Read the rest of an answer."""
        options = self.contender.rest(reading)
        query = {"id": id, **options.get("params", {})}
        headers = options.get("headers", {})
        await self._read("GET", f"{self.urls[server]}/resume", reading, until, params=query, headers=headers)

    async def _read(self, method: str, url: str, reading: Reading, until: int | None, **options: Any) -> None:
        began = time.monotonic()
        reading.ending = "cut"
        try:
            async with asyncio.timeout(PATIENCE), self.client.stream(method, url, **options) as response:
                if response.status_code != 200:
                    reading.ending = str(response.status_code)
                    return
                pending = b""
                async for data in response.aiter_raw():
                    *whole, pending = (pending + data).split(b"\n\n")
                    for block in whole:
                        reading.text += block.decode() + "\n\n"
                        if until is not None and len(reading.words) >= until:
                            return
            end = _END.search(reading.text)
            reading.ending = end[1] if end else "end"
        except TimeoutError:
            reading.ending = "no end"
        except httpx.HTTPError:
            reading.ending = "cut"
        finally:
            reading.seconds = time.monotonic() - began

    async def produced(self, id: str) -> int:
        return int((await self.client.get(f"{self.urls[0]}/produced", params={"id": id})).text)

    async def stop(self, id: str) -> None:
        await self.client.post(f"{self.urls[1]}/stop", params={"id": id})

    def kill(self) -> None:
        """End the process that produces, as a crash or the kernel does."""
        self.programs[0].send_signal(signal.SIGKILL)
        self.programs[0].wait()


@contextmanager
def started(contender: Contender) -> Iterator[Pair]:
    pair = Pair(contender)
    try:
        for _ in range(2):
            pair.start()
        yield pair
    finally:
        for program in pair.programs:
            program.kill()
            program.wait()


# The cases.


async def late_reader(pair: Pair) -> str:
    name, first, second = pair.new_id(), Reading(), Reading()
    starting = asyncio.create_task(pair.begin(name, first))
    while len(first.words) < CHUNKS // 2:
        await asyncio.sleep(PACE / 4)
    await pair.resume(name, second)
    await starting
    return f"{first.verdict()} and {second.verdict()}"


async def reconnects(pair: Pair) -> str:
    name, reading = pair.new_id(), Reading()
    await pair.begin(name, reading, until=1)
    connections = 1
    began = time.monotonic()
    while len(set(reading.words)) < CHUNKS and time.monotonic() < began + PATIENCE and connections < 2 * CHUNKS:
        await pair.resume(name, reading, until=len(reading.words) + 1)
        connections += 1
        if reading.ending.isdigit():
            return f"{reading.verdict()}, then {reading.ending}"
    return f"{reading.verdict()} over {connections} connections"


async def first_reader_leaves(pair: Pair) -> str:
    name, reading = pair.new_id(), Reading()
    await pair.begin(name, reading, until=3)
    await asyncio.sleep(CHUNKS * PACE / 2)
    await pair.resume(name, reading)
    return reading.verdict()


async def finished(pair: Pair) -> str:
    name, first, again = pair.new_id(), Reading(), Reading()
    await pair.begin(name, first)
    await asyncio.sleep(0.3)
    await pair.resume(name, again)
    return again.verdict() if again.words else f"nothing ({again.ending})"


async def cancelled(pair: Pair) -> str:
    if not pair.contender.can_stop:
        return "no cancel"
    name, reading = pair.new_id(), Reading()
    starting = asyncio.create_task(pair.begin(name, reading, chunks=200))
    while len(reading.words) < 5:
        await asyncio.sleep(PACE / 4)
    began = time.monotonic()
    await pair.stop(name)
    await starting
    took = time.monotonic() - began
    before = await pair.produced(name)
    await asyncio.sleep(5 * PACE)
    running = await pair.produced(name) > before
    return f"reader: {reading.ending} after {took:.1f} s; producer {'continues' if running else 'stopped'}"


async def killed(pair: Pair) -> str:
    name, first, second, later = pair.new_id(), Reading(), Reading(), Reading()
    tasks = [asyncio.create_task(pair.begin(name, first, chunks=200))]
    while len(first.words) < 3:
        await asyncio.sleep(PACE / 4)
    tasks.append(asyncio.create_task(pair.resume(name, second)))
    while len(second.words) < 10:
        await asyncio.sleep(PACE / 4)
    pair.kill()
    began = time.monotonic()
    await asyncio.gather(*tasks)
    took = time.monotonic() - began
    kept = len(second.words)
    await pair.resume(name, later)
    again = f"{min(len(later.words), kept)} of {kept}, {later.ending}" if later.words else f"nothing ({later.ending})"
    return f"reader: {second.ending} after {took:.1f} s; read again: {again}"


CASES: Final[dict[str, Callable[[Pair], Awaitable[str]]]] = {
    "second reader joins late, at the other process": late_reader,
    "first reader leaves, and returns at the other process": first_reader_leaves,
    "reconnects after each chunk": reconnects,
    "finished answer read again": finished,
    "cancel from the other process": cancelled,
    "process of the producer killed (SIGKILL)": killed,
}


async def compare(names: list[str]) -> None:
    for contender in contenders():
        if names and contender.name not in names:
            continue
        if missing := contender.absent():
            print(f"{contender.name}: left out, not installed: {missing}")
            continue
        print(contender.name)
        with started(contender) as pair:
            for title, case in CASES.items():
                print(f"  {title:56}{await case(pair)}", flush=True)
            await pair.client.aclose()
        await _clean_up(contender.prefix)


async def _clean_up(prefix: str) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(REDIS) as client:
        if keys := [key async for key in client.scan_iter(match=f"*{prefix}*", count=10_000)]:
            await client.delete(*keys)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contender", action="append", default=[], help="only this one")
    options, _ = parser.parse_known_args()
    asyncio.run(compare(options.contender))
