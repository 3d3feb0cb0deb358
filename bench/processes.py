"""Servers in separate processes, for other benchmarks."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import psutil

PATIENCE: Final = 30.0


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is not in use."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    """Return when connections are accepted at ``port``."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


@contextlib.contextmanager
def running(command: Sequence[str], port: int) -> Iterator[psutil.Process]:
    """Run a server during the block, from its first answer at ``/health/ready``; then end it.

    Raises:
        TimeoutError: it does not answer.
    """
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                _request(port, "/health/ready")
                break
            if time.monotonic() > until or program.poll() is not None:
                raise TimeoutError(f"expected an answer of {command[0]} at port {port}, got none")
            time.sleep(0.05)
        yield psutil.Process(program.pid)
    finally:
        program.terminate()
        try:
            program.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(program.pid).children(recursive=True):
                child.kill()
            program.kill()
            program.wait()


def _request(port: int, path: str) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET", path, headers={"connection": "close"})
        connection.getresponse().read()


def workers_of(parent: psutil.Process, count: int) -> list[psutil.Process]:
    """Return the workers of ``tickertape serve``, when all of them listen.

    Raises:
        TimeoutError: some of them do not.
    """
    until = time.monotonic() + PATIENCE
    while True:
        found = [] if count > 1 else [parent]
        for child in parent.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()) and _listens(child):
                    found.append(child)
        if len(found) == count:
            return found
        if time.monotonic() > until:
            raise TimeoutError(f"expected {count} workers that listen, got {len(found)}")
        time.sleep(0.1)


def _listens(process: psutil.Process) -> bool:
    return any(each.status == psutil.CONN_LISTEN for each in process.net_connections())


def processor_time(process: int) -> float:
    """Return the seconds of processor time that a process has used, of all its threads.

    Linux counts nanoseconds; elsewhere the resolution is some milliseconds.
    """
    threads = Path(f"/proc/{process}/task").glob("*/schedstat")
    exact = [int(path.read_text().split()[0]) for path in threads]
    return sum(exact) / 1e9 if exact else sum(psutil.Process(process).cpu_times()[:2])
