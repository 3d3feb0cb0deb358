"""New streams: processor time of the server from the connection to the first byte, beside a minimal server.

The minimal server parses the request with httptools on uvloop and answers with fixed bytes. Connections
come in storms of some hundred, as after a restart of a proxy. All contenders are measured in turn, several
times, and a ratio is the median of those of one turn. ``KiB each`` is what each open stream adds to the
resident memory.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import secrets
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import jwt
import psutil
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tickertape import Hub
from tickertape.access import add_key

from .minimal import FIRST_CHUNK, HEADERS
from .processes import PATIENCE, free_port, processor_time, wait_for

STREAMS: Final = 2_000
"""Streams that are opened in one turn."""

STORM: Final = 200
"""Connections that come at once."""

TURNS: Final = 5

_UVICORN: Final = ("-m", "uvicorn", "--port={port}", "--no-access-log", "--log-level=warning", "--factory")

_SERVE: Final = ("-m", "tickertape", "serve", "--port={port}", "--broker=memory://", "--log-level=warning")

CONTENDERS: Final = {
    "minimal": ("-m", "bench.minimal", "{port}"),
    "serve": _SERVE,
    "serve key": (*_SERVE, "--api-key-file={folder}/keys.toml"),
    "serve HS256": (*_SERVE, "--jwt-key-file={folder}/secret"),
    "serve RS256": (*_SERVE, "--jwt-key-file={folder}/public.pem"),
    "asgi": (*_UVICORN, "bench.connect:hub_app"),
    "asgi fixed": (*_UVICORN, "bench.connect:fixed_app"),
    "fastapi": (*_UVICORN, "bench.connect:hub_fastapi"),
    "fastapi fixed": (*_UVICORN, "bench.connect:fixed_fastapi"),
}
"""Command lines: the minimal server, the hub as a program, and ``hub.response`` without and with FastAPI.

