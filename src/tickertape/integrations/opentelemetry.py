"""Spans of OpenTelemetry for a hub: for publishing, and for opening a stream.

.. code-block:: python

    hub = Hub("redis://", tracing=HubTracing())

A stream lasts for hours, so no span covers it: its span ends when the start of the stream is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..wire import Patterns, is_internal

__all__ = ["HubTracing", "add_trace_context", "link_of"]

_PROPAGATOR: Final = TraceContextTextMapPropagator()


class HubTracing:
    """Start spans for a hub, with the attributes of the semantic conventions for messaging.

    The names of the spans are ``publish`` and ``subscribe``. Topics are attributes: there may be any number of them.
    The records of the hub itself, and the events of runs, have no spans.

    Arguments:
        provider: creates the tracer; by default, the global one.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("tickertape", tracer_provider=provider)

    def publishing(self, topics: Sequence[str]) -> AbstractContextManager[Any]:
        """Return a span that lasts until events are stored. A failure is recorded in it."""
        if any(map(is_internal, topics)):
            return nullcontext()
        attributes = {**_attributes("publish", topics), "messaging.operation.type": "send"}
        if len(topics) > 1:
            attributes["messaging.batch.message_count"] = len(topics)
        return self._tracer.start_as_current_span("publish", kind=SpanKind.PRODUCER, attributes=attributes)

    def opening(self, patterns: Patterns) -> AbstractContextManager[Any]:
        """Return a span that lasts until the start of a stream is found. A failure is recorded in it."""
        if any(map(is_internal, patterns)):
            return nullcontext()
        attributes = _attributes("subscribe", patterns)
        return self._tracer.start_as_current_span("subscribe", kind=SpanKind.CONSUMER, attributes=attributes)


def _attributes(operation: str, topics: Sequence[str]) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {"messaging.system": "tickertape", "messaging.operation.name": operation}
    if len({*topics}) == 1:
        attributes["messaging.destination.name"] = topics[0]
    return attributes


def add_trace_context(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an event with the current trace context: ``traceparent`` and perhaps ``tracestate``.

    Publish them, and a consumer in another process can link its span. Readers of the event see the fields.
    """
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return {**data, **carrier}


def link_of(data: Mapping[str, Any]) -> Link | None:
    """Return a link to the span in whose context an event was published; ``None`` if its fields name none."""
    carrier = {name: value for name in ("traceparent", "tracestate") if isinstance(value := data.get(name), str)}
    context = trace.get_current_span(_PROPAGATOR.extract(carrier)).get_span_context()
    return Link(context) if carrier and context.is_valid else None
