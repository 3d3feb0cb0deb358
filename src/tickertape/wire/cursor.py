"""``Cursor``, a position in a log, and its text on the wire."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ..errors import InvalidCursorError

MAX_OFFSET: Final = 2**63 - 1
"""The greatest offset: every store keeps offsets in 64 bits, signed."""

_EPOCH: Final = re.compile(r"[0-9A-Za-z_]{1,64}", re.ASCII)
_TEXT: Final = re.compile(rf"({_EPOCH.pattern})-(0|[1-9][0-9]{{0,18}})", re.ASCII)


@lru_cache(64)
def _is_epoch(text: str) -> bool:
    return _EPOCH.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in a log: after the record with this offset.

    Its text, ``<epoch>-<offset>``, is the ``id:`` of an event on the wire, and so a browser's ``Last-Event-ID``.

    Arguments:
        epoch: the name of the log, 1 to 64 letters, digits or ``_``. If the log loses records, it gets a new epoch.
        offset: the position within this epoch, from 0 to :data:`MAX_OFFSET`.

    Raises:
        InvalidCursorError: the epoch or the offset is not as described.
    """

    epoch: str
    offset: int

    def __post_init__(self) -> None:
        if not _is_epoch(self.epoch):
            raise InvalidCursorError(f"expected an epoch of 1 to 64 letters, digits or '_', got {self.epoch!r}")
        if type(self.offset) is not int or not 0 <= self.offset <= MAX_OFFSET:
            raise InvalidCursorError(f"expected an offset from 0 to {MAX_OFFSET}, got {self.offset!r}")

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """Return the cursor with this text, or ``None`` if the text is not a cursor's."""
        match = _TEXT.fullmatch(text)
        if match is None or (offset := int(match[2])) > MAX_OFFSET:
            return None
        return cls(match[1], offset)
