"""Values that a broker returns: records, the state of a log, and pages of both."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from ..wire import Patterns, covers, overlap


def new_epoch() -> str:
    """Return the name of a new epoch: 48 random bits, so that two logs never share one."""
    return secrets.token_hex(6)


class Record(NamedTuple):
    """An event in the log. Offsets start at 1 and rise by one; appends leave no holes."""

    offset: int
    topic: str
    event: str | None
    data: str


Marks: TypeAlias = tuple[tuple[str, int], ...]
"""Patterns of topics, each with the offset of the newest of its records that is no longer kept."""

OTHERS = ""
"""Stands, among marks, for all topics that have no separate rule."""


class LogState(NamedTuple):
    """The state of a log at one moment.

    Records are not only dropped from the start of a log: topics with a separate rule have their own limits. So
    some records between ``oldest`` and ``newest`` may be missing, and ``dropped`` says of which topics.

    Attributes:
        epoch: the current epoch. If the log loses records, it gets a new one.
        oldest: the offset of the oldest record that is kept, of any topic; ``newest + 1`` if none is. All records
            before it are gone.
        newest: the offset of the newest record; 0 before the first.
        dropped: for each rule, its pattern and the offset of the newest record that it has dropped; for all other
            topics, the same under an empty pattern; for topics whose records were discarded, the topic and the
            newest of them. Empty if no record after ``oldest`` was dropped.
    """

    epoch: str
    oldest: int
    newest: int
    dropped: Marks = ()

    def lost_upto(self, after: int, patterns: Patterns, noted: Marks = ()) -> int:
        """Return the offset up to which a reader may have lost records of its topics; ``after`` if it has lost none.

        Arguments:
            after: the cursor of the reader.
            patterns: its topics, checked.
            noted: marks of an earlier state, of which the reader knows.
        """
        marks = [mark for mark in self.dropped if mark[1] > after and mark not in noted]
        if marks:
            relevant = relevant_marks(tuple(pattern for pattern, _ in self.dropped), patterns)
            marks = [mark for mark in marks if mark[0] in relevant]
        return max(after, self.oldest - 1, *(offset for _, offset in marks))


def marks_after(oldest: int, rules: Iterable[tuple[str, int]], discarded: Iterable[tuple[str, int]] = ()) -> Marks:
    """Return the marks for the state of a log whose oldest record has the offset ``oldest``.

    Arguments:
        oldest: the offset.
        rules: the marks of all rules and of the other topics. Those of rules without losses are returned too,
            because they show which topics are not among the others.
        discarded: the marks of discarded topics.
    """
    found = [*rules, *(mark for mark in discarded if mark[1] >= oldest)]
    return tuple(found) if any(offset >= oldest for _, offset in found) else ()


def contiguous(records: list[Record]) -> list[Record]:
    """Return the records up to the first hole."""
    first = records[0].offset
    if records[-1].offset - first + 1 == len(records):
        return records
    return [record for place, record in enumerate(records, first) if record.offset == place]


@lru_cache(1_000)
def relevant_marks(marked: tuple[str, ...], patterns: Patterns) -> frozenset[str]:
    """Return the patterns of marks that concern a reader of ``patterns``."""
    found = {mark for mark in marked if mark and any(overlap(mark, pattern) for pattern in patterns)}
    if not all(any(mark and covers((mark,), (pattern,)) for mark in marked) for pattern in patterns):
        found.add(OTHERS)
    return frozenset(found)


class Page(NamedTuple):
    """Records, and the state of the log when they were read."""

    state: LogState
    records: list[Record]
