"""Measure one server: throughput, delays, costs, a reconnect storm, and its end."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import psutil

from ..pages import HOME
from ..processes import free_port, processor_time, wait_for
from ..reader import SETTLE, Publisher, Reader, last_id
from .peers import Peer, environment

SMALL: Final = 120
"""Bytes of an event for delays and for the storm."""

BEHIND: Final = 100
"""Events that each client of the storm has missed."""

AT_ONCE: Final = 1_000
"""Connections of the storm that are being opened at the same time: more wait in no server's queue."""

WARM: Final = 20
SILENCE: Final = 8.0
"""Seconds without an event after which the missing ones count as lost."""


@dataclass(frozen=True)
class Plan:
    """The sizes of the benchmark.

    Attributes:
        subscribers: the numbers of subscribers.
        sizes: the bytes of an event.
        burst: seconds of events back to back.
        paced: events at one a second.
        exit: seconds to wait for the end of the process, in the first round.
        rounds: times that everything is measured.
        minutes: the time after which nothing more is measured.
    """

    subscribers: tuple[int, ...] = (100, 1_000, 10_000)
    sizes: tuple[int, ...] = (SMALL, 4096)
    burst: float = 0.5
    paced: int = 3
    exit: float = 6.0
    rounds: int = 3
    minutes: float = 25.0


@dataclass
class Measured:
    """The figures of a server with so many subscribers; times in seconds, processor times in microseconds.

    Attributes:
        connect: processor time for each connection.
        connect_bytes: bytes of a response before the first event, on average.
        memory: bytes of memory for each connection.
        rate: deliveries a second, by the size of the events.
        cpu: processor time for each delivery, by size.
        wire: bytes on the wire for each delivery, by size.
        p50, p99: delays at one event a second.
        lost: events that did not arrive, of all subscribers together.
        total: all events that had to arrive.
        storm: seconds until all clients that reconnected at once have caught up.
        exit: seconds from SIGTERM to the end of the process.
        failed: the reason that there are no figures.
        storm_failed: the reason that there is no time of the storm.
    """

    peer: str
    subscribers: int
    connect: float | None = None
    connect_bytes: float | None = None
    memory: float | None = None
    rate: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    wire: dict[str, float] = field(default_factory=dict)
    p50: float | None = None
    p99: float | None = None
    lost: int = 0
    total: int = 0
    storm: float | None = None
    exit: float | None = None
    failed: str = ""
    storm_failed: str = ""


class StormFailed(RuntimeError):
    """Not all clients of a storm got all events, in order: ``lost`` of ``total`` did not arrive as they should."""

    def __init__(self, reason: str, lost: int, total: int) -> None:
        super().__init__(reason)
        self.lost = lost
        self.total = total


