"""Values that a broker returns: records, the state of a log, and pages of both."""

from __future__ import annotations

import secrets
from typing import NamedTuple


def new_epoch() -> str:
    """Return the name of a new epoch: 48 random bits, so that two logs never share one."""
    return secrets.token_hex(6)


class Record(NamedTuple):
    """An event in the log. Offsets start at 1 and rise by one, without holes."""

    offset: int
    topic: str
    event: str | None
    data: str


class LogState(NamedTuple):
    """The state of a log at one moment.

    Attributes:
        epoch: the current epoch. If the log loses records, it gets a new one.
        oldest: the offset of the oldest record that is kept; ``newest + 1`` if none is.
        newest: the offset of the newest record; 0 before the first.
    """

    epoch: str
    oldest: int
    newest: int


class Page(NamedTuple):
    """Records, and the state of the log when they were read."""

    state: LogState
    records: list[Record]
