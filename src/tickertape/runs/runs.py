"""``Runs``: start, join, read and cancel streams that outlive the request that started them."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from http import HTTPStatus
from types import EllipsisType
from typing import Any, Final, Literal, TypeAlias

from ..asgi import HasScope, Scope, StreamResponse, close_iterator, get_last_event_id
from ..errors import RunActiveError, RunEndedError, RunOwnerError
from ..hub import Grant, Hub
from ..timing import check_seconds
from ..wire import Cursor, Draft, Gap
from .directory import Entry
from .framing import FramingFactory, Name, RunEvent, find_framing
from .node import Node
from .producer import item_draft
from .reader import PlainResponse, read_run, respond
from .records import CANCEL, CONTROL, START, RunEnd, RunInfo, RunState, check_name, item_key, start_key

logger = logging.getLogger("tickertape.runs")

Items: TypeAlias = AsyncIterable[Any] | Callable[[], AsyncIterable[Any]]
Authorize: TypeAlias = Callable[[Any, RunInfo], bool | Awaitable[bool]]
OnDisconnect: TypeAlias = Literal["continue", "cancel"]

DEFAULT_TTL: Final = 3600.0
"""Seconds for which a finished run can be read: a reload after lunch still finds the answer."""

DEFAULT_GRACE: Final = 30.0
"""Seconds without readers after which a run is cancelled, if it is to be: a phone that changes networks needs less."""

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
        self.ttl = check_seconds("ttl", ttl, above=0)
        self.grace = check_seconds("grace", grace)
        self.on_disconnect = _checked_policy(on_disconnect)
        self._hub = hub
        self._authorize = authorize
        self._on_error = on_error
        self._node: Node | None = None

    def __repr__(self) -> str:
        return f"<Runs on {self._hub!r}: {0 if self._node is None else len(self._node)} produced here>"

    def _here(self) -> Node:
        """Return the node of the running loop."""
        if self._node is None or not self._node.usable:
            self._node = Node(self._hub, self._node)
        return self._node

    async def _open(self) -> Node:
        """Return the node of the running loop; begin to follow the runs of the log first, if that has not begun."""
        node = self._here()
        await node.open()
        return node

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
        request: Any = None,
    ) -> Run:
        """Start a run, or join it if it was started with the same name and key before, in any process.

        Arguments:
            name: a topic, such as ``chat/42``. One run of a name is active at a time.
            items: an async iterable, or a function that returns one, called only if the run starts here. A ``str``
                is a piece of text; events, dicts and models go out as they are.
            key: identifies the request, so that it may be repeated. Without one, each call is a new run.
            owner: the owner of the run. Only with the same owner can it be joined or replaced.
            replace: end the active run of the name first, instead of failing.
            on_disconnect: as in :class:`Runs`, for this run.
            grace: as in :class:`Runs`, for this run.
            ttl: as in :class:`Runs`, for this run.
            request: the request that starts it. If there is one, ``authorize`` is asked before a run is joined or
                replaced, as it is before one is read.

        Raises:
            InvalidTopicError: the name is no topic, or too long.
            ValueError: an option is out of its range.
            RunActiveError: another run of the name is active.
            RunOwnerError: the run that would be joined or replaced has another owner, or ``authorize`` refuses it.
            HubClosedError: the hub is closed or draining.
            BrokerError: the log cannot be reached; it is unknown whether the run was started.
        """
        fields = self._check_options(key, owner, on_disconnect, grace, ttl)
        node = await self._open()
        with node.starting() as nonce:
            fields |= {"node": node.id, "nonce": nonce}
            entry = await self._claim(node, name, fields, replace, request)
            if begun := entry.nonce == nonce:
                node.produce(entry, _iterate(items), self._describe)
        if not begun:
            await _discard(items)
        return Run(self, entry, joined=not begun)

    async def open(
        self,
        name: str,
        *,
        key: str | None = None,
        owner: str | None = None,
        replace: bool = False,
        ttl: float | None = None,
        request: Any = None,
    ) -> Run:
        """Start a run whose producer is elsewhere: it calls :meth:`Run.append` and :meth:`Run.end`, in any process.

        If it calls neither for 7 s and does not call :meth:`Run.keep`, the run ends as ``orphaned``.
        Arguments and errors as of :meth:`start`.
        """
        fields = self._check_options(key, owner, "continue", None, ttl)
        node = await self._open()
        with node.starting() as nonce:
            entry = await self._claim(node, name, fields | {"node": None, "nonce": nonce}, replace, request)
        return Run(self, entry, joined=entry.nonce != nonce)

    def _check_options(
        self,
        key: str | None,
        owner: str | None,
        on_disconnect: OnDisconnect | None,
        grace: float | None,
        ttl: float | None,
    ) -> dict[str, Any]:
        """Return the fields of the record that starts a run."""
        return {
            "key": key,
            "owner": owner,
            "ttl": self.ttl if ttl is None else check_seconds("ttl", ttl, above=0),
            "on_disconnect": self.on_disconnect if on_disconnect is None else _checked_policy(on_disconnect),
            "grace": self.grace if grace is None else check_seconds("grace", grace),
        }

    async def _claim(self, node: Node, name: str, fields: Mapping[str, Any], replace: bool, request: Any) -> Entry:
        """Return the run with this name and key. If this call has begun it, it has the nonce of the fields."""
        check_name(name)
        directory, key, owner = node.directory, fields["key"], fields["owner"]
        attempt = 0
        while True:
            if replace:
                await self._make_way(node, name, key, owner, request)
            draft = Draft(
                f"{CONTROL}/{name}",
                {**fields, "replace": replace, "started": time.time()},
                event=START,
                key=None if key is None else start_key(name, key, attempt),
            )
            (cursor,) = await self._hub.publish_many([draft])
            await directory.sync(cursor)
            entry = directory.get(str(cursor))
            if entry is not None and entry.info.state is not RunState.REFUSED:
                break
            active = directory.latest(name)
            if active is not None and active.info.active and not replace:
                if key is None or active.info.key != key:
                    raise RunActiveError(name)
                entry = active  # of a later attempt
                break
            attempt += 1  # an earlier attempt was refused, or is forgotten; the log still knows its key
        if entry.nonce != fields["nonce"]:
            await self._check_access(entry.info, owner, request)
        elif entry.replaced is not None:
            await node.end(entry.replaced, RunState.CANCELLED)
        return entry

    async def _make_way(self, node: Node, name: str, key: str | None, owner: str | None, request: Any) -> None:
        """End the active run of a name, unless it is the one to be joined."""
        await node.directory.sync()
        active = node.directory.latest(name)
        if active is None or not active.info.active or (key is not None and active.info.key == key):
            return
        await self._check_access(active.info, owner, request)
        await self._cancel(node, active)
        try:
            async with asyncio.timeout(_REPLACING):
                await node.wait(active)
        except TimeoutError:
            await node.end(active.info, RunState.CANCELLED)

    async def _check_access(self, info: RunInfo, owner: str | EllipsisType | None, request: Any) -> None:
        """Raise RunOwnerError if a run is not the owner's, or if ``authorize`` refuses it to a request."""
        allowed: Any = owner is ... or info.owner == owner
        if allowed and self._authorize is not None and request is not None:
            allowed = self._authorize(request, info)
            allowed = await allowed if inspect.isawaitable(allowed) else allowed
        if not allowed:
            raise RunOwnerError(info.name)

    def _describe(self, error: Exception) -> str | None:
        if self._on_error is None:
            return None
        try:
            return self._on_error(error)
        except Exception:
            logger.exception("on_error failed")
            return None

    # Finding and cancelling.

    async def get(self, name: str, run: str | None = None) -> Run | None:
        """Return the newest run of a name, or the one with the id ``run``; ``None`` if there is none.

        Raises:
            HubClosedError: the hub is closed.
            BrokerError: the log cannot be read.
        """
        entry = await self._find(await self._open(), name, run)
        return None if entry is None else Run(self, entry, joined=True)

    async def list_runs(self, *, active: bool = True) -> list[RunInfo]:
        """Return the active runs, or all that can be read, the oldest first. Errors as of :meth:`get`."""
        directory = (await self._open()).directory
        await directory.sync()
        entries = directory.active() if active else directory.entries()
        return [entry.info for entry in entries if entry.info.state is not RunState.REFUSED]

    async def cancel(
        self,
        name: str,
        *,
        run: str | None = None,
        owner: str | EllipsisType | None = ...,
        request: Any = None,
    ) -> RunInfo | None:
        """Ask the producer of the active run of a name to stop, wherever it is, and return the run.

        Its generator is cancelled where it stands, and its ``finally`` runs; then readers get the end.

        Arguments:
            name: the name.
            run: an id, so that a late stop does not end a newer run of the same name.
            owner: the owner that the run must have, ``None`` for none; by default, any.
            request: the request that asks for it. If there is one, ``authorize`` is asked first.

        Returns:
            The run; ``None`` if there is none. One that has ended already is returned as it is.

        Raises:
            RunOwnerError: the run has another owner, or ``authorize`` refuses it.
            HubClosedError: the hub is closed.
            BrokerError: the log cannot be reached.
        """
        node = await self._open()
        entry = await self._find(node, name, run)
        if entry is None:
            return None
        await self._check_access(entry.info, owner, request)
        await self._cancel(node, entry)
        return entry.info

    async def cancel_response(
        self,
        request: HasScope | Scope,
        name: str,
        *,
        run: str | None = None,
        owner: str | EllipsisType | None = ...,
        missing: int = HTTPStatus.NOT_FOUND,
    ) -> StreamResponse:
        """Cancel a run as :meth:`cancel` does, and return the response: an empty 202, a 403, or ``missing``.

        A run that has ended already is 204. Arguments and other errors as of :meth:`cancel` and :meth:`response`.
        """
        try:
            info = await self.cancel(name, run=run, owner=owner, request=request)
        except RunOwnerError:
            return PlainResponse(HTTPStatus.FORBIDDEN, "You may not cancel this run.")
        if info is None:
            return PlainResponse(missing, f"There is no run {name!r}.")
        return PlainResponse(HTTPStatus.ACCEPTED if info.active else HTTPStatus.NO_CONTENT)

    async def _cancel(self, node: Node, entry: Entry) -> None:
        if not entry.info.active:
            return
        if entry.node is None:
            await node.end(entry.info, RunState.CANCELLED)
        else:
            key = f"run-cancel-{entry.info.run}"
            await self._hub.publish(f"{CONTROL}/{entry.info.name}", {"run": entry.info.run}, event=CANCEL, key=key)
            await node.directory.sync()

    async def _find(self, node: Node, name: str, run: str | None) -> Entry | None:
        check_name(name)
        await node.directory.sync()
        if run is None:
            return node.directory.latest(name)
        entry = node.directory.get(run)
        found = entry is not None and entry.info.name == name and entry.info.state is not RunState.REFUSED
        return entry if found else None

    # Reading.

    async def response(
        self,
        request: HasScope | Scope,
        name: str,
        *,
        run: str | None = None,
        owner: str | EllipsisType | None = ...,
        framing: Name | FramingFactory = "events",
        after: int | Literal["now"] | None = None,
        finished: Literal["replay"] | int | None = None,
        missing: int = HTTPStatus.NOT_FOUND,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        grant: Grant | None = None,
    ) -> StreamResponse:
        """Return a response that streams the newest run of a name: from the beginning, then live, then the end.

        Arguments:
            request: the request. Its ``Last-Event-ID`` is where to continue, in the run that it belongs to.
            name: the name.
            run: the id of a run, instead of the newest.
            owner: the owner that the run must have, ``None`` for none; by default, any. Another's is 403.
            framing: the protocol of the reader: a name, or a function that returns a :class:`Framing` for a run.
            after: the number of the last event that the reader has, counted from 0 within the run; ``"now"`` for
                what comes from now on.
            finished: what to answer for a run that has ended: ``"replay"``, or a status without a body. By default
                ``ai_sdk`` answers 204, as its clients expect, and all others replay it.
            missing: the status if there is no such run. 204 tells an ``EventSource`` to stop.
            headers: more headers; one of the same name replaces ours.
            grant: the rights of the reader. When they end, ``events`` gets ``stream:expired`` and its stream ends; the
                connection of another framing is cut. By default, all rights without end.

        Raises:
            AccessError: the grant does not cover the topic of the run.
            ValueError: ``framing``, ``after`` or a status is not as described.
            HubClosedError: the hub is closed.
            BrokerError: the log cannot be read.
        """
        make = find_framing(framing)
        last = get_last_event_id(request)
        cursor = None if last is None else Cursor.parse(last)
        node = await self._open()
        found = await self._find(node, name, run)
        entry = found if cursor is None or run is not None else node.directory.at(name, cursor) or found
        if entry is None:
            return PlainResponse(missing, f"There is no run {name!r}.")
        try:
            await self._check_access(entry.info, owner, request)
        except RunOwnerError:
            return PlainResponse(HTTPStatus.FORBIDDEN, "You may not read this run.")
        answer = "replay" if finished is None and framing != "ai_sdk" else finished or HTTPStatus.NO_CONTENT
        if not entry.info.active and answer != "replay":
            return PlainResponse(int(answer), "The run has ended.")
        return respond(self._hub, node, entry.info, make, last, after, headers, grant)

    def _current(self, entry: Entry) -> Entry:
        return (None if self._node is None else self._node.directory.get(entry.info.run)) or entry


