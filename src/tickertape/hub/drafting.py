"""What may be published."""

from __future__ import annotations

from typing import Any, Final

from ..broker import Draft
from ..errors import EventTooLargeError, InvalidEventError
from ..wire import ServerSentEvent
from .gap import RESERVED_PREFIX
from .topics import check_topic

__all__ = ["MAX_KEY_LENGTH", "make_draft"]

MAX_KEY_LENGTH: Final = 255
"""Characters of an idempotency key: a UUID has 36, and every broker's column holds as many."""


def make_draft(topic: str, data: Any, event: str | None, key: str | None, max_event_size: int) -> Draft:
    """Check an event, and return it with its data as text.

    Raises:
        InvalidTopicError: the topic breaks the syntax.
        InvalidEventError: the data, the event type or the key cannot be taken.
        EventTooLargeError: the data is over ``max_event_size`` bytes.
    """
    check_topic(topic)
    text = ServerSentEvent("null" if data is None else data, event=event).data or ""
    if event is not None and event.startswith(RESERVED_PREFIX):
        raise InvalidEventError(f"expected an event type that does not start with {RESERVED_PREFIX!r}, got {event!r}")
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    if size > max_event_size:
        raise EventTooLargeError(size, max_event_size)
    if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
        raise InvalidEventError(f"expected a key of 1 to {MAX_KEY_LENGTH} characters, got {len(key)}")
    return Draft(topic, text, event, key)
