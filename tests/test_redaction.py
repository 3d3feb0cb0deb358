"""Secrets in URLs: what is shown of them."""

from __future__ import annotations

import pytest

from tickertape.redaction import redact_target, redact_url


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/events?topic=a&ticket=abc", "/events?topic=a&ticket=***"),
        ("/events?access_token=abc&topic=a", "/events?access_token=***&topic=a"),
        ("/events?authorization=abc", "/events?authorization=***"),
        ("/events?%74icket=abc", "/events?%74icket=***"),
        ("/events?api_key=abc&API-KEY=d&password=x", "/events?api_key=***&API-KEY=***&password=***"),
        ("/events?topic=a?ticket=abc", "/events?topic=***"),
        ("/events?topic=a;access_token=abc", "/events?topic=***"),
        ("/events?topic=a%26ticket%3Dabc&last=1", "/events?topic=***&last=1"),
        ("/events?access_token%3Dabc", "/events?***"),
        ("/events?topic=tickets/1", "/events?topic=tickets/1"),
        ("/events/a?key=1&event=e", "/events/a?key=1&event=e"),
        ("/events?ticket", "/events?ticket"),
        ("/ticket=abc", "/ticket=abc"),
        ("/events", "/events"),
        ("/events?", "/events?"),
    ],
)
def test_redact(target: str, shown: str) -> None:
    assert redact_target(target) == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host/a?b=c", "http://host/a?b=c"),
        ("https://user:password@host:8000/a?token=x&b=c", "https://***@host:8000/a?token=***&b=c"),
        ("https://user@host", "https://***@host"),
        ("http://us@er:p@ss@host/@a", "http://***@host/@a"),
        ("http://user:p@host?token=x", "http://***@host?token=***"),
        ("http://[::1]:8000/", "http://[::1]:8000/"),
    ],
)
def test_redact_url(url: str, shown: str) -> None:
    assert redact_url(url) == shown
