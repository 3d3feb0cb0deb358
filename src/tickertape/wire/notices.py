"""The words of our own protocol: the notices that a hub sends between events."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias

from .cursor import Cursor
from .event import ReceivedEvent, ServerSentEvent

RESERVED_PREFIX: Final = "stream:"
"""Event types with this prefix are notices of a hub to its subscribers."""

GAP_EVENT: Final = "stream:gap"

END_EVENT: Final = "stream:end"
"""The last event of a stream. In a log, the record that ends its topic has this type too."""

TOPIC_END_EVENT: Final = "stream:topic-end"
"""The end of one topic on a stream that has others."""

EXPIRED_EVENT: Final = "stream:expired"

OPEN_EVENT: Final = "stream:open"
"""The id of a subscription, for clients that ask for it."""

TOPICS_EVENT: Final = "stream:topics"
"""The topics of a stream have changed."""

ERROR_EVENT: Final = "stream:error"

HEARTBEAT: Final = b": heartbeat\n\n"
"""A comment. It keeps proxies from closing an idle connection, and shows the client that the server is alive.

The blank line is needed: without it, several clients dispatch an empty event for the comment.
"""

STREAM_ERROR: Final = ServerSentEvent(
    {"message": "The stream failed on the server. Events after the last one may be missing."}, event=ERROR_EVENT
).encode()
"""Sent before a failed stream is cut off. The exception itself is for the server's log only."""

EXPIRED: Final = {
    reason: ServerSentEvent({"reason": reason}, event=EXPIRED_EVENT).encode() for reason in ("expired", "revoked")
}
"""The last notice of a stream whose client must bring another credential, by its reason. It has no ``id``, so that
the client continues after the last event that it has."""

_MAX_AFTER: Final = 200
"""Characters of a foreign id that a gap repeats: enough to recognise it."""

GapReason: TypeAlias = Literal["expired", "reset"]


class Gap(ReceivedEvent):
    """A notice that events are missing at this point of a stream. The events that are still kept follow.

    It is an event of the type ``stream:gap``, so it has ``id`` and ``data`` too: its ``id`` is the cursor
    from which the stream continues.
    """

    __slots__ = ()

    topic: ClassVar[str] = ""
    """Empty: a gap concerns the whole stream. Other events of a hub have the topic to which they were published."""

    @classmethod
    def create(cls, reason: GapReason, after: str, resumed: Cursor) -> Self:
        """Return the notice that a hub sends.

        Arguments:
            reason: ``"expired"``, the log no longer keeps the events; ``"reset"``, the cursor belongs to another log.
            after: the id after which events are missing, as the subscriber sent it; cut after 200 characters.
            resumed: the cursor after which the stream continues.
        """
        text = json.dumps({"reason": reason, "after": after[:_MAX_AFTER], "resumed": str(resumed)})
        return cls(text, event=GAP_EVENT, id=str(resumed))

    @classmethod
    def parse(cls, event: ServerSentEvent) -> Self | None:
        """Return the gap that an event reports, or ``None`` if the event is not a gap notice."""
        if event.event != GAP_EVENT or event.data is None:
            return None
        gap = cls(event.data, event=event.event, id=event.id)
        return gap if _text_field(gap, "reason") is not None else None

    @property
    def reason(self) -> str:
        """``"expired"``: the log no longer keeps the events. ``"reset"``: the cursor belongs to another log."""
        return _text_field(self, "reason") or ""

    @property
    def after(self) -> str | None:
        """The id after which events are missing; ``None`` if the hub did not send it."""
        return _text_field(self, "after")

    @property
    def resumed(self) -> str | None:
        """The cursor after which the stream continues; ``None`` if the hub did not send it."""
        return _text_field(self, "resumed")

    def __repr__(self) -> str:
        return f"Gap(reason={self.reason!r}, after={self.after!r}, resumed={self.resumed!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.data, self.event, self.id)


