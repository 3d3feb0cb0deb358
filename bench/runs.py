"""Runs beside a plain Starlette response that resumes nothing: processor time and bytes for each token, and its delay.

Each contender is a separate server, and this process reads. A run has two readers: the one that starts it, and one
that joins it. The plain response has as many readers, and a generator for each of them, since it cannot share one.
Tokens come at a fixed pace. Processor time is that of the server, of all its threads, while all runs are under way.
The contenders take turns, and a ratio is the median of those of the turns. At the end the two readers of each run are
compared: both must have every token, and the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import resource
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from .brokers_stores import KINDS
from .processes import PATIENCE, free_port, processor_time, wait_for

READERS: Final = 2

PLAIN: Final = "plain"

QUIET: Final = "memory gc"
"""The log in memory, in a process without full garbage collections: ``tickertape serve`` has few of them."""

CONTENDERS: Final = {
    "memory": "memory",
    QUIET: "memory",
    "SQLite": "SQLite full",
    "Redis": "Redis",
    "PostgreSQL": "PostgreSQL",
}
"""The contenders with a log, and the kind of their store."""

PACES: Final = {1: 0.01, 100: 0.05, 1_000: 0.5}
"""Seconds between two tokens of a run, by the number of runs: a busy server has some time to spare with all of them."""

TURNS: Final = 3

SECONDS: Final = 3.0
"""Length of the part of a turn that is measured."""

FIRST_TOKENS: Final = 60
"""Requests whose first token is timed, for each contender."""

TOKEN: Final = "token~ "
_MARK: Final = b"~"

_AIM_RATIO: Final = 2.0
"""Processor time on memory, of that of the plain response."""

_AIM_DELAY: Final = 0.002
"""Seconds that may be added to the first token, on memory and Redis."""


# The servers.


def application(broker: str | None, profile: str | None = None) -> Any:
    """Return an application that answers with tokens: ``POST`` starts a run, ``GET`` joins it.

    Arguments:
        broker: the URL of the log; ``None`` for the plain response.
        profile: a file for a profile of the process, from ``/profile`` to ``/stop``.
    """
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    from tickertape.hub import Hub
    from tickertape.runs import Runs

    stopped = asyncio.Event()
    profiler: Any = None

    async def answer(pace: float) -> AsyncIterator[str]:
        yield TOKEN
        while pace and not stopped.is_set():
            await asyncio.sleep(pace)
            yield TOKEN

    def pace_of(request: Request) -> float:
        return float(request.query_params.get("pace", 0))

    async def blocks(pace: float) -> AsyncIterator[str]:
        async for token in answer(pace):
            yield f"data: {token}\n\n"

    async def plain(request: Request) -> Response:
        return StreamingResponse(blocks(pace_of(request)), media_type="text/event-stream")

    async def begin(request: Request) -> Any:
        pace = pace_of(request)
        run = await runs.start(request.path_params["name"], lambda: answer(pace))
        return run.response(request)

    async def join(request: Request) -> Any:
        return await runs.response(request, request.path_params["name"])

    async def reset(request: Request) -> Response:
        stopped.clear()
        return JSONResponse({})

    async def stop(request: Request) -> Response:
        stopped.set()
        if profiler is not None and profile is not None:
            profiler.disable()
            profiler.dump_stats(profile)
        return JSONResponse({})

    async def start_profile(request: Request) -> Response:
        nonlocal profiler
        import cProfile

        profiler = cProfile.Profile()
        profiler.enable()
        return JSONResponse({})

    hub = Hub("memory://" if broker is None else broker, drain_window=0.1)
    runs = Runs(hub)
    answers = [Route("/runs/{name:path}", plain, methods=["GET", "POST"])]
    if broker is not None:
        answers = [
            Route("/runs/{name:path}", begin, methods=["POST"]),
            Route("/runs/{name:path}", join, methods=["GET"]),
        ]
    controls = [Route(f"/{each.__name__}", each) for each in (reset, stop, start_profile)]
    return Starlette(routes=[*answers, *controls], lifespan=None if broker is None else hub.lifespan)


def serve(port: int, broker: str | None, profile: str | None, *, quiet: bool) -> None:
    import uvicorn

    gc.freeze()
    if quiet:
        gc.set_threshold(*gc.get_threshold()[:2], 1_000_000_000)
    uvicorn.run(application(broker, profile), port=port, log_level="error", access_log=False, backlog=4096)


class Server:
    """A contender: its process, and the requests to it."""

    def __init__(self, broker: str | None, profile: Path | None = None, *, quiet: bool = False) -> None:
        self.port = free_port()
        options = ["--serve", str(self.port), *([] if broker is None else ["--broker", broker])]
        options += [] if profile is None else ["--write-profile", str(profile)]
        options += ["--quiet"] if quiet else []
        self._program = subprocess.Popen([sys.executable, "-m", "bench.runs", *options], stdout=subprocess.DEVNULL)
        wait_for(self.port)
        self._runs = 0
        self.shares = broker is not None  # the readers of a run have the same tokens

    @property
    def time(self) -> float:
        """Seconds of processor time until now."""
        return processor_time(self._program.pid)

    def next_name(self) -> str:
        self._runs += 1
        return f"bench/{self._runs}"

    def call(self, path: str) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            connection.sendall(b"GET /%b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n" % path.encode())
            while connection.recv(65536):
                pass

    def open(self, method: str, name: str, pace: float) -> socket.socket:
        """Send a request, and return its connection."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"{method} /runs/{name}?pace={pace} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"
        connection.sendall(head.encode())
        return connection

    def close(self) -> None:
        self._program.send_signal(signal.SIGTERM)
        try:
            self._program.wait(PATIENCE)
        finally:
            self._program.kill()


