"""Spans of a hub, as an exporter gets them."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tickertape.errors import BrokerError
from tickertape.hub import Hub, OverflowPolicy
from tickertape.integrations.opentelemetry import HubTracing, add_trace_context, link_of
from tickertape.testing import EventStreamClient, ScriptedBroker


class Spans:
    """A tracing of a hub, and the spans that it has ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = HubTracing(self.provider)

    def take(self) -> list[ReadableSpan]:
        """Return the spans that have ended since the last call."""
        spans = [*self._exporter.get_finished_spans()]
        self._exporter.clear()
        return spans


async def test_publish() -> None:
    spans = Spans()
    async with Hub(tracing=spans.tracing) as hub:
        with spans.provider.get_tracer("test").start_as_current_span("request") as request:
            await hub.publish("orders/1", "x")
        span, _ = spans.take()
        assert (span.name, span.kind, span.status.status_code) == ("publish", SpanKind.PRODUCER, StatusCode.UNSET)
        assert span.parent == request.get_span_context()
        assert dict(span.attributes or {}) == {
            "messaging.system": "tickertape",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": "orders/1",
        }


@pytest.mark.parametrize(("topics", "name"), [(("a", "a"), "a"), (("a", "b"), None)])
async def test_publish_many(topics: tuple[str, ...], name: str | None) -> None:
    spans = Spans()
    async with Hub(tracing=spans.tracing) as hub:
        await hub.publish_many([hub.draft(topic) for topic in topics])
        (span,) = spans.take()
        attributes = span.attributes or {}
        assert attributes["messaging.batch.message_count"] == 2
        assert attributes.get("messaging.destination.name") == name


async def test_failure() -> None:
    spans = Spans()
    broker = ScriptedBroker()
    async with Hub(broker, tracing=spans.tracing) as hub:
        await broker.close()
        with pytest.raises(BrokerError):
            await hub.publish("a")
        (span,) = spans.take()
        assert span.status.status_code is StatusCode.ERROR
        assert [event.name for event in span.events] == ["exception"]


async def test_stream() -> None:
    """The span of a stream has ended while the stream is open."""
    spans = Spans()
    hub = Hub(tracing=spans.tracing)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await hub.response(scope, "a/*")(scope, receive, send)

    async with hub, EventStreamClient(app) as client, client.open("/") as response:
        assert response.status == 200
        (span,) = spans.take()
        assert (span.name, span.kind) == ("subscribe", SpanKind.CONSUMER)
        assert (span.attributes or {})["messaging.destination.name"] == "a/*"
        assert hub.subscribers() == 1
    assert spans.take() == []


async def test_direct_stream() -> None:
    spans = Spans()
    async with Hub(tracing=spans.tracing) as hub:
        assert hub.open_direct(("a",), None, None, OverflowPolicy.DISCONNECT) is not None
        assert [span.name for span in spans.take()] == ["subscribe"]


async def test_records_of_the_hub() -> None:
    spans = Spans()
    async with Hub(tracing=spans.tracing) as hub:
        await hub.disconnect(user="alice")
        assert spans.take() == []


async def test_context_is_carried_if_asked() -> None:
    spans = Spans()
    async with Hub(tracing=spans.tracing) as hub, hub.subscribe("a") as events:
        with spans.provider.get_tracer("test").start_as_current_span("request") as request:
            await hub.publish("a", {"n": 1})
            await hub.publish("a", add_trace_context({"n": 2}))
        plain, carried = [(await anext(events)).json() for _ in range(2)]
        assert plain == {"n": 1}
        assert link_of(plain) is None
        link = link_of(carried)
        assert link is not None
        assert link.context.trace_id == request.get_span_context().trace_id
        assert link.context.span_id == request.get_span_context().span_id


@pytest.mark.parametrize("data", [{}, {"traceparent": 1}, {"traceparent": "x"}, {"traceparent": "00-0-0-01"}])
def test_no_link(data: dict[str, Any]) -> None:
    assert link_of(data) is None
