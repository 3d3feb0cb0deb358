"""Where a subscription starts: after a cursor that the client gives, before the last events, or now."""

from __future__ import annotations

from collections import deque
from typing import Final

from ..broker import Broker
from ..wire import Cursor
from .delivery import Delivery
from .subscriber import Start
from .topics import Patterns, matches

__all__ = ["MAX_LAST", "find_start"]

MAX_LAST: Final = 10_000
"""Events that ``last`` may ask for: more is a download, for which there is the history endpoint."""

_PAGE: Final = 1000
"""Records read at a time when the window holds too few."""


async def find_start(
    broker: Broker, delivery: Delivery, patterns: Patterns, last_event_id: str | None, last: int | None
) -> Start:
    """Return where a subscription starts, and the gap if it cannot start where it asks to.

    What is no cursor of this log, one from the future included, is a ``reset``, never an error:
    browsers give up for good on an error, and a client with a wrong cursor needs the truth.

    Raises:
        BrokerError: the log cannot be read.
    """
    while True:
        window = delivery.window
        if last_event_id is not None:
            start = await _after(broker, delivery, last_event_id)
        elif last is not None and last > 0:
            start = Start(await _before_last(broker, delivery, patterns, min(last, MAX_LAST)))
        else:
            start = Start(window.newest)
        if delivery.window.epoch == window.epoch:  # else it was found in a log that is no more
            return start


async def _after(broker: Broker, delivery: Delivery, last_event_id: str) -> Start:
    window = delivery.window
    cursor = Cursor.parse(last_event_id)
    if cursor is not None and cursor.epoch == window.epoch and cursor.offset <= window.newest:
        # An older one than is kept is found out when it is read: that gap is told then.
        return Start(cursor.offset)
    state = await broker.state()
    if cursor is not None and cursor.epoch == state.epoch == window.epoch and cursor.offset <= state.newest:
        # Another hub on the same log was faster than this one, which is about to see it too.
        return Start(cursor.offset)
    oldest = state.oldest if state.epoch == window.epoch else window.oldest
    return Start(oldest - 1, delivery.gap("reset", last_event_id, oldest - 1))


async def _before_last(broker: Broker, delivery: Delivery, patterns: Patterns, last: int) -> int:
    window = delivery.window
    found, start = window.last(last, patterns)
    if found == last:
        return start
    oldest = window.oldest  # what is found so far is behind it, whatever the window drops meanwhile
    state = await broker.state()
    if state.oldest >= oldest or state.epoch != window.epoch:
        return start
    older: deque[int] = deque(maxlen=last - found)
    after = state.oldest - 1
    while after < oldest - 1:
        _, records = await broker.read(after, _PAGE, lambda topic: matches(patterns, topic))
        older.extend(record.offset for record in records if record.offset < oldest)
        if len(records) < _PAGE:
            break
        after = records[-1].offset
    return older[0] - 1 if older else start
