"""``ServerSentEvent``, the value that servers encode and clients decode."""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final, NoReturn, Self
from uuid import UUID

from ..errors import InvalidEventError

MAX_RETRY: Final = 2**63 - 1
"""The longest reconnection time, in milliseconds: browsers keep it in 64 bits."""

_UNSET: Final = object()
# These are legal inside a JSON string and inside a line of an event, but deployed clients that split
# at Unicode line boundaries (`str.splitlines()`) cut the event in two there.
_UNICODE_BREAKS: Final = (("\x85", "\\u0085"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))


class _Fields:
    """The slots of an event, still writable. The decoder fills them and then seals the object."""

    __slots__ = ("comment", "data", "event", "id", "retry")

    data: str | None
    event: str | None
    id: str | None
    retry: int | None
    comment: str | None


# The way past `ServerSentEvent.__setattr__`, in half the time of `object.__setattr__`.
_set_data, _set_event, _set_id, _set_retry, _set_comment = (
    vars(_Fields)[name].__set__ for name in ("data", "event", "id", "retry", "comment")
)


class ServerSentEvent(_Fields):
    """One event of an event stream; a frozen, hashable value.

    Arguments:
        data: the payload. A ``str`` is sent as text, ``bytes`` as UTF-8 text, anything else as JSON:
            besides the types of :mod:`json`, these are dates and times, ``UUID``, ``Decimal``, ``Enum``,
            paths, sets, dataclasses and Pydantic models, also inside lists and dicts. ``None`` sends no
            data: browsers dispatch nothing for such a block. The default is ``""``, or ``None`` in a
            block that has only a comment, an id or a retry.
        event: the event type for ``addEventListener``; browsers use ``"message"`` if unset.
        id: the value of ``Last-Event-ID`` when the client reconnects; ``""`` clears it.
        retry: the client's reconnection time, in milliseconds.
        comment: text that clients ignore.
        default: called for every object that :mod:`json` does not know, instead of our own encoding.

    ``data`` is turned into text here, so the event does not change if the object does. CR, LF and
    CRLF all become line breaks on the wire, and LF when they are decoded.

    Raises:
        InvalidEventError: CR or LF in ``event`` or ``id``, NUL in ``id``, a ``retry`` that is not an
            integer from 0 to :data:`MAX_RETRY`, data that cannot be written as JSON.

    Follows WHATWG HTML, "Parsing an event stream" and "Interpreting an event stream".
    """

    __slots__ = ()
    __match_args__ = ("data",)

    def __init__(
        self,
        data: Any = _UNSET,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        comment: str | None = None,
        default: Callable[[Any], Any] | None = None,
    ) -> None:
        if data is _UNSET:
            lonely = event is None and (id, retry, comment) != (None, None, None)
            data = None if lonely else ""
        _set_data(self, None if data is None else data_to_text(data, default))
        _set_event(self, checked_event_type(event))
        _set_id(self, _checked("id", id, forbidden="\r\n\0"))
        _set_retry(self, _checked_retry(retry))
        _set_comment(self, _checked("comment", comment, forbidden=""))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"ServerSentEvent is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"ServerSentEvent is immutable: cannot delete {name!r}")

    @classmethod
    def of(cls, item: Any) -> Self:
        """Return ``item`` if it is an event, else an event with ``item`` as its data; ``None`` becomes ``null``."""
        if isinstance(item, cls):
            return item
        return cls("null" if item is None else item)

    @property
    def type(self) -> str:
        """The event type as browsers see it: ``event``, or ``"message"`` if it is unset."""
        return self.event or "message"

    def json(self) -> Any:
        """Parse the data as JSON.

        Raises:
            ValueError: the data is not JSON, or there is none.
        """
        if self.data is None:
            raise ValueError("the event has no data")
        return json.loads(self.data)

    def encode(self) -> bytes:
        """Return the event as the bytes of one block, including its blank line."""
        parts = []
        if self.comment is not None:
            parts.append(_lines(": ", self.comment))
        if self.id is not None:
            parts.append(f"id: {self.id}\n")
        if self.event is not None:
            parts.append(f"event: {self.event}\n")
        if self.retry is not None:
            parts.append(f"retry: {self.retry}\n")
        if self.data is not None:
            parts.append(_lines("data: ", self.data))
        parts.append("\n")
        return _utf8("".join(parts))

    def _key(self) -> tuple[str | None, str | None, str | None, int | None, str | None]:
        return self.data, self.event, self.id, self.retry, self.comment

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, ServerSentEvent) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        names = ("event", "id", "retry", "comment")
        options = (f", {name}={value!r}" for name in names if (value := getattr(self, name)) is not None)
        return f"{type(self).__name__}({self.data!r}{''.join(options)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _sealed, self._key()


class ReceivedEvent(ServerSentEvent):
    """An event that came from a stream: its ``data`` is always a ``str``, because browsers drop blocks without data.

    Arguments:
        data: the text.
        event: the event type, ``None`` if the block had none; :attr:`type` is ``"message"`` then.
        id: the id in force, which may come from an earlier block.
        retry: the reconnection time in the block, in milliseconds.

    Raises:
        InvalidEventError: as for :class:`ServerSentEvent`.
    """

    __slots__ = ()

    data: str

    def __init__(
        self, data: str = "", *, event: str | None = None, id: str | None = None, retry: int | None = None
    ) -> None:
        if not isinstance(data, str):
            raise InvalidEventError(f"expected data to be a str, got {data!r}")
        super().__init__(data, event=event, id=id, retry=retry)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, self._key()[:4]


