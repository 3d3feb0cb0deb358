"""``Runs``: start, join, read and cancel streams that outlive the request that started them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any, Final, Literal, TypeAlias

from ..asgi import (
    EventSourceResponse,
    HasScope,
    Receive,
    Scope,
    Send,
    StreamResponse,
    close_iterator,
    get_last_event_id,
    send_problem,
)
from ..errors import BrokerError, HubClosedError, RunActiveError, RunOwnerError, TickertapeError
from ..hub import Hub
from ..timing import Timer, sleep
from ..wire import Cursor, Draft, Gap
from .directory import Directory, Entry
from .framing import FramingFactory, Name, RunEvent, find_framing
from .producer import MESSAGES, Producer, item_draft
from .reader import BEGINNING, Stop, frame_run, read_run
from .records import (
    ALIVE,
    BEAT,
    CANCEL,
    CONTROL,
    NODES,
    READERS,
    START,
    RunEnd,
    RunInfo,
    RunState,
    check_name,
    end_drafts,
    start_key,
)

logger = logging.getLogger("tickertape.runs")

Items: TypeAlias = AsyncIterable[Any] | Callable[[], AsyncIterable[Any]]
Authorize: TypeAlias = Callable[[Any, RunInfo], bool | Awaitable[bool]]
OnDisconnect: TypeAlias = Literal["continue", "cancel"]

DEFAULT_TTL: Final = 3600.0
"""Seconds for which a finished run can be read: a reload after lunch still finds the answer."""

DEFAULT_GRACE: Final = 30.0
"""Seconds without readers after which a run is cancelled, if it is to be: a phone that changes networks needs less."""

_BEAT: Final = 2.0
"""Seconds between two signs of life: three may be lost before a process counts as gone."""

_CLOSING: Final = 15.0
"""Seconds that producers may take to end when the hub closes: longer than their items may take to close."""

_PARTING: Final = 1.0
"""Seconds for which readers may read the end when the hub closes."""

_REPLACING: Final = 15.0
"""Seconds for which a start waits for the end of the run that it replaces."""


class Runs:
    """Streams with a beginning, an end, an owner and a cancel, kept in a hub's log.

    A run has a name, one producer in one process, and any number of readers in all of them. It continues when the
    request that started it is over. Its readers get it from the beginning, then live, then its end, also
    after a reconnect, from another process, and after it has ended.

    Arguments:
        hub: the hub on whose log runs are kept, on any broker.
        ttl: seconds for which a run can be read after its end, > 0.
        on_disconnect: ``"continue"``, or ``"cancel"`` to cancel a run when its last reader has left.
        grace: seconds without readers after which it is cancelled then, >= 0.
        authorize: called (and awaited, if it returns an awaitable) with the request and the run before the first
            byte is sent. If it returns false, the answer is 403. It may raise an error of your framework.
        on_error: returns the text that readers get for an exception of a producer; ``None`` for a general sentence.

    It opens itself on first use, when its hub is open, and closes with it. Runs whose producers are still at
    work then end as ``orphaned``.

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        ttl: float = DEFAULT_TTL,
        on_disconnect: OnDisconnect = "continue",
        grace: float = DEFAULT_GRACE,
        authorize: Authorize | None = None,
        on_error: Callable[[Exception], str | None] | None = None,
    ) -> None:
        self.ttl = _checked("ttl", ttl, above=0.0)
        self.grace = _checked("grace", grace)
        self.on_disconnect = _checked_policy(on_disconnect)
        self._hub = hub
        self._authorize = authorize
        self._on_error = on_error
        self._node = secrets.token_hex(6)
        self._directory: Directory | None = None
        self._producers: dict[str, Producer] = {}
        self._readers: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._idle: dict[str, Timer] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._left = asyncio.Event()  # no reader is here
        self._announced_alive: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Runs on {self._hub!r}: {len(self._producers)} produced here>"

    # Life.

    def _open(self) -> Directory:
        """Begin to follow the runs of the log, if that has not begun."""
        if self._directory is None or not self._tasks:
            self._directory = Directory(self._hub, self._changed)
            self._hub.attach(self)
            loop = asyncio.get_running_loop()
            self._tasks = [
                loop.create_task(self._follow(self._directory), name="tickertape runs"),
                loop.create_task(self._watch_producers(self._directory), name="tickertape runs, signs of life"),
            ]
        return self._directory

    async def close(self) -> None:
        """End the runs whose producers are in this process, as ``orphaned``; called when the hub closes."""
        producers = [*self._producers.values()]
        for producer in producers:
            producer.stop(RunState.ORPHANED)
        if producers:
            await asyncio.wait([producer.task for producer in producers], timeout=_CLOSING)
        if self._readers and self._directory is not None:
            with suppress(BrokerError, TimeoutError):
                await self._directory.sync()
                async with asyncio.timeout(_PARTING):
                    await self._left.wait()
        for task in (*self._tasks, *(producer.task for producer in producers)):
            task.cancel()
        for timer in self._idle.values():
            timer.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []
        for known in (self._producers, self._readers, self._idle, self._announced_alive):
            known.clear()
        for event in self._ended.values():
            event.set()
        self._ended.clear()

    async def _follow(self, directory: Directory) -> None:
        while True:
            try:
                await directory.follow()
                return
            except TickertapeError as error:
                logger.warning("the runs of the log cannot be followed: %s", error)
                await sleep(self._hub.clock, _BEAT)

    async def _watch_producers(self, directory: Directory) -> None:
        """Publish signs of life for the producers and readers here, and end runs whose producers give none."""
        lost = True
        while True:
            try:
                if self._producers or self._readers:
                    await self._hub.publish(f"{NODES}/{self._node}", event=BEAT)
                await directory.sync()
                if lost:
                    directory.alive()
                    lost = False
                for entry in directory.silent():
                    logger.warning("the producer of run %s is gone", entry.info.name)
                    await self._end(entry.info, RunState.ORPHANED, MESSAGES[RunState.ORPHANED])
                for run in [*self._producers]:
                    if (produced := directory.get(run)) is not None:
                        self._check_readers(produced)
            except HubClosedError:
                return
            except BrokerError:
                lost = True
            await sleep(self._hub.clock, _BEAT)

    def _changed(self, entry: Entry) -> None:
        run = entry.info.run
        producer = self._producers.get(run)
        if producer is not None:
            if entry.cancelled or not entry.info.active:
                producer.stop(RunState.CANCELLED if entry.info.active else entry.info.state)
            else:
                self._check_readers(entry)
        if not entry.info.active and (ended := self._ended.pop(run, None)) is not None:
            ended.set()

    def _check_readers(self, entry: Entry) -> None:
        """Start or stop the time after which a run without readers is cancelled."""
        if entry.policy != "cancel" or self._directory is None:
            return
        run = entry.info.run
        if not entry.info.active or self._directory.readers_of(entry):
            if (timer := self._idle.pop(run, None)) is not None:
                timer.cancel()
        elif run not in self._idle:
            clock = self._hub.clock
            self._idle[run] = clock.call_at(clock.time() + entry.grace, self._leave, run)

    def _leave(self, run: str) -> None:
        self._idle.pop(run, None)
        if (producer := self._producers.get(run)) is not None:
            producer.stop(RunState.CANCELLED)

    # Starting.

    async def start(
        self,
        name: str,
        items: Items,
        *,
        key: str | None = None,
        owner: str | None = None,
        replace: bool = False,
        on_disconnect: OnDisconnect | None = None,
        grace: float | None = None,
        ttl: float | None = None,
    ) -> Run:
        """Start a run, or join it if it was started with the same name and key before, in any process.

        Arguments:
            name: a topic, such as ``chat/42``. One run of a name is active at a time.
            items: an async iterable, or a function that returns one, called only if the run starts here. A ``str``
                is a piece of text; events, dicts and models go out as they are.
            key: identifies the request, so that it may be repeated. Without one, each call is a new run.
            owner: whom the run belongs to. Only with the same owner can it be joined.
            replace: end the active run of the name first, instead of failing.
            on_disconnect: as in :class:`Runs`, for this run.
            grace: as in :class:`Runs`, for this run.
            ttl: as in :class:`Runs`, for this run.

        Raises:
            InvalidTopicError: the name is no topic, or too long.
            ValueError: an option is out of its range.
            RunActiveError: another run of the name is active.
            RunOwnerError: the run that would be joined has another owner.
            HubClosedError: the hub is closed or draining.
            BrokerError: the log cannot be reached; it is unknown whether the run was started.
        """
        entry, begun = await self._claim(
            name, self._node, key, owner, replace, on_disconnect=on_disconnect, grace=grace, ttl=ttl
        )
        info = entry.info
        if begun:
            producer = Producer(self._hub, info, _iterate(items), self._describe)
            self._producers[info.run] = producer
            producer.task.add_done_callback(lambda _: self._producers.pop(info.run, None))
            self._check_readers(entry)
            if not info.active or entry.cancelled:
                producer.stop(RunState.CANCELLED)
        else:
            await _discard(items)
        return Run(self, info, joined=not begun)

    async def open(
        self,
        name: str,
        *,
        key: str | None = None,
        owner: str | None = None,
        replace: bool = False,
        ttl: float | None = None,
    ) -> Run:
        """Start a run whose producer is elsewhere: it calls :meth:`Run.append` and :meth:`Run.end`, in any process.

        If it calls neither for 8 s and does not call :meth:`Run.keep`, the run ends as ``orphaned``.
        Arguments and errors as of :meth:`start`.
        """
        entry, begun = await self._claim(name, None, key, owner, replace, on_disconnect="continue", grace=None, ttl=ttl)
        return Run(self, entry.info, joined=not begun)

    async def _claim(
        self,
        name: str,
        node: str | None,
        key: str | None,
        owner: str | None,
        replace: bool,
        *,
        on_disconnect: OnDisconnect | None,
        grace: float | None,
        ttl: float | None,
    ) -> tuple[Entry, bool]:
        """Return the run with this name and key, and whether this call has begun it."""
        check_name(name)
        nonce = secrets.token_hex(8)
        fields: dict[str, Any] = {
            "key": key,
            "owner": owner,
            "node": node,
            "nonce": nonce,
            "ttl": self.ttl if ttl is None else _checked("ttl", ttl, above=0.0),
            "on_disconnect": self.on_disconnect if on_disconnect is None else _checked_policy(on_disconnect),
            "grace": self.grace if grace is None else _checked("grace", grace),
        }
        directory = self._open()
        attempt = 0
        while True:
            if replace:
                await self._make_way(directory, name, key)
            draft = Draft(
                f"{CONTROL}/{name}",
                {**fields, "replace": replace, "started": time.time()},
                event=START,
                key=None if key is None else start_key(name, key, attempt),
            )
            (cursor,) = await self._hub.publish_many([draft])
            await directory.sync()
            entry = directory.get(str(cursor))
            if entry is not None and entry.info.state is not RunState.REFUSED:
                break
            active = directory.latest(name)
            if entry is not None and active is not None and active.info.active:
                raise RunActiveError(name)
            attempt += 1  # an earlier attempt was refused, or is forgotten; the log still knows its key
        if entry.info.owner != owner:
            raise RunOwnerError(name)
        if entry.nonce != nonce:
            return entry, False
        if entry.replaced is not None:
            await self._end(entry.replaced, RunState.CANCELLED, MESSAGES[RunState.CANCELLED])
        return entry, True

    async def _make_way(self, directory: Directory, name: str, key: str | None) -> None:
        """End the active run of a name, unless it is the one to be joined."""
        await directory.sync()
        active = directory.latest(name)
        if active is None or not active.info.active or (key is not None and active.info.key == key):
            return
        await self.cancel(name, run=active.info.run)
        try:
            async with asyncio.timeout(_REPLACING):
                await self._wait(active)
        except TimeoutError:
            await self._end(active.info, RunState.CANCELLED, MESSAGES[RunState.CANCELLED])

    async def _wait(self, entry: Entry) -> None:
        if entry.info.active:
            await self._ended.setdefault(entry.info.run, asyncio.Event()).wait()

    def _describe(self, error: Exception) -> str | None:
        if self._on_error is None:
            return None
        try:
            return self._on_error(error)
        except Exception:
            logger.exception("on_error failed")
            return None

    async def _end(self, info: RunInfo, state: RunState, error: str | None) -> None:
        await self._hub.publish_many(end_drafts(info, state, error, time.time()))
        if self._directory is not None:
            await self._directory.sync()

    # Finding and cancelling.

    async def get(self, name: str, run: str | None = None) -> Run | None:
        """Return the newest run of a name, or the one with the id ``run``; ``None`` if there is none.

        Raises:
            HubClosedError: the hub is closed.
            BrokerError: the log cannot be read.
        """
        entry = await self._find(name, run)
        return None if entry is None else Run(self, entry.info, joined=True)

    async def list_runs(self, *, active: bool = True) -> list[RunInfo]:
        """Return the active runs, or all that can be read, the oldest first. Errors as of :meth:`get`."""
        directory = self._open()
        await directory.sync()
        entries = directory.active() if active else directory.entries()
        return [entry.info for entry in entries if entry.info.state is not RunState.REFUSED]

    async def cancel(self, name: str, *, run: str | None = None) -> RunInfo | None:
        """Ask the producer of the active run of a name to stop, wherever it is, and return the run.

        Its generator is cancelled where it stands, and its ``finally`` runs; then readers get the end.

        Arguments:
            name: the name.
            run: an id, so that a late stop does not end a newer run of the same name.

        Returns:
            The run; ``None`` if there is none. One that has ended already is returned as it is.

        Raises:
            HubClosedError: the hub is closed.
            BrokerError: the log cannot be reached.
        """
        entry = await self._find(name, run)
        if entry is None or not entry.info.active:
            return None if entry is None else entry.info
        if entry.node is None:
            await self._end(entry.info, RunState.CANCELLED, MESSAGES[RunState.CANCELLED])
        else:
            key = f"run-cancel-{entry.info.run}"
            await self._hub.publish(f"{CONTROL}/{name}", {"run": entry.info.run}, event=CANCEL, key=key)
            await self._open().sync()
        return entry.info

    async def _find(self, name: str, run: str | None) -> Entry | None:
        check_name(name)
        directory = self._open()
        await directory.sync()
        if run is None:
            return directory.latest(name)
        entry = directory.get(run)
        found = entry is not None and entry.info.name == name and entry.info.state is not RunState.REFUSED
        return entry if found else None

    # Reading.

    async def response(
        self,
        request: HasScope | Scope,
        name: str,
        *,
        run: str | None = None,
        framing: Name | FramingFactory = "events",
        after: int | Literal["now"] | None = None,
        finished: Literal["replay"] | int | None = None,
        missing: int = HTTPStatus.NOT_FOUND,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    ) -> StreamResponse:
        """Return a response that streams the newest run of a name: from the beginning, then live, then the end.

        Arguments:
            request: the request. Its ``Last-Event-ID`` is where to continue, in the run that it belongs to.
            name: the name.
            run: the id of a run, instead of the newest.
            framing: the protocol of the reader: a name, or a function that returns a :class:`Framing` for a run.
            after: the number of the last event that the reader has, counted from 0 within the run; ``"now"`` for
                what comes from now on.
            finished: what to answer for a run that has ended: ``"replay"``, or a status without a body. By default
                ``ai_sdk`` answers 204, as its clients expect, and all others replay it.
            missing: the status if there is no such run. 204 tells an ``EventSource`` to stop.
            headers: more headers; one of the same name replaces ours.

        Raises:
            ValueError: ``framing``, ``after`` or a status is not as described.
            HubClosedError: the hub is closed.
            BrokerError: the log cannot be read.
        """
        make = find_framing(framing)
        last = get_last_event_id(request)
        cursor = None if last is None else Cursor.parse(last)
        entry = None
        if cursor is not None and run is None:
            await self._open().sync()
            entry = self._open().at(check_name(name), cursor)
        entry = entry or await self._find(name, run)
        if entry is None:
            return _Refusal(missing, f"There is no run {name!r}.")
        if self._authorize is not None:
            allowed = self._authorize(request, entry.info)
            if not (await allowed if inspect.isawaitable(allowed) else allowed):
                return _Refusal(HTTPStatus.FORBIDDEN, "You may not read this run.")
        answer = "replay" if finished is None and framing != "ai_sdk" else finished or HTTPStatus.NO_CONTENT
        if not entry.info.active and answer != "replay":
            return _Refusal(int(answer), "The run has ended.")
        return self._respond(entry.info, last, make, after, headers)

    def _respond(
        self,
        info: RunInfo,
        last: str | None,
        make: FramingFactory,
        after: int | Literal["now"] | None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
    ) -> StreamResponse:
        directory = self._open()
        entry = directory.get(info.run)
        cursor = None if last is None else Cursor.parse(last)
        begun = Cursor.parse(info.run)
        if (
            cursor is not None
            and begun is not None
            and not (cursor.epoch == begun.epoch and cursor.offset >= begun.offset)
        ):
            cursor = None  # an id of another stream: this run is read from its beginning
        if after == "now":
            cursor = Cursor.parse(f"{self._hub.epoch}-{self._hub.delivery.window.newest}")
            after = None
        sequence = BEGINNING if after is None else _checked_sequence(after)
        if entry is not None and entry.end is not None and cursor is not None and cursor.offset >= entry.end:
            return _Refusal(HTTPStatus.NO_CONTENT, "")  # the reader has the end
        shape = make(info)
        if not shape.native and begun is not None and begun.offset + 1 < directory.oldest:
            return _Refusal(HTTPStatus.GONE, f"A part of run {info.name!r} is no longer kept.")
        given = dict(headers.items() if isinstance(headers, Mapping) else headers or ())
        # Protocols of others have no word for a part of a run: their readers must see that the connection was cut.
        stop = None if shape.native else Stop()
        blocks = frame_run(self._hub, info, shape, after=cursor, sequence=sequence, watch=self._reading, stop=stop)
        return EventSourceResponse(
            blocks,
            headers={**shape.headers, **given},
            head="now",
            heartbeat=self._hub.heartbeat,
            send_timeout=self._hub.send_timeout,
            on_error=None if shape.native else _send_nothing,
            on_drain=stop,
            drain_grace=0.0 if stop is None else _PARTING,
            clock=self._hub.clock,
        )

    @asynccontextmanager
    async def _reading(self, info: RunInfo) -> AsyncIterator[None]:
        """Count a reader, and let other processes know of the first and the last one here."""
        entry = self._open().get(info.run)
        announced = entry is not None and entry.policy == "cancel"
        count = self._readers.get(info.run, 0)
        self._readers[info.run] = count + 1
        self._left.clear()
        if announced and not count:
            self._announce(info, True)
        try:
            yield
        finally:
            count = self._readers.get(info.run, 1) - 1
            self._readers[info.run] = count
            if not count:
                self._readers.pop(info.run, None)
                if not self._readers:
                    self._left.set()
                if announced:
                    with suppress(TickertapeError):  # the hub is closing: this process counts as gone soon
                        self._announce(info, False)

    def _announce(self, info: RunInfo, here: bool) -> None:
        data = {"run": info.run, "node": self._node, "here": here}
        self._hub.publish_soon(f"{CONTROL}/{info.name}", data, event=READERS)

    def _current(self, info: RunInfo) -> RunInfo:
        entry = None if self._directory is None else self._directory.get(info.run)
        return info if entry is None else entry.info

    async def _ending(self, info: RunInfo) -> RunInfo:
        directory = self._open()
        await directory.sync()
        entry = directory.get(info.run)
        if entry is not None:
            await self._wait(entry)
        return info if entry is None else entry.info

    # A producer elsewhere.

    async def _append(self, info: RunInfo, items: list[Any], key: str | None) -> list[Cursor]:
        await self._keep(info)
        drafts = [
            item_draft(self._hub, info, item, None if key is None else f"{info.run}.{key}.{number}")
            for number, item in enumerate(items)
        ]
        return await self._hub.publish_many(drafts)

    async def _keep(self, info: RunInfo) -> None:
        """Publish a sign of life for a producer elsewhere, at most once in a beat."""
        now = self._hub.clock.time()
        if now - self._announced_alive.get(info.run, now - _BEAT) >= _BEAT:
            self._announced_alive[info.run] = now
            await self._hub.publish(f"{CONTROL}/{info.name}", {"run": info.run}, event=ALIVE)


