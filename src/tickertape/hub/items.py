"""From the items of a source to events: where each goes, and the key by which it is known."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from ..errors import InvalidEventError
from ..wire import MAX_KEY_LENGTH

__all__ = ["MAX_NAME_LENGTH", "Batch", "Field", "Shape", "field_reader"]

T_co = TypeVar("T_co", covariant=True)

Field: TypeAlias = str | Callable[[Any], Any]
"""A part of an item: the name of a field, of a column or of a mapping's key, or a function of the item."""

MAX_NAME_LENGTH: Final = 100
"""Characters of a feed's name: it leaves a key of an item as many again."""


class Batch(tuple[T_co, ...]):
    """Items of a source that come into the log together: next to each other, all or none.

    ::

        yield Batch(rows)

    A batch of more than 500 items, or of a mebibyte of data, is stored in several such parts.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Batch of {len(self)}>"


def field_reader(field: Field) -> Callable[[Any], Any]:
    """Return a function that gives a field of an item.

    Arguments:
        field: a function is returned as it is; a name is looked up among the keys of a mapping, else
            among the attributes, else by ``item[name]``, which rows of ``sqlite3`` and of asyncpg have.
    """
    return field if callable(field) else lambda item: _read(item, field)


def _read(item: Any, name: str) -> Any:
    if isinstance(item, Mapping):
        return item[name]
    try:
        return getattr(item, name)
    except AttributeError:
        if hasattr(item, "__getitem__") and not isinstance(item, str | bytes | tuple | list):
            return item[name]
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What becomes of an item; the arguments of :meth:`Hub.feed`."""

    name: str
    topic: str | Callable[[Any], str]
    event: str | Callable[[Any], str | None] | None
    key: Field | None
    data: Callable[[Any], Any] | None

    def find_key(self, item: Any) -> str:
        """Return the key under which an item is published; another each time if items have none.

        Raises:
            InvalidEventError: what should be the key cannot be one.
            Exception: whatever the key's function raises.
        """
        if self.key is None:
            return secrets.token_hex(16)
        value = field_reader(self.key)(item)
        text = "" if value is None else str(value)
        kind: Any = type(value)
        if not text or (kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__):
            raise InvalidEventError(f"expected a key that is text or a number, got {value!r}")
        key = f"{self.name}:{text}"
        if len(key) > MAX_KEY_LENGTH:
            key = f"{self.name}:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
        return key

    def fields(self, item: Any) -> tuple[str, Any, str | None]:
        """Return an item's topic, data and event type."""
        topic = self.topic(item) if callable(self.topic) else self.topic
        event = self.event(item) if callable(self.event) else self.event
        return topic, item if self.data is None else self.data(item), event