class Run:
    """One run, as :meth:`Runs.start` and :meth:`Runs.get` return it.

    Attributes:
        joined: true if it had been started before.
    """

    def __init__(self, runs: Runs, entry: Entry, *, joined: bool) -> None:
        self._runs = runs
        self._entry = entry  # it keeps the end of a run that is forgotten later
        self.joined = joined

    def __repr__(self) -> str:
        return f"<Run {self.name!r} {self.id} {self.info.state}>"

    @property
    def name(self) -> str:
        """Its name."""
        return self._entry.info.name

    @property
    def id(self) -> str:
        """Its id: the argument ``run=`` of other methods."""
        return self._entry.info.run

    @property
    def info(self) -> RunInfo:
        """The current description; the last one that was known, if the run is forgotten."""
        return self._runs._current(self._entry).info

    def response(
        self,
        request: HasScope | Scope | None = None,
        *,
        framing: Name | FramingFactory = "events",
        after: int | Literal["now"] | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        grant: Grant | None = None,
    ) -> StreamResponse:
        """Return a response that streams it: from the beginning, then live, then the end.

        Arguments and errors as of :meth:`Runs.response`, but ``authorize`` is not asked: a program that has
        the object may read it.
        """
        last = None if request is None else get_last_event_id(request)
        runs = self._runs
        return respond(runs._hub, runs._here(), self._entry.info, find_framing(framing), last, after, headers, grant)

    async def events(self, *, after: str | None = None) -> AsyncGenerator[RunEvent | RunEnd | Gap]:
        """Yield its events, from the beginning or after an id, then live, and at last its :class:`RunEnd`.

        Raises:
            StreamEndedError: the hub is closing, or the log was reset.
            SlowConsumerError: the next events are no longer kept.
            BrokerError: the log cannot be read.
        """
        cursor = None if after is None else Cursor.parse(after)
        slices = read_run(self._runs._hub, self._entry.info, cursor)
        async with self._runs._here().reading(self._entry.info), aclosing(slices):
            async for items in slices:
                for item in items:
                    yield item

    async def wait(self) -> RunInfo:
        """Wait for its end, and return its description; ``orphaned`` if the log lost the run before it ended."""
        node = await self._runs._open()
        await node.directory.sync()
        entry = node.directory.get(self.id)
        if entry is not None:
            await node.wait(entry)
            return entry.info
        info = self._entry.info
        return dataclasses.replace(info, state=RunState.ORPHANED) if info.active else info

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
            RunEndedError: the run has ended. If you repeat a call that was stored before, its cursors are returned.
            BrokerError: they were not stored, or that is unknown.
        """
        if not self.info.active and key is None:
            raise RunEndedError(self.name, self.info.state)
        await self.keep()
        hub, info = self._runs._hub, self._entry.info
        drafts = [
            item_draft(hub, info, item, None if key is None else item_key(info.run, key, number))
            for number, item in enumerate(items)
        ]
        cursors = await hub.publish_many(drafts)
        directory = (await self._runs._open()).directory
        await directory.sync(max(cursors, default=None, key=lambda cursor: cursor.offset))
        entry = directory.get(info.run)
        if cursors and (entry is None or (entry.end is not None and entry.end < cursors[0].offset)):
            raise RunEndedError(self.name, info.state if entry is None else entry.info.state)
        return cursors

    async def keep(self) -> None:
        """Report that the producer is at work, though it has nothing to append."""
        await (await self._runs._open()).keep(self._entry.info)

    async def end(self, state: Literal["done", "error", "cancelled"] = "done", *, error: str | None = None) -> RunInfo:
        """End it, and return it. The first end of a run counts.

        Arguments:
            state: how it ended.
            error: the text that readers get; by default a general sentence.
        """
        node = await self._runs._open()
        await node.end(self.info, RunState(state), error)
        return self.info


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


def _checked_policy(value: OnDisconnect) -> OnDisconnect:
    if value not in ("continue", "cancel"):
        raise ValueError(f"expected on_disconnect to be 'continue' or 'cancel', got {value!r}")
    return value