def _sealed(
    data: str | None,
    event: str | None = None,
    id: str | None = None,
    retry: int | None = None,
    comment: str | None = None,
) -> ServerSentEvent:
    """Build an event from fields that are known to be valid, without checking them again.

    The decoder builds comments here. Plain assignments to the writable base and one change of
    class take half the time of five calls of ``object.__setattr__``.
    """
    fields = _Fields()
    fields.data = data
    fields.event = event
    fields.id = id
    fields.retry = retry
    fields.comment = comment
    fields.__class__ = ServerSentEvent
    return fields  # type: ignore[return-value]


def _received(data: str, event: str | None, id: str | None, retry: int | None) -> ReceivedEvent:
    """Build a received event from valid fields, as :func:`_sealed` does."""
    fields = _Fields()
    fields.data = data
    fields.event = event
    fields.id = id
    fields.retry = retry
    fields.comment = None
    fields.__class__ = ReceivedEvent
    return fields  # type: ignore[return-value]


def checked_event_type(value: object) -> str | None:
    """Return an event type if it fits into one line.

    Raises:
        InvalidEventError: it is not a ``str``, or has CR or LF in it.
    """
    return _checked("event", value, forbidden="\r\n")


def _checked(name: str, value: object, forbidden: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidEventError(f"expected {name} to be a str, got {value!r}")
    for character in forbidden:
        if character in value:
            raise InvalidEventError(f"expected {name} without {character!r}, got {value!r}")
    return _plain(value)


def _checked_retry(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_RETRY:
        raise InvalidEventError(f"expected retry to be an int of milliseconds from 0 to {MAX_RETRY}, got {value!r}")
    return int(value)


def _plain(text: str) -> str:
    """Return the characters of ``text``. A member of ``class Kind(str, Enum)`` would be formatted as its name."""
    return text if type(text) is str else str.__str__(text)


def data_to_text(data: Any, default: Callable[[Any], Any] | None = None) -> str:
    """Return data as the text that is sent: ``str`` as it is, ``bytes`` decoded, anything else as JSON.

    Raises:
        InvalidEventError: the data cannot be written as JSON.
    """
    if isinstance(data, str):
        return _plain(data)
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data).decode("utf-8", "replace")
    text = _json(data, default)
    if not text.isascii():
        for character, escape in _UNICODE_BREAKS:
            text = text.replace(character, escape)
    return text


def _json(data: Any, default: Callable[[Any], Any] | None) -> str:
    try:
        if _is_model(data):
            return str(data.model_dump_json(by_alias=True))
        return (_encoder(default) if default else _ENCODER).encode(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEventError(f"{type(data).__name__} cannot be written as JSON: {error}") from error


def _encoder(default: Callable[[Any], Any] | None) -> json.JSONEncoder:
    return json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=default or _jsonable)


def _jsonable(value: Any) -> Any:
    """Return a value that JSON knows for one that it does not, in the forms that FastAPI uses."""
    if _is_model(value):
        return value.model_dump(mode="json", by_alias=True)
    match value:
        case datetime() | date() | time():
            return value.isoformat()
        case UUID() | PurePath():
            return str(value)
        case Enum():
            return value.value
        case Decimal():
            exponent = value.as_tuple().exponent
            return int(value) if isinstance(exponent, int) and exponent >= 0 else float(value)
        case timedelta():
            return value.total_seconds()
        case set() | frozenset() | deque():
            return list(value)
        case bytes():
            return value.decode("utf-8", "replace")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _is_model(value: Any) -> bool:
    """Return True for an instance of a Pydantic model, without importing Pydantic."""
    return not isinstance(value, type) and callable(getattr(value, "model_dump_json", None))


_ENCODER: Final = _encoder(None)  # `json.dumps` would build one for every event


def encode_fields(data: str, event: str | None, id: str | None) -> bytes:
    """Return the block of an event from its fields, without building the event.

    Arguments:
        data: text; it may contain line breaks.
        event: the event type, or ``None``.
        id: a valid id, such as the text of a cursor; ``None`` for no id.

    Raises:
        InvalidEventError: the event type has CR or LF in it, as only a foreign program can have stored it.
    """
    first = "" if id is None else f"id: {id}\n"
    if event is None:
        return _utf8(f"{first}{_lines('data: ', data)}\n")
    if "\n" in event or "\r" in event:
        raise InvalidEventError(f"expected event without line breaks, got {event!r}")
    return _utf8(f"{first}event: {event}\n{_lines('data: ', data)}\n")


def _lines(prefix: str, text: str) -> str:
    """Return text as lines of a block, each with the prefix."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return prefix + text.replace("\n", "\n" + prefix) + "\n"


def repair(text: str) -> str:
    """Return text that has a UTF-8 form: U+FFFD takes the place of a lone surrogate.

    JSON may carry lone surrogates (``"\\ud800"``). A stream with a thousand readers must not end for one
    character. UTF-16 joins pairs that were split.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return repair(text).encode()
