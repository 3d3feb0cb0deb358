"""Addresses as people type them."""

from __future__ import annotations

import pytest

from tickertape.cli.address import checked_url, stream_url, topic_of

HUB = "http://h:1"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://a/b?c=d", "http://a/b?c=d"),
        ("HTTPS://a/", "https://a/"),
        ("localhost:8000/events", "http://localhost:8000/events"),
        ("localhost/events", "http://localhost/events"),
        ("LOCALHOST:1", "http://localhost:1"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("[::1]:8000/events?topic=a", "http://[::1]:8000/events?topic=a"),
        ("example.org/stream", "https://example.org/stream"),
        ("example.org:443/stream", "https://example.org/stream"),
        ("example.org:8000/stream", "http://example.org:8000/stream"),
    ],
)
def test_checked_url(text: str, url: str) -> None:
    assert str(checked_url(text)) == url


@pytest.mark.parametrize("text", ["", "topic", "ftp://a/", "a/b", "http:///a", "http://a:x/", "localhost:x/", "file:a"])
def test_not_a_url(text: str) -> None:
    with pytest.raises(ValueError, match="expected a URL"):
        checked_url(text)


@pytest.mark.parametrize(
    ("target", "is_url"),
    [
        ("localhost:8000/events", True),
        ("localhost/events", True),
        ("127.0.0.1:8000", True),
        ("example.org:8000/events", True),
        ("[::1]:8000/", True),
        ("localhost", False),
        ("example.org/news", False),
        ("orders/42", False),
        ("a:1/b", False),
        ("**", False),
    ],
)
def test_url_or_topic(target: str, is_url: bool) -> None:
    url = stream_url([target], hub=HUB)
    assert str(url).startswith(HUB) is not is_url


@pytest.mark.parametrize(
    ("targets", "topic", "envelope"),
    [
        (["orders/42"], "orders/42", None),
        (["orders/*"], None, "topic"),
        (["a", "b"], None, "topic"),
    ],
)
def test_topics(targets: list[str], topic: str | None, envelope: str | None) -> None:
    url = stream_url(targets, hub=HUB, last=3)
    assert url.params.get_list("topic") == targets
    assert (topic_of(url), url.params.get("envelope"), url.params["last"]) == (topic, envelope, "3")
