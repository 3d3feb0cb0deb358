"""URLs of brokers: errors, and secrets that are not shown."""

from __future__ import annotations

import pytest

from tickertape.broker import MemoryBroker, SQLiteBroker, create_broker, without_secrets
from tickertape.errors import BrokerError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://", "memory://"),
        ("sqlite:///a:b@c.db", "sqlite:///a:b@c.db"),
        ("redis://localhost/0", "redis://localhost/0"),
        ("redis://:secret@localhost/0?prefix=p", "redis://:***@localhost/0?prefix=p"),
        ("redis://user:se@cret@localhost", "redis://user:***@localhost"),
        ("redis://user:se/cret@localhost", "redis://user:***@localhost"),
        (
            "redis+sentinel://u:p@a,b/s?sentinel_password=x@y&db=1",
            "redis+sentinel://u:***@a,b/s?sentinel_password=***&db=1",
        ),
        ("postgresql://user@host/db", "postgresql://user@host/db"),
        ("postgresql://host/db?user=u&password=p&timeout=1", "postgresql://host/db?user=u&password=***&timeout=1"),
        ("postgresql://host/db?sslpassword=p", "postgresql://host/db?sslpassword=***"),
        ("nats://user:password@a,b/stream", "nats://user:***@a,b/stream"),
        ("nats://token@host/stream", "nats://***@host/stream"),
        ("nats+tls://token@host/stream", "nats+tls://***@host/stream"),
    ],
)
def test_without_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense://user:secret@host", "got one with nonsense scheme"),
        ("log.db", "got one with no scheme"),
        ("redis://:secret/1@host/0", "percent-encoded"),
        ("postgresql://user:secret#1@host/db", "percent-encoded"),
        ("nats://secret/1@host/stream", "percent-encoded"),
        ("redis://:secret@host/0?timeout=0", "expected timeout to be a positive number of seconds, got '0'"),
        ("postgresql://u:secret@host/db?timeout=soon", "expected timeout to be a positive number of seconds"),
        ("postgresql://u:secret@host/db?connect_timeout=inf", "expected connect_timeout to be a positive number"),
        ("nats://u:secret@host/stream?timeout=-1", "expected timeout to be a positive number of seconds"),
    ],
)
def test_errors_hide_passwords(url: str, said: str) -> None:
    with pytest.raises(BrokerError, match=said) as caught:
        create_broker(url)
    assert "secret" not in str(caught.value)


def test_create_broker() -> None:
    assert isinstance(create_broker("memory://"), MemoryBroker)
    assert isinstance(create_broker("sqlite:///a@b.db"), SQLiteBroker)
