"""``checked_url`` and ``stream_url``: addresses as people type them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import httpx2

_SCHEMES: Final = ("http://", "https://")


def checked_url(text: str) -> httpx2.URL:
    """Return an HTTP URL.

    Raises:
        ValueError: the text is not one. The message is for the person who typed it.
    """
    try:
        url = httpx2.URL(text)
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

    Raises:
        ValueError: the targets are neither. The message is for the person who typed them.
    """
    urls = [target for target in targets if target.lower().startswith(_SCHEMES)]
    if urls and len(targets) > 1:
        raise ValueError(f"expected one URL, or topics, got {len(targets)} arguments with the URL {urls[0]!r}")
    if urls:
        url = checked_url(urls[0])
    else:
        base = checked_url(hub)
        topics = httpx2.QueryParams({"topic": list(targets)})
        url = base.copy_with(path=f"{base.path.rstrip('/')}/events", params=topics)
    return url if last is None else url.copy_set_param("last", str(last))


def topic_of(url: httpx2.URL) -> str | None:
    """Return the topic of every event of a stream, if its URL has exactly one and that is not a pattern."""
    topics = url.params.get_list("topic")
    return topics[0] if len(topics) == 1 and "*" not in topics[0] else None
