"""``Draft``, an event to publish, and the syntax of topics."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NoReturn

from ..errors import InvalidEventError, InvalidTopicError
from .event import checked_event_type, data_to_text, repair
from .notices import END_EVENT, RESERVED_PREFIX

MAX_TOPIC_LENGTH: Final = 255
"""Characters: as many as the subject or column of every store holds, and more than a name needs."""

MAX_SEGMENTS: Final = 32
"""Segments of a topic or a pattern: no hierarchy of names is deeper, and the work of matching grows with them."""

REFUSED_CHARACTERS: Final = (
    r"\u0000-\u001f\u007f-\u00a0\u00ad\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"
)
"""Characters that no topic has, for the class of a regular expression: control characters, white space but for U+0020,
and what is invisible or changes the direction of text. Two topics that look the same are the same."""

_REFUSED: Final = re.compile(rf"[{REFUSED_CHARACTERS}\ud800-\udfff]")

MAX_KEY_LENGTH: Final = 255
"""Characters of an idempotency key: a UUID has 36, and the column of every store holds as many."""

MAX_REASON_LENGTH: Final = 200
"""Characters of the reason for which a topic ends: a sentence."""


def check_topic(topic: str) -> str:
    """Return ``topic`` if events can be published to it.

    Raises:
        InvalidTopicError: the topic is empty or too long, or it has too many segments, an empty one, a
            wildcard, a space at an end or a control character.
    """
    check_segments("topic", topic)
    if "*" in topic:
        raise InvalidTopicError(f"expected a topic without '*', got {topic!r}: wildcards are for subscriptions")
    return topic


def is_printable(text: str) -> bool:
    """Return True if a text has none of :data:`REFUSED_CHARACTERS`, no half of a surrogate pair and no spaces around.

    The characters are fixed, so that the answer does not depend on the version of Unicode.
    """
    return text.strip(" ") == text and _REFUSED.search(text) is None


@lru_cache(maxsize=4_096)
def _checked_topic(topic: str) -> str:
    """Return a topic as it is stored. A topic has many events, so the last ones that were checked are known."""
    return check_topic(topic)


def check_segments(what: str, text: object) -> list[str]:
    """Return the segments of a topic or a topic pattern.

    Arguments:
        what: the name of the value in an error, as ``"topic"``.
        text: the value.

    Raises:
        InvalidTopicError: the value breaks the syntax that topics and patterns share.
    """
    if not isinstance(text, str):
        raise InvalidTopicError(f"expected a {what} as a str, got {text!r}")
    if not text or len(text) > MAX_TOPIC_LENGTH:
        raise InvalidTopicError(f"expected a {what} of 1 to {MAX_TOPIC_LENGTH} characters, got {len(text)}")
    if not is_printable(text):
        raise InvalidTopicError(f"expected a {what} of printable characters without spaces around, got {text!r}")
    segments = text.split("/")
    if "" in segments:
        raise InvalidTopicError(f"expected a {what} without empty segments, got {text!r}")
    if len(segments) > MAX_SEGMENTS:
        raise InvalidTopicError(f"expected a {what} of at most {MAX_SEGMENTS} segments, got {len(segments)}")
    return segments


class Draft:
    """An event to publish: a frozen value, checked when it is built.

    Arguments:
        topic: segments between slashes, as ``orders/42``.
        data: the payload, as in :class:`ServerSentEvent`; ``None`` becomes the JSON ``null``.
        event: the event type; ``None`` for ``message``. Types that start with ``stream:`` are reserved.
        key: makes the append idempotent. While the log keeps a record with this key, a draft with the same
            key is not appended again and gets the cursor of the first.
        default: called for every object that :mod:`json` does not know, as in :class:`ServerSentEvent`.

    Attributes:
        size: bytes of the data in UTF-8.

    Data is turned into text here, once; text that has no UTF-8 form (a lone surrogate) gets U+FFFD in its place.

    Raises:
        InvalidTopicError: the topic breaks the syntax.
        InvalidEventError: the data, the event type or the key is not as described.
    """

    __slots__ = ("data", "event", "key", "size", "topic")

    topic: str
    data: str
    event: str | None
    key: str | None
    size: int

    def __init__(
        self,
        topic: str,
        data: Any = "",
        *,
        event: str | None = None,
        key: str | None = None,
        default: Callable[[Any], Any] | None = None,
    ) -> None:
        text = repair("null" if data is None else data_to_text(data, default))
        event = checked_event_type(event)
        if event is not None and event.startswith(RESERVED_PREFIX):
            raise InvalidEventError(f"event types that start with {RESERVED_PREFIX!r} are reserved, got {event!r}")
        _check_key(key)
        _set_topic(self, _checked_topic(topic) if type(topic) is str else check_topic(topic))
        _set_data(self, text)
        _set_event(self, None if event is None else repair(event))
        _set_key(self, None if key is None else repair(key))
        _set_size(self, len(text) if text.isascii() else len(text.encode()))

    @classmethod
    def end(cls, topic: str, reason: str, *, key: str | None = None) -> Draft:
        """Return the record that ends a topic; see :meth:`Hub.end`.

        Arguments:
            topic: the topic.
            reason: a text for its readers, of at most 200 characters.
            key: as of an event.

        Raises:
            InvalidTopicError: the topic breaks the syntax.
            InvalidEventError: the reason or the key is not as described.
        """
        _check_reason(reason)
        draft = cls(topic, {"topic": topic, "reason": reason}, key=key)
        _set_event(draft, END_EVENT)
        return draft

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"Draft is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"Draft is immutable: cannot delete {name!r}")

    def replace(self, **changes: Any) -> Draft:
        """Return a draft with some fields changed."""
        fields = {name: getattr(self, name) for name in ("topic", "data", "event", "key")} | changes
        return Draft(**fields) if "event" in changes else _rebuild(**fields)

    def _key(self) -> tuple[str, str, str | None, str | None]:
        return self.topic, self.data, self.event, self.key

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Draft) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        options = (f", {name}={value!r}" for name in ("event", "key") if (value := getattr(self, name)) is not None)
        return f"Draft({self.topic!r}, {self.data!r}{''.join(options)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._key()


def _check_key(key: object) -> None:
    if key is None:
        return
    if not isinstance(key, str):
        raise InvalidEventError(f"expected key to be a str, got {key!r}")
    if not 0 < len(key) <= MAX_KEY_LENGTH:
        raise InvalidEventError(f"expected a key of 1 to {MAX_KEY_LENGTH} characters, got {len(key)}")


def _check_reason(reason: object) -> None:
    if not isinstance(reason, str):
        raise InvalidEventError(f"expected reason to be a str, got {reason!r}")
    if not 0 < len(reason) <= MAX_REASON_LENGTH:
        raise InvalidEventError(f"expected a reason of 1 to {MAX_REASON_LENGTH} characters, got {len(reason)}")


def _rebuild(topic: str, data: str, event: str | None, key: str | None) -> Draft:
    draft = Draft(topic, data, event=None if event == END_EVENT else event, key=key)
    _set_event(draft, event)
    return draft


# The way past `Draft.__setattr__`, in half the time of `object.__setattr__`.
_set_topic, _set_data, _set_event, _set_key, _set_size = (
    vars(Draft)[name].__set__ for name in ("topic", "data", "event", "key", "size")
)
