"""A third party's broker in memory that keeps the contract. Subclasses break one promise each.

Several brokers of one process share a shelf.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tickertape.broker import DEFAULT_RETENTION, Broker, LogState, Page, Record, Retention, TopicFilter, new_epoch
from tickertape.errors import BrokerError, LogResetError, LogTrimmedError
from tickertape.testing.contract import Log, Traits
from tickertape.wire import Cursor, Draft

__all__ = ["Contents", "Shelf", "ShelfBroker", "ShelfLog"]


@dataclass
class Contents:
    """The records of a log under one epoch."""

    epoch: str = field(default_factory=new_epoch)
    newest: int = 0
    records: list[Record] = field(default_factory=list)
    notes: list[tuple[float, str | None]] = field(default_factory=list)  # time and key of each record
    keys: dict[str, int] = field(default_factory=dict)

    @property
    def oldest(self) -> int:
        return self.newest - len(self.records) + 1


class Shelf:
    """A place for one log."""

    def __init__(self) -> None:
        self.contents = Contents()
        self._changed = asyncio.Event()

    def wipe(self) -> None:
        self.contents = Contents()
        self.notify()

    def notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def change(self) -> None:
        await self._changed.wait()


class ShelfBroker:
    """Keep the log on a shelf."""

    def __init__(self, shelf: Shelf, retention: Retention) -> None:
        self.shelf = shelf
        self.retention = retention
        self.closed = False

    def check(self) -> Contents:
        if self.closed:
            raise BrokerError("broker is closed")
        self.trim(self.shelf.contents)
        return self.shelf.contents

    async def open(self) -> LogState:
        return await self.state()

    async def state(self) -> LogState:
        contents = self.check()
        return LogState(contents.epoch, contents.oldest, contents.newest)

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        contents = self.check()
        cursors = [Cursor(contents.epoch, self.put(contents, draft)) for draft in drafts]
        self.trim(contents)
        self.shelf.notify()
        return cursors

    def put(self, contents: Contents, draft: Draft) -> int:
        known = self.find(contents, draft.key)
        return self.store(contents, draft) if known is None else known

    def find(self, contents: Contents, key: str | None) -> int | None:
        return None if key is None else contents.keys.get(key)

    def store(self, contents: Contents, draft: Draft) -> int:
        contents.newest += 1
        contents.records.append(Record(contents.newest, draft.topic, draft.event, draft.data))
        contents.notes.append((time.monotonic(), draft.key))
        if draft.key is not None:
            contents.keys[draft.key] = contents.newest
        return contents.newest

    def surplus(self, contents: Contents) -> int:
        """Return the number of records over the retention."""
        keep = self.retention
        total = sum(len(each.topic) + len(each.event or "") + len(each.data) for each in contents.records)
        old = 0 if keep.age is None else sum(at < time.monotonic() - keep.age for at, _ in contents.notes)
        count = max(old, 0 if keep.events is None else len(contents.records) - keep.events)
        total -= sum(len(each.data) for each in contents.records[:count])
        while keep.bytes is not None and total > keep.bytes:
            total -= len(contents.records[count].data)
            count += 1
        return count

    def trim(self, contents: Contents) -> None:
        count = self.surplus(contents)
        del contents.records[:count]
        for _, key in contents.notes[:count]:
            self.forget(contents, key)
        del contents.notes[:count]

    def forget(self, contents: Contents, key: str | None) -> None:
        if key is not None:
            del contents.keys[key]

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        contents = self.check()
        kept = contents.records[max(0, after + 1 - contents.oldest) :]
        records = [record for record in kept if topics is None or topics(record.topic)][:limit]
        return Page(LogState(contents.epoch, contents.oldest, contents.newest), records)

    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        epoch, offset = after.epoch, after.offset
        while not self.closed:
            contents = self.shelf.contents
            if contents.epoch != epoch:
                raise LogResetError(f"the log has the epoch {contents.epoch}, not {epoch}")
            if offset + 1 < contents.oldest:
                raise LogTrimmedError(offset, contents.oldest)
            if offset < contents.newest:
                records = contents.records[offset + 1 - contents.oldest :]
                offset = contents.newest
                yield records
            else:
                await self.shelf.change()

    async def close(self) -> None:
        self.closed = True
        self.shelf.notify()


class ShelfLog(Log):
    """A log on a separate shelf."""

    traits = Traits(opener=None, rules=False)
    kind: ClassVar[type[ShelfBroker]] = ShelfBroker

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.shelf = Shelf()

    def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
        return self.kind(self.shelf, retention)

    async def wipe(self) -> None:
        self.shelf.wipe()
