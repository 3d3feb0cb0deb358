"""The ledger of the soak: each acknowledged event is delivered once to each client, or declared by a gap."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from tickertape.wire import Cursor, compile_patterns

__all__ = ["Account", "Book", "Item"]


class Item(NamedTuple):
    """An event as a client got it: its type, its id and its data."""

    type: str
    id: str
    data: str


@dataclass
class Book:
    """All attempts and acknowledgements of publishers.

    Attributes:
        topics: of each event that was tried, by its data.
        acknowledged: data by offset, for each epoch.
        counts: of the outcomes.
        faults: outcomes that must not be.
        newest: the cursor of the last acknowledgement that was entered.
    """

    topics: dict[str, str] = field(default_factory=dict)
    acknowledged: dict[str, dict[int, str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    newest: Cursor | None = None

    def read(self, output: str) -> None:
        """Enter the lines of a publisher. The last one may be cut off."""
        for line in output.splitlines(keepends=True):
            if not line.startswith("{") or not line.endswith("}\n"):
                continue
            fields = json.loads(line)
            if "try" in fields:
                self.topics[fields["try"]] = fields["topic"]
            else:
                self.enter(fields["acknowledged"], fields["cursor"])

    def enter(self, data: str, text: str) -> None:
        """Enter an acknowledgement."""
        cursor = Cursor.parse(text)
        assert cursor is not None, text
        log = self.acknowledged.setdefault(cursor.epoch, {})
        if log.get(cursor.offset, data) != data:
            self.faults.append(f"{text} acknowledged for {log[cursor.offset]} and {data}")
        log[cursor.offset] = data
        self.newest = cursor

    def between(self, patterns: tuple[str, ...], epoch: str, after: int, upto: int) -> list[str]:
        """Return the acknowledged events of some topics in a part of the log."""
        matches = compile_patterns(patterns)
        log = self.acknowledged.get(epoch, {})
        found = range(after + 1, upto + 1) if upto - after < len(log) else sorted(log)
        return [
            log[offset]
            for offset in found
            if after < offset <= upto and offset in log and matches(self.topics[log[offset]])
        ]


@dataclass
class Account:
    """One client over all of its connections.

    Arguments:
        name: for messages.
        patterns: the topics that it always has.
        start: the cursor after which it began.
        further: topics that it has for a part of the time.
        items: what it got, in order.
    """

    name: str
    patterns: tuple[str, ...]
    start: str
    further: tuple[str, ...] = ()
    items: list[Item] = field(default_factory=list)
    _had: set[str] = field(default_factory=set)

    @property
    def last(self) -> str:
        """The id after which the client continues."""
        return self.items[-1].id if self.items else self.start

    def balance(self, book: Book, *, complete: bool) -> None:
        """Compare with the book; ``complete``: nothing may be missing at the end."""
        position = Cursor.parse(self.start)
        assert position is not None
        for item in self.items:
            cursor = Cursor.parse(item.id)
            if cursor is None:
                book.faults.append(f"{self.name}: no cursor in {item}")
                return
            if item.type == "stream:gap":
                self._declare(book, position, cursor, item)
            else:
                self._receive(book, position, cursor, item)
            position = cursor
        if complete:
            assert book.newest is not None
            if position.epoch != book.newest.epoch:
                book.faults.append(f"{self.name}: it is at {position}, and the log at {book.newest}")
            self._miss(book, position, max(book.acknowledged.get(position.epoch, {0: ""})), "at the end")

    def _receive(self, book: Book, position: Cursor, cursor: Cursor, item: Item) -> None:
        data = item.data.strip()
        if cursor.epoch != position.epoch:
            book.faults.append(f"{self.name}: another epoch without a gap: {item.id} after {position}")
            return
        if cursor.offset <= position.offset:
            book.faults.append(f"{self.name}: {data} at {item.id} is repeated: it was at {position}")
            return
        if book.acknowledged.get(cursor.epoch, {}).get(cursor.offset, data) != data or data not in book.topics:
            book.faults.append(f"{self.name}: {data} at {item.id} is not the event with this id")
            return
        if data in self._had:
            book.faults.append(f"{self.name}: {data} at {item.id} is stored twice")
        if not compile_patterns(self.patterns + self.further)(book.topics[data]):
            book.faults.append(f"{self.name}: {data} at {item.id} has the topic {book.topics[data]}")
        self._had.add(data)
        self._miss(book, position, cursor.offset - 1, f"before {item.id}")
        book.counts["delivered"] += 1

    def _declare(self, book: Book, position: Cursor, cursor: Cursor, item: Item) -> None:
        fields = json.loads(item.data)
        book.counts[f"gaps, {fields['reason']}"] += 1
        after = Cursor.parse(fields["after"])
        if fields["reason"] == "expired" and after is not None and after.epoch == position.epoch:
            self._miss(book, position, after.offset, "before a gap")
        if cursor.epoch != position.epoch:
            self._had.clear()  # a publisher may have tried again in the new log
        elif cursor.offset < position.offset:
            book.faults.append(f"{self.name}: the gap at {item.id} goes back: it was at {position}")
        log = book.acknowledged.get(position.epoch, {})
        upto = cursor.offset if cursor.epoch == position.epoch else max(log, default=0)
        book.counts["declared"] += len(book.between(self.patterns, position.epoch, position.offset, upto))

    def _miss(self, book: Book, position: Cursor, upto: int, where: str) -> None:
        missing = book.between(self.patterns, position.epoch, position.offset, upto)
        if missing:
            book.faults.append(f"{self.name}: {len(missing)} lost {where}, after {position}: {missing[:3]}")
