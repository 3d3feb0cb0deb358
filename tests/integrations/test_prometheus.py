"""The collector in an application: its own registry, Prometheus' own endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator

from prometheus_client import CollectorRegistry, make_asgi_app

from support.servers import until
from tickertape.hub import Hub
from tickertape.integrations.prometheus import HubCollector
from tickertape.testing import EventStreamClient


async def test_application() -> None:
    hub = Hub()
    registry = CollectorRegistry()
    registry.register(HubCollector(hub, prefix="shop"))
    assert registry.get_sample_value("shop_topics") is None  # the hub is not open yet
    async with hub, EventStreamClient(make_asgi_app(registry)) as client, hub.subscribe("a") as output:
        await hub.publish("a", "one")
        assert (await anext(aiter(output))).data == "one"
        async with client.open("/") as response:
            text = (await response.read()).decode()
    assert 'shop_streams_active{way="pull"} 1.0' in text
    assert "shop_events_delivered_total 1.0" in text
    assert 'shop_delivery_latency_seconds_bucket{le="+Inf"} 1.0' in text


async def test_feeds() -> None:
    async def source() -> AsyncIterator[dict[str, int]]:
        yield {"id": 1}

    registry = CollectorRegistry()
    async with Hub() as hub:
        registry.register(HubCollector(hub))
        feed = hub.feed("a", source, key="id")
        await until(lambda: not feed.active, lambda: "the end of the feed")
        assert registry.get_sample_value("tickertape_feed_published_total", {"feed": "a"}) == 1
