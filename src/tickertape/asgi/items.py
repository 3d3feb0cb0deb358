"""Encode the items of a stream, also events of other libraries."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from ..wire import ServerSentEvent

logger = logging.getLogger("tickertape.asgi")

_FIELDS: Final = frozenset({"data", "event", "id", "retry", "comment"})

_FIELD_STARTS: Final = ("data:", "event:", "id:", "retry:", ":")

_BOM: Final = "\ufeff".encode()

_warned: Final[set[type]] = set()
"""The types of items that a warning was logged for, once per process."""


def to_event(item: Any) -> ServerSentEvent | bytes:
    """Return the event of an item, or bytes unchanged."""
    if isinstance(item, ServerSentEvent):
        return item
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    if isinstance(item, (str, dict)):
        _warn_if_formatted(item)
        return ServerSentEvent.of(item)
    kind: Any = type(item)
    translate = _translator(kind)
    return ServerSentEvent.of(item) if translate is None else translate(item)


def encode_item(item: Any) -> bytes:
    """Return the bytes of an item.

    Raises:
        InvalidEventError: the item cannot be sent as an event.
    """
    event = to_event(item)
    return event if isinstance(event, bytes) else event.encode()


def encode_with_retry(item: Any, retry: int) -> tuple[bytes, bool]:
    """Return the bytes of an item with a reconnection time, and whether it has one now.

    An event without data stays as it is: a reconnection time alone would be a block that some clients take
    for an event. Bytes get the line in front, after a byte order mark.
    """
    event = to_event(item)
    line = b"retry: %d\n" % retry
    if isinstance(event, ServerSentEvent):
        encoded = event.encode()
        if event.retry is not None or event.data is None:
            return encoded, event.retry is not None
        return line + encoded, True
    if not event or event == _BOM:
        return event, False
    start = len(_BOM) if event.startswith(_BOM) else 0
    return event[:start] + line + event[start:], True


@lru_cache
def _translator(kind: Any) -> Callable[[Any], ServerSentEvent] | None:
    """Return the function that translates events of another library; nothing of it is imported."""
    for base in kind.__mro__:
        if base.__name__ == "ServerSentEvent":
            if base.__module__.startswith("fastapi."):
                return _from_fastapi
            if base.__module__.startswith("sse_starlette."):
                return _from_sse_starlette
    return None


def _from_fastapi(event: Any) -> ServerSentEvent:
    """Its ``data`` is always JSON, also if it is a string; ``raw_data`` is text."""
    data = event.raw_data
    if data is None and event.data is not None:
        data = ServerSentEvent([event.data]).data[1:-1]  # type: ignore[index]
    return ServerSentEvent(data, event=event.event, id=event.id, retry=event.retry, comment=event.comment)


def _from_sse_starlette(event: Any) -> ServerSentEvent:
    data = None if event.data is None else str(event.data)
    event_id = None if event.id is None else str(event.id)
    return ServerSentEvent(data, event=event.event, id=event_id, retry=event.retry, comment=event.comment)


def _warn_if_formatted(item: str | dict[Any, Any]) -> None:
    if isinstance(item, str):
        if not (item.endswith(("\n\n", "\r\n\r\n")) and item.startswith(_FIELD_STARTS)):
            return
        kind, remedy = "text that is already formatted as an event", "Yield bytes, or ServerSentEvent(data, ...)"
    else:
        if "data" not in item or not item.keys() <= _FIELDS:
            return
        kind, remedy = "a dict with the fields of an event", "Yield ServerSentEvent(data, event=..., id=...)"
    if type(item) not in _warned:
        _warned.add(type(item))
        logger.warning("%s is sent as the data of an event: %.80r. %s instead.", kind, item, remedy)
