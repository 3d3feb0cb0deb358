"""What a log is made of: drafts that become records, and cursors that point between them."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = ["Cursor", "Draft", "LogState", "Record", "new_epoch"]

_CURSOR: Final = re.compile(r"([0-9A-Za-z_]{1,64})-(0|[1-9][0-9]{0,18})", re.ASCII)


def new_epoch() -> str:
    """Return a name for the life of a new log: 48 random bits, so that two logs never share one."""
    return secrets.token_hex(6)


@dataclass(frozen=True, slots=True, order=False)
class Cursor:
    """A place in a log: behind the record with this offset, in the life of the log named by the epoch.

    Its text is the ``id:`` of an event on the wire, and so a browser's ``Last-Event-ID``.
    """

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """Return the cursor that ``text`` is, or ``None`` if it is something else."""
        match = _CURSOR.fullmatch(text)
        return cls(match[1], int(match[2])) if match else None


class Draft(NamedTuple):
    """An event that is to be appended.

    Attributes:
        topic: where it is published.
        data: the payload, as text.
        event: the event type; ``None`` for the browsers' ``message``.
        key: makes the append idempotent: while the log keeps a record with this key, a draft with
            the same one is not appended again and gets the first one's cursor.
    """

    topic: str
    data: str
    event: str | None = None
    key: str | None = None


class Record(NamedTuple):
    """An event in the log. Offsets start at 1 and rise by one, without holes."""

    offset: int
    topic: str
    event: str | None
    data: str


class LogState(NamedTuple):
    """What a log holds now.

    Attributes:
        epoch: the name of this life of the log.
        oldest: the offset of the oldest record that is kept; ``newest + 1`` if none is.
        newest: the offset of the newest record; 0 before the first.
    """

    epoch: str
    oldest: int
    newest: int
