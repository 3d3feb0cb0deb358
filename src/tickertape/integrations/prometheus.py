"""Metrics of a hub for Prometheus, by ``prometheus-client``.

::

    from prometheus_client import REGISTRY, make_asgi_app
    from tickertape.integrations.prometheus import HubCollector

    REGISTRY.register(HubCollector(hub))
    app.mount("/metrics", make_asgi_app())

``tickertape serve`` answers ``GET /metrics`` with them. Names and units follow Prometheus' conventions
(https://prometheus.io/docs/practices/naming/).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ..asgi import DisconnectReason
from ..errors import HubClosedError
from ..hub import Distribution, Hub, HubStatistics

__all__ = ["HubCollector"]


class HubCollector(Collector):
    """Collect the metrics of a hub each time that a registry is read.

    The source is :meth:`Hub.statistics`, so publishing costs nothing more. While the hub is not open, there are
    no metrics.

    Arguments:
        hub: the hub.
        prefix: the first part of all names.
    """

    def __init__(self, hub: Hub, *, prefix: str = "tickertape") -> None:
        self._hub = hub
        self._prefix = prefix + "_"

    def describe(self) -> Iterable[Metric]:
        """Return no metrics: a registry then does not read the hub when the collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics at this moment."""
        try:
            found = self._hub.statistics()
        except HubClosedError:
            return
        yield from self._of_streams(found)
        yield from self._of_the_log(found)
        yield from self._of_feeds(found)

    def _of_streams(self, found: HubStatistics) -> Iterator[Metric]:
        reasons = dict.fromkeys((str(reason) for reason in DisconnectReason), 0) | found.disconnects
        yield self._gauges("streams_active", "Open streams, by the way in which they are served.", "way", found.streams)
        yield self._counter("streams_opened", "Streams that were opened.", found.opened)
        yield self._counter("streams_changed", "Changes of the topics of open streams.", found.changed)
        yield self._counters("streams_closed", "Streams that were closed, by reason.", "reason", reasons)
        yield self._histograms("stream_duration_seconds", "Duration of streams.", {"": found.stream_seconds})
        yield self._counter("events_delivered", "Events sent to subscribers.", found.delivered)
        yield self._counter("delivered_bytes", "Bytes of these, without HTTP's framing.", found.delivered_bytes)
        yield self._counter("events_superseded", "Events skipped for a newer one of their topic.", found.superseded)
        yield self._counters("gaps", "Gaps sent to subscribers, by reason.", "reason", found.gaps)
        yield self._histograms(
            "delivery_latency_seconds",
            "Time from the call of publish until all live subscribers were written to.",
            {"": found.delivery_seconds},
        )

    def _of_the_log(self, found: HubStatistics) -> Iterator[Metric]:
        latencies = {"append": found.append_seconds, "read": found.read_seconds}
        yield self._counter("events_published", "Events stored by this process.", found.published)
        yield self._counter("publications_delayed", "Publications that waited for slow readers.", found.delayed)
        yield self._histograms("broker_latency_seconds", "Time that the broker took.", latencies, "operation")
        yield self._counters("broker_errors", "Failures of the broker.", "operation", found.broker_errors)
        yield self._counter("records_skipped", "Records of other programs that cannot be encoded.", found.skipped)
        yield self._gauge("log_lag_events", "Events stored, but not sent to live subscribers yet.", found.lag)
        yield self._gauge("window_events", "Events in memory.", found.window_events)
        yield self._gauge("window_bytes", "Bytes of the events in memory, approximately.", found.window_bytes)
        yield self._gauge("topics", "Topics with events in memory.", found.topics)

    def _of_feeds(self, found: HubStatistics) -> Iterator[Metric]:
        feeds = found.feeds
        for name, text, counts in (
            ("published", "Items that a feed stored.", {name: feed.published for name, feed in feeds.items()}),
            ("skipped", "Items that can never be published.", {name: feed.skipped for name, feed in feeds.items()}),
            ("failures", "Failures of a source or the log.", {name: feed.failures for name, feed in feeds.items()}),
            ("restarts", "Times that a source was read again.", {name: feed.restarts for name, feed in feeds.items()}),
        ):
            yield self._counters(f"feed_{name}", text, "feed", counts)

    def _counter(self, name: str, text: str, value: float) -> Metric:
        return CounterMetricFamily(self._prefix + name, text, value=value)

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        return GaugeMetricFamily(self._prefix + name, text, value=value)

    def _counters(self, name: str, text: str, label: str, values: Mapping[Any, float]) -> Metric:
        family = CounterMetricFamily(self._prefix + name, text, labels=[label])
        for key, value in values.items():
            family.add_metric([key], value)
        return family

    def _gauges(self, name: str, text: str, label: str, values: Mapping[Any, float]) -> Metric:
        family = GaugeMetricFamily(self._prefix + name, text, labels=[label])
        for key, value in values.items():
            family.add_metric([key], value)
        return family

    def _histograms(self, name: str, text: str, values: Mapping[str, Distribution], label: str = "") -> Metric:
        family = HistogramMetricFamily(self._prefix + name, text, labels=[label] if label else [])
        for key, found in values.items():
            bounds = [*map(str, found.bounds), "+Inf"]
            buckets = [*zip(bounds, accumulate(found.counts), strict=True)]
            family.add_metric([key] if label else [], buckets, found.sum)
        return family
