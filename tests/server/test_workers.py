"""Several workers: started, replaced, and ended with their parent, even if it is killed."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.servers import START, TESTS, Connection, Program, free_port, until
from tickertape.server import NotStartedError, listen
from tickertape.server.workers import HUNG, LONGEST_PAUSE, Job, Supervisor, pause_before


class Workers(Program):
    """Two workers of the application of ``support.worker_app``."""

    def __init__(self, folder: Path, kind: str = "steady") -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "support.worker_app", str(self.port), kind, str(folder)]
        super().__init__(command, {"PYTHONPATH": str(TESTS)})

    def pids(self) -> set[int]:
        """The processes that serve: the children, except the helper of multiprocessing."""
        found = set()
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # it has just ended
                if "spawn_main" in " ".join(child.cmdline()):
                    found.add(child.pid)
        return found

    async def stream(self) -> tuple[Connection, int]:
        """Open a stream of any worker; return it with the worker's process."""
        connection = await Connection.open(self.port)
        assert await connection.get("/") == 200
        return connection, int((await connection.event()).data or "")

    async def stream_of(self, pid: int) -> Connection:
        """Open a stream of one worker."""
        while True:
            connection, answered = await self.stream()
            if answered == pid:
                return connection
            await connection.close()


@asynccontextmanager
async def two_workers(folder: Path, kind: str = "steady") -> AsyncIterator[Workers]:
    program = Workers(folder, kind)
    try:
        await program.says("started", within=START)
        yield program
    finally:
        program.close()


def gone(pids: set[int]) -> Callable[[], bool]:
    """Return a function that returns True when the processes have ended, as zombies too."""

    def look() -> bool:
        living = [pid for pid in pids if psutil.pid_exists(pid)]
        return all(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in living)

    return look


def test_pauses() -> None:
    assert [pause_before(failures) for failures in range(5)] == [0, 0.25, 0.5, 1, 2]
    assert pause_before(8) == pause_before(10**9) == LONGEST_PAUSE


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers take connections from one socket")
def test_kept_address_is_in_use() -> None:
    with listen("127.0.0.1", 0, workers=2) as keeper:
        address = keeper.getsockname()
        with socket.create_server(address, reuse_port=True), socket.create_server(address, reuse_port=True):
            for workers in (1, 2):
                with pytest.raises(OSError, match="in use"):
                    listen(*address, workers=workers)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers take connections from one socket")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_worker_that_starts_gets_no_connections(host: str) -> None:
    keeper = listen(host, 0, workers=2)
    address = keeper.getsockname()[:2]
    with Job(factory=lambda: None, listener=keeper, grace=1, access_log=False).bind() as own:  # type: ignore[arg-type, return-value]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        own.listen()
        socket.create_connection(address).close()


class FakeProcess:
    """A process that lives until it is killed, or even longer."""

    def __init__(self, *, immortal: bool = False) -> None:
        self.sentinel = 0
        self.exitcode: int | None = None
        self.killed = False
        self.immortal = immortal

    def is_alive(self) -> bool:
        return self.exitcode is None

    def kill(self) -> None:
        self.killed = True
        if not self.immortal:
            self.exitcode = -signal.SIGKILL

    def join(self, timeout: float | None = None) -> None:
        assert self.exitcode is not None or timeout is not None, "would wait without end"


class FakeWorker:
    """A worker without a process; it serves from its first check on, and is silent later."""

    def __init__(self, name: str, *, immortal: bool = False) -> None:
        self.name = name
        self.process = FakeProcess(immortal=immortal)
        self.served_since: float | None = None
        self.silence = 0.0
        self.stopped = False

    def __str__(self) -> str:
        return self.name

    def listen(self, elapsed: float) -> None:
        self.silence += elapsed
        if self.served_since is None:
            self.served_since = 0.0

    def stop(self) -> None:
        self.stopped = True

    def reap(self, timeout: float | None = None) -> int | None:
        self.process.join(timeout)
        return self.process.exitcode