class End(ReceivedEvent):
    """A notice that a topic has ended: ``stream:end`` if the stream ends with it, else ``stream:topic-end``.

    It is an event with ``id`` and ``data`` too. A run ends its stream with the same notice.
    """

    __slots__ = ()

    @classmethod
    def create(cls, data: str, id: str, *, final: bool) -> Self:
        """Return the notice that a hub sends for a record that ends a topic."""
        return cls(data, event=END_EVENT if final else TOPIC_END_EVENT, id=id)

    @classmethod
    def parse(cls, event: ServerSentEvent) -> Self | None:
        """Return the end that an event reports, or ``None`` if the event is no such notice."""
        if event.event not in (END_EVENT, TOPIC_END_EVENT) or event.data is None:
            return None
        return cls(event.data, event=event.event, id=event.id)

    @property
    def final(self) -> bool:
        """True if the stream ends here; False if only one of its topics does."""
        return self.event == END_EVENT

    @property
    def reason(self) -> str:
        """The reason that the program gave for it; for a run, how it ended. ``""`` if the server did not send it."""
        return _text_field(self, "reason") or ""

    @property
    def topic(self) -> str:
        """The topic; ``""`` if the server did not send it, as for a run."""
        return _text_field(self, "topic") or ""

    @property
    def run(self) -> str | None:
        """The id of the run that has ended; ``None`` if it is the end of a topic."""
        return _text_field(self, "run")

    @property
    def message(self) -> str | None:
        """The text about a run that failed; ``None`` if there is none."""
        return _text_field(self, "message")

    def __repr__(self) -> str:
        return f"End(topic={self.topic!r}, reason={self.reason!r}, final={self.final})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_end, (self.data, self.event, self.id)


class TopicsChange(ReceivedEvent):
    """A notice that a stream has other topics from here on.

    It is an event of the type ``stream:topics``. Its ``id`` is the cursor of the change: the stream has all events of
    the topics from before up to it, and all events of the new ones after it.
    """

    __slots__ = ()

    topic: ClassVar[str] = ""
    """Empty: a change concerns the whole stream."""

    @classmethod
    def create(cls, topics: Iterable[str], cursor: Cursor, ended: Iterable[str] = ()) -> Self:
        """Return the notice that a hub sends.

        Arguments:
            topics: the patterns of the stream from now on.
            cursor: the cursor after which they hold.
            ended: those of them that have ended before it.
        """
        text = json.dumps({"topics": [*topics], "ended": [*ended]}, ensure_ascii=False)
        return cls(text, event=TOPICS_EVENT, id=str(cursor))

    @classmethod
    def parse(cls, event: ServerSentEvent) -> Self | None:
        """Return the change that an event reports, or ``None`` if the event is no such notice."""
        if event.event != TOPICS_EVENT or event.data is None:
            return None
        change = cls(event.data, event=event.event, id=event.id)
        return change if change.topics else None

    @property
    def topics(self) -> tuple[str, ...]:
        """The patterns of the stream from now on."""
        return _texts_field(self, "topics")

    @property
    def ended(self) -> tuple[str, ...]:
        """Those of them that have ended before, and so send no notice of their end."""
        return _texts_field(self, "ended")

    def __repr__(self) -> str:
        return f"TopicsChange(topics={self.topics!r}, id={self.id!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_change, (self.data, self.event, self.id)


class StreamOpen(ReceivedEvent):
    """A notice with the id of a subscription, for a client that has asked for it: of the type ``stream:open``.

    A client that knows the id may change the topics of the stream, if it may subscribe to them.
    """

    __slots__ = ()

    @classmethod
    def create(cls, subscription: str, topics: Iterable[str]) -> Self:
        """Return the notice that a hub sends."""
        text = json.dumps({"subscription": subscription, "topics": [*topics]}, ensure_ascii=False)
        return cls(text, event=OPEN_EVENT)

    @classmethod
    def parse(cls, event: ServerSentEvent) -> Self | None:
        """Return the notice in an event, or ``None`` if the event is no such notice."""
        if event.event != OPEN_EVENT or event.data is None:
            return None
        opened = cls(event.data, event=event.event, id=event.id)
        return opened if opened.subscription else None

    @property
    def subscription(self) -> str:
        """The id of the subscription."""
        return _text_field(self, "subscription") or ""

    @property
    def topics(self) -> tuple[str, ...]:
        """The patterns of the stream."""
        return _texts_field(self, "topics")

    def __repr__(self) -> str:
        return f"StreamOpen(topics={self.topics!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_open, (self.data, self.event, self.id)


def _field(event: ReceivedEvent, name: str) -> Any:
    try:
        notice = event.json()
    except ValueError:
        return None
    return notice.get(name) if isinstance(notice, dict) else None


def _texts_field(event: ReceivedEvent, name: str) -> tuple[str, ...]:
    value = _field(event, name)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _text_field(event: ReceivedEvent, name: str) -> str | None:
    value = _field(event, name)
    return value if isinstance(value, str) else None


def _rebuild_end(data: str, event: str, id: str | None) -> End:
    return End(data, event=event, id=id)


def _rebuild_change(data: str, event: str, id: str | None) -> TopicsChange:
    return TopicsChange(data, event=event, id=id)


def _rebuild_open(data: str, event: str, id: str | None) -> StreamOpen:
    return StreamOpen(data, event=event, id=id)


def _rebuild(data: str, event: str, id: str | None) -> Gap:
    return Gap(data, event=event, id=id)
