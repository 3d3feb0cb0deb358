"""``Presence``, the current subscribers of a hub."""

from __future__ import annotations

import hashlib
import itertools
import logging
import secrets
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from ..asgi import DisconnectReason
from .subscription import SubscriberInfo, Subscription

logger = logging.getLogger("tickertape.hub")

_NAME_BYTES: Final = 18
"""Random bytes of the text that names a subscription: it cannot be guessed, and fits well into a URL."""

JoinCallback: TypeAlias = Callable[[SubscriberInfo], Any]
LeaveCallback: TypeAlias = Callable[[SubscriberInfo, DisconnectReason], Any]


class Presence:
    """The current subscribers of a hub, with callbacks for those that join, change their topics, and leave.

    If a connection is closed or reset, its subscriber leaves at once. If a client vanishes
    silently, as when a laptop is closed, its subscriber leaves when the kernel finds that no packet arrives
    any more: on Linux after one and a half times ``send_timeout``, elsewhere after the system's own timeout.
    """

    def __init__(self) -> None:
        self._subscriptions: dict[int, Subscription] = {}
        self._ids = itertools.count(1)
        self._names: dict[int, str] = {}  # of those that can be changed
        self._named: dict[str, Subscription] = {}
        self._on_join: list[JoinCallback] = []
        self._on_change: list[JoinCallback] = []
        self._on_leave: list[LeaveCallback] = []

    def __len__(self) -> int:
        return len(self._subscriptions)

    def __iter__(self) -> Iterator[SubscriberInfo]:
        return iter([subscription.info for subscription in self._subscriptions.values()])

    def __repr__(self) -> str:
        return f"<Presence {len(self)} subscribers>"

    def on_join(self, callback: JoinCallback) -> JoinCallback:
        """Call ``callback(info)`` when a subscriber joins. Returns the callback, so this works as a decorator."""
        self._on_join.append(callback)
        return callback

    def on_leave(self, callback: LeaveCallback) -> LeaveCallback:
        """Call ``callback(info, reason)`` when a subscriber has left. Returns the callback."""
        self._on_leave.append(callback)
        return callback

    def on_change(self, callback: JoinCallback) -> JoinCallback:
        """Call ``callback(info)`` when a subscriber has other topics (:meth:`Hub.change`). Returns the callback."""
        self._on_change.append(callback)
        return callback

    # For the delivery.

    @property
    def subscriptions(self) -> list[Subscription]:
        """A copy of the list of current subscriptions, in the order in which they joined."""
        return list(self._subscriptions.values())

    def get(self, id: int) -> Subscription | None:
        """Return the current subscription with this number."""
        return self._subscriptions.get(id)

    def new_id(self) -> int:
        """Return the next unused number for a subscriber."""
        return next(self._ids)

    def join(self, subscription: Subscription) -> None:
        """Add a subscription and call the callbacks."""
        self._subscriptions[subscription.id] = subscription
        if self._on_join:
            _call(self._on_join, subscription.info)

    def changed(self, subscription: Subscription) -> None:
        """Call the callbacks, because the topics of a subscription have changed."""
        if self._on_change:
            _call(self._on_change, subscription.info)

    def name(self, subscription: Subscription) -> str:
        """Return a new random text with which a request can name a subscription."""
        text = secrets.token_urlsafe(_NAME_BYTES)
        name = self._names[subscription.id] = name_of(text)
        self._named[name] = subscription
        return text

    def named(self, name: str) -> Subscription | None:
        """Return the open subscription with the name that :func:`name_of` returns for its text."""
        return self._named.get(name)

    def leave(self, subscription: Subscription) -> None:
        """Remove a subscription that has ended and call the callbacks."""
        if (name := self._names.pop(subscription.id, None)) is not None:
            del self._named[name]
        if self._subscriptions.pop(subscription.id, None) is not None and self._on_leave:
            _call(self._on_leave, subscription.info, subscription.reason)


def name_of(text: str) -> str:
    """Return the name of a subscription. The log has the name only, so a reader of the log does not learn the text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _call(callbacks: list[Any], *args: Any) -> None:
    for callback in callbacks:
        try:
            callback(*args)
        except Exception:
            logger.exception("a presence callback failed")
