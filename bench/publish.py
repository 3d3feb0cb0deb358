"""Publishing over HTTP: acknowledged events a second on keep-alive connections, beside a minimal server.

Each client posts an event, waits for ``201 Created`` and posts the next one. The minimal server parses the
same requests and answers with fixed bytes; what it does not manage is the limit of this side. ``us each`` is
processor time of the server, of all its threads. ``--profile`` prints where the time of the event loop goes.
"""

from __future__ import annotations

import argparse
import contextlib
import pstats
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from .processes import PATIENCE, free_port, processor_time, wait_for

CLIENTS: Final = 32
SECONDS: Final = 2.0
"""Length of one turn of one contender."""

TURNS: Final = 3

_BODY: Final = b"x" * 120

_REQUEST: Final = (
    b"POST /events/bench/prices HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b"
    % (len(_BODY), _BODY)
)

_SERVE: Final = ("-m", "tickertape", "serve", "--port={port}", "--log-level=warning")

CONTENDERS: Final = {
    "minimal": ("-m", "bench.minimal", "{port}"),
    "memory": (*_SERVE, "--broker=memory://"),
    "sqlite": (*_SERVE, "--broker=sqlite:///{folder}/log.db"),
}


class Sample(NamedTuple):
    """One turn of one contender: events a second, and seconds of processor time for each."""

    rate: float
    time: float


class Contender:
    """A server in a separate process, and the connections to it.

    Arguments:
        name: one of :data:`CONTENDERS`.
        profile: a file for the profile of the server.
    """

    def __init__(self, name: str, profile: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        port = free_port()
        parts = [part.format(port=port, folder=self._folder.name) for part in CONTENDERS[name]]
        profiler = [] if profile is None else ["-m", "cProfile", "-o", str(profile)]
        self._program = subprocess.Popen([sys.executable, *profiler, *parts], stdout=subprocess.DEVNULL)
        wait_for(port)
        self._clients = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) for _ in range(CLIENTS)]

    def measure(self, seconds: float) -> Sample:
        """Publish for some seconds."""
        poll = select.epoll()
        clients = {client.fileno(): client for client in self._clients}
        answers: dict[int, bytes] = {}
        for client in self._clients:
            poll.register(client, select.EPOLLIN)
            client.sendall(_REQUEST)
        spent = processor_time(self._program.pid)
        start = time.monotonic()
        published, waiting = 0, len(clients)
        while waiting:
            more = time.monotonic() - start < seconds
            for descriptor, _ in poll.poll(PATIENCE):
                answer = answers.pop(descriptor, b"") + clients[descriptor].recv(65536)
                if not answer.startswith(b"HTTP/1.1 201 "):
                    raise ConnectionError(f"expected 201 Created, got {answer[:100]!r}")
                if not answer.endswith(b"}\n"):
                    answers[descriptor] = answer  # head and body may come apart
                    continue
                published += 1
                if more:
                    clients[descriptor].sendall(_REQUEST)
                else:
                    waiting -= 1
        poll.close()
        took = time.monotonic() - start
        return Sample(published / took, (processor_time(self._program.pid) - spent) / published)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._program.send_signal(signal.SIGTERM)  # a profile is written at the end
        self._program.wait(PATIENCE)
        self._folder.cleanup()


def compare() -> None:
    """Print the figures of all contenders."""
    samples: dict[str, list[Sample]] = {name: [] for name in CONTENDERS}
    with contextlib.ExitStack() as stack:
        contenders = {name: stack.enter_context(contextlib.closing(Contender(name))) for name in CONTENDERS}
        for contender in contenders.values():
            contender.measure(0.5)
        for _ in range(TURNS):
            for name, contender in contenders.items():
                samples[name].append(contender.measure(SECONDS))
    print(f"{CLIENTS} clients, events of {len(_BODY)} bytes\n")
    print(f"{'':12}{'events/s':>10}{'of minimal':>12}{'us each':>10}{'of minimal':>12}")
    for name in CONTENDERS:
        rate, spent = (statistics.median(values) for values in zip(*samples[name], strict=True))
        pairs = list(zip(samples[name], samples["minimal"], strict=True))
        rates = statistics.median(ours.rate / minimal.rate for ours, minimal in pairs)
        times = statistics.median(ours.time / minimal.time for ours, minimal in pairs)
        print(f"{name:12}{rate:10,.0f}{rates:12.2f}{spent * 1e6:10.1f}{times:12.2f}")


def profile(name: str) -> None:
    """Print the functions in which a server spends most of the time of its event loop."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile"
        with contextlib.closing(Contender(name, path)) as contender:
            sample = contender.measure(SECONDS)
        print(f"\n{name}, with the profiler {sample.rate:,.0f} events/s:\n")
        statistics_of = pstats.Stats(str(path))
        statistics_of.sort_stats("tottime").print_stats("/(tickertape|uvicorn|starlette)/", 30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true", help="also print profiles of the servers")
    options, _ = parser.parse_known_args()
    compare()
    if options.profile:
        for name in ("memory", "sqlite"):
            profile(name)


if __name__ == "__main__":
    main()
