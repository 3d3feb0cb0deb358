"""The shared log of the clock demo: ids, cursors, the limit, the timer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone

import pytest

from tickertape import Decoder, ServerSentEvent
from tickertape.demo.clock.ticker import HIGHEST_FOREIGN_ID, Ticker, parse_id
from tickertape.testing import FakeClock

MOMENT = datetime(2025, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC)


@asynccontextmanager
async def ticking(
    updates: int = 0, *, limit: int = 10, interval: float = 2.0
) -> AsyncIterator[tuple[Ticker, FakeClock]]:
    """A ticker that has made some updates."""
    clock = FakeClock()
    async with Ticker(interval=interval, limit=limit, clock=clock, now=lambda: MOMENT) as ticker:
        clock.advance(updates * interval)
        yield ticker, clock


async def ids_after(ticker: Ticker, cursor: int) -> list[int]:
    return [update.id for update in (await ticker.read(cursor)).updates]


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("0", 0),
        ("1", 1),
        ("4711", 4711),
        ("9999999999999999", 9999999999999999),
        (None, None),
        ("", None),
        ("99999999999999999", None),
        ("-1", None),
        ("+1", None),
        ("007", None),
        ("1_000", None),
        (" 1", None),
        ("1\n", None),
        ("1.0", None),
        ("1e3", None),
        ("٣", None),
        ("²", None),
        ("null", None),
        ("1; DROP TABLE", None),
        ("9" * 100_000, None),
    ],
)
def test_an_id_is_what_we_write(text: str | None, id: int | None) -> None:
    assert parse_id(text) == id


@pytest.mark.parametrize(
    ("last_event_id", "cursor", "last_id"),
    [
        (None, 3, 3),  # starts anew: from the next update on
        ("1", 1, 3),
        ("0", 0, 3),
        ("3", 3, 3),
        ("100", 100, 100),  # another life of the server was further
        (str(HIGHEST_FOREIGN_ID), HIGHEST_FOREIGN_ID, HIGHEST_FOREIGN_ID),
        (str(HIGHEST_FOREIGN_ID + 1), 3, 3),
        ("9" * 400, 3, 3),
        ("-5", 3, 3),
        ("garbage", 3, 3),
    ],
)
async def test_where_a_client_goes_on(last_event_id: str | None, cursor: int, last_id: int) -> None:
    async with ticking(3) as (ticker, _):
        assert ticker.cursor_after(last_event_id) == cursor
        assert ticker.statistics() == (last_id, 3)


async def test_an_own_id_is_believed_however_high() -> None:
    async with ticking() as (ticker, clock):
        ticker.cursor_after(str(HIGHEST_FOREIGN_ID))
        clock.advance(4)
        assert ticker.cursor_after(str(HIGHEST_FOREIGN_ID + 1)) == HIGHEST_FOREIGN_ID + 1


async def test_an_update_is_an_event_and_its_json() -> None:
    async with ticking(1) as (ticker, _):
        [update] = (await ticker.read(0)).updates
    data = '{"id":1,"event":"update","data":"Current time: 2025-01-02T03:04:05Z"}'
    assert update.encoded == f"id: 1\nevent: update\ndata: {data}\n\n".encode()
    assert Decoder().feed(update.encoded) == [ServerSentEvent(data, event="update", id="1")]


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        (UTC, "2025-01-02T03:04:05Z"),
        (timezone(timedelta(hours=5, minutes=30)), "2025-01-02T08:34:05+05:30"),
        (timezone(timedelta(hours=-8)), "2025-01-01T19:04:05-08:00"),
    ],
)
async def test_the_time_is_rfc_3339(zone: timezone, text: str) -> None:
    clock = FakeClock()
    async with Ticker(clock=clock, now=lambda: MOMENT.astimezone(zone)) as ticker:
        clock.advance(2)
        [update] = (await ticker.read(0)).updates
    [event] = Decoder().feed(update.encoded)
    assert json.loads(event.data or "")["data"] == f"Current time: {text}"


async def test_by_default_the_time_is_now_with_its_zone() -> None:
    clock = FakeClock()
    before = datetime.now(UTC).replace(microsecond=0)
    async with Ticker(clock=clock) as ticker:
        clock.advance(2)
        [update] = (await ticker.read(0)).updates
    [event] = Decoder().feed(update.encoded)
    told = datetime.fromisoformat(event.json()["data"].removeprefix("Current time: "))
    assert before <= told <= datetime.now(UTC)


async def test_reading_waits_for_what_is_not_there_yet() -> None:
    async with ticking(2) as (ticker, clock):
        waiting = [asyncio.create_task(ids_after(ticker, 2)) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        clock.advance(2)
        assert await asyncio.gather(*waiting) == [[3], [3], [3]]


async def test_a_reader_that_gives_up_disturbs_nobody() -> None:
    async with ticking() as (ticker, clock):
        leaving, staying = (asyncio.create_task(ids_after(ticker, 0)) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        clock.advance(2)
        assert await staying == [1]


async def test_several_updates_come_at_once() -> None:
    async with ticking(5) as (ticker, _):
        assert await ids_after(ticker, 2) == [3, 4, 5]


async def test_numbers_left_out_do_not_matter() -> None:
    async with ticking(2) as (ticker, clock):
        ticker.cursor_after("50")
        clock.advance(4)
        assert await ids_after(ticker, 1) == [2, 51, 52]
        assert await ids_after(ticker, 50) == [51, 52]


@pytest.mark.parametrize(
    ("cursor", "ids", "gap"),
    [
        (0, [3, 4, 5], True),
        (1, [3, 4, 5], True),
        (2, [3, 4, 5], False),
        (4, [5], False),
    ],
)
async def test_the_log_is_bounded_and_says_what_it_lost(cursor: int, ids: list[int], gap: bool) -> None:
    async with ticking(5, limit=3) as (ticker, _):
        batch = await ticker.read(cursor)
        assert [update.id for update in batch.updates] == ids
        assert batch.gap is gap
        assert ticker.statistics() == (5, 3)


async def test_updates_come_at_their_moments() -> None:
    async with ticking(interval=2.0) as (ticker, clock):
        made = []
        for _ in range(9):
            clock.advance(0.5)
            made.append(ticker.statistics().last_id)
        assert made == [0, 0, 0, 1, 1, 1, 1, 2, 2]


class StalledClock(FakeClock):
    """A clock that tells how late it is, as a loop does after it was blocked."""

    late = 0.0

    def time(self) -> float:
        return super().time() + self.late


async def test_after_a_stall_there_is_no_burst() -> None:
    clock = StalledClock()
    async with Ticker(interval=2.0, clock=clock, now=lambda: MOMENT) as ticker:
        clock.late = 60.0
        clock.advance(2)
        assert ticker.statistics().last_id == 1
        clock.advance(59.5)
        assert ticker.statistics().last_id == 1
        clock.late = 0.0
        clock.advance(2.5)
        assert ticker.statistics().last_id == 2


async def test_a_ticker_that_has_stopped_makes_no_more() -> None:
    async with ticking(1) as (ticker, clock):
        pass
    clock.advance(60)
    assert repr(ticker) == "<Ticker last_id=1 kept=1>"
    await ticker.__aexit__(None, None, None)  # once more does nothing


@pytest.mark.parametrize("options", [{"interval": 0}, {"interval": -1}, {"interval": float("nan")}, {"limit": 0}])
def test_what_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected "):
        Ticker(**options)  # type: ignore[arg-type]


async def test_the_loop_is_the_clock_by_default() -> None:
    async with Ticker(interval=0.001) as ticker, asyncio.timeout(5):
        assert await ids_after(ticker, 0) == [1]
