"""``BrokerHealth``: readiness after refused writes, and few log lines."""

from __future__ import annotations

import logging

import pytest

from tickertape.errors import BrokerError
from tickertape.server.broker_health import UNREADY_FOR, BrokerHealth
from tickertape.testing import FakeClock


def test_refusal_is_forgotten() -> None:
    """Only a write can show that the broker stores again, so the server is ready again after some time."""
    clock = FakeClock()
    health = BrokerHealth(clock.time)
    refusals = [health.refusal]
    health.write_failed(error := BrokerError("full"))
    refusals.append(health.refusal)
    clock.advance(UNREADY_FOR)
    refusals.append(health.refusal)
    health.write_failed(error)
    health.write_succeeded()
    refusals.append(health.refusal)
    assert refusals == [None, error, None, None]


def test_broker_that_comes_and_goes(caplog: pytest.LogCaptureFixture) -> None:
    """If a store is nearly full, some writes fail and some succeed. That is logged a few times a minute."""
    caplog.set_level(logging.WARNING, "tickertape.server")
    clock = FakeClock()
    health = BrokerHealth(clock.time)
    for _ in range(1000):
        health.write_failed(error := BrokerError("full"))
        health.log("POST /events", error)
        health.write_succeeded()
        clock.advance(0.1)
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
        "POST /events failed: full",
        "the broker works again",
        "POST /events failed: full",
        "the broker works again",
    ]
