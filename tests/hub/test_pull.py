"""``HubEvent``: its topic is a part of the value."""

from __future__ import annotations

import asyncio
import copy
import pickle

import pytest

from support.asgi import settle
from tickertape import ServerSentEvent
from tickertape.hub import Hub, HubEvent
from tickertape.testing import FakeClock
from tickertape.wire import Gap

EVENT = HubEvent("orders/42", '{"total":1}', event="paid", id="e-7")


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, *(lambda event, n=n: pickle.loads(pickle.dumps(event, n)) for n in range(6))],
)
def test_copies_keep_the_topic(duplicate: object) -> None:
    assert callable(duplicate)
    again = duplicate(EVENT)
    assert type(again) is HubEvent
    assert (again.topic, again.data, again.event, again.id) == ("orders/42", '{"total":1}', "paid", "e-7")
    assert again == EVENT
    assert hash(again) == hash(EVENT)


def test_topic_is_part_of_the_value() -> None:
    assert HubEvent("orders/43", EVENT.data or "", event=EVENT.event, id=EVENT.id) != EVENT
    assert ServerSentEvent(EVENT.data, event=EVENT.event, id=EVENT.id) != EVENT
    assert repr(EVENT) == "HubEvent('orders/42', '{\"total\":1}', event='paid', id='e-7')"


async def test_types() -> None:
    """Iterating yields events with a topic, and gaps."""
    async with Hub() as hub, hub.subscribe("a", last_event_id="foreign") as events:
        await hub.publish("a", "x")
        first = await anext(events)
        second = await anext(events)
    assert isinstance(first, Gap)
    assert isinstance(second, HubEvent)
    assert second.topic == "a"


@pytest.mark.parametrize("patterns", ["a", ["a", "b"], "*"], ids=str)
async def test_events_during_a_round(patterns: str | list[str]) -> None:
    """A reader that runs late, and one that joins during a round, get every event once."""
    async with Hub() as hub, hub.subscribe(patterns) as early:
        seen: list[str | None] = []
        cursor = await hub.publish("a", "0")
        for number in range(1, 30):
            await asyncio.sleep(0)  # one turn of the loop: a part of a round
            await hub.publish("a", str(number))
            await hub.publish("other/topic", "x")
            async with hub.subscribe(patterns, last_event_id=str(cursor)) as late:
                wanted = [str(each) for each in range(1, number + 1)]
                assert [(await anext(late)).data for _ in wanted] == wanted
            if number % 3 == 0:
                seen.append((await anext(early)).data)
        while len(seen) < 30:
            seen.append((await anext(early)).data)
        assert seen == [str(number) for number in range(30)]


async def test_slice_in_time_while_others_get_events() -> None:
    """Timers of a hub are coarse: by the time of the second one, the log had moved on again, and so forever."""
    clock = FakeClock()
    async with Hub(clock=clock) as hub, hub.subscribe("a") as output:
        reading = asyncio.ensure_future(output.next_slice(until=clock.time() + 1))
        for _ in range(20):
            await hub.publish("b", "x")
            clock.advance(0.1)
            await settle()
        assert reading.done()
        found = reading.result()
        assert found is not None
        assert (found.entries, found.gap) == ([], None)
