"""``Ticker``: ids, cursors, the limit and the timer."""

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
    """Run a ticker that has appended some updates."""
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
def test_parse_id(text: str | None, id: int | None) -> None:
    assert parse_id(text) == id


@pytest.mark.parametrize(
    ("last_event_id", "cursor", "last_id"),
    [
        (None, 3, 3),  # no cursor: from the next update on
        ("1", 1, 3),
        ("0", 0, 3),
        ("3", 3, 3),
        ("100", 100, 100),  # from before a restart
        (str(HIGHEST_FOREIGN_ID), HIGHEST_FOREIGN_ID, HIGHEST_FOREIGN_ID),
        (str(HIGHEST_FOREIGN_ID + 1), 3, 3),
        ("9" * 400, 3, 3),
        ("-5", 3, 3),
        ("garbage", 3, 3),
    ],
)
async def test_cursor_after(last_event_id: str | None, cursor: int, last_id: int) -> None:
    async with ticking(3) as (ticker, _):
        assert ticker.cursor_after(last_event_id) == cursor
        assert ticker.statistics() == (last_id, 3)


async def test_own_high_id() -> None:
    async with ticking() as (ticker, clock):
        ticker.cursor_after(str(HIGHEST_FOREIGN_ID))
        clock.advance(4)
        assert ticker.cursor_after(str(HIGHEST_FOREIGN_ID + 1)) == HIGHEST_FOREIGN_ID + 1


async def test_encoded_update() -> None:
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
async def test_time_format(zone: timezone, text: str) -> None:
    clock = FakeClock()
    async with Ticker(clock=clock, now=lambda: MOMENT.astimezone(zone)) as ticker:
        clock.advance(2)
        [update] = (await ticker.read(0)).updates
    [event] = Decoder().feed(update.encoded)
    assert json.loads(event.data or "")["data"] == f"Current time: {text}"


async def test_default_time() -> None:
    clock = FakeClock()
    before = datetime.now(UTC).replace(microsecond=0)
    async with Ticker(clock=clock) as ticker:
        clock.advance(2)
        [update] = (await ticker.read(0)).updates
    [event] = Decoder().feed(update.encoded)
    sent = datetime.fromisoformat(event.json()["data"].removeprefix("Current time: "))
    assert before <= sent <= datetime.now(UTC)


async def test_read_waits_for_next_update() -> None:
    async with ticking(2) as (ticker, clock):
        waiting = [asyncio.create_task(ids_after(ticker, 2)) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        clock.advance(2)
        assert await asyncio.gather(*waiting) == [[3], [3], [3]]


async def test_cancelled_reader() -> None:
    async with ticking() as (ticker, clock):
        leaving, staying = (asyncio.create_task(ids_after(ticker, 0)) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        clock.advance(2)
        assert await staying == [1]


async def test_read_several_updates() -> None:
    async with ticking(5) as (ticker, _):
        assert await ids_after(ticker, 2) == [3, 4, 5]


async def test_missing_ids() -> None:
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
async def test_log_is_limited(cursor: int, ids: list[int], gap: bool) -> None:
    async with ticking(5, limit=3) as (ticker, _):
        found = await ticker.read(cursor)
        assert [update.id for update in found.updates] == ids
        assert found.gap is gap
        assert ticker.statistics() == (5, 3)


async def test_interval() -> None:
    async with ticking(interval=2.0) as (ticker, clock):
        last_ids = []
        for _ in range(9):
            clock.advance(0.5)
            last_ids.append(ticker.statistics().last_id)
        assert last_ids == [0, 0, 0, 1, 1, 1, 1, 2, 2]


class StalledClock(FakeClock):
    """A clock that is late, like an event loop that was blocked."""

    late = 0.0

    def time(self) -> float:
        return super().time() + self.late


async def test_no_burst_after_blocked_loop() -> None:
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


async def test_stopped_ticker() -> None:
    async with ticking(1) as (ticker, clock):
        pass
    clock.advance(60)
    assert repr(ticker) == "<Ticker last_id=1 kept=1>"
    await ticker.__aexit__(None, None, None)  # a second time has no effect


@pytest.mark.parametrize("options", [{"interval": 0}, {"interval": -1}, {"interval": float("nan")}, {"limit": 0}])
def test_invalid_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected "):
        Ticker(**options)  # type: ignore[arg-type]


async def test_default_clock() -> None:
    async with Ticker(interval=0.001) as ticker, asyncio.timeout(5):
        assert await ids_after(ticker, 0) == [1]
