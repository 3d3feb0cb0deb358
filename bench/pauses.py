"""The longest wait of another request while ``tickertape serve`` holds 15,000 streams and publishes.

A separate process asks for ``/health/live`` again and again; whatever holds the server's loop, a
fan-out or a garbage collection, is a wait of that request. Full collections are rare, so one is requested.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import resource
import signal
import socket
import subprocess
import sys
import time
from typing import Final

from .fanout import PATIENCE, Crowd, percentile

STREAMS: Final = 15_000
EVENTS: Final = 40
PACE: Final = 0.25
"""Seconds between two events: a fan-out to so many takes a good part of it."""

PROBE: Final = """
import json, socket, sys, time
waits, until = [], time.monotonic() + float(sys.argv[2])
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while time.monotonic() < until:
    start = time.monotonic()
    connection.sendall(b"GET /health/live HTTP/1.1\\r\\nhost: localhost\\r\\n\\r\\n")
    answer = b""
    while not answer.endswith(b"}\\n"):
        answer += connection.recv(65536) or sys.exit(f"expected an answer, got {answer!r}")
    waits.append(time.monotonic() - start)
    time.sleep(0.002)
print(json.dumps(waits))
"""


SERVER: Final = """
import gc, signal, sys, time
from tickertape.cli import main
def collect(*_):
    start = time.monotonic()
    gc.collect()
    print("collected", time.monotonic() - start, flush=True)
signal.signal(signal.SIGUSR2, collect)
main()
"""
"""The server's program, which also runs a full garbage collection at a signal."""


def publish(port: int) -> None:
    """Publish one event, as any program does."""
    body = json.dumps({"topic": "bench/prices", "data": "x" * 120}).encode()
    head = f"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(head.encode() + b"\r\nconnection: close\r\n\r\n" + body)
        connection.recv(65536)


def collection(program: subprocess.Popen[str]) -> float:
    """Return the seconds that a full garbage collection of the server takes."""
    assert program.stdout is not None
    program.send_signal(signal.SIGUSR2)
    for line in program.stdout:
        if line.startswith("collected"):
            return float(line.split()[1])
    raise RuntimeError("the server ended")


def waits(port: int, streams: int, program: subprocess.Popen[str]) -> tuple[list[float], float]:
    """Return the seconds that requests waited while events went out to so many streams, and those of a collection."""
    crowd = Crowd(port, streams, path="/events?topic=**")
    crowd.read_for(2.0)
    probe = subprocess.Popen(
        [sys.executable, "-c", PROBE, str(port), str(EVENTS * PACE)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(EVENTS):
        start = time.monotonic()
        publish(port)
        crowd.read_for(max(0.01, PACE - (time.monotonic() - start)))
    output, _ = probe.communicate()
    collected = collection(program)
    crowd.close()
    return list(json.loads(output)), collected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=STREAMS)
    options, _ = parser.parse_known_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = [sys.executable, "-c", SERVER, "serve", "--broker", "memory://", "--port", str(port)]
    limits = ["--client-connections", "none", "--drain-window", "0.5"]
    program = subprocess.Popen([*serve, *limits], stdout=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                publish(port)
                break
            time.sleep(0.05)
        idle, busy = waits(port, 1, program), waits(port, options.streams, program)
        for name, (seconds, collected) in (("1 stream", idle), (f"{options.streams:,} streams", busy)):
            p50, p99 = (percentile(seconds, share) * 1000 for share in (0.5, 0.99))
            longest = f"longest {max(seconds) * 1000:6.1f} ms   full collection {collected * 1000:6.1f} ms"
            print(f"{name:16} p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   {longest}")
    finally:
        program.terminate()
        program.wait()


if __name__ == "__main__":
    main()
