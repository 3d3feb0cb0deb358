"""Seconds from SIGTERM to the exit of a server with one open stream."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

from tickertape import EventSourceResponse

from .fanout import PATIENCE

SERVERS: Final = {
    "uvicorn": ("uvicorn", "bench.stopping:app", "--port={port}", "--log-level=error"),
    "uvicorn, 2 workers": ("uvicorn", "bench.stopping:app", "--port={port}", "--workers=2", "--log-level=error"),
    "gunicorn": (
        "gunicorn",
        "bench.stopping:app",
        "--worker-class=uvicorn_worker.UvicornWorker",
        "--bind=127.0.0.1:{port}",
        "--log-level=error",
    ),
    "granian": ("granian", "bench.stopping:app", "--interface=asgi", "--port={port}", "--no-log"),
    "hypercorn": ("hypercorn", "bench.stopping:app", "--bind=127.0.0.1:{port}", "--log-level=ERROR"),
}

STREAMS: Final = {
    "idle": "/idle",
    "blocked in a thread": "/blocked",
    "never waits": "/busy",
    "client does not read": "/flood",
}

PROXIED: Final = "x-forwarded-for: 203.0.113.7\r\n"
"""A header of proxies. uvicorn replaces the client's address by the one in it."""


async def idle() -> AsyncIterator[str]:
    """Wait for an event that never comes."""
    yield "first"
    await asyncio.Event().wait()


def blocked() -> Iterator[str]:
    """Wait in a way that nothing can interrupt."""
    yield "first"
    time.sleep(3600)


async def busy() -> AsyncIterator[str]:
    """Never wait at all."""
    while True:
        yield "again"


async def flood() -> AsyncIterator[str]:
    """Send more than a client that does not read can take."""
    while True:
        yield "x" * 65536
        await asyncio.sleep(0)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the stream that the path names."""
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    sources: dict[str, Any] = {"/idle": idle, "/blocked": blocked, "/busy": busy, "/flood": flood}
    await EventSourceResponse(sources[scope["path"]]())(scope, receive, send)


def seconds(command: tuple[str, ...], path: str, headers: str = "") -> float:
    """Start a server, open a stream, and return how long the server takes to stop."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name(command[0]))
    server = subprocess.Popen([program, *(part.format(port=port) for part in command[1:])], stderr=subprocess.DEVNULL)
    try:
        with _connect(port) as stream:
            stream.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n".encode())
            stream.recv(100)
            time.sleep(1)
            start = time.monotonic()
            os.kill(server.pid, signal.SIGTERM)
            server.wait(PATIENCE)
            return time.monotonic() - start
    finally:
        server.kill()
        server.wait()


def _connect(port: int) -> socket.socket:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def main() -> None:
    print(f"{'':20}" + "".join(f"{name:>22}" for name in (*STREAMS, "the same, proxied")))
    for name, command in SERVERS.items():
        results = [seconds(command, path) for path in STREAMS.values()]
        results.append(seconds(command, "/flood", PROXIED))
        print(f"{name:20}" + "".join(f"{result:20.2f} s" for result in results), flush=True)


if __name__ == "__main__":
    main()