class Parent:
    """A supervisor of two workers; the system may refuse to start further processes."""

    def __init__(self) -> None:
        self.refusing = False
        self.started: list[FakeWorker] = []
        self.notes: list[str] = []
        self.immortal = False
        job: Any = None
        on_start = functools.partial(self.notes.append, "started")
        self.supervisor = Supervisor(job, 2, on_start=on_start, start=self.start)  # type: ignore[arg-type]

    def start(self, job: Job, name: str) -> FakeWorker:
        if self.refusing:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        self.started.append(FakeWorker(name, immortal=self.immortal))
        return self.started[-1]

    def turn(self, now: float, elapsed: float = 0.0) -> None:
        self.supervisor.fill(now)
        self.supervisor.check(now, elapsed)


def test_failed_fork_leaves_the_workers_alone(caplog: pytest.LogCaptureFixture) -> None:
    parent = Parent()
    parent.turn(0)
    one, two = parent.started
    one.process.exitcode = 1
    parent.refusing = True
    parent.turn(10)  # has served long enough, and is replaced at once
    for now in (10.1, 10.2, 10.4, 10.6, 10.8):
        parent.turn(now)
    attempts = [record.getMessage() for record in caplog.records if "cannot start" in record.getMessage()]
    assert attempts == [
        "cannot start worker 1: [Errno 11] Resource temporarily unavailable; next attempt in 0.25 s",
        "cannot start worker 1: [Errno 11] Resource temporarily unavailable; next attempt in 0.5 s",
    ]
    assert not two.process.killed
    parent.refusing = False
    parent.turn(100)
    assert [worker.name for worker in parent.started] == ["worker 1", "worker 2", "worker 1"]
    parent.supervisor.close()


def test_failed_fork_of_a_successor(caplog: pytest.LogCaptureFixture) -> None:
    parent = Parent()
    parent.turn(0)
    parent.refusing = True
    parent.supervisor.replace_all()
    parent.turn(1)
    parent.turn(2)
    assert caplog.messages == [
        (
            "cannot start a successor of worker 1: [Errno 11] Resource temporarily unavailable; "
            "the workers are not replaced"
        )
    ]
    assert [worker.stopped or worker.process.killed for worker in parent.started] == [False, False]
    parent.supervisor.close()


def test_failed_forks_at_the_start() -> None:
    parent = Parent()
    parent.refusing = True
    with pytest.raises(NotStartedError):
        parent.turn(0)
    parent.supervisor.close()


def test_process_that_cannot_be_killed(caplog: pytest.LogCaptureFixture) -> None:
    """A process in an uninterruptible system call: its place is filled, and the end does not wait for it."""
    parent = Parent()
    parent.immortal = True
    parent.turn(0)
    parent.immortal = False
    parent.turn(10, elapsed=HUNG + 1)
    parent.turn(10.1)
    assert all(worker.process.killed for worker in parent.started[:2])
    assert [worker.name for worker in parent.started] == ["worker 1", "worker 2"] * 2
    parent.supervisor.close()
    assert caplog.messages[-2:] == [f"worker {number} was killed, but has not ended within 5 s" for number in (1, 2)]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers take connections from one socket")