``serve key`` and so on control access: each request has an API key, or a token of that algorithm.
``fixed`` are the same applications with a response of fixed bytes: the cost of uvicorn and FastAPI alone.
"""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

_REQUEST: Final = (
    b"GET /events?topic=orders/* HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n"
    b"user-agent: bench\r\ncache-control: no-cache\r\n%b\r\n"
)


# Applications


class FixedResponse:
    """Send a head and a first chunk, and wait until the client leaves."""

    background: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": FIRST_CHUNK, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass


def hub_app() -> Any:
    """Return an application without a framework, on a hub."""
    hub = Hub()
    return _app(lambda scope: hub.response(scope, "orders/*"), hub)


def fixed_app() -> Any:
    """Return an application without a framework, with fixed bytes."""
    return _app(lambda scope: FixedResponse(), contextlib.nullcontext())


def _app(respond: Callable[[Any], Any], context: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await respond(scope)(scope, receive, send)
            return
        await receive()
        async with context:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return app


def hub_fastapi() -> Any:
    """Return a FastAPI application on a hub."""
    hub = Hub()
    return _fastapi(hub.response, hub.lifespan)


def fixed_fastapi() -> Any:
    """Return a FastAPI application with fixed bytes."""
    from starlette.responses import Response

    class Fixed(FixedResponse, Response):
        def __init__(self, request: Any, topic: str) -> None: ...

    return _fastapi(Fixed, None)


def _fastapi(respond: Callable[[Any, str], Any], lifespan: Any) -> Any:
    import fastapi

    app = fastapi.FastAPI(lifespan=lifespan)

    async def events(request: Any, topic: str) -> Any:
        return respond(request, topic)

    events.__annotations__["request"] = fastapi.Request  # imported here, so it has no name for the module
    app.get("/events")(events)
    return app


# Access control


def make_credentials(folder: Path) -> dict[str, str]:
    """Write the files of access control, and return the credential of each contender that has one."""
    key = add_key(folder / "keys.toml", "reader", subscribe=["orders/**"])
    claims = {"sub": "reader", "exp": int(time.time()) + 3600, "tickertape": {"subscribe": ["orders/**"]}}
    secret, private = secrets.token_bytes(48).hex().encode(), rsa.generate_private_key(65537, 2048)
    (folder / "secret").write_bytes(secret)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "public.pem").write_bytes(public)
    return {
        "serve key": key,
        "serve HS256": jwt.encode(claims, secret, "HS256"),
        "serve RS256": jwt.encode(claims, private, "RS256"),
    }


# Measuring


class Sample(NamedTuple):
    """One turn of one contender: seconds of processor time, and bytes, for each stream."""

    time: float
    memory: float


class Contender:
    """A server in a separate process."""

    def __init__(self, name: str, folder: Path, credential: str | None) -> None:
        self.port = free_port()
        self._request = _REQUEST % (b"" if credential is None else f"authorization: Bearer {credential}\r\n".encode())
        command = [sys.executable, *(part.format(port=self.port, folder=folder) for part in CONTENDERS[name])]
        self._program = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._process = psutil.Process(self._program.pid)
        wait_for(self.port)

    def measure(self, count: int) -> Sample:
        """Open ``count`` streams and close them again."""
        before = processor_time(self._program.pid)
        memory = self._process.memory_info().rss
        with contextlib.ExitStack() as stack:
            for start in range(0, count, STORM):
                for stream in open_streams(self.port, min(STORM, count - start), self._request):
                    stack.enter_context(stream)
            spent = processor_time(self._program.pid) - before
            memory = self._process.memory_info().rss - memory
        until = time.monotonic() + PATIENCE
        while self._process.num_fds() > count // 10 and time.monotonic() < until:
            time.sleep(0.05)
        return Sample(spent / count, memory / count)

    def close(self) -> None:
        self._program.kill()
        self._program.wait()


def open_streams(port: int, count: int, request: bytes) -> Iterator[socket.socket]:
    """Open streams at once, and yield each that has its first event block."""
    poll = select.poll()
    waiting: dict[int, tuple[socket.socket, bytes]] = {}
    for _ in range(count):
        stream = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        waiting[stream.fileno()] = stream, b""
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)  # ports stay free for the next turn
        poll.register(stream, select.POLLIN)
    for stream, _ in waiting.values():
        stream.sendall(request)
    while waiting:
        ready = poll.poll(PATIENCE * 1000)
        if not ready:
            raise TimeoutError(f"{len(waiting)} of {count} streams have no first byte after {PATIENCE:.0f} s")
        for descriptor, _ in ready:
            stream, received = waiting[descriptor]
            received += stream.recv(65536)
            waiting[descriptor] = stream, received
            if not received.startswith(b"HTTP/1.1 200 "):
                raise ConnectionError(f"expected a stream, got {received[:100]!r}")
            if b"retry: " in received and received.endswith(b"\n\n\r\n"):
                del waiting[descriptor]
                poll.unregister(descriptor)
                yield stream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), choices=CONTENDERS)
    options, _ = parser.parse_known_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    names = ["minimal", *(name for name in CONTENDERS if name in options.only and name != "minimal")]
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        credentials = make_credentials(folder)
        contenders = {
            name: stack.enter_context(contextlib.closing(Contender(name, folder, credentials.get(name))))
            for name in names
        }
        for contender in contenders.values():
            contender.measure(STORM)  # caches are warm after that
        first = {name: contender.measure(options.streams) for name, contender in contenders.items()}
        for _ in range(options.turns):
            for name, contender in contenders.items():
                samples[name].append(contender.measure(options.streams))
    print(f"{options.streams:,} streams, {STORM} at once\n")
    print(f"{'':14}{'us each':>10}{'of minimal':>12}{'KiB each':>10}")
    for name in names:
        spent = statistics.median(sample.time for sample in samples[name])
        ratio = statistics.median(
            ours.time / minimal.time for ours, minimal in zip(samples[name], samples["minimal"], strict=True)
        )
        print(f"{name:14}{spent * 1e6:10.1f}{ratio:12.2f}{first[name].memory / 1024:10.2f}")


if __name__ == "__main__":
    main()
