"""``Changes``: change the topics of open streams, also of those that other processes serve.

A process that serves the stream changes it at once. Any other process stores a request in the log, in a topic of the
hub itself. The process that serves the stream stores the answer there. The request names the stream by a hash of its
id, so a reader of the log cannot change it. If there is no answer in time, there is no such stream.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, NamedTuple, Protocol

from ..broker import Broker, Record
from ..errors import (
    BrokerError,
    HubClosedError,
    InvalidTopicError,
    SubscriptionBusyError,
    SubscriptionNotFoundError,
    TickertapeError,
)
from ..timing import Clock
from ..wire import Cursor, Draft, compile_patterns
from .delivery import Delivery
from .grants import Grant
from .log import find_start
from .presence import name_of
from .subscription import Change, Past, Subscription
from .window import Entry, encode_record

logger = logging.getLogger("tickertape.hub")

REQUESTS: Final = "hub-changes/requests"
"""The topic of changes of streams that another process serves."""

ANSWERS: Final = "hub-changes/answers"

MAX_PAST: Final = 1_000
"""The greatest number of past events that a change brings. More is a new stream, or a download."""

_PATIENCE: Final = 2.0
"""Seconds for an answer: brokers bring a record in milliseconds, a busy process may take a second."""

_MAX_ASKED: Final = 1_000
"""Changes that wait for an answer at once: unknown ids cost others nothing but this."""

_MAX_SEEN: Final = 10_000
"""Requests that are remembered: after the log was replaced, some records are seen again."""

_PAGE: Final = 1_000

_FAILURES: Final[dict[str, type[TickertapeError]]] = {
    "topics": InvalidTopicError,
    "busy": SubscriptionBusyError,
    "log": BrokerError,
}
"""Errors that an answer reports, by name."""


class ChangingHub(Protocol):
    """The part of a hub that changes need."""

    max_topics: int

    @property
    def clock(self) -> Clock: ...
    def limit_right(self, subscription: Subscription, until: float) -> None: ...


class Request(NamedTuple):
    """A change of the topics of a stream.

    Attributes:
        name: of the subscription, by :func:`name_of`.
        add, remove: patterns.
        last: past events of the added topics.
        user: the user that the stream must have, or nothing: then any.
        until: the end of the right to the added topics, in seconds since the Unix epoch; ``None`` for no end.
    """

    name: str
    add: tuple[str, ...]
    remove: tuple[str, ...]
    last: int
    user: tuple[Any, ...]
    until: float | None

    @classmethod
    def create(
        cls, id: str, add: str | Iterable[str], remove: str | Iterable[str], last: int, grant: Grant | None
    ) -> Request:
        """Return a checked request. Raises as :meth:`Hub.change`."""
        if type(last) is not int or not 0 <= last <= MAX_PAST:
            raise ValueError(f"expected last to be an int from 0 to {MAX_PAST}, got {last!r}")
        change = Change(add, remove, limit=0, last=last, done=asyncio.get_running_loop().create_future())
        if grant is None or grant.admin:
            return cls(name_of(id), change.add, change.remove, last, (), None)
        grant.check_subscribe(change.add)
        return cls(name_of(id), change.add, change.remove, last, (grant.user,), grant.until if change.add else None)

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Request:
        """Return the request in the fields of a record. Raises :exc:`LookupError` or :exc:`ValueError`."""
        add, remove = ([str(each) for each in fields[name]] for name in ("add", "remove"))
        until = None if fields["until"] is None else float(fields["until"])
        return cls(
            str(fields["name"]), (*add,), (*remove,), min(int(fields["last"]), MAX_PAST), (*fields["user"],), until
        )


class Changes:
    """Change streams of this process, ask other processes to change theirs, and answer them.

    Arguments:
        hub: the hub.
        broker: its log.
        delivery: its delivery.
        append: stores a record; the limit for events of the application does not hold for it.
        shared: other processes may be on the log.
    """

    def __init__(
        self,
        hub: ChangingHub,
        broker: Broker,
        delivery: Delivery,
        append: Callable[[Draft], Awaitable[Cursor]],
        *,
        shared: bool,
    ) -> None:
        self._hub = hub
        self._broker = broker
        self._delivery = delivery
        self._append = append
        self._shared = shared
        self._asked: dict[str, asyncio.Future[Cursor]] = {}  # by nonce
        self._seen: dict[str, None] = {}  # nonces of requests, the oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        if shared:
            delivery.watch(REQUESTS, self._requested)
            delivery.watch(ANSWERS, self._answered)

    async def change(self, request: Request) -> Cursor:
        """Change a stream; see :meth:`Hub.change`."""
        subscription = self._find(request)
        if subscription is not None:
            return await self._apply(subscription, request)
        if not self._shared:
            raise SubscriptionNotFoundError
        return await self._ask(request)

    def close(self) -> None:
        """Answer no more requests, and stop waiting for answers."""
        for task in self._tasks:
            task.cancel()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(HubClosedError("the hub is closed"))

    # Here.

    def _find(self, request: Request) -> Subscription | None:
        subscription = self._delivery.presence.named(request.name)
        foreign = subscription is not None and request.user and subscription.user != request.user[0]
        return None if foreign else subscription

    async def _apply(self, subscription: Subscription, request: Request) -> Cursor:
        done: asyncio.Future[Cursor] = asyncio.get_running_loop().create_future()
        limit = self._hub.max_topics
        change = Change(request.add, request.remove, limit=limit, last=request.last, done=done)
        change.apply(subscription.audience.patterns)  # refused before the log is searched
        if change.last and change.add:
            change.past = await self._find_past(change)
        self._delivery.change(subscription, change)
        cursor = await done
        if request.until is not None:
            self._hub.limit_right(subscription, request.until)
        return cursor

    async def _find_past(self, change: Change) -> Past:
        """Return the newest events of the topics to add."""
        delivery = self._delivery
        start = await find_start(self._broker, delivery, change.add, None, change.last)
        window = delivery.window
        if start.cursor >= window.complete_after(change.add):
            return Past([], start.cursor, window.epoch)  # the delivery has them in memory
        entries: list[Entry] = []
        upto, now = start.cursor, delivery.clock.time()
        while upto < window.complete_after(change.add):
            state, records = await self._broker.read(upto, _PAGE, compile_patterns(change.add))
            entries += [Entry(record, encode_record(state.epoch, record), now) for record in records]
            if state.epoch != window.epoch:
                return Past([], 0, state.epoch)
            if len(records) < _PAGE:
                upto = max(upto, window.newest, *(record.offset for record in records[-1:]))
                break
            upto = records[-1].offset
        return Past(entries, upto, window.epoch)

    # In other processes.

    async def _ask(self, request: Request) -> Cursor:
        if len(self._asked) >= _MAX_ASKED:
            raise SubscriptionBusyError("too many changes wait for other processes")
        nonce = secrets.token_hex(8)
        asked: asyncio.Future[Cursor] = asyncio.get_running_loop().create_future()
        self._asked[nonce] = asked
        clock = self._hub.clock
        timer = None
        try:
            await self._append(Draft(REQUESTS, {"nonce": nonce, **request._asdict()}, event="change:request"))
            timer = clock.call_at(clock.time() + _PATIENCE, _give_up, asked)
            return await asked
        finally:
            del self._asked[nonce]
            if timer is not None:
                timer.cancel()

    def _requested(self, record: Record) -> None:
        fields = _parse(record)
        try:
            nonce, request = str(fields["nonce"]), Request.parse(fields)
        except (LookupError, TypeError, ValueError):
            return
        subscription = self._find(request)
        if subscription is None or nonce in self._seen:
            return
        self._seen[nonce] = None
        if len(self._seen) > _MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        task = asyncio.get_running_loop().create_task(self._answer(nonce, subscription, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, nonce: str, subscription: Subscription, request: Request) -> None:
        """Change a stream for another process, and store the answer."""
        try:
            answer = {"cursor": str(await self._apply(subscription, request))}
        except SubscriptionNotFoundError:
            return  # it has ended since the request
        except TickertapeError as error:
            name = next((name for name, kind in _FAILURES.items() if isinstance(error, kind)), "log")
            answer = {"error": name, "message": str(error)}
        try:
            await self._append(Draft(ANSWERS, {"nonce": nonce, **answer}, event="change:answer"))
        except TickertapeError as error:
            logger.warning("a change of topics could not be answered: %s", error)

    def _answered(self, record: Record) -> None:
        fields = _parse(record)
        asked = self._asked.get(str(fields.get("nonce")))
        if asked is None or asked.done():
            return
        cursor = Cursor.parse(str(fields.get("cursor")))
        if cursor is not None:
            asked.set_result(cursor)
        else:
            asked.set_exception(_FAILURES.get(str(fields.get("error")), BrokerError)(str(fields.get("message"))))


def _give_up(asked: asyncio.Future[Cursor]) -> None:
    if not asked.done():
        asked.set_exception(SubscriptionNotFoundError())


def _parse(record: Record) -> dict[str, Any]:
    try:
        fields = json.loads(record.data)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
