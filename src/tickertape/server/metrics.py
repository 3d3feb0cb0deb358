"""``GET /metrics``: the metrics of all workers, whichever of them answers.

Each worker has a socket in a directory that the workers share, and writes its metrics to each connection there. The
worker that answers reads the sockets of the others. Every sample has the label ``process``, so a worker that is
replaced begins a new series, and no counter runs backwards for Prometheus.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from ..hub import Hub
from ..integrations.prometheus import HubCollector
from .limits import LimitCounts

logger = logging.getLogger("tickertape.server")

ANSWER_WITHIN: Final = 2.0
"""Seconds that the other workers may take: Prometheus gives up after ten."""


class WorkerMetrics:
    """A directory of sockets and the numbers of restarts, shared by the workers for their metrics.

    Made by the parent process, and passed to each worker when it is started.

    Arguments:
        workers: the number of workers.
    """

    def __init__(self, workers: int) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tickertape-"))
        self.restarts: Any = get_context("spawn").RawArray("Q", workers)

    def count_restart(self, worker: int) -> None:
        """Count that a worker, numbered from 0, is started again."""
        self.restarts[worker] += 1

    def close(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.directory, ignore_errors=True)


class _Fixed(Collector):
    """Metrics that are known already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = [*families]

    def collect(self) -> Iterator[Metric]:
        yield from self._families


class _Limits(Collector):
    """The counts of the server's limits."""

    def __init__(self, statistics: Callable[[], LimitCounts]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "tickertape_limits", "Requests refused and connections closed by a limit.", None, ["limit"]
        )
        for name, count in self._statistics()._asdict().items():
            family.add_metric([name], count)
        yield family


class Metrics:
    """Answer ``GET /metrics``.

    Arguments:
        hub: the hub of this process.
        shared: shared with the other workers; ``None`` if there are none.
    """

    def __init__(self, hub: Hub, shared: WorkerMetrics | None = None) -> None:
        self._shared = shared
        self._registry = CollectorRegistry()
        self._registry.register(
            _Fixed([InfoMetricFamily("tickertape_build", "The program.", {"version": version("tickertape")})])
        )
        self._registry.register(HubCollector(hub))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def add_limits(self, statistics: Callable[[], LimitCounts]) -> None:
        """Add the counts of the server's limits."""
        self._registry.register(_Limits(statistics))

    def register(self, collector: Collector) -> None:
        """Add metrics."""
        self._registry.register(collector)

    async def metrics(self, request: Request) -> Response:
        """``GET /metrics``: the metrics of all workers, in the format that the client prefers."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        registry = self._registry if self._shared is None else await self._collect_all(self._shared)
        return Response(encode(registry), headers={"content-type": content_type, "cache-control": "no-store"})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Show the metrics of this worker to the other ones."""
        if self._shared is None or not hasattr(socket, "AF_UNIX"):
            yield
            return
        path = self._shared.directory / str(os.getpid())
        server = await asyncio.start_unix_server(self._answer, path)
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(generate_latest(self._registry))
            await writer.drain()
        writer.close()

    async def _collect_all(self, shared: WorkerMetrics) -> CollectorRegistry:
        own = str(os.getpid())
        others = [path for path in shared.directory.iterdir() if path.name != own]
        texts = await asyncio.gather(*map(_read, others))
        found = {own: generate_latest(self._registry).decode()}
        found |= {path.name: text for path, text in zip(others, texts, strict=True) if text}
        registry = CollectorRegistry()
        registry.register(_Fixed([*_merge(found), _restarts(shared.restarts)]))
        return registry


async def _read(path: Path) -> str:
    """Return the metrics of another worker; nothing if it has ended or does not answer in time."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return (await reader.read()).decode()
            finally:
                writer.close()
    except (ConnectionRefusedError, FileNotFoundError):
        return ""  # it was killed, or has ended
    except (OSError, TimeoutError) as error:
        logger.warning(
            "no metrics from the worker with pid %s: %s", path.name, str(error) or "it did not answer in time"
        )
    return ""


def _merge(texts: dict[str, str]) -> Iterable[Metric]:
    """Return the families of several processes as one, with the label ``process`` in each sample."""
    families: dict[str, Metric] = {}
    for process, text in texts.items():
        for family in text_string_to_metric_families(text):
            into = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            into.samples += [sample._replace(labels={**sample.labels, "process": process}) for sample in family.samples]
    return families.values()


def _restarts(counts: Iterable[int]) -> Metric:
    family = CounterMetricFamily(
        "tickertape_worker_restarts", "Times that a worker was started again.", None, ["worker"]
    )
    for number, count in enumerate(counts, 1):
        family.add_metric([str(number)], count)
    return family
