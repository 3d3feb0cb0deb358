"""Clients that stay connected and do not read: their cost, and the delay of others."""

from __future__ import annotations

import gc
import resource
import socket
import time
from typing import Final

from .fanout import Crowd, percentile, request, server, start_request

READERS: Final = 1_000
STALLED: Final = 1_000
EVENTS: Final = 40
BACKLOG: Final = 30_000
"""Events published while the stalled clients do not read: about 5 MB for each with framing, more than sockets hold."""


def latencies(stalled: int) -> list[float]:
    """Return the seconds from publishing to reading for a thousand clients that read, beside some that do not."""
    with server("direct-burst") as (port, _):
        idle = stall(port, stalled)
        time.sleep(0.5)
        request(port, f"/burst?n={BACKLOG}")  # before the others connect: it fills the sockets of the stalled clients
        crowd = Crowd(port, READERS)
        crowd.read_for(0.5)
        crowd.measuring = True
        for _ in range(EVENTS):
            seen = crowd.received
            with start_request(port, "/burst?n=1"):
                crowd.read_until(seen + READERS)
        crowd.close()
        for connection in idle:
            connection.close()
        return crowd.latencies


def stall(port: int, count: int) -> list[socket.socket]:
    """Return clients that have asked for the stream and will never read it."""
    connections = []
    for _ in range(count):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n")
        connections.append(connection)
    return connections


def memory() -> float:
    """Return the KiB of server memory for each client that has stalled."""
    with server("direct-burst") as (port, process):
        request(port, f"/burst?n={BACKLOG}")  # the log itself, and the memory that publishing needs
        before = process.memory_info().rss
        idle = stall(port, STALLED)
        time.sleep(1)
        request(port, f"/burst?n={BACKLOG}")
        time.sleep(1)
        used = process.memory_info().rss - before
        for connection in idle:
            connection.close()
        return used / 1024 / STALLED


def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()
    alone, beside = latencies(0), latencies(1)
    for share in (0.5, 0.99):
        ratio = percentile(beside, share) / percentile(alone, share)
        print(f"p{share * 100:.0f} of {READERS:,} readers beside one that does not read: {ratio:.2f} of without it")
    print(f"{STALLED:,} clients that do not read, {BACKLOG:,} events behind: {memory():.1f} KiB each")


if __name__ == "__main__":
    main()
