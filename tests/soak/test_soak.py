"""Everything is killed at random while events flow: each is delivered once, or declared by a gap.

``make soak`` runs it for ten minutes on all durable brokers. ``SECONDS``, ``SEED`` and ``BROKERS`` are its settings.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from playwright.async_api import Browser

from faults.servers import Servers
from soak.account import Account, Book
from soak.clients import Client, Listener, Ours, Tab
from soak.resources import MIB, Sample, grown_files, most_used, resource_faults
from support.command import SCRIPT
from support.network import network_to
from support.npm import installed
from support.servers import START, Program, free_port, until
from tickertape.client import Publisher
from tickertape.wire import Cursor

pytestmark = pytest.mark.asyncio(loop_scope="session")

HERE: Final = Path(__file__).parent
BROKERS: Final = os.environ.get("SOAK_BROKERS", "sqlite redis-durable").split()
SECONDS: Final = float(os.environ.get("SOAK_SECONDS", "60")) / len(BROKERS)
SEED: Final = int(os.environ.get("SOAK_SEED", "1"))

PATIENCE: Final = 60.0
"""Seconds in which all clients must get the last event, on a busy machine."""

KEPT: Final = 200
"""Events in the log. A client that is away for longer gets a gap."""


AGE: Final = 3_600
"""Seconds for which events are kept: the clock moves by more."""

SLACK: Final = {"sqlite": 2 * MIB, "postgres": 8 * MIB, "nats": 8 * MIB, "redis-durable": 64 * MIB}
"""Bytes by which the files of a log may grow from the second third of a run to the last. Redis rewrites its file at 64
MiB."""


class WallClock:
    """The clock of the hub's processes, which moves if there is a compiler to build the library that they preload."""

    def __init__(self, folder: Path) -> None:
        self.env: dict[str, str] = {}
        self._file = folder / "offset"
        self._file.write_bytes(bytes(8))
        if (compiler := shutil.which("cc")) and sys.platform == "linux":
            library = folder / "clock.so"
            subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "clock.c", "-ldl"], check=True)
            self.env = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(self._file)}

    def move(self, seconds: int) -> None:
        """Set it to so many seconds after the real time, or before it."""
        with self._file.open("r+b") as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


class Hub:
    """``tickertape serve --workers 2`` at one port, started again after it was killed."""

    def __init__(self, broker: str, folder: Path) -> None:
        self.clock = WallClock(folder)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        options = (
            "--workers",
            "2",
            "--retry",
            "0.5",
            "--heartbeat",
            "1",
            "--retention-events",
            str(KEPT),
            "--retention-age",
            str(AGE),
        )
        self._command = [SCRIPT, "serve", "--port", str(self.port), "--broker", broker, "--cors-origin", "*", *options]
        self._folder = str(folder)
        self._program: Program | None = None
        self.failed: list[str] = []

    @property
    def pid(self) -> int:
        """The process of the supervisor."""
        assert self._program is not None
        return self._program.process.pid

    def workers(self) -> list[int]:
        """The processes that serve."""
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.pid).children()
            return sorted(child.pid for child in children if "spawn_main" in " ".join(child.cmdline()))
        return []

    async def start(self) -> None:
        """Start it, and return when it has reported its start.

        If all workers were killed before one has served, the program would end, as it should: a service manager
        starts it again.
        """
        program = self._program = Program(self._command, self.clock.env, folder=self._folder)
        await program.says("To stop", within=START)

    def kill(self, *, group: bool) -> None:
        """Kill the supervisor, and its workers if ``group`` is true; else they must end by themselves."""
        assert self._program is not None
        workers = [psutil.Process(pid) for pid in self.workers()]
        if not group:
            self._program.process.kill()
            self._program.process.wait()
            _, alive = psutil.wait_procs(workers, timeout=PATIENCE)
            if alive:
                self.failed.append(f"workers {alive} outlive their supervisor")
        if "Traceback" in self._program.output:
            self.failed.append(self._program.output[self._program.output.index("Traceback") :][:2_000])
        self._program.close()


