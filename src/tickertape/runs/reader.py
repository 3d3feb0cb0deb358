"""Read a run: as values in this process, and as a response in a framing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Final, Literal

from ..asgi import (
    DisconnectReason,
    EventSourceResponse,
    Receive,
    Scope,
    Send,
    StreamResponse,
    send_problem,
    status_of,
)
from ..broker import Record
from ..errors import BrokerError, HubClosedError, StreamEndedError
from ..hub import EVERYTHING, Grant, Hub, HubResponse, OverflowPolicy, Shaping, Subscription
from ..wire import Cursor, Gap
from .framing import EVENTS_FORM, Events, Framing, FramingFactory, RunEvent
from .node import Node
from .records import END, TEXT, RunEnd, RunInfo, offset_of, parse_end


class RightEndedError(StreamEndedError):
    """The right of a reader has ended before the run.

    Attributes:
        reason: ``expired`` or ``revoked``.
    """

    def __init__(self, name: str, reason: DisconnectReason) -> None:
        super().__init__(f"the right to read run {name!r} has ended: {reason}")
        self.reason = reason


_BEGINNING: Final = -1
"""The sequence number after which a reader starts that wants everything."""


async def read_run(
    hub: Hub, info: RunInfo, after: Cursor | None = None, grant: Grant | None = None
) -> AsyncGenerator[list[RunEvent | RunEnd | Gap]]:
    """Yield what a run has produced, then what it produces, and at last its end.

    Arguments:
        hub: the hub on whose log the run is.
        info: the run.
        after: the position after which to start; by default, the beginning.
        grant: the rights of the reader; by default, all rights without end.

    Yields:
        Lists of the items that are available at once. The last one ends with a :class:`RunEnd`.

    Raises:
        StreamEndedError: the hub is closing, the log was reset, or the right to read has ended; the run has not.
        SlowConsumerError: the next events are no longer kept.
        BrokerError: the log cannot be read.
    """
    start = info.run if after is None else str(after)
    epoch = start.rpartition("-")[0]
    async with hub.subscribe(info.topic, last_event_id=start, grant=grant) as output:
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
    if output.reason in (DisconnectReason.EXPIRED, DisconnectReason.REVOKED):
        raise RightEndedError(info.name, output.reason)
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


def respond(
    hub: Hub,
    node: Node,
    info: RunInfo,
    make: FramingFactory,
    last_event_id: str | None,
    after: int | Literal["now"] | None,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
    grant: Grant | None,
) -> StreamResponse:
    """Return a response that streams a run: from the beginning, then live, then the end.

    Arguments:
        hub: the hub on whose log the run is.
        node: the node that counts the reader.
        info: the run.
        make: returns the reader's protocol.
        last_event_id: the cursor of the last event that the reader has. One of another stream is ignored.
        after: the number of the last block that the reader has; or ``"now"``.
        headers: more headers.
        grant: the rights of the reader; ``None`` for all rights without end.

    Raises:
        AccessError: the grant does not cover the topic of the run.
        ValueError: ``after`` is not as described.
        HubClosedError: the hub is closed.
    """
    if grant is not None:
        grant.check_subscribe(info.topic)
    entry = node.directory.get(info.run)
    begun = Cursor.parse(info.run)
    cursor = None if last_event_id is None else Cursor.parse(last_event_id)
    if cursor is None or begun is None or cursor.epoch != begun.epoch or cursor.offset < begun.offset:
        cursor = None
    if after == "now":
        cursor, after = Cursor(hub.epoch, hub.delivery.window.newest), None
    sequence = _BEGINNING if after is None else _checked_sequence(after)
    if entry is not None and entry.end is not None and cursor is not None and cursor.offset >= entry.end:
        return PlainResponse(HTTPStatus.NO_CONTENT)  # the reader has the end
    framing = make(info)
    if not framing.native and not node.directory.is_whole(info):
        return PlainResponse(HTTPStatus.GONE, f"A part of run {info.name!r} is no longer kept.")
    given = dict(headers.items() if isinstance(headers, Mapping) else headers or ())
    if type(framing) is Events and sequence == _BEGINNING:
        return RunResponse(hub, node, info, cursor, given, grant)
    return EventSourceResponse(
        _read_blocks(hub, node, info, framing, cursor, sequence, grant),
        headers={**framing.headers, **given},
        head="now",
        heartbeat=hub.heartbeat,
        send_timeout=hub.send_timeout,
        # Protocols of others have no word for a part of a run: their readers must see that the connection was cut.
        on_error=None if framing.native else _send_nothing,
        cut_on_drain=not framing.native,
        clock=hub.clock,
    )


class RunResponse(HubResponse):
    """Stream our own events of a run: the records of its topic in a form that the hub makes once for all readers.

    Arguments:
        hub: the hub on whose log the run is.
        node: the node that counts the reader.
        info: the run.
        after: the position after which to start; by default, the beginning.
        headers: more headers.
        grant: the rights of the reader; ``None`` for all rights without end.
    """

    def __init__(
        self,
        hub: Hub,
        node: Node,
        info: RunInfo,
        after: Cursor | None,
        headers: Mapping[str, str],
        grant: Grant | None,
    ) -> None:
        super().__init__(
            hub,
            None,
            (info.topic,),
            info.run if after is None else str(after),
            last=None,
            policy=OverflowPolicy.DISCONNECT,
            headers=headers,
            user=None,
            grant=EVERYTHING if grant is None else grant,
            shaping=Shaping(heartbeat=hub.heartbeat, form=EVENTS_FORM),
            changeable=False,
            background=None,
            on_disconnect=None,
        )
        self._node = node
        self._info = info

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            await self._node.open()
        except (BrokerError, HubClosedError) as error:
            await send_problem(send, status_of(error), str(error))
            return
        await super().__call__(scope, receive, send)

    def _can_be_direct(self) -> bool:
        """Return False after the end: the rest is sent at once, and the connection can serve the next request."""
        entry = self._node.directory.get(self._info.run)
        return entry is not None and entry.info.active

    def _begin(self, subscription: Subscription, grant: Grant) -> None:
        """Count the reader until its stream ends. The age of a stream is not limited: its end comes with the run."""
        if grant.until is not None:
            self._hub.limit_right(subscription, grant.until)
        node, info = self._node, self._info
        node.join(info)
        self._hub.delivery.on_end(subscription, lambda _: node.leave(info))


async def _read_blocks(
    hub: Hub,
    node: Node,
    info: RunInfo,
    framing: Framing,
    after: Cursor | None,
    sequence: int,
    grant: Grant | None,
) -> AsyncGenerator[bytes]:
    """Yield the bytes of a run for one reader, after a cursor and a number of blocks. Errors as of :func:`read_run`."""
    # Our own events are not numbered by what was before them, so they need not be read again.
    start = after if framing.native and sequence == _BEGINNING else None
    encoder = _Encoder(info, framing, after, sequence)
    async with node.reading(info):
        if framing.native and sequence == _BEGINNING:
            # A client that loses its connection before the first event asks for this run again. All streams of a hub
            # begin so, and tabs that share one rely on it.
            yield b"id: %b\n\n" % (info.run if start is None else str(start)).encode()
        try:
            async with aclosing(read_run(hub, info, start, grant)) as slices:
                async for items in slices:
                    chunk = encoder.encode(items)
                    del items
                    if chunk:
                        yield chunk
                    del chunk
        except RightEndedError as error:
            if not framing.native:
                raise  # the connection is cut
            yield hub.last_block(error.reason)


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
            known = self._skip >= 0 and offset_of(item.id) <= self._skip
            for frame in frames:
                if self._number > self._sequence and not known:
                    blocks.append(frame.encode(item.id if frame is frames[-1] else None))
                self._number += 1
        return b"".join(blocks)


class PlainResponse(StreamResponse):
    """A response without a stream: a problem, or an empty one."""

    def __init__(self, status: int, detail: str = "") -> None:
        super().__init__(status, None, None)
        self._detail = detail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self.status_code >= HTTPStatus.BAD_REQUEST:
            await send_problem(send, HTTPStatus(self.status_code), self._detail)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def _send_nothing(_: Exception) -> None:
    """Cut the connection after a failure: ``stream:error`` is no event of other protocols."""


def _checked_sequence(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < _BEGINNING:
        raise ValueError(f"expected after to be the number of an event, or 'now', got {value!r}")
    return value