# The readers.


class Reader:
    """One response, as far as it was read.

    Attributes:
        tokens: tokens of it.
        bytes: bytes of its body and its chunks.
        ended: its last chunk has come.
    """

    __slots__ = ("bytes", "connection", "ended", "tail", "tokens")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.tokens = 0
        self.bytes = 0
        self.tail = b""
        self.ended = False

    def read(self) -> None:
        data = self.connection.recv(262_144)
        if not data:
            raise ConnectionError("a response was cut off")
        self.tokens += data.count(_MARK)
        self.bytes += len(data)
        self.tail = (self.tail + data)[-8:]
        self.ended = self.tail.endswith(b"\r\n0\r\n\r\n")


class Crowd:
    """All readers of a turn, read by one loop."""

    def __init__(self) -> None:
        self.readers: list[Reader] = []
        self._poll = select.epoll()
        self._by_descriptor: dict[int, Reader] = {}

    def add(self, connection: socket.socket) -> Reader:
        reader = Reader(connection)
        self.readers.append(reader)
        self._by_descriptor[connection.fileno()] = reader
        self._poll.register(connection.fileno(), select.EPOLLIN)
        return reader

    def read_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._read(left)

    def _read(self, timeout: float) -> None:
        for descriptor, _ in self._poll.poll(timeout):
            reader = self._by_descriptor[descriptor]
            reader.read()
            if reader.ended:
                self._poll.unregister(descriptor)

    def read_until_all(self, what: str) -> None:
        """Read until each reader has a token, or its end."""
        until = time.monotonic() + PATIENCE
        while not all(getattr(reader, what) for reader in self.readers):
            if time.monotonic() > until:
                missing = sum(not getattr(reader, what) for reader in self.readers)
                raise TimeoutError(f"{missing} of {len(self.readers)} readers have no {what} after {PATIENCE} s")
            self._read(0.1)

    @property
    def tokens(self) -> int:
        return sum(reader.tokens for reader in self.readers)

    @property
    def bytes(self) -> int:
        return sum(reader.bytes for reader in self.readers)

    def close(self) -> None:
        for reader in self.readers:
            reader.connection.close()
        self._poll.close()


class Sample(NamedTuple):
    """One turn of one contender.

    Attributes:
        time: seconds of processor time for each token of a run, which goes to all its readers.
        bytes: on the wire, for each token and reader.
        rate: tokens of all runs a second.
    """

    time: float
    bytes: float
    rate: float


def measure(server: Server, runs: int, seconds: float, *, profiled: bool = False) -> Sample:
    """Read tokens of a server for some seconds, and check what the readers have at the end."""
    server.call("reset")
    crowd = Crowd()
    try:
        pace = PACES[runs]
        names = [server.next_name() for _ in range(runs)]
        pairs: list[tuple[Reader, Reader]] = []
        for start in range(0, runs, 50):
            some = names[start : start + 50]
            firsts = [crowd.add(server.open("POST", name, pace)) for name in some]
            while not all(reader.tokens for reader in firsts):
                crowd.read_for(0.005)
            seconds_of_them = [crowd.add(server.open("GET", name, pace)) for name in some]
            pairs += zip(firsts, seconds_of_them, strict=True)
            crowd.read_for(0.001)
        crowd.read_until_all("tokens")
        crowd.read_for(0.3)
        if profiled:
            server.call("start_profile")
        before, tokens, size, began = server.time, crowd.tokens, crowd.bytes, time.monotonic()
        crowd.read_for(seconds)
        spent, took = server.time - before, time.monotonic() - began
        tokens, size = crowd.tokens - tokens, crowd.bytes - size
        server.call("stop")
        crowd.read_until_all("ended")
    finally:
        crowd.close()
    for first, second in pairs:
        if server.shares and first.tokens != second.tokens:
            raise AssertionError(f"expected {first.tokens} tokens at the second reader too, got {second.tokens}")
    return Sample(spent / tokens * READERS, size / tokens, tokens / READERS / took)


def first_token(server: Server) -> float:
    """Return the seconds from a request to its first token."""
    connection = server.open("POST", server.next_name(), 0)
    start = time.perf_counter()
    reader = Reader(connection)
    while not reader.tokens:
        reader.read()
    took = time.perf_counter() - start
    while not reader.ended:
        reader.read()
    connection.close()
    return took


