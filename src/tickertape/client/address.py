"""``stream_url`` and ``checked_url``: addresses as people type them, checked before anything is asked of them."""

from __future__ import annotations

from collections.abc import Sequence

import httpx2

__all__ = ["checked_url", "stream_url", "topic_of"]

_SCHEMES = ("http://", "https://")


def checked_url(text: str) -> httpx2.URL:
    """Return an HTTP URL.

    Raises:
        ValueError: it is not one; the text is a sentence for whoever typed it.
    """
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise ValueError(f"expected a URL, got {text!r}: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"expected a URL that starts with http:// or https://, got {text!r}")
    return url


def stream_url(targets: Sequence[str], *, hub: str, last: int | None = None) -> httpx2.URL:
    """Return the address of a stream: the one given, or that of topics of a hub.

    Arguments:
        targets: one URL of a stream, or topics and topic patterns.
        hub: the URL of the hub that the topics are of.
        last: with how many past events to begin.

    Raises:
        ValueError: that is neither; the text is a sentence for whoever typed it.
    """
    urls = [target for target in targets if target.lower().startswith(_SCHEMES)]
    if urls and len(targets) > 1:
        raise ValueError(f"expected one URL, or topics, got {len(targets)} of them with {urls[0]!r}")
    if urls:
        url = checked_url(urls[0])
    else:
        base = checked_url(hub)
        topics = httpx2.QueryParams({"topic": list(targets)})
        url = base.copy_with(path=f"{base.path.rstrip('/')}/events", params=topics)
    return url if last is None else url.copy_set_param("last", str(last))


def topic_of(url: httpx2.URL) -> str | None:
    """Return the topic of every event of a stream if its address tells: the only one, and not a pattern."""
    topics = url.params.get_list("topic")
    return topics[0] if len(topics) == 1 and "*" not in topics[0] else None
