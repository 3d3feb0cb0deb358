"""The memory of ``tickertape serve`` after rounds of connections with large bodies, all closed again.

In each round, clients send half of a large body, others do not read a large answer, others publish batches and
subscribe. Then all leave. The memory must stay flat from round to round.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

ROUNDS: Final = 10
CLIENTS: Final = 6
LARGE: Final = 6_000_000
"""Bytes of a body or an answer."""

STREAMS: Final = 2_000
PATIENCE: Final = 20.0


def resident(process: int) -> float:
    """Return the resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


async def connect(port: int, request: bytes, body: bytes = b"") -> asyncio.StreamWriter:
    """Send a request over a separate connection, and read a few bytes of the response at most."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(request + b"host: localhost\r\n\r\n" + body)
    await writer.drain()
    return writer


async def publish(port: int, body: bytes, content_type: str) -> None:
    """Publish, and wait for the answer."""
    head = f"POST /events HTTP/1.1\r\nconnection: close\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + b"\r\nhost: localhost\r\n\r\n" + body)
    answer = await reader.read()
    assert b" 201 " in answer[:20], answer[:200]
    writer.close()


async def run_round(port: int) -> None:
    """Open all connections, publish beside them, and close them."""
    half = b"POST /events HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % (LARGE * 4 // 3)
    writers = [await connect(port, half, b"[" + b" " * LARGE) for _ in range(CLIENTS)]
    writers += [await connect(port, b"GET /history?topic=large HTTP/1.1\r\n") for _ in range(CLIENTS)]
    writers += [await connect(port, b"GET /events?topic=small HTTP/1.1\r\n") for _ in range(STREAMS)]
    lines = b'{"topic":"small","data":"x"}\n' * 5_000
    for _ in range(4):
        await publish(port, lines, "application/x-ndjson")
    for writer in writers:
        writer.transport.abort()
    large = b"topic=large&data=" + b"x" * 1_000_000
    for _ in range(LARGE // len(large)):
        await publish(port, large, "application/x-www-form-urlencoded")
    await asyncio.sleep(2)


async def measure(port: int, process: int) -> None:
    """Print the memory after each round."""
    print(f"{'at the start':16}{resident(process):8.0f} MiB")
    for number in range(1, ROUNDS + 1):
        await run_round(port)
        print(f"{f'after round {number}':16}{resident(process):8.0f} MiB")


def main() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = [sys.executable, "-m", "tickertape", "serve", "--broker", "memory://", "--port", str(port)]
    options = ["--retention-bytes", "8MiB", "--drain-window", "0.5"]
    program = subprocess.Popen([*serve, *options], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + PATIENCE
        while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < until:
            time.sleep(0.1)
        asyncio.run(measure(port, program.pid))
    finally:
        program.terminate()
        program.wait()


if __name__ == "__main__":
    main()