class Server:
    """The running program of a peer."""

    def __init__(self, peer: Peer, port: int, process: subprocess.Popen[bytes]) -> None:
        self.peer = peer
        self.port = port
        self.process = process

    def _tree(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def cpu(self) -> float:
        """Return the processor time of all its processes, in microseconds."""
        return sum(processor_time(each.pid) for each in self._tree()) * 1e6

    def memory(self) -> int:
        """Return the resident memory of all its processes."""
        return sum(each.memory_info().rss for each in self._tree())

    def publisher(self, size: int, number: int = 1) -> Publisher:
        return Publisher(self.port + self.peer.control, size, self.peer.publish, number)

    def stop(self, patience: float) -> float | None:
        """Return the seconds from SIGTERM to the end of the process; ``None`` if it takes longer than ``patience``."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            return None
        return time.monotonic() - began


@contextlib.contextmanager
def running(peer: Peer) -> Iterator[Server]:
    """Run a peer during the block.

    Raises:
        Absent: it cannot be installed.
        RuntimeError: it does not start.
    """
    port = _free_ports(peer.control)
    command = peer.command(port)
    HOME.mkdir(exist_ok=True)
    log = HOME / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment(), stdout=output, stderr=output)
    server = Server(peer, port, process)
    try:
        wait_for(port)
        wait_for(port + peer.control)
        yield server
    except OSError as error:
        raise RuntimeError(f"{error}; its last words: {log.read_bytes()[-300:].decode(errors='replace')}") from error
    finally:
        tree = server._tree() if process.poll() is None else []
        for each in reversed(tree):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()


def measure(
    peer: Peer, reader: Reader, subscribers: int, plan: Plan, *, stop: bool = True, found: Measured | None = None
) -> Measured:
    """Measure a peer with so many subscribers; ``stop`` also measures how long it takes to stop.

    The figures are written into ``found``, so that those before a failure are kept.
    """
    found = found or Measured(peer.name, subscribers)
    with running(peer) as server, contextlib.closing(server.publisher(SMALL)) as publisher:
        try:
            _warm_up(server, reader, publisher)
            _connect(server, reader, found)
            for size in plan.sizes:
                publisher.size = size
                _burst(server, reader, publisher, found, plan)
            _pace(reader, publisher, found, plan)
            if stop:
                reader.start_reading(1 << 40, plan.exit)  # it closes what the server closes
                found.exit = server.stop(plan.exit)
                reader.answer()
        finally:
            reader.close()
    return found


def _warm_up(server: Server, reader: Reader, publisher: Publisher) -> None:
    reader.connect(server.port, WARM, server.peer.request())
    time.sleep(SETTLE)
    reader.expect(publisher.number)
    for _ in range(5):
        publisher.publish()
    reader.read(5 * WARM, 1.0)
    reader.close()
    time.sleep(SETTLE / 2)


def _connect(server: Server, reader: Reader, found: Measured) -> None:
    reader.expect(0)
    spent, memory = server.cpu(), server.memory()
    connected = reader.connect(server.port, found.subscribers, server.peer.request())
    if connected["opened"] < found.subscribers:
        raise RuntimeError(f"{connected['opened']} of {found.subscribers} connections were answered")
    time.sleep(SETTLE)
    found.connect = (server.cpu() - spent) / found.subscribers
    found.memory = (server.memory() - memory) / found.subscribers
    found.connect_bytes = connected["bytes"] / found.subscribers


def _burst(server: Server, reader: Reader, publisher: Publisher, found: Measured, plan: Plan) -> None:
    began = time.monotonic()
    _publish(reader, publisher, found, 1)
    count = max(2, min(300, int(plan.burst / (time.monotonic() - began))))
    spent, began = server.cpu(), time.monotonic()
    result = _publish(reader, publisher, found, count)
    if not result["received"]:
        raise RuntimeError("no event arrived")
    key = f"{publisher.size}"
    found.rate[key] = result["received"] / (result["last"] / 1e6 - began)
    found.cpu[key] = (server.cpu() - spent) / result["received"]
    found.wire[key] = result["bytes"] / result["received"]


def _publish(reader: Reader, publisher: Publisher, found: Measured, count: int, pause: float = 0.0) -> dict[str, Any]:
    """Publish events, and read them at the same time."""
    total = count * found.subscribers
    publisher.renew()
    reader.expect(publisher.number)
    reader.start_reading(total, SILENCE)
    next_one = time.monotonic()
    try:
        for _ in range(count):
            publisher.publish()
            next_one += pause
            if pause:
                time.sleep(max(0.0, next_one - time.monotonic()))
    finally:
        result = reader.answer()
    found.total += total
    found.lost += total - result["received"] + result["doubled"]
    return result


def _pace(reader: Reader, publisher: Publisher, found: Measured, plan: Plan) -> None:
    publisher.size = SMALL
    result = _publish(reader, publisher, found, plan.paced, 1.0)
    if result["received"]:
        found.p50, found.p99 = result["p50"] / 1e6, result["p99"] / 1e6


def storm(peer: Peer, reader: Reader, clients: int) -> float:
    """Reconnect clients at once, each so many events behind; return the seconds until all have caught up.

    Raises:
        StormFailed: not all of them got all events, in order.
    """
    with running(peer) as server, contextlib.closing(server.publisher(SMALL)) as publisher:
        try:
            place = last_id(server.port, peer.request(), publisher)
            for _ in range(BEHIND):
                publisher.publish()
            reader.expect(publisher.number - BEHIND)
            began = time.monotonic()
            connected = reader.connect(server.port, clients, peer.request(place), AT_ONCE)
            result = reader.read(clients * BEHIND, SILENCE)
            total = clients * BEHIND
            if connected["opened"] < clients or result["received"] != total or result["lost"]:
                reason = f"{result['received']} of {total} events, {connected['opened']} streams"
                missing = total - result["received"] + result["doubled"]
                raise StormFailed(reason, max(missing, result["lost"]), total)
            return float(result["last"] / 1e6 - began)
        finally:
            reader.close()


def _free_ports(control: int) -> int:
    """Return a free port. The one at the distance ``control`` is free too."""
    while True:
        port = free_port()
        with socket.socket() as other:
            try:
                other.bind(("127.0.0.1", port + control))
            except (OSError, OverflowError):
                continue
        return port
