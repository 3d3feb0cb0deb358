"""Brokers that break one promise of the contract each, and the check of that promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tickertape.broker import LogState, Page, Record, Retention, TopicFilter, new_epoch
from tickertape.errors import LogTrimmedError
from tickertape.testing.contract import Traits
from tickertape.wire import Cursor, Draft

from .shelf import Contents, Shelf, ShelfBroker, ShelfLog

__all__ = ["BROKEN", "Broken"]


# Appending.


class BeginsAtZero(ShelfBroker):
    async def state(self) -> LogState:
        return (await super().state())._replace(oldest=0)


class DropsEventTypes(ShelfBroker):
    def store(self, contents: Contents, draft: Draft) -> int:
        return super().store(contents, draft.replace(event=None))


class CachesTheFirstState(ShelfBroker):
    first: LogState | None = None

    async def state(self) -> LogState:
        self.first = self.first or await super().state()
        return self.first


class StoresEmptyBatches(ShelfBroker):
    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        cursors = await super().append(drafts or [Draft("t", "")])
        return cursors if drafts else []


class MixesBatches(ShelfBroker):
    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        cursors = []
        for draft in drafts:
            cursors += await super().append([draft])
            await asyncio.sleep(0)
        return cursors


class LosesOne(ShelfBroker):
    def store(self, contents: Contents, draft: Draft) -> int:
        offset = super().store(contents, draft)
        if offset == 500:
            del contents.records[-1], contents.notes[-1]
        return offset


class StoresTheFirstHalf(MixesBatches):
    """If an append is cancelled, the part that is stored stays."""

    def __init__(self, shelf: Shelf, retention: Retention) -> None:
        super().__init__(shelf, retention)
        self.turn = asyncio.Lock()

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        async with self.turn:
            return await super().append(drafts)


# Keys.


class ForgetsKeys(ShelfBroker):
    def find(self, contents: Contents, key: str | None) -> int | None:
        return None


class LooksUpKeysOnce(ShelfBroker):
    """Look up all keys before the batch is stored, and so miss keys within it."""

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        contents = self.check()
        known = [self.find(contents, draft.key) for draft in drafts]
        offsets = [
            self.store(contents, draft) if offset is None else offset
            for draft, offset in zip(drafts, known, strict=True)
        ]
        self.trim(contents)
        self.shelf.notify()
        return [Cursor(contents.epoch, offset) for offset in offsets]


class LeavesHolesForKnownKeys(ShelfBroker):
    def put(self, contents: Contents, draft: Draft) -> int:
        known = self.find(contents, draft.key)
        if known is not None:
            contents.newest += 1
        return self.store(contents, draft) if known is None else known


class FoldsKeys(ShelfBroker):
    def put(self, contents: Contents, draft: Draft) -> int:
        return super().put(contents, draft.replace(key=draft.key and draft.key.strip().lower()))


class ForgetsKeysWhileItStores(ShelfBroker):
    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        known = [self.find(self.check(), draft.key) for draft in drafts]
        await asyncio.sleep(0)
        found = [Cursor(self.shelf.contents.epoch, offset) for offset in known if offset is not None]
        if len(found) == len(drafts):
            return found
        self.shelf.contents.keys.clear()
        return await super().append(drafts)


class KeepsKeysInItself(ShelfBroker):
    def __init__(self, shelf: Shelf, retention: Retention) -> None:
        super().__init__(shelf, retention)
        self.keys: dict[str | None, int] = {}

    def find(self, contents: Contents, key: str | None) -> int | None:
        return self.keys.get(key)

    def store(self, contents: Contents, draft: Draft) -> int:
        offset = super().store(contents, draft)
        if draft.key is not None:
            self.keys[draft.key] = offset
        return offset


class KeepsKeysForEver(ShelfBroker):
    def forget(self, contents: Contents, key: str | None) -> None:
        pass


# Reading.


class ReadsFromTheNewestEnd(ShelfBroker):
    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        state, records = await super().read(after, 10_000, topics)
        return Page(state, records[-limit:])


class FiltersAPage(ShelfBroker):
    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        state, records = await super().read(after, 1000)
        return Page(state, [record for record in records if topics is None or topics(record.topic)][:limit])


class BeginsEpochs(ShelfBroker):
    """Compare a state with records that were appended after it, and conclude that the log lost them."""

    async def state(self) -> LogState:
        state = await super().state()
        await asyncio.sleep(0)
        if state.newest < self.shelf.contents.newest:
            self.shelf.contents.epoch = new_epoch()
            self.shelf.notify()
        return await super().state()


class AppendsInState(ShelfBroker):
    """Prove that the log can be written to with a record."""

    async def state(self) -> LogState:
        self.store(self.check(), Draft("health"))
        return await super().state()


class ReadsTheStateLater(ShelfBroker):
    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        _, records = await super().read(after, limit, topics)
        await asyncio.sleep(0)
        return Page(await self.state(), records)


class ReadsTheStateBefore(ShelfBroker):
    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        state = await self.state()
        for _ in range(3):
            await asyncio.sleep(0)
        _, records = await super().read(after, limit, topics)
        return Page(state, records)


class IgnoresTheEpoch(ShelfBroker):
    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        async for records in super().tail(Cursor(self.shelf.contents.epoch, after.offset)):
            yield records


class MissesTheFirst(ShelfBroker):
    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        async for records in super().tail(Cursor(after.epoch, max(1, after.offset))):
            yield records


class TailsFromTheStart(ShelfBroker):
    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        async for records in super().tail(Cursor(after.epoch, 0) if after.offset < 20 else after):
            yield records


class TailsFromTheEnd(ShelfBroker):
    """Miss records that were appended between a read and the start of the tail."""

    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        async for records in super().tail(
            Cursor(after.epoch, self.shelf.contents.newest) if after.offset >= 50 else after
        ):
            yield records


class DoublesOne(ShelfBroker):
    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        async for records in super().tail(after):
            yield records
            yield records[-1:]


class TailsItsOwnRecords(ShelfBroker):
    def __init__(self, shelf: Shelf, retention: Retention) -> None:
        super().__init__(shelf, retention)
        self.mine: set[int] = set()

    def store(self, contents: Contents, draft: Draft) -> int:
        offset = super().store(contents, draft)
        self.mine.add(offset)
        return offset

    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        async for records in super().tail(after):
            if mine := [record for record in records if record.offset in self.mine]:
                yield mine


class EndsAllTailsWithOne(ShelfBroker):
    ended = False

    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        try:
            async for records in super().tail(after):
                if self.ended:
                    break
                yield records
        finally:
            self.ended = True


class LeavesTailsWaiting(ShelfBroker):
    async def close(self) -> None:
        self.closed = True


class WorksAfterClose(ShelfBroker):
    def check(self) -> Contents:
        self.trim(self.shelf.contents)
        return self.shelf.contents


class CannotCloseUnopened(ShelfBroker):
    opened = False

    async def open(self) -> LogState:
        self.opened = True
        return await super().open()

    async def close(self) -> None:
        assert self.opened, "broker was not opened"
        await super().close()


# Retention.


class KeepsAll(ShelfBroker):
    def surplus(self, contents: Contents) -> int:
        return 0


class IgnoresBytes(ShelfBroker):
    def __init__(self, shelf: Shelf, retention: Retention) -> None:
        super().__init__(shelf, Retention(events=retention.events, bytes=None, age=retention.age))


class IgnoresAge(ShelfBroker):
    def __init__(self, shelf: Shelf, retention: Retention) -> None:
        super().__init__(shelf, Retention(events=retention.events, bytes=retention.bytes))


class ReadsNothingAfterDroppedRecords(ShelfBroker):
    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        state, records = await super().read(after, limit, topics)
        return Page(state, [] if after + 1 < state.oldest else records)


class TailsOverDroppedRecords(ShelfBroker):
    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        try:
            async for records in super().tail(after):
                yield records
        except LogTrimmedError as error:
            async for records in super().tail(Cursor(after.epoch, error.oldest - 1)):
                yield records


# Epochs.


class SharesOneEpoch(ShelfBroker):
    async def state(self) -> LogState:
        return (await super().state())._replace(epoch="e")


class HasItsOwnEpoch(ShelfBroker):
    """Each broker invents an epoch for the log that they share."""

    mine = ""

    async def state(self) -> LogState:
        self.mine = self.mine or new_epoch()
        return (await super().state())._replace(epoch=self.mine)


class CreatesTheLogAgain(ShelfBroker):
    async def open(self) -> LogState:
        await asyncio.sleep(0)
        if not self.shelf.contents.records:
            self.shelf.contents = Contents()
        return await super().open()


class ReusesTheEpoch(ShelfBroker):
    """Start a wiped log again under the same epoch."""

    epoch = ""

    def check(self) -> Contents:
        contents = super().check()
        self.epoch = contents.epoch = self.epoch or contents.epoch
        return contents

    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        self.check()
        async for records in super().tail(after):
            yield records


class AppendsToTheWipedLog(ShelfBroker):
    """Append to the contents that were there first, even after a wipe."""

    contents: Contents | None = None

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        self.contents = self.contents or self.check()
        return [Cursor(self.contents.epoch, self.put(self.contents, draft)) for draft in drafts]


# Text.


class StripsText(ShelfBroker):
    def store(self, contents: Contents, draft: Draft) -> int:
        return super().store(contents, draft.replace(data=draft.data.strip()))


class DropsEmptyEventTypes(ShelfBroker):
    def store(self, contents: Contents, draft: Draft) -> int:
        return super().store(contents, draft.replace(event=draft.event or None))


class TruncatesData(ShelfBroker):
    def store(self, contents: Contents, draft: Draft) -> int:
        return super().store(contents, draft.replace(data=draft.data[: 64 * 1024]))


class TruncatesAtNul(ShelfBroker):
    def store(self, contents: Contents, draft: Draft) -> int:
        return super().store(contents, draft.replace(data=draft.data.partition("\0")[0]))


class IgnoresRules(ShelfBroker):
    """A broker with one retention for all topics. It says that it can discard topics."""

    async def discard(self, topic: str, upto: int) -> None:
        pass


class DiscardsAnything(ShelfBroker):
    async def discard(self, topic: str, upto: int) -> None:
        self.shelf.contents.records.clear()
        self.shelf.contents.notes.clear()


class Broken(NamedTuple):
    """A broker, the check that it fails, and its traits."""

    kind: type[ShelfBroker]
    check: str
    traits: Traits = Traits(opener=None)

    def log(self, directory: Path) -> ShelfLog:
        made = type("BrokenLog", (ShelfLog,), {"kind": self.kind, "traits": self.traits})
        log: ShelfLog = made(directory)
        return log


BROKEN: Final = (
    Broken(BeginsAtZero, "new_log_is_empty"),
    Broken(DropsEventTypes, "records_are_read_in_order"),
    Broken(StoresEmptyBatches, "empty_append"),
    Broken(MixesBatches, "batches_stay_together"),
    Broken(LosesOne, "batch_of_1000"),
    Broken(StoresTheFirstHalf, "cancelled_append_is_whole_or_absent"),
    Broken(ForgetsKeys, "key_appends_once"),
    Broken(LooksUpKeysOnce, "key_twice_in_a_batch"),
    Broken(LeavesHolesForKnownKeys, "known_keys_leave_no_holes"),
    Broken(FoldsKeys, "keys_are_compared_exactly"),
    Broken(ForgetsKeysWhileItStores, "concurrent_appends_of_a_key"),
    Broken(KeepsKeysInItself, "key_through_two_brokers"),
    Broken(KeepsKeysForEver, "keys_go_with_their_records"),
    Broken(CachesTheFirstState, "state_is_current"),
    Broken(AppendsInState, "state_equals_what_open_returned"),
    Broken(BeginsEpochs, "state_while_appending"),
    Broken(ReadsTheStateLater, "page_is_of_one_moment"),
    Broken(ReadsTheStateBefore, "page_has_the_epoch_of_its_records"),
    Broken(ReadsFromTheNewestEnd, "pages_are_read_by_offset"),
    Broken(FiltersAPage, "short_page_means_the_end"),
    Broken(MissesTheFirst, "tail_of_an_empty_log"),
    Broken(TailsFromTheStart, "tail_after_any_offset"),
    Broken(TailsFromTheEnd, "tail_continues_a_page"),
    Broken(DoublesOne, "tails_yield_the_same_records"),
    Broken(IgnoresTheEpoch, "tail_of_another_epoch_is_refused"),
    Broken(BeginsEpochs, "everything_at_once"),
    Broken(BeginsEpochs, "everything_at_once_on_two_brokers"),
    Broken(TailsItsOwnRecords, "tail_yields_records_of_another_broker"),
    Broken(EndsAllTailsWithOne, "cancelled_tail_leaves_others"),
    Broken(LeavesTailsWaiting, "close_ends_tails"),
    Broken(WorksAfterClose, "closed_broker_refuses"),
    Broken(CannotCloseUnopened, "close_without_open"),
    Broken(KeepsAll, "retention_by_events"),
    Broken(IgnoresBytes, "retention_by_bytes"),
    Broken(IgnoresAge, "retention_by_age"),
    Broken(ReadsNothingAfterDroppedRecords, "read_skips_dropped_records"),
    Broken(TailsOverDroppedRecords, "tail_after_dropped_records_is_refused"),
    Broken(SharesOneEpoch, "unshared_logs_have_different_epochs", Traits(shared=False)),
    Broken(HasItsOwnEpoch, "log_outlives_its_brokers"),
    Broken(CreatesTheLogAgain, "concurrent_first_opens"),
    Broken(ReusesTheEpoch, "wiped_log_gets_a_new_epoch"),
    Broken(AppendsToTheWipedLog, "append_after_a_wipe"),
    Broken(StripsText, "text_is_unchanged"),
    Broken(DropsEmptyEventTypes, "empty_event_type_is_not_none"),
    Broken(TruncatesData, "event_of_1_mib"),
    Broken(TruncatesData, "event_over_the_limit_is_refused", Traits(max_data=1000)),
    Broken(TruncatesAtNul, "text_with_nul"),
    Broken(TruncatesAtNul, "text_with_nul_is_refused", Traits(nul=False)),
    Broken(DiscardsAnything, "discarding_needs_a_rule"),
    *(
        Broken(IgnoresRules, check)
        for check in (
            "rule_by_events",
            "rule_by_bytes",
            "rule_by_age",
            "busy_topic_pushes_nothing_out",
            "log_does_not_push_a_rule_out",
            "first_rule_counts",
            "only_readers_of_the_rule_lose",
            "pages_skip_holes",
            "tail_before_a_hole_is_refused",
            "rules_survive_a_restart",
            "rules_of_two_brokers",
            "removed_rule",
            "keys_of_a_rule",
            "lowered_rule",
            "discarded_topic",
            "discarded_topic_after_a_restart",
            "discarding_is_bounded",
            "tail_before_discarded_records",
        )
    ),
)
