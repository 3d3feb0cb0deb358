"""``GET /metrics``: the metrics of all workers, whichever of them answers.

Every sample has the label ``process``, so a worker that is replaced begins a new series, and no counter runs backwards
for Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from importlib.metadata import version
from typing import Final, Literal, TypeAlias

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
from .peers import Peers
from .problems import Problem

Audience: TypeAlias = Literal["open", "admin", "off"]
"""The requests that ``GET /metrics`` answers: all, those of administrators, or none."""

_QUESTION: Final = "metrics"


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
        peers: all workers of this server.
        audience: the requests that are answered. Without access control, every request is one of an administrator.
    """

    def __init__(self, hub: Hub, peers: Peers, audience: Audience = "admin") -> None:
        self._hub = hub
        self._peers = peers
        self._audience = audience
        peers.answer(_QUESTION, lambda: generate_latest(self._registry).decode())
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
        if self._audience == "off":
            raise Problem(HTTPStatus.NOT_FOUND, "the metrics are off: see --metrics")
        if self._audience == "admin":
            (await self._hub.authorize(request)).check_admin("read metrics")
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        registry = self._registry
        if self._peers.share is not None:
            registry = CollectorRegistry()
            registry.register(_Fixed(await self.collect()))
        return Response(encode(registry), headers={"content-type": content_type, "cache-control": "no-store"})

    async def collect(self) -> list[Metric]:
        """Return the metrics of all workers, each sample with the label ``process``."""
        families = [*_merge(await self._peers.ask(_QUESTION))]
        if self._peers.share is not None:
            families.append(_restarts(self._peers.share.restarts))
        return families


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
