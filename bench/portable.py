"""CPU and memory of one stream under uvicorn: our response beside a bare loop of ``send``, in the same run.

Each server is a separate process. An event is written to all subscribers before the next one is published.
Connections are counted in KiB of resident memory of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import psutil

from .fanout import PATIENCE, Crowd, request, start_request
from .fanout_servers import application, event_data, hide_server, hub_app, serve_app, serve_bare, tickertape_queue_app

SUBSCRIBERS: Final = 1_000
EVENTS: Final = 60


def send_loop_app() -> Any:
    """Return an application that waits for a queue and calls ``send``, and does nothing else."""
    queues: set[asyncio.Queue[str]] = set()

    async def burst(count: int) -> None:
        for _ in range(count):
            data = event_data()
            for queue in queues:
                queue.put_nowait(data)
            while any(not queue.empty() for queue in queues):
                await asyncio.sleep(0)

    def respond(scope: Any) -> Any:
        async def stream(scope: Any, receive: Any, send: Any) -> None:
            queue: asyncio.Queue[str] = asyncio.Queue()
            queues.add(queue)
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while True:
                data = await queue.get()
                await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})

        return stream

    return application(respond, burst)


CONTENDERS: Final[dict[str, Callable[[int], None]]] = {
    "write loop": serve_bare,
    "send loop": lambda port: serve_app(port, send_loop_app()),
    "response": lambda port: serve_app(port, tickertape_queue_app()),
    "hub": lambda port: serve_app(port, hide_server(hub_app())),
}


def measure(name: str, subscribers: int, events: int) -> tuple[float, float]:
    """Return the microseconds of CPU for one delivery, and the KiB for one connection."""
    with subprocess.Popen([sys.executable, "-m", "bench.portable", "--serve", name, "18765"]) as program:
        try:
            _wait_for(18765)
            process = psutil.Process(program.pid)
            with_warm = Crowd(18765, 50)
            with_warm.read_for(0.2)
            with_warm.close()
            before = process.memory_info().rss
            crowd = Crowd(18765, subscribers)
            crowd.read_for(1.0)
            memory = (process.memory_info().rss - before) / 1024 / subscribers
            used = sum(process.cpu_times()[:2])
            with start_request(18765, f"/burst?n={events}"):
                crowd.read_until(subscribers * events)
            cpu = (sum(process.cpu_times()[:2]) - used) / subscribers / events * 1e6
            crowd.close()
        finally:
            program.kill()
    return cpu, memory


def _wait_for(port: int) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return request(port, "/health")
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", nargs=2)
    parser.add_argument("--subscribers", type=int, default=SUBSCRIBERS)
    parser.add_argument("--events", type=int, default=EVENTS)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.serve:
        CONTENDERS[options.serve[0]](int(options.serve[1]))
        return
    gc.disable()
    for name in CONTENDERS:
        cpu, memory = measure(name, options.subscribers, options.events)
        print(f"{name:12} {cpu:6.1f} µs CPU a delivery {memory:6.1f} KiB a connection", flush=True)


if __name__ == "__main__":
    main()
