"""Brokers that break the contract, each in one thing, and the check that is about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tickertape.broker import LogState, Page, Record, Retention, TopicFilter, new_epoch
from tickertape.errors import LogTrimmedError
from tickertape.testing.contract import Traits
from tickertape.wire import Cursor, Draft

from .shelf import Life, Shelf, ShelfBroker, ShelfLog

__all__ = ["BROKEN", "Broken"]


# Appending.


class BeginsAtZero(ShelfBroker):
    async def open(self) -> LogState:
        return (await super().open())._replace(oldest=0)


class DropsEventTypes(ShelfBroker):
    def store(self, life: Life, draft: Draft) -> int:
        return super().store(life, draft.replace(event=None))


class RemembersItsFirstState(ShelfBroker):
    first: LogState | None = None

    async def open(self) -> LogState:
        self.first = self.first or await super().open()
        return self.first


class StoresNothings(ShelfBroker):
    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        cursors = await super().append(drafts or [Draft("", "")])
        return cursors if drafts else []


class MixesBatches(ShelfBroker):
    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        cursors = []
        for draft in drafts:
            cursors += await super().append([draft])
            await asyncio.sleep(0)
        return cursors


class LosesOne(ShelfBroker):
    def store(self, life: Life, draft: Draft) -> int:
        offset = super().store(life, draft)
        if offset == 500:
            del life.records[-1], life.notes[-1]
        return offset


class StoresTheFirstHalf(MixesBatches):
    """One batch after the other; but one whose publisher is cancelled stays as it is at that moment."""

    def __init__(self, shelf: Shelf, retention: Retention) -> None:
        super().__init__(shelf, retention)
        self.turn = asyncio.Lock()

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        async with self.turn:
            return await super().append(drafts)


# Keys.


class ForgetsKeys(ShelfBroker):
    def find(self, life: Life, key: str | None) -> int | None:
        return None


class LooksForKeysOnce(ShelfBroker):
    """Before a batch: keys within it are not seen."""

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        life = self.check()
        known = [self.find(life, draft.key) for draft in drafts]
        offsets = [
            self.store(life, draft) if offset is None else offset for draft, offset in zip(drafts, known, strict=True)
        ]
        self.trim(life)
        self.shelf.notify()
        return [Cursor(life.epoch, offset) for offset in offsets]


class LeavesHolesForKnownKeys(ShelfBroker):
    def put(self, life: Life, draft: Draft) -> int:
        known = self.find(life, draft.key)
        if known is not None:
            life.newest += 1
        return self.store(life, draft) if known is None else known


class FoldsKeys(ShelfBroker):
    def put(self, life: Life, draft: Draft) -> int:
        return super().put(life, draft.replace(key=draft.key and draft.key.strip().lower()))


class ForgetsKeysWhileItStores(ShelfBroker):
    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        known = [self.find(self.check(), draft.key) for draft in drafts]
        await asyncio.sleep(0)
        found = [Cursor(self.shelf.life.epoch, offset) for offset in known if offset is not None]
        if len(found) == len(drafts):
            return found
        self.shelf.life.keys.clear()
        return await super().append(drafts)


class KeepsKeysToItself(ShelfBroker):
    def __init__(self, shelf: Shelf, retention: Retention) -> None:
        super().__init__(shelf, retention)
        self.keys: dict[str | None, int] = {}

    def find(self, life: Life, key: str | None) -> int | None:
        return self.keys.get(key)

    def store(self, life: Life, draft: Draft) -> int:
        offset = super().store(life, draft)
        if draft.key is not None:
            self.keys[draft.key] = offset
        return offset


class RemembersKeysForEver(ShelfBroker):
    def forget(self, life: Life, key: str | None) -> None:
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


class MissesTheFirst(ShelfBroker):
    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        async for records in super().tail(Cursor(after.epoch, max(1, after.offset))):
            yield records


class CountsFromTheEnd(ShelfBroker):
    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        async for records in super().tail(Cursor(after.epoch, 0) if after.offset < 20 else after):
            yield records


class BeginsAtTheEnd(ShelfBroker):
    """What was appended between a read and the tail's start is missed."""

    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        async for records in super().tail(Cursor(after.epoch, self.shelf.life.newest) if after.offset >= 50 else after):
            yield records


