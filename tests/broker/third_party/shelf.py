"""A broker of someone else's, in memory, that keeps the contract: it is there to be broken in one thing at a time.

Several brokers share a shelf, within one process.
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

__all__ = ["Life", "Shelf", "ShelfBroker", "ShelfLog"]


@dataclass
class Life:
    """One life of a log."""

    epoch: str = field(default_factory=new_epoch)
    newest: int = 0
    records: list[Record] = field(default_factory=list)
    notes: list[tuple[float, str | None]] = field(default_factory=list)  # when, and its key, of each record
    keys: dict[str, int] = field(default_factory=dict)

    @property
    def oldest(self) -> int:
        return self.newest - len(self.records) + 1


class Shelf:
    """Where a log lies."""

    def __init__(self) -> None:
        self.life = Life()
        self._changed = asyncio.Event()

    def wipe(self) -> None:
        self.life = Life()
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

    def check(self) -> Life:
        if self.closed:
            raise BrokerError("broker is closed")
        self.trim(self.shelf.life)
        return self.shelf.life

    async def open(self) -> LogState:
        return await self.state()

    async def state(self) -> LogState:
        life = self.check()
        return LogState(life.epoch, life.oldest, life.newest)

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        life = self.check()
        cursors = [Cursor(life.epoch, self.put(life, draft)) for draft in drafts]
        self.trim(life)
        self.shelf.notify()
        return cursors

    def put(self, life: Life, draft: Draft) -> int:
        known = self.find(life, draft.key)
        return self.store(life, draft) if known is None else known

    def find(self, life: Life, key: str | None) -> int | None:
        return None if key is None else life.keys.get(key)

    def store(self, life: Life, draft: Draft) -> int:
        life.newest += 1
        life.records.append(Record(life.newest, draft.topic, draft.event, draft.data))
        life.notes.append((time.monotonic(), draft.key))
        if draft.key is not None:
            life.keys[draft.key] = life.newest
        return life.newest

    def surplus(self, life: Life) -> int:
        """Return how many records are not to be kept."""
        keep = self.retention
        total = sum(len(each.topic) + len(each.event or "") + len(each.data) for each in life.records)
        old = 0 if keep.age is None else sum(at < time.monotonic() - keep.age for at, _ in life.notes)
        count = max(old, 0 if keep.events is None else len(life.records) - keep.events)
        total -= sum(len(each.data) for each in life.records[:count])
        while keep.bytes is not None and total > keep.bytes:
            total -= len(life.records[count].data)
            count += 1
        return count

    def trim(self, life: Life) -> None:
        count = self.surplus(life)
        del life.records[:count]
        for _, key in life.notes[:count]:
            self.forget(life, key)
        del life.notes[:count]

    def forget(self, life: Life, key: str | None) -> None:
        if key is not None:
            del life.keys[key]

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        life = self.check()
        kept = life.records[max(0, after + 1 - life.oldest) :]
        records = [record for record in kept if topics is None or topics(record.topic)][:limit]
        return Page(LogState(life.epoch, life.oldest, life.newest), records)

    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        epoch, offset = after.epoch, after.offset
        while not self.closed:
            life = self.shelf.life
            if life.epoch != epoch:
                raise LogResetError(f"expected the log {epoch}, got {life.epoch}")
            if offset + 1 < life.oldest:
                raise LogTrimmedError(offset, life.oldest)
            if offset < life.newest:
                records = life.records[offset + 1 - life.oldest :]
                offset = life.newest
                yield records
            else:
                await self.shelf.change()

    async def close(self) -> None:
        self.closed = True
        self.shelf.notify()


class ShelfLog(Log):
    """A log on a shelf of its own."""

    traits = Traits(opener=None)
    kind: ClassVar[type[ShelfBroker]] = ShelfBroker

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.shelf = Shelf()

    def broker(self, retention: Retention = DEFAULT_RETENTION) -> Broker:
        return self.kind(self.shelf, retention)

    async def wipe(self) -> None:
        self.shelf.wipe()
