"""Two workers that hold 30,000 subscriptions: more than one process may have descriptors for on many machines.

``tickertape serve --workers 2`` with its SQLite log, beside two bare loops of writes that hold as many
connections and know nothing of each other. Half of the subscribers are in each of two processes that
read. Events are published one by one, each when the one before was read by all, so that deliveries a
second are those of writers and readers on the same machine; processor time is the servers' alone.
Latencies are from before publishing to reading.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import http.client
import multiprocessing
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import psutil

from .fanout import PATIENCE, Crowd, percentile
from .fanout_servers import SIZE, TOPIC, event_data
from .processes import free_port, running, workers_of

SUBSCRIBERS: Final = 30_000
EVENTS: Final = 10
WORKERS: Final = 2

RESERVE: Final = 300
"""Descriptors of a process for other purposes, and for a worker that gets more than half of the connections."""

STARTS: Final = 300.0
"""Seconds that all subscribers may take to connect, also on a busy machine."""

_SPAWN: Final = multiprocessing.get_context("spawn")


class Contender(NamedTuple):
    """A server: a port for each half of the subscribers, its processes, and a function that publishes an event."""

    ports: tuple[int, int]
    processes: list[psutil.Process]
    publish: Callable[[], None]


@dataclass
class Result:
    """The figures of one contender."""

    name: str
    held: list[int] = field(default_factory=list)
    received: int = 0
    rate: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    latencies: list[float] = field(default_factory=list)


# The subscribers


class Readers:
    """A crowd in a separate process, controlled by messages."""

    def __init__(self, port: int, size: int, path: str, source: str) -> None:
        self.size = size
        self._pipe, pipe = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_read, args=(pipe, port, size, path, source))
        self._process.start()
        pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()

    def ask(self, received: int) -> None:
        """Start reading until each has received so many events."""
        self._pipe.send(received * self.size)

    def answer(self, within: float = PATIENCE) -> Any:
        """Wait until they have; return the number of received events, and the latencies."""
        if not self._pipe.poll(within + 5):
            raise TimeoutError(f"expected {self.size} readers to be done within {within:.0f} s, got nothing")
        return self._pipe.recv()


def _read(pipe: Connection, port: int, size: int, path: str, source: str) -> None:
    gc.disable()
    crowd = Crowd(port, size, path=path, source=source)
    crowd.read_until_answered(STARTS)
    crowd.measuring = True
    pipe.send((crowd.received, []))
    with contextlib.suppress(EOFError):
        while True:
            crowd.read_until(pipe.recv())
            pipe.send((crowd.received, crowd.latencies))


# The contenders


@contextlib.contextmanager
def workers() -> Iterator[Contender]:
    """Run the hub with its workers."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        program = Path(sys.executable).with_name("tickertape")
        broker = f"sqlite:///{folder}/log.db"
        options = (
            "--port",
            str(port),
            "--workers",
            str(WORKERS),
            "--broker",
            broker,
            "--drain-window",
            "0",
            "--log-level",
            "warning",
        )
        with running([str(program), "serve", *options], port) as parent:
            yield Contender((port, port), workers_of(parent, WORKERS), lambda: _publish(port))


@contextlib.contextmanager
def bare() -> Iterator[Contender]:
    """Run a bare loop for each half."""
    ports = (free_port(), free_port())
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-m", "bench.fanout_servers", "bare"]
        processes = [stack.enter_context(running([*command, str(port)], port)) for port in ports]
        yield Contender(ports, processes, lambda: _burst(ports))


def _publish(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("POST", f"/events/{TOPIC}", event_data(), {"connection": "close"})
    answer = connection.getresponse()
    if answer.status != 201:
        raise ConnectionError(f"expected the event to be stored, got {answer.status}: {answer.read(300)!r}")
    connection.close()


def _burst(ports: tuple[int, int]) -> None:
    for connection in [_ask(port, "/burst?n=1") for port in ports]:
        with connection:
            connection.recv(1000)


def _ask(port: int, path: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    return connection


# The measurement


def measure(name: str, contender: Contender, subscribers: int, events: int) -> Result:
    """Connect the subscribers to a contender, and publish the events."""
    result = Result(name)
    size = subscribers // 2
    time.sleep(0.5)  # the connections of readiness checks are closed by then
    before = [(process.num_fds(), process.memory_info().rss) for process in contender.processes]
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(Readers(port, size, f"/events?topic={TOPIC}", f"127.0.{1 + half}"))
            for half, port in enumerate(contender.ports)
        ]
        for each in readers:
            each.answer(STARTS)
        now = [(process.num_fds(), process.memory_info().rss) for process in contender.processes]
        result.held = [after[0] - first[0] for first, after in zip(before, now, strict=True)]
        result.memory = sum(after[1] - first[1] for first, after in zip(before, now, strict=True)) / 1024 / subscribers

        _round(contender, readers, 1)  # warm up
        spent, start = _spent(contender), time.monotonic()
        for number in range(2, events + 2):
            answers = _round(contender, readers, number)
        result.rate = events * 2 * size / (time.monotonic() - start)
        result.cpu = (_spent(contender) - spent) / (events * 2 * size) * 1e6
        result.received = sum(received for received, _ in answers) - 2 * size
        result.latencies = [latency for _, latencies in answers for latency in latencies[size:]]
    return result


def _round(contender: Contender, readers: list[Readers], number: int) -> list[Any]:
    for each in readers:
        each.ask(number)
    contender.publish()
    return [each.answer() for each in readers]


def _spent(contender: Contender) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in contender.processes)


def table(results: list[Result], subscribers: int, events: int) -> None:
    """Print the figures, beside the bare loops."""
    base = results[0]
    print(f"{'':12}{'held by each':>18}{'events read':>14}{'deliveries/s':>14}{'of bare':>9}{'cpu us':>8}", end="")
    print(f"{'of bare':>9}{'KiB each':>10}{'p50 ms':>9}{'of bare':>9}{'p99 ms':>9}{'of bare':>9}")
    for result in results:
        held = " + ".join(f"{count:,}" for count in result.held)
        print(
            f"{result.name:12}{held:>18}{result.received:14,}{result.rate:14,.0f}{result.rate / base.rate:9.2f}", end=""
        )
        print(f"{result.cpu:8.2f}{result.cpu / base.cpu:9.2f}{result.memory:10.1f}", end="")
        for share in (0.5, 0.99):
            latency = percentile(result.latencies, share)
            print(f"{latency * 1000:9.1f}{latency / percentile(base.latencies, share):9.2f}", end="")
        print()
    print(f"\nexpected: {subscribers:,} held, {subscribers * events:,} events read")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscribers", type=int, default=SUBSCRIBERS)
    parser.add_argument("--events", type=int, default=EVENTS)
    options, _ = parser.parse_known_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = 2 * (hard - RESERVE)
    if options.subscribers > most:
        print(f"expected descriptors for {options.subscribers:,} subscribers, got {hard:,} a process (ulimit -Hn)")
        options.subscribers = most
    print(f"{options.subscribers:,} subscribers, events of {SIZE} bytes, at most {hard:,} descriptors a process\n")
    results = []
    for name, contender in (("two loops", bare), ("two workers", workers)):
        with contender() as running:
            results.append(measure(name, running, options.subscribers, options.events))
    table(results, options.subscribers, options.events)


if __name__ == "__main__":
    main()
