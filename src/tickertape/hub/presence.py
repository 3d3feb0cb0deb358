"""Who is subscribed, and who comes and goes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from ..asgi import DisconnectReason
from .subscriber import Subscriber, SubscriberInfo

__all__ = ["JoinCallback", "LeaveCallback", "Presence"]

logger = logging.getLogger("tickertape.hub")

JoinCallback: TypeAlias = Callable[[SubscriberInfo], Any]
LeaveCallback: TypeAlias = Callable[[SubscriberInfo, DisconnectReason], Any]


class Presence:
    """Know the present subscribers of a hub, and tell of each that joins and leaves.

    One whose connection is closed or reset leaves at once. One that vanishes without a word, as behind
    a closed lid, leaves when the kernel finds that nothing arrives any more: under ``tickertape serve``
    after one and a half times ``send_timeout``, elsewhere as long as the system takes (Linux, unless told
    otherwise: a quarter of an hour; ``sysctl net.ipv4.tcp_retries2``).
    """

    def __init__(self) -> None:
        self._present: dict[int, Subscriber] = {}
        self._on_join: list[JoinCallback] = []
        self._on_leave: list[LeaveCallback] = []

    def __len__(self) -> int:
        return len(self._present)

    def __iter__(self) -> Iterator[SubscriberInfo]:
        return iter([subscriber.info for subscriber in self._present.values()])

    def __repr__(self) -> str:
        return f"<Presence {len(self)} subscribers>"

    def on_join(self, callback: JoinCallback) -> JoinCallback:
        """Call ``callback(info)`` when a subscriber joins; returns it, so that it may stand as a decorator."""
        self._on_join.append(callback)
        return callback

    def on_leave(self, callback: LeaveCallback) -> LeaveCallback:
        """Call ``callback(info, reason)`` when a subscriber has left; returns it."""
        self._on_leave.append(callback)
        return callback

    def join(self, subscriber: Subscriber) -> None:
        """Note a subscriber that came."""
        self._present[subscriber.info.id] = subscriber
        _call(self._on_join, subscriber.info)

    def leave(self, subscriber: Subscriber) -> None:
        """Note a subscriber that ended."""
        if self._present.pop(subscriber.info.id, None) is not None:
            _call(self._on_leave, subscriber.info, subscriber.reason)

    def replace(self, subscriber: Subscriber, successor: Subscriber) -> None:
        """Note that the same one is served in another way."""
        self._present[successor.info.id] = successor
        subscriber.hand_over()


def _call(callbacks: list[Any], *args: Any) -> None:
    for callback in callbacks:
        try:
            callback(*args)
        except Exception:
            logger.exception("a presence callback failed")
