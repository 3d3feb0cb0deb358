"""What a hub holds and did."""

from __future__ import annotations

from typing import NamedTuple

from .feeds import FeedStatistics

__all__ = ["HubStatistics"]


class HubStatistics(NamedTuple):
    """What a hub holds now, and what it did since it was opened.

    Attributes:
        subscribers: present number of subscribers.
        topics: number of topics with records in the window.
        window_events: records in the window.
        window_bytes: bytes that the window takes, about.
        published: events that this hub appended.
        delivered: events that subscribers were given.
        superseded: events left out for newer ones of their topic, as ``on_overflow="latest"`` asks.
        gaps: gaps told to subscribers, by reason.
        disconnects: subscribers gone, by reason.
        feeds: what each feed does and did, by name.
    """

    subscribers: int
    topics: int
    window_events: int
    window_bytes: int
    published: int
    delivered: int
    superseded: int
    gaps: dict[str, int]
    disconnects: dict[str, int]
    feeds: dict[str, FeedStatistics]