class DoublesOne(ShelfBroker):
    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        async for records in super().tail(after):
            yield records
            yield records[-1:]


class HearsOnlyItself(ShelfBroker):
    def __init__(self, shelf: Shelf, retention: Retention) -> None:
        super().__init__(shelf, retention)
        self.mine: set[int] = set()

    def store(self, life: Life, draft: Draft) -> int:
        offset = super().store(life, draft)
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


class GoesOnWhenClosed(ShelfBroker):
    def check(self) -> Life:
        self.trim(self.shelf.life)
        return self.shelf.life


class MustBeOpenedToBeClosed(ShelfBroker):
    opened = False

    async def open(self) -> LogState:
        self.opened = True
        return await super().open()

    async def close(self) -> None:
        assert self.opened, "broker was not opened"
        await super().close()


# Retention.


class KeepsAll(ShelfBroker):
    def surplus(self, life: Life) -> int:
        return 0


class CountsNoBytes(ShelfBroker):
    def __init__(self, shelf: Shelf, retention: Retention) -> None:
        super().__init__(shelf, Retention(events=retention.events, bytes=None, age=retention.age))


class KnowsNoTime(ShelfBroker):
    def __init__(self, shelf: Shelf, retention: Retention) -> None:
        super().__init__(shelf, Retention(events=retention.events, bytes=retention.bytes))


class ReadsNothingBehindWhatIsTrimmed(ShelfBroker):
    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> Page:
        state, records = await super().read(after, limit, topics)
        return Page(state, [] if after + 1 < state.oldest else records)


class SkipsWhatIsTrimmed(ShelfBroker):
    async def tail(self, after: Cursor) -> AsyncIterator[list[Record]]:
        try:
            async for records in super().tail(after):
                yield records
        except LogTrimmedError as error:
            async for records in super().tail(Cursor(after.epoch, error.oldest - 1)):
                yield records


# Lives.


class HasOneEpochForAll(ShelfBroker):
    async def open(self) -> LogState:
        return (await super().open())._replace(epoch="e")


class HasAnEpochOfItsOwn(ShelfBroker):
    """Each broker makes up an epoch, although the log is the same."""

    mine = ""

    async def open(self) -> LogState:
        self.mine = self.mine or new_epoch()
        return (await super().open())._replace(epoch=self.mine)


class MakesAnotherLogEachTime(ShelfBroker):
    async def open(self) -> LogState:
        await asyncio.sleep(0)
        if not self.shelf.life.records:
            self.shelf.life = Life()
        return await super().open()


class ReusesOffsets(ShelfBroker):
    """A log that was wiped begins again, under the same epoch."""

    first = ""

    def check(self) -> Life:
        life = super().check()
        ReusesOffsets.first = life.epoch = ReusesOffsets.first if life.newest == 0 else life.epoch
        return life


class StaysInTheLifeBefore(ShelfBroker):
    """Appends where it began, although that log is no more."""

    life: Life | None = None

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        self.life = self.life or self.check()
        return [Cursor(self.life.epoch, self.put(self.life, draft)) for draft in drafts]


# What an event may carry.


class StripsText(ShelfBroker):
    def store(self, life: Life, draft: Draft) -> int:
        return super().store(life, draft.replace(data=draft.data.strip()))


class KnowsNoEmptyType(ShelfBroker):
    def store(self, life: Life, draft: Draft) -> int:
        return super().store(life, draft.replace(event=draft.event or None))


class CutsGreatEvents(ShelfBroker):
    def store(self, life: Life, draft: Draft) -> int:
        return super().store(life, draft.replace(data=draft.data[: 64 * 1024]))


class EndsTextAtNul(ShelfBroker):
    def store(self, life: Life, draft: Draft) -> int:
        return super().store(life, draft.replace(data=draft.data.partition("\0")[0]))


class DropsSurrogates(ShelfBroker):
    def store(self, life: Life, draft: Draft) -> int:
        return super().store(life, draft.replace(data=draft.data.encode(errors="ignore").decode()))


class Broken(NamedTuple):
    """A broker, the check that is about what it breaks, and what it says that it can do."""

    kind: type[ShelfBroker]
    check: str
    traits: Traits = Traits(opener=None)

    def log(self, directory: Path) -> ShelfLog:
        made = type("BrokenLog", (ShelfLog,), {"kind": self.kind, "traits": self.traits})
        log: ShelfLog = made(directory)
        return log


