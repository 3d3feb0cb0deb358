"""``tickertape bench``: the fan-out of a hub on this machine, compared with a bare loop of writes."""

from __future__ import annotations

import contextlib
import functools
import json as jsonlib
import multiprocessing
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Annotated, Final, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from .console import NoColorOption, fail, stderr_console

BENCH_EPILOG: Final = """Events are published one by one to a hub in a separate process, with its log in memory.
The next event is published when all subscribers have read the last one. The result is the processor time of that
process. The bare loop does the least that any server must do: it writes the same bytes to as many connections. The
times hold for this machine; the ratio is comparable between machines.

Examples:

- `tickertape bench`: 300 subscribers, 100 events
- `tickertape bench --subscribers 5000 --events 50 --json`: more of them, for scripts
"""

ROUNDS: Final = 3
"""The best one counts: other programs on the machine can only slow a round down."""

PATIENCE: Final = 60.0
"""Seconds without progress, after which the measurement fails."""

_MARK: Final = b"|"
"""The last byte of each event's data. It occurs nowhere else in a stream."""

_EVENT: Final = b"x" * 119 + _MARK
"""120 bytes: a small JSON object."""

_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_BLOCK: Final = b"id: 0123456789ab-1\ndata: " + _EVENT + b"\n\n"
_CHUNK: Final = b"%x\r\n%b\r\n" % (len(_BLOCK), _BLOCK)


class Result(NamedTuple):
    """The result of one server."""

    name: str
    microseconds: float
    """Processor time of the server, for one event to one subscriber."""
    ratio: float
    """To the bare loop."""


def bench(
    subscribers: Annotated[int, typer.Option(min=1, max=20_000, help="Connections that read.", metavar="NUMBER")] = 300,
    events: Annotated[int, typer.Option(min=1, max=10_000, help="Events in each round.", metavar="NUMBER")] = 100,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    no_color: NoColorOption = False,
) -> None:
    """Measure the fan-out of a hub on this machine, compared with a bare loop of writes."""
    from ..server import raise_descriptor_limit

    raise_descriptor_limit()
    costs = {}
    try:
        with stderr_console(no_color).status("measuring") as status:
            for name, target in (("bare loop of writes", _serve_bare), ("tickertape hub", _serve_hub)):
                status.update(f"measuring: {name}")
                costs[name] = _measure(target, subscribers, events)
    except OSError as error:
        fail(f"the measurement failed: {error}; next step: tickertape bench --subscribers {max(subscribers // 10, 1)}")
    base = costs["bare loop of writes"]
    results = [Result(name, cost, cost / base) for name, cost in costs.items()]
    if json:
        found = {"subscribers": subscribers, "events": events, "results": [result._asdict() for result in results]}
        sys.stdout.write(jsonlib.dumps(found, indent=2) + "\n")
    else:
        Console(no_color=no_color or None, highlight=False).print(_table(results, subscribers, events))


def _table(results: list[Result], subscribers: int, events: int) -> Table:
    title = f"{events} events to {subscribers} subscribers, the best of {ROUNDS} rounds"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for name in ("µs a delivery", "deliveries/s of one core", "to the bare loop"):
        table.add_column(name, justify="right", header_style="dim")
    for name, microseconds, ratio in results:
        table.add_row(name, f"{microseconds:.1f}", f"{1e6 / microseconds:,.0f}", f"{ratio:.2f}")
    return table


def _measure(target: Callable[[socket.socket], None], subscribers: int, events: int) -> float:
    """Return the microseconds of a delivery by one server, a function that runs in a separate process."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=subscribers + 1) as listener,
        _process(functools.partial(target, listener)) as spent,
        contextlib.closing(_Crowd(listener.getsockname(), subscribers)) as crowd,
        socket.create_connection(listener.getsockname(), timeout=PATIENCE) as control,
    ):
        best = float("inf")
        for _ in range(ROUNDS):
            start = spent()
            for _ in range(events):
                _publish(control)
                crowd.read_until(subscribers)  # several events in one write would be another measurement
            best = min(best, (spent() - start) / (events * subscribers) * 1e6)
    return best


@contextlib.contextmanager
def _process(target: Callable[[], None]) -> Iterator[Callable[[], float]]:
    """Run a function in a separate process. Yield a function that returns the processor time it has used."""
    context = multiprocessing.get_context("spawn")
    asking, answering = context.Pipe()
    process = context.Process(target=_run, args=(target, answering), daemon=True)
    process.start()

    def spent() -> float:
        asking.send(None)
        if not asking.poll(PATIENCE):
            raise OSError("the server did not report its processor time")
        return float(asking.recv())

    try:
        yield spent
    finally:
        process.kill()
        process.join()
        asking.close()
        answering.close()


def _run(target: Callable[[], None], answering: Connection) -> None:
    def answer() -> None:
        while True:
            answering.recv()
            answering.send(time.process_time())

    threading.Thread(target=answer, daemon=True).start()
    target()


def _publish(control: socket.socket) -> None:
    """Publish one event and wait for the response."""
    head = f"POST /events/bench HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(_EVENT)}\r\n\r\n".encode()
    control.sendall(head + _EVENT)
    answer = control.recv(65536)
    while not answer.rpartition(b"\r\n\r\n")[2].endswith(b"\n"):
        # The body may come later than the head.
        more = control.recv(65536)
        if not more:
            raise OSError("the server closed the connection without a response")
        answer += more
    if not answer.startswith(b"HTTP/1.1 201"):
        raise OSError(f"expected status 201, got {answer[:80]!r}")


class _Crowd:
    """Connections that read, in one loop."""

    def __init__(self, address: tuple[str, int], size: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._received = 0
        for _ in range(size):
            connection = socket.create_connection(address, timeout=PATIENCE)
            self._selector.register(connection, selectors.EVENT_READ)
            connection.sendall(b"GET /events?topic=bench HTTP/1.1\r\nhost: localhost\r\n\r\n")
            if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
                raise OSError("the server refused the stream")

    def read(self, timeout: float) -> None:
        """Read the bytes that are there, or wait for some."""
        for key, _ in self._selector.select(timeout):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            data = connection.recv(262144)
            if not data:
                raise OSError("the server ended the stream")
            self._received += data.count(_MARK)

    def read_until(self, count: int) -> None:
        """Read until this number of events has come, and count from 0 again."""
        deadline = time.monotonic() + PATIENCE
        while self._received < count:
            if time.monotonic() > deadline:
                raise OSError(f"expected {count} events, got {self._received}")
            self.read(0.1)
        self._received = 0

    def close(self) -> None:
        """Close all connections."""
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


def _serve_hub(listener: socket.socket) -> None:
    from ..server import load_settings, serve

    serve(load_settings({"broker": "memory://", "log_level": "error"}, None), listener)


def _serve_bare(listener: socket.socket) -> None:
    """Answer as a hub does, with the least work: no HTTP is parsed, no event kept."""
    readers: list[int] = []
    while True:
        connection, _ = listener.accept()
        request = connection.recv(65536)
        if request.startswith(b"GET"):
            connection.sendall(_HEAD)
            readers.append(connection.detach())
            continue
        while request:
            for reader in readers:
                os.write(reader, _CHUNK)
            connection.sendall(b"HTTP/1.1 201 Created\r\n\r\n{}\n")
            request = connection.recv(65536)
