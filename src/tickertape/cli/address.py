"""``checked_url`` and ``stream_url``: addresses as people type them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import httpx2

_SCHEMES: Final = ("http://", "https://")

_HOST: Final = r"(?:localhost|\d+(?:\.\d+){3}|\[[\da-f:.]+\]|[a-z\d](?:[a-z\d-]*\.[a-z\d-]+)+)"

_ADDRESS: Final = re.compile(rf"(?P<host>{_HOST})(?::(?P<port>\d+))?(?=[/?]|$)", re.IGNORECASE)
"""A host, with or without a port, at the start of an address without a scheme."""

_SAFE_PORTS: Final = (None, "443")


def _with_scheme(text: str) -> str:
    """Return an address with a scheme: https for names of the internet without another port, http for the rest."""
    found = _ADDRESS.match(text)
    if found is None or "://" in text:
        return text
    is_name = found["host"].lower() != "localhost" and found["host"][-1].isalpha()
    return f"{'https' if is_name and found['port'] in _SAFE_PORTS else 'http'}://{text}"


def _is_url(target: str) -> bool:
    """Return True for a URL, also without a scheme, where no one would take it for a topic.

    ``example.org/news`` may be a topic; ``example.org:8000/news`` and ``localhost/news`` are none.
    """
    if target.lower().startswith(_SCHEMES):
        return True
    found = _ADDRESS.match(target)
    return found is not None and (found["port"] is not None or (found["host"].lower() == "localhost" and "/" in target))


def checked_url(text: str) -> httpx2.URL:
    """Return an HTTP URL. The scheme may be missing, as in ``localhost:8000/events``.

    Raises:
        ValueError: the text is not one. The message is for the person who typed it.
    """
    try:
        url = httpx2.URL(_with_scheme(text))
    except httpx2.InvalidURL as error:
        raise ValueError(f"expected a URL, got {text!r}: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"expected a URL that starts with http:// or https://, got {text!r}")
    return url


def stream_url(targets: Sequence[str], *, hub: str, last: int | None = None) -> httpx2.URL:
    """Return the URL of a stream: the given one, or that of topics of a hub.

    Arguments:
        targets: the URL of a stream, or topics and topic patterns.
        hub: the URL of the hub with these topics.
        last: the number of past events to begin with.

    If the events can have several topics, the hub is asked to send the topic with each of them.

    Raises:
        ValueError: the targets are neither. The message is for the person who typed them.
    """
    urls = [target for target in targets if _is_url(target)]
    if urls and len(targets) > 1:
        raise ValueError(f"expected one URL, or topics, got {len(targets)} arguments with the URL {urls[0]!r}")
    if urls:
        url = checked_url(urls[0])
    else:
        base = checked_url(hub)
        topics = httpx2.QueryParams({"topic": list(targets)})
        url = base.copy_with(path=f"{base.path.rstrip('/')}/events", params=topics)
        if topic_of(url) is None:
            url = url.copy_set_param("envelope", "topic")
    return url if last is None else url.copy_set_param("last", str(last))


def topic_of(url: httpx2.URL) -> str | None:
    """Return the topic of every event of a stream, if its URL has exactly one and that is not a pattern."""
    topics = url.params.get_list("topic")
    return topics[0] if len(topics) == 1 and "*" not in topics[0] else None