BROKEN: Final = (
    Broken(BeginsAtZero, "a_new_log_is_empty"),
    Broken(DropsEventTypes, "appended_records_come_back_in_order"),
    Broken(RemembersItsFirstState, "opening_again_tells_the_present_state"),
    Broken(StoresNothings, "appending_nothing_changes_nothing"),
    Broken(MixesBatches, "concurrent_batches_are_never_mixed"),
    Broken(LosesOne, "a_batch_of_a_thousand_is_one_append"),
    Broken(StoresTheFirstHalf, "a_cancelled_append_happened_or_not"),
    Broken(ForgetsKeys, "a_key_appends_once"),
    Broken(LooksForKeysOnce, "a_key_twice_in_one_batch_appends_once"),
    Broken(LeavesHolesForKnownKeys, "known_keys_within_a_batch_leave_no_holes"),
    Broken(FoldsKeys, "keys_are_compared_exactly"),
    Broken(ForgetsKeysWhileItStores, "concurrent_retries_of_a_key_append_once"),
    Broken(KeepsKeysToItself, "a_key_appends_once_through_two_brokers"),
    Broken(RemembersKeysForEver, "keys_are_known_while_their_records_are_kept_and_then_forgotten"),
    Broken(ReadsFromTheNewestEnd, "pages_are_read_by_cursor"),
    Broken(FiltersAPage, "fewer_than_the_limit_mean_the_end_also_with_a_filter"),
    Broken(MissesTheFirst, "a_tail_that_starts_before_any_record_gets_the_first"),
    Broken(CountsFromTheEnd, "a_tail_goes_on_from_any_offset_without_a_hole"),
    Broken(BeginsAtTheEnd, "between_a_read_and_a_tail_is_no_hole_while_others_append"),
    Broken(DoublesOne, "all_tails_get_the_same_records"),
    Broken(HearsOnlyItself, "a_tail_gets_what_another_broker_appends"),
    Broken(EndsAllTailsWithOne, "a_tail_that_is_cancelled_ends_and_disturbs_no_other"),
    Broken(LeavesTailsWaiting, "closing_ends_waiting_tails"),
    Broken(GoesOnWhenClosed, "a_closed_broker_refuses_and_may_be_closed_again"),
    Broken(MustBeOpenedToBeClosed, "closing_what_was_never_opened_does_nothing"),
    Broken(KeepsAll, "no_more_records_are_kept_than_asked_for"),
    Broken(CountsNoBytes, "no_more_bytes_are_kept_than_asked_for"),
    Broken(KnowsNoTime, "records_are_dropped_when_they_are_old"),
    Broken(ReadsNothingBehindWhatIsTrimmed, "reading_behind_trimmed_records_passes_over_them"),
    Broken(SkipsWhatIsTrimmed, "a_tail_behind_trimmed_records_says_so"),
    Broken(HasOneEpochForAll, "a_log_that_is_not_shared_has_another_epoch_each_time", Traits(shared=False)),
    Broken(HasAnEpochOfItsOwn, "a_log_outlives_its_brokers"),
    Broken(MakesAnotherLogEachTime, "brokers_that_make_a_log_at_once_make_one"),
    Broken(ReusesOffsets, "a_wiped_log_is_another_log"),
    Broken(StaysInTheLifeBefore, "nothing_is_acknowledged_under_the_epoch_of_a_wiped_log"),
    Broken(StripsText, "all_text_comes_back_as_it_was"),
    Broken(KnowsNoEmptyType, "no_event_type_is_another_than_an_empty_one"),
    Broken(CutsGreatEvents, "an_event_of_a_mebibyte_is_kept"),
    Broken(CutsGreatEvents, "an_event_over_the_limit_is_refused_with_its_whole_batch", Traits(max_data=1000)),
    Broken(EndsTextAtNul, "text_with_nul_is_kept"),
    Broken(EndsTextAtNul, "text_with_nul_is_refused_with_its_whole_batch", Traits(nul=False)),
    Broken(DropsSurrogates, "lone_surrogates_harm_nobody"),
)
