"""Topics with a separate retention: who gets a gap, and who resumes exactly."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tickertape import Hub
from tickertape.broker import LogState, MemoryBroker, Retention
from tickertape.wire import Gap

RULES = Retention(events=100, topics={"busy/**": Retention(events=5)})
"""The log's rules."""

SHORT = Retention(events=4, topics={"busy/**": Retention(events=2)})
"""Those of the window: what it lacks is read from the broker."""


async def publish(hub: Hub, count: int) -> list[str]:
    """Publish to a busy topic and a quiet one in turns, and return the cursors."""
    return [str(await hub.publish(topic, f"{n}")) for n in range(count) for topic in ("busy/a", "quiet")]


async def resume(hub: Hub, topics: str | list[str], after: str, count: int) -> list[str]:
    """Return the first events, "gap" for a gap."""
    async with hub.subscribe(topics, last_event_id=after) as events, asyncio.timeout(20):
        found = [await anext(events) for _ in range(count)]
    return ["gap" if isinstance(each, Gap) else f"{each.topic[0]}{each.data}" for each in found]


@pytest.mark.parametrize("url", ["memory://", "sqlite"])
@pytest.mark.parametrize("window", [RULES, SHORT], ids=["window", "broker"])
async def test_only_the_topic_of_the_rule_has_a_gap(url: str, window: Retention, tmp_path: Path) -> None:
    broker = MemoryBroker(retention=RULES) if url == "memory://" else f"sqlite:///{tmp_path}/log.db"
    async with Hub(broker, retention=RULES if url != "memory://" else window) as hub:
        cursors = await publish(hub, 20)
        assert await resume(hub, "quiet", cursors[3], 18) == [f"q{n}" for n in range(2, 20)]
        assert await resume(hub, "busy/a", cursors[3], 6) == ["gap", "b15", "b16", "b17", "b18", "b19"]
        assert await resume(hub, "busy/**", cursors[30], 4) == ["b16", "b17", "b18", "b19"]
        both = await resume(hub, ["busy/*", "quiet"], cursors[3], 24)
        assert both[:13] == ["gap", *(f"q{n}" for n in range(2, 14))]
        assert both.count("gap") == 1
        assert [gap for _, gap in [await hub.history("busy/a", after=cursors[3])]] == ["expired"]
        assert [gap for _, gap in [await hub.history("quiet", after=cursors[3])]] == [None]


async def test_reader_without_a_cursor_has_no_gap() -> None:
    async with Hub(MemoryBroker(retention=RULES), retention=SHORT) as hub:
        await publish(hub, 20)
        async with hub.subscribe("**", last="all") as events, asyncio.timeout(20):
            found = [await anext(events) for _ in range(25)]
        assert not any(isinstance(each, Gap) for each in found)
        async with hub.subscribe("busy/a", last=4) as events, asyncio.timeout(20):
            assert [(await anext(events)).data for _ in range(4)] == ["16", "17", "18", "19"]
        async with hub.subscribe("*", last=15) as events, asyncio.timeout(20):
            assert [(await anext(events)).data for _ in range(15)] == [f"{n}" for n in range(5, 20)]


@pytest.mark.parametrize(
    ("patterns", "after", "lost"),
    [
        (("busy/a",), 10, 50),
        (("busy/a",), 50, 50),
        (("*/a",), 10, 60),
        (("**",), 10, 60),
        (("**",), 55, 60),
        (("quiet",), 10, 60),
        (("job/1",), 10, 20),
        (("job/2",), 10, 10),
        (("job/*",), 19, 20),
        (("job/1",), 2, 20),
        (("job/2",), 2, 4),
        (("busy/a", "job/2"), 10, 50),
    ],
)
def test_marks_of_a_reader(patterns: tuple[str, ...], after: int, lost: int) -> None:
    state = LogState("e", 5, 100, (("", 60), ("busy/**", 50), ("job/*", 0), ("job/1", 20)))
    assert state.lost_upto(after, patterns) == lost
    assert state.lost_upto(after, patterns, state.dropped) == max(after, 4)
