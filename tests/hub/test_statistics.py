"""Counters, distributions and the log lines of streams, on both ways of delivery."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from support.hub import HubClient, settle
from tickertape.broker import MemoryBroker
from tickertape.errors import BrokerError
from tickertape.hub import Hub
from tickertape.hub.statistics import Histogram
from tickertape.testing import FakeClock, ScriptedBroker

WAYS = pytest.mark.parametrize("direct", [False, True], ids=["portable", "direct"])


@pytest.mark.parametrize(
    ("values", "counts"),
    [([], (0, 0, 0)), ([0.0, 1.0], (2, 0, 0)), ([1.1, 2.0], (0, 2, 0)), ([2.1, 1e9], (0, 0, 2))],
)
def test_histogram(values: list[float], counts: tuple[int, ...]) -> None:
    histogram = Histogram((1.0, 2.0))
    for value in values:
        histogram.observe(value)
    snapshot = histogram.snapshot()
    assert (snapshot.counts, snapshot.sum, snapshot.total) == (counts, sum(values), len(values))


@WAYS
async def test_streams_and_bytes(direct: bool) -> None:
    async with Hub(clock=FakeClock()) as hub:
        first = HubClient(hub, "a", direct=direct)
        await settle()
        await hub.publish("a", "one")
        await settle()
        way = "direct" if direct else "pull"
        assert hub.statistics().streams == {"direct": 0, "pull": 0} | {way: 1}
        await hub.publish_many([hub.draft("a", "two"), hub.draft("b", "not for it"), hub.draft("a", "three")])
        await settle()
        found = hub.statistics()
        assert (found.opened, found.delivered, found.lag) == (1, 3, 0)
        sent = [
            f"id: {hub.epoch}-{offset}\ndata: {data}\n\n" for offset, data in ((1, "one"), (2, "two"), (4, "three"))
        ]
        assert found.delivered_bytes == len("".join(sent))
        assert found.delivery_seconds.total == found.append_seconds.total == 2
        await first.close()
        await settle()
        found = hub.statistics()
        assert found.streams == {"direct": 0, "pull": 0}
        assert found.stream_seconds.total == 1


@WAYS
async def test_log_lines(direct: bool, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, logger="tickertape.hub.streams"):
        async with Hub(clock=FakeClock()) as hub:
            client = HubClient(hub, "a/*", direct=direct, user="alice")
            await settle()
            await hub.publish("a/1", "one")
            await settle()
            await client.close()
            await settle()
            sent = hub.statistics().delivered_bytes
    opened, closed = caplog.records
    assert opened.getMessage() == "stream 1 opened: a/*, user alice"
    assert closed.getMessage() == f"stream 1 closed: client_closed after 0.0 s, 1 events, {sent} bytes, user alice"
    assert (closed.reason, closed.events, closed.bytes, closed.user) == ("client_closed", 1, sent, "alice")


class FailingBroker(MemoryBroker):
    """A log that stores nothing."""

    async def append(self, drafts: Any) -> Any:
        raise BrokerError("disk full")


async def test_broker_errors() -> None:
    async with Hub(FailingBroker()) as hub:
        for _ in range(2):
            with pytest.raises(BrokerError):
                await hub.publish("a")
        found = hub.statistics()
        assert found.broker_errors == {"append": 2, "read": 0, "follow": 0}
        assert (found.append_seconds.total, found.published) == (0, 0)


async def test_lag_is_what_is_not_followed() -> None:
    broker = ScriptedBroker()
    async with Hub(broker, clock=FakeClock()) as hub:
        await hub.publish("a", "1")
        await settle()
        assert hub.statistics().lag == 0
