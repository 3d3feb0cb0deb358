"""``ServerSentEvent``, the value that servers encode and clients decode."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NoReturn, Self

from ..errors import InvalidEventError

__all__ = ["MAX_RETRY", "ServerSentEvent"]

MAX_RETRY: Final = 2**63 - 1
"""Greatest reconnection time, in milliseconds: browsers keep it in 64 bits."""

_UNSET: Final = object()
# Legal inside a JSON string and inside an event's line, yet deployed clients that split on
# Unicode line boundaries (`str.splitlines()`) cut the event in two there.
_UNICODE_BREAKS: Final = (("\x85", "\\u0085"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))


class _Fields:
    """The slots of an event, still writable: the decoder fills them, then seals the object."""

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
    """Build one event of an event stream; a frozen, hashable value.

    Arguments:
        data: the payload. ``str`` is sent as text, ``bytes`` as UTF-8 text, a Pydantic model as its
            own JSON, anything else as JSON. ``None`` sends no data: browsers dispatch nothing for
            such a block. Left out, it is ``""``, or ``None`` in a block that is only a comment, an
            id or a retry.
        event: the event type that ``addEventListener`` is given; browsers take ``"message"`` if unset.
        id: the value of ``Last-Event-ID`` when the client reconnects; ``""`` clears it.
        retry: the client's reconnection time, in milliseconds.
        comment: text that clients ignore.
        default: called for an object that JSON does not know, as in :func:`json.dumps`.

    ``data`` is turned into text here, so an event does not change when the object it was made of
    does. CR, LF and CRLF all become line breaks on the wire, and LF when they are decoded.

    Raises:
        InvalidEventError: CR or LF in ``event`` or ``id``, NUL in ``id``, a ``retry`` that is not an
            integer from 0 to :data:`MAX_RETRY`, data that is neither text nor JSON.

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
        _set_data(self, _to_text(data, default))
        _set_event(self, _checked("event", event, forbidden="\r\n"))
        _set_id(self, _checked("id", id, forbidden="\r\n\0"))
        _set_retry(self, _checked_retry(retry))
        _set_comment(self, _checked("comment", comment, forbidden=""))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"expected no change to a ServerSentEvent, got an assignment to {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"expected no change to a ServerSentEvent, got a deletion of {name!r}")

    @classmethod
    def of(cls, item: Any) -> Self:
        """Turn ``item`` into an event: an event as it is, anything else as the data of one.

        ``None`` is the JSON ``null``: an item that says nothing still says something.
        """
        if isinstance(item, cls):
            return item
        return cls("null" if item is None else item)

    def json(self) -> Any:
        """Parse the data as JSON.

        Raises:
            ValueError: the data is not JSON, or there is none.
        """
        if self.data is None:
            raise ValueError("expected data in JSON, got an event without data")
        return json.loads(self.data)

    def encode(self) -> bytes:
        """Return the event as the bytes of one block, its blank line included."""
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
        return f"ServerSentEvent({self.data!r}{''.join(options)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _sealed, self._key()


def _sealed(
    data: str | None,
    event: str | None = None,
    id: str | None = None,
    retry: int | None = None,
    comment: str | None = None,
) -> ServerSentEvent:
    """Make an event of fields that are known to be good, without checking them again.

    The decoder makes every event here. Plain assignments to the writable base and one change of
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
    """Return the characters of ``text``: a member of ``class Kind(str, Enum)`` would format as its name."""
    return text if type(text) is str else str.__str__(text)


def _to_text(data: Any, default: Callable[[Any], Any] | None) -> str | None:
    if data is None:
        return None
    if isinstance(data, str):
        return _plain(data)
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data).decode("utf-8", "replace")
    text = _json(data, default)
    if not text.isascii():
        for character, escape in _UNICODE_BREAKS:
            text = text.replace(character, escape)
    return text


def _encoder(default: Callable[[Any], Any] | None) -> json.JSONEncoder:
    return json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=default)


_ENCODER: Final = _encoder(None)  # `json.dumps` would make one for every event


def _json(data: Any, default: Callable[[Any], Any] | None) -> str:
    dump = None if isinstance(data, type) else getattr(data, "model_dump_json", None)
    try:
        if callable(dump):
            return str(dump())
        return (_encoder(default) if default else _ENCODER).encode(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEventError(f"expected data that JSON can say, got a {type(data).__name__}: {error}") from error


def _lines(prefix: str, text: str) -> str:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return prefix + text.replace("\n", "\n" + prefix) + "\n"


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # A lone surrogate, as JSON may carry ("\ud800"), has no UTF-8 form. It becomes U+FFFD: the
        # stream of a thousand readers must not end for one character. UTF-16 joins split pairs.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