# The whole measurement.


async def compare(names: Sequence[str], counts: Sequence[int], seconds: float, turns: int) -> None:
    """Measure the contenders in turns, and print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            servers = {PLAIN: stack.enter_context(contextlib.closing(Server(None)))}
            for name in names:
                kind = KINDS[CONTENDERS[name]]
                if absent := kind.absent():
                    print(f"{name}: left out: {absent}")
                    continue
                contest = await stack.enter_async_context(kind.enter(Path(folder)))
                servers[name] = stack.enter_context(contextlib.closing(Server(contest.url, quiet=name == QUIET)))
            _compare_tokens(servers, counts, seconds, turns)
            _compare_first_tokens(servers)


def _compare_tokens(servers: dict[str, Server], counts: Sequence[int], seconds: float, turns: int) -> None:
    head = f"{'runs':>5}  {'':12}{'tokens/s':>9}{'cpu us a token':>16}{'of plain':>10}{'bytes':>8}{'of plain':>10}  aim"
    print(head)
    for runs in counts:
        for server in servers.values():
            measure(server, runs, max(seconds / 6, 2 * PACES[runs]))
        samples: dict[str, list[Sample]] = {name: [] for name in servers}
        for _ in range(turns):
            for name, server in servers.items():
                samples[name].append(measure(server, runs, seconds))
        for name, own in samples.items():
            pairs = list(zip(own, samples[PLAIN], strict=True))
            spent, size, rate = (statistics.median(values) for values in zip(*own, strict=True))
            ratio = statistics.median(ours.time / plain.time for ours, plain in pairs)
            more = statistics.median(ours.bytes / plain.bytes for ours, plain in pairs)
            verdict = _verdict(ratio <= _AIM_RATIO, f"{_AIM_RATIO:g}") if name.startswith("memory") else ""
            line = f"{runs:5,}  {name:12}{rate:9,.0f}{spent * 1e6:16.1f}{ratio:10.2f}{size:8.1f}{more:10.2f}{verdict}"
            print(line, flush=True)


def _compare_first_tokens(servers: dict[str, Server]) -> None:
    print(f"\n{'first token, ms':19}{'p50':>8}{'p90':>8}{'added p50':>12}  aim")
    delays: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(FIRST_TOKENS + 5):
        for name, server in servers.items():
            delay = first_token(server)
            if number >= 5:
                delays[name].append(delay)
    for name, own in delays.items():
        added = statistics.median(ours - plain for ours, plain in zip(own, delays[PLAIN], strict=True))
        median, late = statistics.median(own), statistics.quantiles(own, n=10)[-1]
        aimed = name in ("memory", "Redis")
        verdict = _verdict(added < _AIM_DELAY, f"{_AIM_DELAY * 1e3:g} ms") if aimed else ""
        print(f"{name:19}{median * 1e3:8.2f}{late * 1e3:8.2f}{added * 1e3:12.2f}{verdict}")


def _verdict(reached: bool, aim: str) -> str:
    return f"  {'PASS' if reached else 'short of'} {aim}"


async def profile(name: str, runs: int, seconds: float) -> None:
    """Print the functions in which a server spends most of its time."""
    import pstats

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile"
        async with AsyncExitStack() as stack:
            url = None
            if name != PLAIN:
                url = (await stack.enter_async_context(KINDS[CONTENDERS[name]].enter(Path(folder)))).url
            with contextlib.closing(Server(url, path)) as server:
                measure(server, runs, 0.5)
                sample = measure(server, runs, seconds, profiled=True)
                print(
                    f"{name}, {runs} runs, {sample.rate:,.0f} tokens/s, with the profiler {sample.time * 1e6:.1f} us\n"
                )
        pstats.Stats(str(path)).sort_stats("tottime").print_stats(45)


def _contenders(text: str) -> Iterator[str]:
    for name in text.split(","):
        if name not in CONTENDERS:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(CONTENDERS)}, got {name!r}")
        yield name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=lambda text: [*_contenders(text)], default=[*CONTENDERS], metavar="NAME,…")
    parser.add_argument("--runs", type=int, action="append", choices=PACES, help="concurrent runs; all if not given")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of the measured part of a turn")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--profile", choices=[PLAIN, *CONTENDERS], help="print a profile of this contender instead")
    parser.add_argument("--serve", type=int, metavar="PORT", help="be a contender")
    parser.add_argument("--broker", help="of a contender")
    parser.add_argument("--write-profile", help="of a contender")
    parser.add_argument("--quiet", action="store_true", help="no full garbage collections, of a contender")
    options, _ = parser.parse_known_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    counts = options.runs or [*PACES]
    if options.serve:
        serve(options.serve, options.broker, options.write_profile, quiet=options.quiet)
    elif options.profile:
        asyncio.run(profile(options.profile, counts[0], options.seconds))
    else:
        asyncio.run(compare(options.only, counts, options.seconds, options.turns))


if __name__ == "__main__":
    main()
