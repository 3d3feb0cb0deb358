"""Servers in separate processes, for other benchmarks."""

from __future__ import annotations

import socket
import time
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


def processor_time(process: int) -> float:
    """Return the seconds of processor time that a process has used, of all its threads.

    Linux counts nanoseconds; elsewhere the resolution is some milliseconds.
    """
    threads = Path(f"/proc/{process}/task").glob("*/schedstat")
    exact = [int(path.read_text().split()[0]) for path in threads]
    return sum(exact) / 1e9 if exact else sum(psutil.Process(process).cpu_times()[:2])
