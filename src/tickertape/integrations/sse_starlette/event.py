"""The event objects of sse-starlette, encoded as it encodes them: CRLF by default, data as ``str()``."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar, Final

from ...wire import ServerSentEvent as Event

__all__ = ["JSONServerSentEvent", "ServerSentEvent", "ensure_bytes"]

_LINE_END: Final = re.compile("\r\n|\r|\n")


class ServerSentEvent:
    """An event, with the fields in the order of sse-starlette. Line breaks in ``id`` and ``event`` are removed.

    Arguments:
        data: sent as ``str(data)``, one ``data:`` line for each line; ``None`` for no data.
        event: the event type.
        id: the event's id.
        retry: the client's reconnection time in milliseconds.
        comment: sent first, one comment for each line.
        sep: the line separator; CRLF by default.

    Source: the interface of sse-starlette 3.
    """

    DEFAULT_SEPARATOR: ClassVar = "\r\n"

    def __init__(
        self,
        data: Any | None = None,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        comment: str | None = None,
        sep: str | None = None,
    ) -> None:
        self.data = data
        self.event = event
        self.id = id
        self.retry = retry
        self.comment = comment
        self._sep = self.DEFAULT_SEPARATOR if sep is None else sep

    def encode(self) -> bytes:
        """Return the bytes of the event.

        Raises:
            TypeError: ``retry`` is not an int.
        """
        if not isinstance(self.retry, (int, type(None))):
            raise TypeError("retry argument must be int")
        lines = [] if self.comment is None else [f": {line}" for line in _LINE_END.split(str(self.comment))]
        for name in ("id", "event"):
            value = getattr(self, name)
            if value is not None:
                lines.append(f"{name}: {_LINE_END.sub('', value)}")
        if self.data is not None:
            lines.extend(f"data: {line}" for line in _LINE_END.split(str(self.data)))
        if self.retry is not None:
            lines.append(f"retry: {self.retry}")
        return self._sep.join([*lines, "", ""] if lines else ["", ""]).encode()


class JSONServerSentEvent(ServerSentEvent):
    """An event whose data is sent as compact JSON. Arguments as of :class:`ServerSentEvent`.

    Raises:
        TypeError: JSON cannot represent the data.
        ValueError: a number is not finite.
    """

    def __init__(self, data: Any | None = None, *args: Any, **kwargs: Any) -> None:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        super().__init__(None if data is None else text, *args, **kwargs)


def ensure_bytes(data: Any, sep: str) -> bytes:
    """Return the bytes of an item: bytes unchanged, an event encoded, a dict as fields, anything else as text.

    Arguments:
        data: the item. Events of tickertape are encoded too.
        sep: the line separator of dicts and text.

    Raises:
        TypeError: a dict has a key that is not a field.
    """
    if isinstance(data, (bytes, memoryview)):
        return bytes(data)
    if isinstance(data, (ServerSentEvent, Event)):
        return data.encode()
    fields = data if isinstance(data, dict) else {"data": str(data)}
    return ServerSentEvent(**{**fields, "sep": sep}).encode()
