"""Read a run: as values in this process, and as a response in a framing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final

from ..broker import Record
from ..errors import StreamEndedError
from ..hub import Hub
from ..wire import Cursor, Gap
from .framing import Framing, RunEvent
from .records import END, TEXT, RunEnd, RunInfo, offset_of, parse_end

BEGINNING: Final = -1
"""The sequence number after which a reader starts that wants everything."""


async def read_run(
    hub: Hub, info: RunInfo, after: Cursor | None = None
) -> AsyncGenerator[list[RunEvent | RunEnd | Gap]]:
    """Yield what a run has produced, then what it produces, and at last its end.

    Arguments:
        hub: the hub on whose log the run is.
        info: the run.
        after: the position after which to start; by default, the beginning.

    Yields:
        Lists of the items that are available at once. The last one ends with a :class:`RunEnd`.

    Raises:
        StreamEndedError: the hub is closing, or the log was reset; the run has not ended.
        SlowConsumerError: the next events are no longer kept.
        BrokerError: the log cannot be read.
    """
    start = info.run if after is None else str(after)
    epoch = start.rpartition("-")[0]
    async with hub.subscribe(info.topic, last_event_id=start) as output:
        while (found := await output.next_slice()) is not None:
            if found.gap is not None and found.gap.reason == "reset":
                yield [found.gap]
                raise StreamEndedError(f"the log was reset, and run {info.name!r} with it")
            items = _items_of(found.gap, [entry.record for entry in found.entries], epoch)
            ended = isinstance(items[-1], RunEnd)
            yield items
            if ended:
                return
            del items, found  # a reader that waits needs no memory for the past
    raise StreamEndedError(f"the server is stopping, and run {info.name!r} has not ended")


def _items_of(gap: Gap | None, records: list[Record], epoch: str) -> list[RunEvent | RunEnd | Gap]:
    """Return the items of a part of a run, up to its end."""
    items: list[RunEvent | RunEnd | Gap] = [] if gap is None else [gap]
    for record in records:
        cursor = f"{epoch}-{record.offset}"
        if record.event == END:
            items.append(parse_end(record.data, cursor))
            break
        text = record.event == TEXT
        items.append(RunEvent(None if text else record.event, record.data, text, cursor))
    return items


async def frame_run(
    hub: Hub,
    info: RunInfo,
    framing: Framing,
    *,
    after: Cursor | None,
    sequence: int,
    watch: Callable[[RunInfo], AbstractAsyncContextManager[None]],
) -> AsyncGenerator[bytes]:
    """Yield the bytes of a run for one reader.

    Arguments:
        hub: the hub on whose log the run is.
        info: the run.
        framing: the reader's protocol, new.
        after: the cursor of the last event that the reader has.
        sequence: the number of the last block that the reader has; :data:`BEGINNING` for none.
        watch: entered while there is a reader.

    Raises:
        StreamEndedError: the hub is closing, or the log was reset. The response is
            then cut off, since a clean end would look complete.
        SlowConsumerError: the next events are no longer kept.
        BrokerError: the log cannot be read.
    """
    # Our own events are not numbered by what was before them, so they need not be read again.
    start = after if framing.native and sequence == BEGINNING else None
    encoder = _Encoder(info, framing, after, sequence)
    async with watch(info):
        if framing.native and start is None and sequence == BEGINNING:
            # A client that loses its connection before the first event asks for this run again.
            yield b"id: %b\n\n" % info.run.encode()
        async with aclosing(read_run(hub, info, start)) as slices:
            async for items in slices:
                chunk = encoder.encode(items)
                del items
                if chunk:
                    yield chunk
                del chunk


class _Encoder:
    """Encode the items of a run for one reader, and leave out what it has already."""

    def __init__(self, info: RunInfo, framing: Framing, after: Cursor | None, sequence: int) -> None:
        self._info = info
        self._framing = framing
        self._skip = -1 if after is None else after.offset
        self._sequence = sequence
        self._number = 0  # of the next block

    def encode(self, items: list[RunEvent | RunEnd | Gap]) -> bytes:
        """Return the bytes of the next items.

        Raises:
            StreamEndedError: some are no longer kept, and the protocol has no word for it.
        """
        framing = self._framing
        blocks: list[bytes] = []
        for item in items:
            if isinstance(item, Gap):
                if not framing.native:
                    raise StreamEndedError(f"a part of run {self._info.name!r} is no longer kept")
                blocks.append(item.encode())
                continue
            frames = framing.end(item) if isinstance(item, RunEnd) else framing.frames(item)
            known = offset_of(item.id) <= self._skip
            for frame in frames:
                if self._number > self._sequence and not known:
                    blocks.append(frame.encode(item.id if frame is frames[-1] else None))
                self._number += 1
        return b"".join(blocks)
