"""Measure ``tickertape serve`` with so many workers and connections, up to the loss of a worker."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from ..pages import HOME
from ..processes import free_port, processor_time, running, workers_of
from ..reader import Publisher, Reader, compile_reader, last_id

TOPIC: Final = "scale"

SIZE: Final = 120
"""Bytes of an event."""

PER_READER: Final = 17_000
"""Connections of a process that reads. Its descriptors must suffice for them."""

ADDRESSES: Final = 10
"""Addresses of the loopback interface for each process that reads."""

NEEDED: Final = 40 * 1024
"""Bytes of free memory that a connection needs on the machine that has both ends; a third of it was measured."""

MISSED: Final = 5
"""Events that the clients of a lost worker have missed when they return."""

AWAY: Final = 3.0
"""Seconds after which they return: the ``retry`` of the server."""

ATTEMPTS: Final = 20
"""Times that a client of a lost worker tries to connect."""

WARM: Final = 100
SETTLE: Final = 1.0
SILENCE: Final = 10.0
"""Seconds without an event after which the missing ones count as lost."""


@dataclass(frozen=True)
class Plan:
    """The sizes of the benchmark.

    Attributes:
        steps: the numbers of workers, and of connections.
        events: the events of a step, at one a second.
        silent: seconds without an event, in which each stream gets one heartbeat.
        limit: the longest time for a step, in seconds.
    """

    steps: tuple[tuple[int, int], ...] = ((1, 15_000), (2, 24_000), (4, 56_000), (8, 100_000))
    events: int = 10
    silent: float = 15.0
    limit: float = 180.0


@dataclass
class Measured:
    """The figures of a step; times in seconds, processor times of all workers together, memory in bytes.

    Attributes:
        held: the connections of each worker.
        connecting: time until all have connected.
        connect: processor time for each connection.
        silent: processor time a second without events; each stream gets its heartbeats.
        delivery: processor time for each delivery.
        busy: processor time a second at one event a second.
        p50, p99, longest: time from publishing to reading.
        received, lost: deliveries.
        workers_memory: memory of all workers with all connections (PSS).
        connection_memory: memory that each further connection adds to them.
        sockets_memory: most memory of the sockets' buffers, of both ends, between the events (``/proc/net/sockstat``).
        kernel_memory: memory that a connection adds to the kernel's own structures, for one end.
        returned: clients of a lost worker that returned.
        refused: connections of them that a worker without free descriptors closed.
        returning: time from the first of them until the last has all the events that it missed.
        return_cost: processor time for each of them.
        reader: processor time a second of the programs that read, at one event a second.
        load: the load of the machine over the last minute, before and after the events.
    """

    workers: int
    connections: int
    held: list[int] = field(default_factory=list)
    connecting: float = 0.0
    connect: float = 0.0
    silent: float = 0.0
    delivery: float = 0.0
    busy: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    longest: float = 0.0
    received: int = 0
    lost: int = 0
    workers_memory: int = 0
    connection_memory: float = 0.0
    sockets_memory: int = 0
    kernel_memory: float = 0.0
    returned: int = 0
    refused: int = 0
    returning: float = 0.0
    return_cost: float = 0.0
    reader: float = 0.0
    load: list[float] = field(default_factory=list)


class Crowd:
    """Subscribers, in as many processes as their descriptors need.

    Arguments:
        readers: the programs that read.
        port: the port of the server.
        connections: the number of subscribers, of all programs.
    """

    def __init__(self, readers: list[Reader], port: int, connections: int) -> None:
        self.readers = readers
        self.port = port
        share, rest = divmod(connections, len(readers))
        self.shares = [share + (number < rest) for number in range(len(readers))]

    def request(self, after: str = "") -> bytes:
        resume = f"last-event-id: {after}\r\n" if after else ""
        return f"GET /events?topic={TOPIC} HTTP/1.1\r\nhost: localhost\r\n{resume}\r\n".encode()

    def connect(self, counts: list[int], after: str = "") -> list[int]:
        """Connect subscribers of each program at the same time; return the numbers that were accepted."""
        for reader, count in zip(self.readers, counts, strict=True):
            reader.start_connecting(self.port, count, self.request(after))
        return [reader.answer()["opened"] for reader in self.readers]

    def expect(self, number: int) -> None:
        for reader in self.readers:
            reader.expect(number)

    def start_reading(self, events: int, silence: float = SILENCE) -> None:
        for reader, share in zip(self.readers, self.shares, strict=True):
            reader.start_reading(events * share, silence)

    def answers(self) -> list[dict[str, Any]]:
        return [reader.answer() for reader in self.readers]

    def delays(self) -> array[int]:
        """Return the delays of all events in their order, in microseconds."""
        found = array("I")
        for reader in self.readers:
            found.extend(reader.delays())
        return array("I", sorted(found))

    def close(self) -> None:
        for reader in self.readers:
            reader.close()


def check(connections: int, workers: int) -> None:
    """Check that the machine has the descriptors and the memory.

    Raises:
        RuntimeError: it has not.
    """
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = max(math.ceil(connections / workers) * 1.1, min(connections, PER_READER)) + 200
    if most > descriptors:
        raise RuntimeError(f"expected {most:.0f} descriptors for a process, got {descriptors} (ulimit -Hn)")
    free = psutil.virtual_memory().available
    if connections * NEEDED > free:
        raise RuntimeError(f"expected {connections * NEEDED >> 20} MiB of free memory, got {free >> 20}")


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` if the block takes longer."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"expected the step to be done within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(workers: int, connections: int, plan: Plan) -> Measured:
    """Measure a number of workers with a number of connections; all processes have ended when this returns.

    Raises:
        RuntimeError: a connection was refused, or the machine is too small.
        TimeoutError: the step took too long.
    """
    check(connections, workers)
    HOME.mkdir(exist_ok=True)
    program = compile_reader(HOME)
    found = Measured(workers, connections)
    with limited(plan.limit), tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        port = free_port()
        options = ["--workers", f"{workers}", "--broker", f"sqlite:///{folder}/log.db", "--log-level", "error"]
        command = [sys.executable, "-m", "tickertape", "serve", "--port", f"{port}", *options, "--drain-window", "0"]
        parent = stack.enter_context(running(command, port))
        count = math.ceil(connections / PER_READER)
        readers = [stack.enter_context(Reader(program, 2 + number * ADDRESSES)) for number in range(count)]
        crowd = Crowd(readers, port, connections)
        publisher = stack.enter_context(contextlib.closing(Publisher(port, SIZE, f"/events/{TOPIC}")))
        processes = workers_of(parent, workers)
        _warm_up(crowd, publisher)
        _connect(crowd, processes, found)
        _be_silent(processes, found, plan)
        _pace(crowd, publisher, processes, found, plan)
        if workers > 1:
            _lose_worker(crowd, publisher, parent, found)
        crowd.close()
    return found


def _warm_up(crowd: Crowd, publisher: Publisher) -> None:
    crowd.connect([WARM] * len(crowd.readers))
    time.sleep(SETTLE)
    crowd.expect(publisher.number)
    for _ in range(5):
        publisher.publish()
    for reader in crowd.readers:
        reader.read(5 * WARM, SETTLE)
    crowd.close()
    time.sleep(SETTLE)


def _connect(crowd: Crowd, processes: list[psutil.Process], found: Measured) -> None:
    crowd.expect(0)
    descriptors = [each.num_fds() for each in processes]
    memory, kernel = pss(processes), kernel_memory()
    spent, began = _spent(processes), time.monotonic()
    opened = sum(crowd.connect(crowd.shares))
    found.connecting = time.monotonic() - began
    if opened < found.connections:
        raise RuntimeError(f"{opened} of {found.connections} connections were answered")
    time.sleep(SETTLE)
    found.connect = (_spent(processes) - spent) / found.connections
    found.held = [each.num_fds() - before for each, before in zip(processes, descriptors, strict=True)]
    found.workers_memory = pss(processes)
    found.connection_memory = (found.workers_memory - memory) / found.connections
    found.kernel_memory = (kernel_memory() - kernel) / found.connections / 2


def _be_silent(processes: list[psutil.Process], found: Measured, plan: Plan) -> None:
    spent = _spent(processes)
    time.sleep(plan.silent)
    found.silent = (_spent(processes) - spent) / plan.silent


def _pace(crowd: Crowd, publisher: Publisher, processes: list[psutil.Process], found: Measured, plan: Plan) -> None:
    publisher.renew()
    crowd.expect(publisher.number)
    found.load.append(round(os.getloadavg()[0], 1))
    spent, read, began = _spent(processes), _spent_reading(crowd), time.monotonic()
    crowd.start_reading(plan.events)
    for number in range(1, plan.events + 1):
        publisher.publish()
        time.sleep(max(0.0, began + number - 0.5 - time.monotonic()))
        found.sockets_memory = max(found.sockets_memory, sockets_memory())
        time.sleep(max(0.0, began + number - time.monotonic()))
    answers = crowd.answers()
    seconds = time.monotonic() - began
    used = _spent(processes) - spent
    found.load.append(round(os.getloadavg()[0], 1))
    found.received = sum(answer["received"] - answer["doubled"] for answer in answers)
    found.lost = plan.events * found.connections - found.received
    if not found.received:
        raise RuntimeError("no event arrived")
    found.delivery, found.busy = used / found.received, used / seconds
    found.reader = (_spent_reading(crowd) - read) / seconds
    delays = crowd.delays()
    found.p50, found.p99, found.longest = (delays[int(share * (len(delays) - 1))] / 1e6 for share in (0.5, 0.99, 1.0))
    found.workers_memory = max(found.workers_memory, pss(processes))


def _lose_worker(crowd: Crowd, publisher: Publisher, parent: psutil.Process, found: Measured) -> None:
    """Kill a worker, and bring its clients back as they would return: together, after the events that they missed."""
    publisher.renew()
    place = last_id(crowd.port, crowd.request(), publisher)
    workers_of(parent, found.workers)[0].kill()
    time.sleep(AWAY)
    processes = workers_of(parent, found.workers)
    publisher.renew()
    first = publisher.number
    for _ in range(MISSED):
        publisher.publish()
    crowd.start_reading(1 << 30, 2 * SETTLE)
    ended = [answer["ended"] for answer in crowd.answers()]
    crowd.expect(first)
    spent, began = _spent(processes), time.monotonic()
    found.returned, found.refused = _return(crowd, ended, place)
    for reader, count in zip(crowd.readers, ended, strict=True):
        reader.start_reading(count * MISSED, SILENCE)
    answers = crowd.answers()
    missing = sum(ended) * MISSED - sum(answer["received"] - answer["doubled"] for answer in answers)
    if missing or found.returned < sum(ended):
        raise RuntimeError(f"{found.returned} of {sum(ended)} clients returned, and {missing} events are missing")
    found.returning = max(answer["last"] for answer in answers) / 1e6 - began
    found.return_cost = (_spent(processes) - spent) / max(1, found.returned)


def _return(crowd: Crowd, ended: list[int], place: str) -> tuple[int, int]:
    """Connect clients again until all are accepted; return their number, and that of refused connections.

    A worker whose descriptors are all in use closes a connection, and the client finds room in another one.
    """
    waiting, returned, refused = ended, 0, 0
    for _ in range(ATTEMPTS):
        opened = crowd.connect(waiting, place)
        waiting = [before - now for before, now in zip(waiting, opened, strict=True)]
        returned += sum(opened)
        refused += sum(waiting)
        if not any(waiting):
            break
    return returned, refused


def pss(processes: list[psutil.Process]) -> int:
    """Return the memory of processes; what they share counts once."""
    total = 0
    for each in processes:
        lines = Path(f"/proc/{each.pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def sockets_memory() -> int:
    """Return the memory of all buffers of TCP sockets."""
    lines = Path("/proc/net/sockstat").read_text().splitlines()
    fields = next(line.split() for line in lines if line.startswith("TCP:"))
    return int(fields[fields.index("mem") + 1]) * resource.getpagesize()


def kernel_memory() -> int:
    """Return the memory of the kernel's own structures."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Slab:")) * 1024


def _spent(processes: list[psutil.Process]) -> float:
    return sum(processor_time(each.pid) for each in processes)


def _spent_reading(crowd: Crowd) -> float:
    return sum(processor_time(reader.pid) for reader in crowd.readers)