class Soak:
    """One run on one broker.

    Arguments:
        clients: those that are hit at random.
        away: a client that is away so long that it gets gaps.
        files: the path of the log: a file, or a folder with all of its files.

    Attributes:
        done: the number of times that each part was hit.
        samples: memory, descriptors and threads of each process, once a second.
        sizes: bytes of the files of the log, once a second.
        balanced: whether the book was balanced: not if the run failed before.
    """

    def __init__(self, hub: Hub, rng: random.Random, clients: list[Client], away: Client, files: Path) -> None:
        self.hub = hub
        self.rng = rng
        self.clients = clients
        self.away = away
        self.files = files
        self.sizes: list[int] = []
        self.all_clients = [*clients, away]
        self.book = Book()
        self.balanced = False
        self.done: Counter[str] = Counter()
        self.samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)
        self._publishers: dict[str, Program] = {}
        self._started = 0

    def start_publisher(self) -> None:
        """Start a publisher with another name."""
        self._started += 1
        name = f"p{self._started}"
        command = [sys.executable, str(HERE / "publish.py"), self.hub.url, name, str(self.rng.random())]
        self._publishers[name] = Program(command)

    async def end_publisher(self, name: str, number: int) -> None:
        """End a publisher by a signal, and enter what it has printed."""
        program = self._publishers.pop(name)
        program.process.send_signal(number)
        await until(lambda: program.process.poll() is not None, lambda: f"the end of {name}", within=PATIENCE)
        self.book.read(program.output)
        program.close()

    async def kill_publisher(self) -> None:
        """Kill a publisher, and start another."""
        await self.end_publisher(self.rng.choice(sorted(self._publishers)), signal.SIGKILL)
        self.start_publisher()

    async def end_publishers(self) -> None:
        """End each publisher after an acknowledgement."""
        for name in sorted(self._publishers):
            await self.end_publisher(name, signal.SIGTERM)

    def close(self) -> None:
        """End the publishers that are left."""
        for program in self._publishers.values():
            program.close()

    async def kill_worker(self) -> None:
        """Kill a worker."""
        if workers := self.hub.workers():
            os.kill(self.rng.choice(workers), signal.SIGKILL)

    async def stop_worker(self) -> None:
        """Stop a worker for a while."""
        if workers := self.hub.workers():
            await self._stop(self.rng.choice(workers))

    async def stop_supervisor(self) -> None:
        """Stop the supervisor for a while."""
        await self._stop(self.hub.pid)

    async def stop_publisher(self) -> None:
        """Stop a publisher for a while."""
        await self._stop(self._publishers[self.rng.choice(sorted(self._publishers))].process.pid)

    async def _stop(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(self.rng.random() * 2)
            os.kill(pid, signal.SIGCONT)

    async def kill_supervisor(self) -> None:
        """Kill the supervisor alone, and start the program again when the workers have ended."""
        await asyncio.to_thread(self.hub.kill, group=False)
        await self.hub.start()

    async def kill_everything(self) -> None:
        """Kill all processes of the hub, and start it again."""
        self.hub.kill(group=True)
        await asyncio.sleep(self.rng.random())
        await self.hub.start()

    async def move_clock(self) -> None:
        """Move the wall clock of the hub forwards or backwards, by up to three times the age of the oldest events."""
        self.hub.clock.move(self.rng.randrange(-3 * AGE, 3 * AGE))

    async def kill_client(self) -> None:
        """End a client without a word, and let it resume after a while."""
        client = self.rng.choice(self.clients)
        await client.vanish()
        await asyncio.sleep(self.rng.random() * 2)
        await client.start()

    async def miss_events(self, client: Client, other: Client) -> None:
        """Keep a client away until it must get a gap, by the events of another, and let it resume; again and again."""
        while True:
            await asyncio.sleep(2)
            await client.vanish()
            upto = _offset(client) + 2 * KEPT
            while _offset(other) < upto:  # noqa: ASYNC110 - it is appended by other processes
                await asyncio.sleep(0.1)
            await client.start()
            self.done["client away"] += 1

    async def sample(self) -> None:
        """Record the resources of all processes."""
        while True:
            workers = [("worker", pid) for pid in self.hub.workers()]
            for kind, pid in [("supervisor", self.hub.pid), *workers]:
                with suppress(psutil.Error):
                    process = psutil.Process(pid)
                    with process.oneshot():
                        found = Sample(process.memory_info().rss, process.num_fds(), process.num_threads())
                    self.samples[kind, pid].append(found)
            self.sizes.append(_size_of(self.files))
            await asyncio.sleep(1)


def _offset(client: Client) -> int:
    cursor = Cursor.parse(client.account.last)
    assert cursor is not None
    return cursor.offset


def _size_of(path: Path) -> int:
    """Return the bytes of a file with those beside it, or of a folder."""
    size = 0
    for file in path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*"):
        with suppress(FileNotFoundError):  # it was removed in the meantime
            size += file.stat().st_size
    return size


async def run_soak(soak: Soak, seconds: float, actions: list[tuple[str, Callable[[], Awaitable[None]]]]) -> None:
    """Do something bad again and again, then wait until every client has the last event, and balance the book."""
    tasks = [asyncio.create_task(soak.sample())]
    try:
        for _ in range(2):
            soak.start_publisher()
        for client in soak.all_clients:
            await client.start()
        missing = asyncio.create_task(soak.miss_events(soak.away, soak.clients[0]))
        tasks.append(missing)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(soak.rng.random())
            name, action = soak.rng.choice(actions)
            await action()
            soak.done[name] += 1
        await until(lambda: soak.done["client away"] > 0, lambda: f"{2 * KEPT} events", within=PATIENCE)
        missing.cancel()
        await asyncio.wait([missing])
        await soak.away.vanish()
        await soak.away.start()
        await soak.end_publishers()
        async with Publisher(soak.hub.url, max_attempts=None, max_delay=0.3) as publisher:
            soak.book.topics["the end"] = "always/end"
            soak.book.enter("the end", await publisher.publish("always/end", "the end"))
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for client in soak.all_clients:
                await client.read()
            if all(client.account.items and client.account.items[-1].data == "the end" for client in soak.all_clients):
                break
            await asyncio.sleep(0.2)
    finally:
        for task in tasks:
            task.cancel()
        for client in soak.all_clients:
            await client.vanish()
        soak.close()
    for client in soak.all_clients:
        client.account.balance(soak.book, complete=True)
    soak.book.faults += soak.hub.failed
    soak.balanced = True


@pytest.mark.parametrize("kind", BROKERS)
async def test_soak(kind: str, servers: Servers, browser: Browser, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    rng = random.Random(f"{SEED} {kind}")
    folder = tmp_path / "npm"
    folder.mkdir()
    (folder / "node_modules").symlink_to(installed(pytestconfig) / "node_modules")
    shutil.copy(HERE / "listen.mjs", folder)
    with ExitStack() as stack:
        log = None if kind == "sqlite" else stack.enter_context(servers.log(kind))
        url = f"sqlite:///{tmp_path / 'log.db'}" if log is None else log.url
        hub = Hub(url, tmp_path)
        await hub.start()
        stack.callback(lambda: hub.kill(group=True))
        async with network_to(hub.url) as network, Publisher(hub.url) as publisher:
            start = await publisher.publish("start", "")
            context = await browser.new_context()
            everything = ("always/*", "t/*")

            def account(name: str, *patterns: str, further: tuple[str, ...] = ()) -> Account:
                return Account(name, patterns, start, further)

            def own(number: int) -> random.Random:
                return random.Random(f"{SEED} {kind} {number}")  # the order of what is done depends on the seed alone

            clients: list[Client] = [
                Ours(account("ours 1", *everything), hub.url, own(1)),
                Ours(account("ours 2", "always/*", "t/1"), network.url, own(2)),
                Ours(account("ours, changing 1", "always/*", further=("t/*",)), hub.url, own(3), changing=True),
                Ours(account("ours, changing 2", "always/*", further=("t/*",)), network.url, own(4), changing=True),
                Listener(account("ours, killed", *everything), network.url, sys.executable, str(HERE / "listen.py")),
                Listener(account("npm 1", *everything), hub.url, "node", str(folder / "listen.mjs")),
                Listener(account("npm 2", "always/*"), network.url, "node", str(folder / "listen.mjs")),
                Tab(account("chromium", *everything), hub.url, context),
            ]
            away = Ours(account("ours, away", *everything), hub.url, own(5))
            soak = Soak(hub, rng, clients, away, tmp_path / "log.db" if log is None else log.server.files)

            async def cut() -> None:
                network.cut()
                await asyncio.sleep(rng.random())
                network.restore()

            async def slow() -> None:
                network.delay = 0.2 * rng.random()
                await asyncio.sleep(rng.random() * 2)
                network.delay = 0

            async def break_server() -> None:
                assert log is not None
                if rng.random() < 0.5:
                    log.server.signal(signal.SIGKILL)
                    await asyncio.sleep(rng.random())
                    await asyncio.to_thread(log.server.start)
                else:
                    log.server.signal(signal.SIGSTOP)
                    await asyncio.sleep(rng.random() * 2)
                    log.server.signal(signal.SIGCONT)

            actions: list[tuple[str, Callable[[], Awaitable[None]]]] = [
                ("worker killed", soak.kill_worker),
                ("worker stopped", soak.stop_worker),
                ("supervisor killed", soak.kill_supervisor),
                ("supervisor stopped", soak.stop_supervisor),
                ("publisher stopped", soak.stop_publisher),
                ("hub killed", soak.kill_everything),
                ("client killed", soak.kill_client),
                ("client killed", soak.kill_client),
                ("publisher killed", soak.kill_publisher),
                ("network cut", cut),
                ("network slow", slow),
            ]
            if hub.clock.env:
                actions.append(("clock moved", soak.move_clock))
            if log is not None:
                actions.append(("server broken", break_server))
            try:
                await run_soak(soak, SECONDS, actions)
            finally:
                report(kind, soak)
            await context.close()
        assert not soak.book.faults, f"run it again with SEED={SEED} BROKERS={kind}:\n" + "\n".join(
            soak.book.faults[:20]
        )
        assert soak.book.counts["delivered"] > 50
        assert soak.book.counts["gaps, expired"] > 0, "no client got a gap: its account is not tested"


def report(kind: str, soak: Soak) -> None:
    """Print a row of the table."""
    soak.book.faults += resource_faults(soak.samples) + grown_files(soak.sizes, SLACK[kind])
    most = most_used(soak.samples)
    acknowledged = sum(len(log) for log in soak.book.acknowledged.values())
    counts: dict[str, Any] = {
        "acknowledged": acknowledged,
        "clients": len(soak.all_clients),
        "delivered": soak.book.counts["delivered"],
        "gaps": sum(count for name, count in soak.book.counts.items() if name.startswith("gaps")),
        "declared": soak.book.counts["declared"],
        "neither": len(soak.book.faults) if soak.balanced else "unknown",
        **dict(sorted(soak.done.items())),
        "MiB": most.memory // MIB,
        "MiB of files": round(max(soak.sizes, default=0) / MIB, 1),
        "descriptors": most.descriptors,
        "threads": most.threads,
    }
    print(f"\n{kind}, seed {SEED}: " + ", ".join(f"{value} {name}" for name, value in counts.items()))  # noqa: T201
