"""Fairness: what three publishers of large batches cost the others, beside the same server without them.

``tickertape serve`` has ten subscribers to a busy topic. Three publishers post batches of 10,000 events to it,
one after the other without a pause. At the same time a quiet topic gets an event twenty times a second, and readiness
is requested as often. Latencies are from the request to the event at the subscriber, or to the response.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from .processes import free_port, wait_for

SECONDS: Final = 8.0
BATCH: Final = 10_000
PUBLISHERS: Final = 3
SUBSCRIBERS: Final = 10
PACE: Final = 0.05


def main() -> None:
    print(f"{'':16}{'batches':>9}{'events':>9}{'p50 ms':>9}{'p99 ms':>9}{'ready p50':>11}{'ready p99':>11}{'lost':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for broker in ("memory://", f"sqlite:///{folder}/log.db"):
            for name, publishers in (("alone", 0), ("flooded", PUBLISHERS)):
                with serving(broker) as port:
                    run(f"{broker.partition(':')[0]} {name}", port, publishers)


@contextmanager
def serving(broker: str) -> Iterator[int]:
    port = free_port()
    serve = [sys.executable, "-m", "tickertape", "serve", f"--port={port}", f"--broker={broker}", "--log-level=error"]
    with subprocess.Popen(serve, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            yield port
        finally:
            process.terminate()


def run(name: str, port: int, publishers: int) -> None:
    until = time.monotonic() + SECONDS
    events: list[float] = []
    ready: list[float] = []
    batches: list[int] = []
    lost: list[str] = []
    streams = [subscribe(port, "busy") for _ in range(SUBSCRIBERS)]
    threads = [
        threading.Thread(target=drain, args=(streams, until)),
        threading.Thread(target=listen, args=(subscribe(port, "quiet"), events, lost, until)),
        threading.Thread(target=repeat, args=(port, until, publish_quiet)),
        threading.Thread(target=repeat, args=(port, until, lambda connection: ready.append(ask(connection)))),
        *(threading.Thread(target=flood, args=(port, until, batches)) for _ in range(publishers)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures = "".join(f"{1000 * value:{width}.0f}" for value, width in [*quantiles(events, 9), *quantiles(ready, 11)])
    print(f"{name:16}{len(batches):9}{len(events):9}{figures}{len(lost):6}")


def quantiles(values: list[float], width: int) -> list[tuple[float, int]]:
    ordered = sorted(values) or [float("nan")]
    return [(ordered[int(part * (len(ordered) - 1))], width) for part in (0.5, 0.99)]


def subscribe(port: int, topic: str) -> socket.socket:
    stream = socket.create_connection(("127.0.0.1", port))
    stream.sendall(f"GET /events?topic={topic} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return stream


def drain(streams: list[socket.socket], until: float) -> None:
    while (left := until - time.monotonic()) > 0 and streams:
        for stream in select.select(streams, [], [], left)[0]:
            if not stream.recv(1 << 20):
                streams.remove(stream)


def listen(stream: socket.socket, latencies: list[float], lost: list[str], until: float) -> None:
    """Read the quiet topic, whose events are the times at which they were published."""
    rest = b""
    while (left := until - time.monotonic()) > 0:
        stream.settimeout(left)
        try:
            data = stream.recv(65536)
        except TimeoutError:
            return
        if not data:
            lost.append("disconnected")
            return
        *lines, rest = (rest + data).split(b"\n")
        now = time.perf_counter()
        latencies += (now - float(line[6:]) for line in lines if line.startswith(b"data: "))
        lost += ["gap" for line in lines if line.startswith(b"event: stream:gap")]


def repeat(port: int, until: float, act: Callable[[http.client.HTTPConnection], object]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while time.monotonic() < until:
        act(connection)
        time.sleep(PACE)


def publish_quiet(connection: http.client.HTTPConnection) -> None:
    connection.request("POST", "/events/quiet", repr(time.perf_counter()).encode())
    connection.getresponse().read()


def ask(connection: http.client.HTTPConnection) -> float:
    began = time.perf_counter()
    connection.request("GET", "/health/ready")
    connection.getresponse().read()
    return time.perf_counter() - began


def flood(port: int, until: float, batches: list[int]) -> None:
    body = "\n".join(json.dumps({"topic": "busy", "data": "x" * 100}) for _ in range(BATCH)).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while time.monotonic() < until:
        connection.request("POST", "/events", body, {"Content-Type": "application/x-ndjson"})
        response = connection.getresponse()
        response.read()
        if response.status == http.HTTPStatus.CREATED:
            batches.append(BATCH)
