"""Fan-out: events to thousands of subscribers, beside a bare loop of writes and other ways to do it.

Each contender is a separate process; this one holds its subscribers, and reads when everything is written.
Deliveries a second and processor time of the server are for events that are published one by one, each
when the one before was written to everyone (but for ``direct-burst``, which does not wait). Ratios are
against the bare loop of the same run, at the same number of subscribers. Latencies are from publishing
to reading at five events a second; ``health`` is the longest wait of another request during that.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import resource
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import psutil

from .fanout_servers import END, RESUMABLE, SIZE

MANY: Final = 10_000
"""Subscribers of the main comparison."""

FEW: Final = 2_000
"""Subscribers for contenders that would take minutes with many."""

EVENTS: Final = {
    "bare": 30,
    "direct": 30,
    "direct-burst": 300,
    "portable": 20,
    "response": 20,
    "sse-starlette": 10,
    "fastapi": 5,
}
"""Events published to each contender, as many as it delivers in a few seconds."""

COMEBACK: Final = 1_000
BEHIND: Final = 100

PACE: Final = 0.2
PACED: Final = 25
PATIENCE: Final = 60.0

_BIND_ADDRESS_NO_PORT: Final = 24
"""IP_BIND_ADDRESS_NO_PORT of Linux: the port is chosen when the peer is known, which is quick with thousands in use."""

_OF_ONE_ADDRESS: Final = 5_000
"""Connections that come from one address to one port: a fifth of the ports there are, for they grow hard to find."""


@dataclass
class Result:
    """The figures of one contender at one number of subscribers."""

    name: str
    subscribers: int
    rate: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    latencies: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)


class Crowd:
    """Many subscribers of one server, read by one loop.

    Arguments:
        port: of the server.
        size: number of subscribers.
        last_event_id: the cursor of their requests.
        path: of the stream.
        source: the first three parts of the addresses that they connect from: an address has a limited number of ports.
    """

    def __init__(self, port: int, size: int, last_event_id: str = "", path: str = "/events", source: str = "") -> None:
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._unanswered = size
        self.received = 0
        self.latencies: list[float] = []
        self.measuring = False
        self.answered: dict[int, float] = {}  # the time of the response to another request, by descriptor
        for start in range(0, size, 100):
            for _ in range(min(100, size - start)):
                self._connect(port, last_event_id, path, source)
            self.read_for(0.001)

    def _connect(self, port: int, last_event_id: str, path: str, source: str) -> None:
        connection = socket.socket()
        connection.settimeout(PATIENCE)
        if source:
            connection.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            connection.bind((f"{source}.{1 + len(self._sockets) // _OF_ONE_ADDRESS}", 0))
        connection.connect(("127.0.0.1", port))
        more = f"last-event-id: {last_event_id}\r\n" if last_event_id else ""
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n".encode())
        connection.setblocking(False)
        self._sockets[connection.fileno()] = connection
        self._poll.register(connection.fileno(), select.EPOLLIN)

    def read_for(self, seconds: float) -> None:
        """Read for some seconds."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._read(left)

    def read_until(self, received: int) -> None:
        """Read until so many events were received in all."""
        until = time.monotonic() + PATIENCE
        while self.received < received:
            self._read(0.1)
            if time.monotonic() > until:
                raise TimeoutError(f"expected {received} events, got {self.received}")

    def read_until_answered(self, within: float) -> None:
        """Read until each has an answer, and so is subscribed."""
        until = time.monotonic() + within
        while self._unanswered:
            self._read(0.1)
            if time.monotonic() > until:
                raise TimeoutError(f"expected answers for all within {within:.0f} s, got none for {self._unanswered}")

    def _read(self, timeout: float) -> None:
        mark = END.encode()
        for descriptor, _ in self._poll.poll(timeout, 64):
            if descriptor not in self._sockets:
                self.answered[descriptor] = time.monotonic()
                self._poll.unregister(descriptor)
                continue
            data = self._sockets[descriptor].recv(262144)
            if not data:
                raise ConnectionError("expected an open stream, got its end")
            if data.startswith(b"HTTP/"):
                self._unanswered -= 1
            self.received += data.count(mark)
            if self.measuring and mark in data:
                moment = data[: data.rindex(mark)].rpartition(b"data: ")[2]
                self.latencies.append(time.monotonic() - float(moment))

    def watch(self, connection: socket.socket) -> None:
        """Record the time of a response on another connection."""
        self._poll.register(connection.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Close all connections."""
        self._poll.close()
        for connection in self._sockets.values():
            connection.close()


@contextlib.contextmanager
def server(name: str) -> Iterator[tuple[int, psutil.Process]]:
    """Run a contender while the block runs; give its port and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = subprocess.Popen([sys.executable, "-m", "bench.fanout_servers", name, str(port)])
    try:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                request(port, "/health")
                break
            time.sleep(0.05)
        yield port, psutil.Process(program.pid)
    finally:
        program.kill()
        program.wait()


def request(port: int, path: str) -> None:
    """Ask for ``path`` and wait for the answer."""
    with start_request(port, path) as connection:
        connection.recv(65536)


def start_request(port: int, path: str) -> socket.socket:
    """Ask for ``path``, and return the connection on which the answer will come."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
    return connection


def measure(name: str, subscribers: int, *, paced: bool) -> Result:
    """Run one contender with so many subscribers."""
    result = Result(name, subscribers)
    events = EVENTS[name]
    with server(name) as (port, process):
        warm = Crowd(port, 50)
        warm.read_for(0.2)
        with start_request(port, "/burst?n=3"):
            warm.read_until(150)
        before = process.memory_info().rss
        crowd = Crowd(port, subscribers)
        crowd.read_for(1.0)
        result.memory = (process.memory_info().rss - before) / 1024 / subscribers
        warm.close()
        crowd.read_for(0.3)

        spent = sum(process.cpu_times()[:2])
        start = time.monotonic()
        with start_request(port, f"/burst?n={events}") as burst:
            burst.recv(65536)  # reading earlier would measure the reader, which shares the machine
        result.rate = events * subscribers / (time.monotonic() - start)
        crowd.read_until(events * subscribers)
        result.cpu = (sum(process.cpu_times()[:2]) - spent) / (events * subscribers) * 1e6

        if paced:
            pace(port, crowd, subscribers, result)
        crowd.close()
    return result


def resume(name: str, clients: int, behind: int) -> float:
    """Reconnect clients at once, each so many events behind; return the seconds until all have caught up."""
    with server(name) as (port, _):
        with start_request(port, f"/burst?n={RESUMABLE}") as burst:
            burst.recv(65536)
        epoch = _epoch(port)
        best = float("inf")
        for _ in range(3):
            start = time.monotonic()
            crowd = Crowd(port, clients, f"{epoch}-{RESUMABLE - behind}")
            crowd.read_until(clients * behind)
            best = min(best, time.monotonic() - start)
            crowd.close()
        return best


def _epoch(port: int) -> str:
    """Return the epoch of a server's log, from the first id that it sends to a new client."""
    with start_request(port, "/events") as stream:
        stream.settimeout(1.0)
        text = b""
        with contextlib.suppress(TimeoutError):  # the bare loop sends none
            while b"\nretry: " not in text:
                text += stream.recv(65536)
    return text.partition(b"\nid: ")[2].partition(b"-")[0].decode() or "0123456789ab"


def pace(port: int, crowd: Crowd, subscribers: int, result: Result) -> None:
    """Publish slowly, and measure the delay of events and of other requests."""
    crowd.measuring = True
    crowd.received = 0
    for number in range(1, PACED + 1):
        start = time.monotonic()
        with start_request(port, "/burst?n=1"):
            crowd.read_until((number - 1) * subscribers + 1)  # the fan-out is running
            asked = time.monotonic()
            with start_request(port, "/health") as health:
                crowd.watch(health)
                crowd.read_until(number * subscribers)
                while health.fileno() not in crowd.answered:
                    crowd.read_for(0.01)
                result.health.append(crowd.answered.pop(health.fileno()) - asked)
        crowd.read_for(max(0.0, PACE - (time.monotonic() - start)))
    result.latencies = crowd.latencies


def percentile(values: list[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    return statistics.quantiles(values, n=1000)[int(share * 1000) - 1] if values else float("nan")


def table(results: list[Result]) -> None:
    """Print the figures, beside the bare loop at the same number of subscribers."""
    bare = {result.subscribers: result for result in results if result.name == "bare"}
    print(
        f"{'':16}{'subscribers':>12}{'deliveries/s':>14}{'of bare':>9}{'cpu us':>8}{'of bare':>9}{'KiB each':>10}",
        end="",
    )
    print(f"{'p50 ms':>9}{'p99 ms':>9}{'of bare':>9}{'health ms':>11}")
    for result in results:
        base = bare[result.subscribers]
        print(f"{result.name:16}{result.subscribers:12,}{result.rate:14,.0f}{result.rate / base.rate:9.2f}", end="")
        print(f"{result.cpu:8.2f}{result.cpu / base.cpu:9.2f}{result.memory:10.1f}", end="")
        if result.latencies:
            p50, p99 = (percentile(result.latencies, share) * 1000 for share in (0.5, 0.99))
            print(f"{p50:9.1f}{p99:9.1f}{p99 / (percentile(base.latencies, 0.99) * 1000):9.2f}", end="")
            print(f"{max(result.health) * 1000:11.1f}", end="")
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--few", type=int, default=FEW)
    parser.add_argument("--only", nargs="*", default=[])
    options, _ = parser.parse_known_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()
    print(f"events of {SIZE} bytes\n")
    many = [name for name in ("bare", "direct", "direct-burst", "portable") if not options.only or name in options.only]
    few = [name for name in EVENTS if not options.only or name in options.only]
    results = [measure(name, options.many, paced=True) for name in many]
    results += [measure(name, options.few, paced=False) for name in few]
    table(results)
    print(f"\n{COMEBACK:,} clients reconnect at once, each {BEHIND} events behind, until all have caught up:")
    bare = resume("bare", COMEBACK, BEHIND)
    for name in ("direct", "portable"):
        print(f"{name:16}{resume(name, COMEBACK, BEHIND) / bare:.2f} of the bare loop")


if __name__ == "__main__":
    main()