async def test_connections_are_spread_evenly(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as program, AsyncExitStack() as stack:
        pids = []
        for _ in range(200):
            connection, pid = await program.stream()
            await stack.enter_async_context(connection)
            pids.append(pid)
        assert {*pids} == program.pids()
        assert min(pids.count(pid) for pid in {*pids}) > 60  # six standard deviations below the half


@pytest.mark.parametrize("group", [False, True], ids=["the parent", "the group, as a terminal does"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal(number: int, group: bool, tmp_path: Path) -> None:
    async with two_workers(tmp_path) as program:
        pids = program.pids()
        connections = [await program.stream_of(pid) for pid in pids]
        if group:
            os.killpg(program.process.pid, number)
            await until(
                lambda: program.process.poll() is not None, lambda: f"an exit, got:\n{program.output}", within=START
            )
        else:
            await program.end(number)
        for connection in connections:
            await connection.rest()
            assert connection.complete
            await connection.close()
        assert program.process.returncode == 0
        assert {f"[{pid} ends]" in program.output for pid in pids} == {True}
        assert "Traceback" not in program.output
        assert "WARNING" not in program.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_during_the_start(number: int, tmp_path: Path) -> None:
    program = Workers(tmp_path)
    try:
        await until(lambda: len(program.pids()) == 2, lambda: f"two processes, got:\n{program.output}", within=START)
        os.killpg(program.process.pid, number)
        await until(
            lambda: program.process.poll() is not None, lambda: f"an exit, got:\n{program.output}", within=START
        )
        assert program.process.returncode == 0
        assert "Traceback" not in program.output
        assert "WARNING" not in program.output
    finally:
        program.close()


async def test_second_ctrl_c(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as program, await Connection.open(program.port) as connection:
        await connection.ask("/stuck")
        await program.says("is stuck]")
        program.process.send_signal(signal.SIGINT)
        await program.says(" ends]")  # the other one
        await program.end(signal.SIGINT)
        assert program.process.returncode == 0
        assert program.output.count("killing workers that have not ended: worker ") == 1


async def test_killed_parent(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as program:
        pids = program.pids()
        assert len(pids) == 2
        connections = [await program.stream_of(pid) for pid in pids]
        program.process.kill()
        for connection in connections:
            await connection.rest()
            assert connection.complete
            await connection.close()
        await until(gone(pids), lambda: f"workers that end, got:\n{program.output}", within=START)
        assert {f"[{pid} ends]" in program.output for pid in pids} == {True}


async def test_failing_worker(tmp_path: Path) -> None:
    async with two_workers(tmp_path, "falling") as program:
        killed, other = program.pids()
        os.kill(killed, signal.SIGKILL)
        await program.says(f"(pid {killed}) was killed by SIGKILL; starting another in 0.25 s")
        for pause in ("0.5", "1"):
            await program.says(f"ended with status 7; starting another in {pause} s", within=START)
        connection, answered = await program.stream()
        assert answered == other  # the worker that has served all the time
        await connection.close()
        await program.end()
        assert program.process.returncode == 0
        assert program.output.count("starting another") == 3


async def test_hung_worker(tmp_path: Path) -> None:
    async with two_workers(tmp_path, "impatient") as program:
        async with await Connection.open(program.port) as connection:
            await connection.ask("/stuck")
            await program.says("starting another", within=START)
        assert re.search(
            r"worker \d \(pid \d+\) was killed: its event loop has not run for \d s; starting", program.output
        )


async def test_no_worker_starts(tmp_path: Path) -> None:
    program = Workers(tmp_path, "failing")
    try:
        await until(lambda: program.process.poll() is not None, lambda: f"an end, got:\n{program.output}", within=START)
        assert program.process.returncode == 1
        assert "RuntimeError: no way to start" in program.output
        assert program.output.endswith("not started\n")
        assert "started\n" not in program.output.removesuffix("not started\n")
    finally:
        program.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGUSR1")
async def test_replacing_all(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as program:
        former = program.pids()
        connections = [await program.stream_of(pid) for pid in former]
        program.process.send_signal(signal.SIGUSR1)
        reading = [asyncio.create_task(connection.rest()) for connection in connections]
        await until(
            lambda: all(task.done() for task in reading),
            lambda: f"streams to end, got:\n{program.output}",
            within=START,
        )
        assert all(connection.complete for connection in connections)
        for connection in connections:
            await connection.close()
        await until(gone(former), lambda: f"the former workers to end, got:\n{program.output}", within=START)
        later = program.pids()
        assert len(later) == 2
        assert not later & former
        assert program.output.count("has taken over") == 2
        await program.end()
        assert program.process.returncode == 0


async def test_stopped_parent(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as program:
        pids = program.pids()
        program.process.send_signal(signal.SIGSTOP)
        connection, answered = await program.stream()
        assert answered in pids
        await connection.close()
        program.process.send_signal(signal.SIGCONT)
        await program.end()
        assert program.process.returncode == 0
        assert "was killed" not in program.output