class Run:
    """One run, as :meth:`Runs.start` and :meth:`Runs.get` return it.

    Attributes:
        joined: true if it had been started before.
    """

    def __init__(self, runs: Runs, info: RunInfo, *, joined: bool) -> None:
        self._runs = runs
        self._info = info
        self.joined = joined

    def __repr__(self) -> str:
        return f"<Run {self.name!r} {self.id} {self.info.state}>"

    @property
    def name(self) -> str:
        """Its name."""
        return self._info.name

    @property
    def id(self) -> str:
        """Its id: the argument ``run=`` of other methods."""
        return self._info.run

    @property
    def info(self) -> RunInfo:
        """The current description."""
        return self._runs._current(self._info)

    def response(
        self,
        request: HasScope | Scope | None = None,
        *,
        framing: Name | FramingFactory = "events",
        after: int | Literal["now"] | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    ) -> StreamResponse:
        """Return a response that streams it: from the beginning, then live, then the end.

        Arguments and errors as of :meth:`Runs.response`, but ``authorize`` is not asked: a program that has
        the object may read it.
        """
        last = None if request is None else get_last_event_id(request)
        return self._runs._respond(self._info, last, find_framing(framing), after, headers)

    async def events(self, *, after: str | None = None) -> AsyncGenerator[RunEvent | RunEnd | Gap]:
        """Yield its events, from the beginning or after an id, then live, and at last its :class:`RunEnd`.

        Raises:
            StreamEndedError: the hub is closing.
            SlowConsumerError: the next events are no longer kept.
            BrokerError: the log cannot be read.
        """
        cursor = None if after is None else Cursor.parse(after)
        slices = read_run(self._runs._hub, self._info, cursor)
        async with self._runs._reading(self._info), aclosing(slices):
            async for items in slices:
                for item in items:
                    yield item

    async def wait(self) -> RunInfo:
        """Wait for its end, and return its description."""
        return await self._runs._ending(self._info)

    async def cancel(self) -> RunInfo | None:
        """Ask its producer to stop; see :meth:`Runs.cancel`."""
        return await self._runs.cancel(self.name, run=self.id)

    # For a producer elsewhere: see `Runs.open`.

    async def append(self, *items: Any, key: str | None = None) -> list[Cursor]:
        """Store items and return their cursors.

        Arguments:
            items: as those of :meth:`Runs.start`.
            key: identifies the call, so that it may be repeated.

        Raises:
            InvalidEventError: an item cannot be sent.
            EventTooLargeError: an item is too large.
            BrokerError: they were not stored, or that is unknown.
        """
        return await self._runs._append(self._info, [*items], key)

    async def keep(self) -> None:
        """Report that the producer is at work, though it has nothing to append."""
        await self._runs._keep(self._info)

    async def end(self, state: Literal["done", "error", "cancelled"] = "done", *, error: str | None = None) -> RunInfo:
        """End it, and return it. The first end of a run counts.

        Arguments:
            state: how it ended.
            error: the text that readers get; by default a general sentence.
        """
        ending = RunState(state)
        await self._runs._end(self._info, ending, error or MESSAGES.get(ending))
        return self.info


class _Refusal(StreamResponse):
    """An answer without a stream: a problem, or an empty 204."""

    def __init__(self, status: int, detail: str) -> None:
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


async def _iterate(items: Items) -> AsyncIterator[Any]:
    """Yield the items; they are made here, so that a failure to make them ends the run too."""
    found: Any = items() if callable(items) else items
    if inspect.isawaitable(found):
        found = await found
    iterator = aiter(found)
    try:
        async for item in iterator:
            yield item
    finally:
        await close_iterator(iterator)


async def _discard(items: Items) -> None:
    """Close items that will not be read."""
    if not callable(items):
        await close_iterator(aiter(items))


def _checked(name: str, value: object, *, above: float = -1.0) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf") and value > above:
        return float(value)
    least = "greater than 0" if above == 0 else "of at least 0"
    raise ValueError(f"expected {name} to be a number of seconds {least}, got {value!r}")


def _checked_policy(value: OnDisconnect) -> OnDisconnect:
    if value not in ("continue", "cancel"):
        raise ValueError(f"expected on_disconnect to be 'continue' or 'cancel', got {value!r}")
    return value


def _checked_sequence(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < BEGINNING:
        raise ValueError(f"expected after to be the number of an event, or 'now', got {value!r}")
    return value
