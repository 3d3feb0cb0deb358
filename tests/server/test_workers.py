"""Several workers: started, replaced, and ended with their parent, however it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from support.servers import START, TESTS, Connection, Program, free_port, until
from tickertape.server import listen
from tickertape.server.workers import LONGEST_PAUSE, pause_before


class Workers(Program):
    """Two workers of the application of ``support.worker_app``."""

    def __init__(self, folder: Path, kind: str = "steady") -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "support.worker_app", str(self.port), kind, str(folder)]
        super().__init__(command, {"PYTHONPATH": str(TESTS)})

    def pids(self) -> set[int]:
        """The processes that serve: the children, but for the one that multiprocessing has for itself."""
        children = psutil.Process(self.process.pid).children()
        return {child.pid for child in children if "spawn_main" in " ".join(child.cmdline())}

    async def stream(self) -> tuple[Connection, int]:
        """Open a stream, from whichever worker; return it with the worker's process."""
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
    """Tell whether the processes have ended; one that nobody has waited for yet has ended too."""

    def look() -> bool:
        living = [pid for pid in pids if psutil.pid_exists(pid)]
        return all(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in living)

    return look


def test_pauses_grow_up_to_a_limit() -> None:
    assert [pause_before(failures) for failures in range(5)] == [0, 0.25, 0.5, 1, 2]
    assert pause_before(8) == pause_before(10**9) == LONGEST_PAUSE


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers take connections from one socket")
def test_an_address_that_is_kept_for_workers_is_in_use_for_others() -> None:
    with listen("127.0.0.1", 0, workers=2) as keeper:
        address = keeper.getsockname()
        with socket.create_server(address, reuse_port=True), socket.create_server(address, reuse_port=True):
            for workers in (1, 2):
                with pytest.raises(OSError, match="in use"):
                    listen(*address, workers=workers)


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
async def test_a_signal_ends_the_streams_of_all_workers(number: int, group: bool, tmp_path: Path) -> None:
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
async def test_a_signal_during_the_start_ends_all(number: int, tmp_path: Path) -> None:
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


async def test_ctrl_c_again_kills_what_does_not_end(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as program, await Connection.open(program.port) as connection:
        await connection.ask("/stuck")
        await program.says("is stuck]")
        program.process.send_signal(signal.SIGINT)
        await program.says(" ends]")  # the other one
        await program.end(signal.SIGINT)
        assert program.process.returncode == 0
        assert program.output.count("killing workers that have not ended: worker ") == 1


async def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
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


async def test_a_worker_that_falls_again_and_again_is_started_at_growing_pauses(tmp_path: Path) -> None:
    async with two_workers(tmp_path, "falling") as program:
        killed, other = program.pids()
        os.kill(killed, signal.SIGKILL)
        await program.says(f"(pid {killed}) was killed by SIGKILL; starting another in 0.25 s")
        for pause in ("0.5", "1"):
            await program.says(f"ended with status 7; starting another in {pause} s", within=START)
        connection, answered = await program.stream()
        assert answered == other  # who has served all the time
        await connection.close()
        await program.end()
        assert program.process.returncode == 0
        assert program.output.count("starting another") == 3


async def test_a_worker_whose_loop_does_not_turn_is_killed(tmp_path: Path) -> None:
    async with two_workers(tmp_path, "impatient") as program:
        async with await Connection.open(program.port) as connection:
            await connection.ask("/stuck")
            await program.says("starting another", within=START)
        assert re.search(
            r"worker \d \(pid \d+\) was killed: its event loop has not run for \d s; starting", program.output
        )


async def test_a_program_none_of_whose_workers_can_start_ends_and_says_why(tmp_path: Path) -> None:
    program = Workers(tmp_path, "failing")
    try:
        await until(lambda: program.process.poll() is not None, lambda: f"an end, got:\n{program.output}", within=START)
        assert program.process.returncode == 1
        assert "RuntimeError: no way to start" in program.output
        assert program.output.endswith("not started\n")
        assert "started\n" not in program.output.removesuffix("not started\n")
    finally:
        program.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
async def test_sighup_replaces_workers_one_after_the_other(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as program:
        former = program.pids()
        connections = [await program.stream_of(pid) for pid in former]
        program.process.send_signal(signal.SIGHUP)
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


async def test_a_stopped_parent_stops_no_worker(tmp_path: Path) -> None:
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
