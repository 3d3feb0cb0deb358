"""``Delivery``: bring records from the log to the subscriptions that want them.

One fan-out, a *round*, runs at a time. It takes the records that arrived since the last one, joins the
bytes that each audience wants, and writes them. Between rounds every live direct output is served up to
the same offset, ``position``. A round that takes long lets the loop continue in between. A subscriber that
joins during a round waits until it ends and then catches up, so nothing is lost or repeated.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from time import perf_counter
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from ..asgi import DisconnectReason, request_id
from ..broker import Broker, LogState, Record
from ..errors import BrokerError, InvalidTopicError, SlowConsumerError, SubscriptionBusyError, SubscriptionNotFoundError
from ..timing import Clock, sleep
from ..wire import MAX_OFFSET, Cursor, Gap, GapReason, Patterns, TopicsChange, compile_patterns
from .audience import STRIDE, TURN, Audience, Form, Member
from .presence import Presence
from .statistics import Counters
from .subscription import Change, Changed, Output, OverflowPolicy, Past, Subscription
from .topics import TopicIndex
from .window import Entry, Window, encode_record

logger = logging.getLogger("tickertape.hub")
stream_logger = logging.getLogger("tickertape.hub.streams")

PAGE: Final = 32 * 1024
"""Bytes in which a subscriber catches up: what is held for it if it stops reading again."""

_PAGE_RECORDS: Final = 100
"""Records read from the broker at a time."""

_PAGE_BYTES: Final = 128 * 1024
"""Bytes used of them. The rest is read again, so that nothing is held for a subscriber that reads slowly."""

_ROUND: Final = 64 * 1024
"""Bytes of a round. More would not fit into a socket at once, and would make every subscriber a slow consumer."""

_MAX_PENDING: Final = 1024 * 1024
"""Bytes that wait for their round. Beyond them nothing more is taken from the log, which keeps the rest."""

_SEARCHES: Final = 8
"""Searches for the audiences of a topic between two looks at the time: each takes less than a millisecond."""

_MAX_MEMO: Final = 64
"""Joined slices that are kept: clients that lost their connection together reconnect with one cursor."""

_LONGEST_IN_LOG: Final = 200
"""Characters of topics and of a user in a line of the log: clients choose topics."""

_MAX_OBSERVED: Final = 10_000
"""Appends whose delivery is timed at once: more than a log that is followed ever has."""

_EXPIRIES: Final = 1_000
"""Times of subscriptions that have ended, beyond those of open ones, that are kept until they have passed."""

_MAX_CHANGED: Final = 32
"""Changes of the topics of one stream of which it has no notice yet. Its client does not read, or sends too many."""

_MAX_PAST: Final = 256 * 1024
"""Bytes of past events that are held for these notices: the limit of what is held for one connection."""

_LOOK: Final = 0.02
"""Seconds between two looks at all subscriptions, each of which takes 2 ms for 10,000 of them."""

_LOOKS: Final = 32
"""Looks while as many events come as the window holds: four while a reader is among the oldest eighth."""

Ending: TypeAlias = Callable[[DisconnectReason], None]
Watcher: TypeAlias = Callable[[Record], None]


class _Round(NamedTuple):
    """The result of a round: the entries of each audience after one offset and up to another."""

    after: int
    upto: int
    entries: dict[Audience, list[Entry]]


_NO_ROUND: Final = _Round(-1, -1, {})


class Slice(NamedTuple):
    """A part of the log for one subscription.

    Attributes:
        chunk: the blocks of the entries, joined.
        upto: the cursor of a subscription that has the slice.
        entries: the events.
        gap: sent before the entries, if some events are no longer kept.
        end: the offset of the entry with which the stream ends, if it is known.
        change: sent after the entries, if the topics have changed. The entries are past events then: they go out
            without an id, because a client that resumes continues after the change, not after them.
    """

    chunk: bytes
    upto: int
    entries: list[Entry]
    gap: Gap | None = None
    end: int | None = None
    change: TopicsChange | None = None


class LiveOutput(Member, Protocol):
    """An output that can be live: it is served by its audience's fan-out, up to :attr:`Delivery.position`."""

    subscription: Subscription

    def check(self, now: float, send_timeout: float) -> None:
        """Drop the connection if its peer has taken nothing for ``send_timeout`` seconds."""


class Delivery:
    """Accept records, and bring every subscription the events between its cursor and the head.

    Arguments:
        broker: the source of records that are no longer in the window.
        window: the newest part of the log.
        clock: the clock for last writes.
        presence: the registry of subscriptions.

    Attributes:
        position: the offset up to which live outputs are served.
        behind: direct outputs that are not live.
        stride, turn: see :meth:`Audience.write`.
    """

    def __init__(self, broker: Broker, window: Window, clock: Clock, presence: Presence) -> None:
        self.window = window
        self.position = window.newest
        self.counters = Counters()
        self.presence = presence
        self.behind: set[LiveOutput] = set()
        self.clock = clock
        self.stride = STRIDE
        self.turn = TURN
        self._broker = broker
        self._audiences: dict[tuple[Patterns, bool, Form | None], Audience] = {}
        self._index: TopicIndex[Audience] = TopicIndex()
        self._pending: deque[Entry] = deque()
        self._pending_bytes = 0
        self._room = asyncio.Event()
        self._progress = asyncio.Event()
        self._joining: dict[LiveOutput, None] = {}  # a set that keeps its order
        self._changing: list[tuple[Subscription, Change]] = []  # at the end of the round
        self._replaced = asyncio.Event()
        self._closed = False
        self._round: Iterator[None] | None = None
        self._upto = self.position  # the offset at which the round ends
        self._served: Collection[Audience] = ()  # by the current round: it is unknown which members have been
        self._loop = asyncio.get_running_loop()
        self._memo: dict[tuple[Audience, int, int], Slice] = {}
        self._running = False  # the current round has begun
        self._found: dict[Audience, list[Entry]] = {}  # by the current round, if it searched at one moment
        self._last_round = _NO_ROUND
        self._endings: dict[int, tuple[Ending, ...]] = {}
        self._appended: deque[tuple[int, float]] = deque(maxlen=_MAX_OBSERVED)
        self._expiries: list[tuple[float, int, DisconnectReason]] = []
        self._watchers: dict[str, list[Watcher]] = {}
        self._looked = -math.inf
        self._looked_upto = 0
        self._is_losing = False  # at that time

    # Subscriptions begin and end.

    def subscribe(
        self,
        patterns: Patterns,
        cursor: int,
        gap: Gap | None,
        policy: OverflowPolicy,
        user: Any,
        envelope: bool = False,
        form: Form | None = None,
    ) -> Subscription:
        """Register a subscription; see :class:`Subscription`. It is served as soon as it has an output."""
        audience = self._enter(patterns, envelope, form)
        if form is not None and gap is not None and gap.reason == "reset":
            cursor = MAX_OFFSET  # the topic was in the log before, and nothing follows
        subscription = Subscription(self.presence.new_id(), audience, cursor, gap, policy, time.time(), user)
        self.counters.opened += 1
        if stream_logger.isEnabledFor(logging.INFO):
            subscription.request = request_id.get()
            self._log_opened(subscription)
        self.presence.join(subscription)
        return subscription

    def begin(self, subscription: Subscription, output: Output) -> None:
        """Serve a subscription by an output from now on."""
        subscription.output = output
        self.counters.active[output.way] += 1

    def end(self, subscription: Subscription, reason: DisconnectReason) -> None:
        """End a subscription. If it has ended before, the first reason stays."""
        if subscription.reason is not None:
            return
        subscription.reason = reason
        if subscription.output is not None:
            self.counters.active[subscription.output.way] -= 1
            subscription.output.ended()
            subscription.output = None  # each refers to the other: without this, only the collector would free them
        self.counters.disconnects[reason] = self.counters.disconnects.get(reason, 0) + 1
        lasted = max(0.0, time.time() - subscription.since)
        self.counters.stream_seconds.observe(lasted)
        if stream_logger.isEnabledFor(logging.INFO):
            self._log_closed(subscription, lasted)
        self._leave(subscription.audience)
        self.presence.leave(subscription)
        for ending in self._endings.pop(subscription.id, ()):
            ending(reason)

    def _enter(self, patterns: Patterns, envelope: bool, form: Form | None) -> Audience:
        """Return the audience for some patterns, with one member more."""
        key = patterns, envelope, form
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = Audience(patterns, self.clock.time(), envelope, form)
            self._index.add(patterns, audience)
        audience.members += 1
        return audience

    def _leave(self, audience: Audience) -> None:
        audience.members -= 1
        if not audience.members:
            del self._audiences[audience.patterns, audience.envelope, audience.form]
            self._index.remove(audience.patterns, audience)

    def _log_opened(self, subscription: Subscription) -> None:
        topics = subscription.audience.patterns
        user = _user_in_log(subscription)
        stream_logger.info(
            "stream %d opened: %s%s",
            subscription.id,
            _shorten(", ".join(topics)),
            _origin_in_log(subscription),
            extra={"stream": subscription.id, "topics": topics, "user": user, "request": subscription.request},
        )

    def _log_closed(self, subscription: Subscription, lasted: float) -> None:
        user = _user_in_log(subscription)
        stream_logger.info(
            "stream %d closed: %s after %.1f s, %d events, %d bytes%s",
            subscription.id,
            subscription.reason,
            lasted,
            subscription.events,
            subscription.bytes,
            _origin_in_log(subscription),
            extra={
                "stream": subscription.id,
                "reason": str(subscription.reason),
                "seconds": round(lasted, 3),
                "events": subscription.events,
                "bytes": subscription.bytes,
                "user": user,
                "request": subscription.request,
            },
        )

    def on_end(self, subscription: Subscription, ending: Ending) -> None:
        """Call ``ending`` with the reason when an open subscription ends. There may be several."""
        self._endings[subscription.id] = (*self._endings.get(subscription.id, ()), ending)

    def expire_at(self, subscription: Subscription, when: float, reason: DisconnectReason) -> None:
        """Have :meth:`take_expired` yield an open subscription from the time ``when`` on."""
        if len(self._expiries) > 2 * len(self.presence) + _EXPIRIES:
            self._expiries = [entry for entry in self._expiries if self.presence.get(entry[1]) is not None]
            heapq.heapify(self._expiries)
        heapq.heappush(self._expiries, (when, subscription.id, reason))

    def take_expired(self) -> Iterator[tuple[Subscription, DisconnectReason]]:
        """Yield the open subscriptions whose time has come, each with the reason."""
        now = self.clock.time()
        while self._expiries and self._expiries[0][0] <= now:
            _, number, reason = heapq.heappop(self._expiries)
            if (subscription := self.presence.get(number)) is not None:
                yield subscription, reason

    def watch(self, topic: str, watcher: Watcher) -> None:
        """Call ``watcher`` with each record of a topic, in order. After the log was replaced it may see some again."""
        self._watchers.setdefault(topic, []).append(watcher)

    def _notify(self, records: Iterable[Record]) -> None:
        for record in records:
            for watcher in self._watchers.get(record.topic, ()):
                watcher(record)

    # The topics of a subscription change.

    def change(self, subscription: Subscription, change: Change) -> None:
        """Move a subscription to another audience, at its own cursor.

        It has everything of the old topics up to there, and gets everything of the new ones after it, also if it is
        far behind. Its notice goes out before the next event. While a round runs, the cursors of live outputs are
        unknown; their changes wait for its end.
        """
        if subscription.output is not None and not subscription.output.settle():
            self._changing.append((subscription, change))
            return
        try:
            cursor = self._change(subscription, change)
        except (InvalidTopicError, SubscriptionBusyError, SubscriptionNotFoundError) as error:
            change.fail(error)
        else:
            if not change.done.done():
                change.done.set_result(cursor)
        if subscription.output is not None:
            subscription.output.wake()

    def _change(self, subscription: Subscription, change: Change) -> Cursor:
        if subscription.reason is not None or self._closed:
            raise SubscriptionNotFoundError
        before = subscription.audience
        patterns = change.apply(before.patterns)
        waiting = subscription.changed = deque() if subscription.changed is None else subscription.changed
        if len(waiting) >= _MAX_CHANGED or sum(_size(each.past) for each in waiting) > _MAX_PAST:
            raise SubscriptionBusyError("the client of this stream has not read its last changes yet")
        past = [] if change.past is None else self._past(change, change.past, before.patterns, subscription.cursor)
        subscription.audience = self._enter(patterns, before.envelope, before.form)
        self._leave(before)
        waiting.append(Changed(patterns, past))
        self.counters.changed += 1
        if patterns != before.patterns:
            self.presence.changed(subscription)
        return Cursor(self.window.epoch, subscription.cursor)

    def _past(self, change: Change, past: Past, before: Patterns, cursor: int) -> list[Entry]:
        """Return the last events of added topics up to the cursor, without those of the topics from before."""
        window = self.window
        if past.epoch != window.epoch:
            return []
        entries = [entry for entry in past.entries if entry.offset <= cursor]
        reached = past.upto
        while reached < cursor:
            found, reached = window.after(max(reached, window.oldest - 1), change.add, _MAX_PAST, cursor)
            entries += found
        had = compile_patterns(before)
        kept: deque[Entry] = deque()
        size = 0
        for entry in reversed([entry for entry in entries if entry.block and not entry.ends_topic][-change.last :]):
            size += len(entry.block)
            if kept and size > _MAX_PAST:
                break
            if not had(entry.topic):
                kept.appendleft(entry)
        return [*kept]

    def take_change(self, subscription: Subscription) -> Slice | None:
        """Return the notice of a change to send next, with the past events before it, and remove it."""
        if not subscription.changed:
            return None
        topics, past = subscription.changed.popleft()
        ended = [topic for topic in topics if self.window.ended.get(topic, MAX_OFFSET + 1) <= subscription.cursor]
        notice = TopicsChange.create(topics, Cursor(self.window.epoch, subscription.cursor), ended)
        envelope = subscription.audience.envelope
        chunk = b"".join([*(entry.block_without_id(envelope) for entry in past), notice.encode()])
        return Slice(chunk, subscription.cursor, past, change=notice)

    # Live outputs.

    def join(self, output: LiveOutput) -> None:
        """Make an output live if it is served up to the position; else let it advance after the round."""
        subscription = output.subscription
        if self._round is None and subscription.cursor == self.position:
            subscription.audience.join(output, self.clock.time())
            subscription.add(-subscription.audience.events, -subscription.audience.bytes)
            self.behind.discard(output)
        else:
            self._joining[output] = None

    def forget(self, output: LiveOutput) -> None:
        """Remove an output that has ended."""
        if output.place >= 0:
            output.move_to(self.position)
            output.subscription.audience.leave(output)
        self.behind.discard(output)
        self._joining.pop(output, None)

    def count(self, topic: str | None = None) -> int:
        """Return the number of subscriptions, or of those that get the events of ``topic``."""
        if topic is None:
            return len(self.presence)
        return sum(audience.members for audience in self._index.find(topic))

    def is_losing(self) -> bool:
        """Return whether a subscriber that was caught up is about to lose events that it wants to have."""
        now, window = self.clock.time(), self.window
        # Also after some events: of fast publishers, the next ones would fill the log before the time has passed.
        if now - self._looked >= _LOOK or window.newest - self._looked_upto > (window.newest - window.oldest) // _LOOKS:
            self._looked, self._looked_upto = now, window.newest
            first, last = window.oldest - 1, window.next_to_drop()
            self._is_losing = first < last and any(
                first <= subscription.cursor < last
                and subscription.caught_up
                and subscription.policy is OverflowPolicy.DISCONNECT
                and subscription.output is not None
                and not subscription.output.live
                for subscription in self.presence.subscriptions
            )
        return self._is_losing

    def check(self, send_timeout: float) -> None:
        """Drop direct outputs whose peers have taken nothing for ``send_timeout`` seconds."""
        now = self.clock.time()
        for output in list(self.behind):
            output.check(now, send_timeout)

    def beat(self, heartbeat: bytes, interval: float) -> None:
        """Write a heartbeat to direct outputs that were silent for ``interval`` seconds."""
        for audience in list(self._audiences.values()):
            if audience not in self._served:
                audience.compact()
                audience.beat(heartbeat, self.position, self.clock.time(), interval)

    # Records come in and go out.

    def ingest(self, records: list[Record]) -> None:
        """Take the next records of the log. They go out in the next turn of the loop, together with others."""
        skipped = self.window.skipped
        entries = self.window.append(records, self.clock.time())
        self.counters.skipped += self.window.skipped - skipped
        if self._watchers:
            self._notify(records)
        self._pending.extend(entries)
        self._pending_bytes += sum(len(entry.block) for entry in entries)
        self._start_round()
        self.report_progress()

    async def wait_for_progress(self, seconds: float) -> None:
        """Wait until more records have come in or the log was replaced, at most for some seconds."""
        await sleep(self.clock, seconds, self._progress)

    async def next_progress(self) -> None:
        """Wait until more records have come in or the log was replaced."""
        await self._progress.wait()

    def report_progress(self) -> None:
        """Wake those that wait for progress."""
        self._progress.set()
        self._progress = asyncio.Event()

    async def wait_for_room(self) -> None:
        """Wait until more records may come. If a hub is slower than its publishers, the log keeps the rest."""
        while self._pending_bytes > _MAX_PENDING:
            self._room.clear()
            await self._room.wait()

    def _start_round(self) -> None:
        if self._round is None and self._pending:
            entries = self._take_pending()
            self._upto = entries[-1].offset
            self._round = self._fan_out(entries)
            self._loop.call_soon(self._continue, self._round)

    def _take_pending(self) -> list[Entry]:
        entries: list[Entry] = []
        size = 0
        while self._pending:
            size += len(self._pending[0].block)
            if entries and size > _ROUND:
                break
            entries.append(self._pending.popleft())
            self._pending_bytes -= len(entries[-1].block)
        self._room.set()
        return entries

    def _fan_out(self, entries: list[Entry]) -> Iterator[None]:
        wanted: dict[Audience, list[Entry]] = {}
        self._running = True
        self._found = wanted
        until = perf_counter() + self.turn
        for number, entry in enumerate(entries, 1):
            if not entry.block:
                continue
            for audience in self._index.find(entry.topic):
                wanted.setdefault(audience, []).append(entry)
            if number % _SEARCHES == 0 and perf_counter() > until:
                self._found = {}  # an audience that begins now has only the later entries
                yield
                until = perf_counter() + self.turn
        self._served = wanted
        for audience, own in wanted.items():
            audience.compact()
            if audience.live:
                live, own = audience.live, _up_to_end(audience, own)
                chunk, now = b"".join([self._block(entry, audience) for entry in own]), self.clock.time()
                audience.events += len(own)
                audience.bytes += len(chunk)
                yield from audience.write(chunk, self._upto, now, stride=self.stride, turn=self.turn)
                self.counters.delivered += live * len(own)
                self.counters.delivered_bytes += live * len(chunk)
                end = self._end_of(audience)
                if end is not None and end <= self._upto:
                    yield from self._end_live(audience)
            audience.wake(self.position)

    def _end_live(self, audience: Audience) -> Iterator[None]:
        """End the live streams of an audience whose last topic has ended."""
        until = perf_counter() + self.turn
        for number, member in enumerate(audience.leave_all(), 1):
            member.move_to(self._upto)
            member.advance()
            if number % self.stride == 0 and perf_counter() > until:
                yield
                until = perf_counter() + self.turn

    def _continue(self, running: Iterator[None]) -> None:
        """Continue a round, and run the next ones, until the turn is over."""
        until = perf_counter() + self.turn
        while running is self._round:  # else the log was replaced
            if self._step(running):
                self._loop.call_soon(self._continue, running)
                return
            self._end_round()
            joining, self._joining = self._joining, {}
            for output in joining:
                output.advance()
            if not self._pending:
                return
            if perf_counter() > until:
                self._start_round()
                return
            entries = self._take_pending()
            self._upto = entries[-1].offset
            running = self._round = self._fan_out(entries)

    def _step(self, running: Iterator[None]) -> bool:
        """Run a round for its share of time; return whether there is more to do."""
        try:
            next(running)
        except StopIteration:
            return False
        except Exception:
            # It is unknown who has been written to. All are disconnected and resume from their own last event.
            logger.exception("a fan-out failed: its subscribers are disconnected and resume")
            self._found = {}
            for audience in list(self._audiences.values()):
                for member in audience.leave_all():
                    member.move_to(self.position)
                    member.abort()
                audience.wake(self.position)
            return False
        return True

    def _end_round(self) -> None:
        self._round = None
        self._running = False
        self._served = ()
        self._last_round = _Round(self.position, self._upto, self._found)
        self.position = self._upto
        self._memo.clear()
        if self._appended:
            self._observe_deliveries()
        if self._changing:
            changing, self._changing = self._changing, []
            for subscription, change in changing:
                self.change(subscription, change)

    def appended(self, offset: int, started: float) -> None:
        """Record that an event of this hub is stored, for the time until it is delivered.

        Arguments:
            offset: the offset of the event.
            started: when its publication began, by ``time.perf_counter``.
        """
        if offset <= self.position:
            self.counters.delivery_seconds.observe(perf_counter() - started)
        else:
            self._appended.append((offset, started))

    def _observe_deliveries(self) -> None:
        now = perf_counter()
        while self._appended and self._appended[0][0] <= self.position:
            self.counters.delivery_seconds.observe(now - self._appended.popleft()[1])

    def rebase(self, window: Window, state: LogState) -> None:
        """Continue with another window: every subscription catches up from its cursor, or gets a gap.

        Arguments:
            window: the new one, of the same log or of another.
            state: the state of its log.
        """
        if self._round is not None:
            # Some of its subscribers have been served and some not. At its end all have the same position.
            while self._step(self._round):
                pass
            self._end_round()
        self._replaced.set()
        self._replaced = asyncio.Event()
        before, self.window = self.window, window
        position, self.position = self.position, window.newest
        self._pending.clear()
        self._pending_bytes = 0
        self._appended.clear()
        self._room.set()
        self.report_progress()
        self._joining = {}
        self._memo.clear()
        self._last_round = _NO_ROUND
        for audience in self._audiences.values():
            for member in audience.leave_all():
                member.move_to(position)
            audience.wake(position)
        for subscription in self.presence.subscriptions:
            if window.epoch != before.epoch or subscription.cursor > window.newest:
                after = Cursor(before.epoch, subscription.cursor)
                subscription.cursor = state.oldest - 1
                subscription.gap = self.gap("reset", str(after), state.oldest - 1)
                subscription.noted = state.dropped
                if subscription.audience.form is not None:
                    subscription.cursor = MAX_OFFSET  # the topic was in the log before, and nothing follows
            if subscription.output is not None:
                subscription.output.wake()
        if self._watchers:
            self._notify(window.records_of(*self._watchers))

    def close(self) -> None:
        """Wake the tasks that wait for another log."""
        self._closed = True
        changing, self._changing = self._changing, []
        for _, change in changing:
            change.fail(SubscriptionNotFoundError())
        self._replaced.set()
        self.report_progress()

    # Topics end.

    def is_over(self, subscription: Subscription) -> bool:
        """Return True if the subscription has everything that it can get: all its topics have ended."""
        end = self._end_of(subscription.audience)
        return end is not None and subscription.cursor >= end

    def _end_of(self, audience: Audience) -> int | None:
        return self.window.end_of(audience.patterns) if audience.form is None else audience.end

    def _block(self, entry: Entry, audience: Audience) -> bytes:
        if audience.form is not None:
            return audience.form.encode(entry.record, entry.cursor) if entry.block else b""
        if not entry.ends_topic or not entry.block:
            return entry.block_in(audience.envelope)
        return entry.block if self.window.end_of(audience.patterns) == entry.offset else entry.notice

    def _slice(self, audience: Audience, entries: list[Entry], upto: int, gap: Gap | None = None) -> Slice:
        """Join the blocks of entries."""
        entries = _up_to_end(audience, entries)
        chunk = b"".join([self._block(entry, audience) for entry in entries])
        return Slice(chunk, upto, entries, gap, self._end_of(audience))

    # Slices of the log, for subscriptions that are behind.

    def in_window(self, subscription: Subscription) -> bool:
        """Return whether everything after the cursor is in the window."""
        self.window.trim(self.clock.time())
        return self.window.complete_after(subscription.audience.patterns) <= subscription.cursor

    @property
    def running(self) -> bool:
        """True while a round writes: then it is unknown how far live outputs are."""
        return self._running

    def is_ahead(self, cursor: int) -> bool:
        """Return whether a reader has all that rounds have brought, so that a later round wakes it."""
        return cursor >= self.window.newest or (cursor >= self.position and not self._running)

    def next_slice(self, subscription: Subscription, upto: int) -> Slice:
        """Return the next slice of the window, up to the offset ``upto``. It may be empty and still move the cursor.

        A subscription that was caught up and fell behind gets only the newest event of each topic, if its
        policy is ``latest``.
        """
        audience, cursor = subscription.audience, subscription.cursor
        if subscription.caught_up and subscription.policy is OverflowPolicy.LATEST:
            entries, reached, superseded = self.window.latest(cursor, audience.patterns, PAGE, upto)
            self.counters.superseded += superseded
            return self._slice(audience, entries, reached)
        key = audience, cursor, upto
        known = self._memo.get(key)
        if known is None:
            entries, reached = self._of_last_round(audience, cursor, upto) or self.window.after(
                cursor, audience.patterns, PAGE, upto
            )
            known = self._slice(audience, entries, reached)
            if len(self._memo) >= _MAX_MEMO:
                self._memo.clear()
            self._memo[key] = known
        return known

    def _of_last_round(self, audience: Audience, cursor: int, upto: int) -> tuple[list[Entry], int] | None:
        """Return what :meth:`Window.after` does if the last round has found it, as for readers that it has woken."""
        last = self._last_round
        entries = last.entries.get(audience) if cursor == last.after and last.upto <= upto else None
        if entries is None or (len(entries) > 1 and sum([len(entry.block) for entry in entries]) > PAGE):
            return None
        return entries, last.upto

    async def fetch_slice(self, subscription: Subscription) -> Slice | None:
        """Read the next slice from the broker, for a cursor that is older than the window.

        Returns ``None`` if the log was replaced during the read, or the topics were changed: start again then.

        Raises:
            SlowConsumerError: the next events are no longer kept, and the policy is ``disconnect``.
            BrokerError: the log cannot be read.
        """
        found = await self._read(subscription)
        if found is None or not subscription.caught_up:
            return found
        if subscription.policy is OverflowPolicy.LATEST:
            return self._drop_superseded(found, subscription.audience)
        if found.gap is None:
            return found
        if subscription.policy is OverflowPolicy.DISCONNECT:
            raise SlowConsumerError(str(Cursor(self.window.epoch, subscription.cursor)))
        head = self.window.newest
        end = self.window.end_of(subscription.audience.patterns)
        if end is not None and end >= self.window.oldest:
            head = end - 1  # the end itself is not skipped
        gap = Gap.create("expired", found.gap.after or "", Cursor(self.window.epoch, head))
        return Slice(b"", head, [], gap)

    async def _read(self, subscription: Subscription) -> Slice | None:
        audience, cursor, window = subscription.audience, subscription.cursor, self.window
        known = window.newest
        began = perf_counter()
        try:
            state, records = await self._broker.read(cursor, _PAGE_RECORDS, compile_patterns(audience.patterns))
        except BrokerError:
            self.counters.errors["read"] += 1
            raise
        self.counters.read_seconds.observe(perf_counter() - began)
        while state.epoch != window.epoch and self.window is window and not self._closed:
            await self._replaced.wait()
        if self.window is not window or self._closed or subscription.audience is not audience:
            return None
        last = records[-1].offset if records else cursor
        upto = last if len(records) == _PAGE_RECORDS else max(known, last)
        now = self.clock.time()
        entries: list[Entry] = []
        size = 0
        for record in records:
            entry = Entry(record, encode_record(state.epoch, record), now)
            if not entry.block:
                self.counters.skipped += 1
                continue
            size += len(entry.block)
            if entries and size > _PAGE_BYTES:
                upto = entries[-1].offset
                break
            entries.append(entry)
        lost = state.lost_upto(cursor, audience.patterns, subscription.noted)
        if lost <= cursor:
            return self._slice(audience, entries, upto)
        subscription.noted = state.dropped
        # Records between lost ones are still kept, and follow the gap.
        resumed = max(state.oldest - 1, min(lost, records[0].offset - 1 if records else lost))
        gap = self.gap("expired", str(Cursor(state.epoch, cursor)), resumed)
        return self._slice(audience, entries, max(upto, resumed), gap)

    def _drop_superseded(self, found: Slice, audience: Audience) -> Slice:
        """Return a slice without entries that have a newer one of their topic. An end supersedes no event."""
        newest: dict[str, int] = {entry.topic: entry.offset for entry in found.entries if not entry.ends_topic}
        for topic in {entry.topic for entry in found.entries}:
            newest[topic] = max(newest.get(topic, 0), self.window.newest_event_of(topic))
        entries = [entry for entry in found.entries if newest[entry.topic] <= entry.offset]
        self.counters.superseded += len(found.entries) - len(entries)
        return self._slice(audience, entries, found.upto, found.gap)

    def count_sent(self, subscription: Subscription, found: Slice) -> None:
        """Count a slice that a subscription was sent."""
        self.counters.delivered += len(found.entries)
        self.counters.delivered_bytes += len(found.chunk)
        subscription.add(len(found.entries), len(found.chunk))

    def gap(self, reason: GapReason, after: str, resumed: int) -> Gap:
        """Return a gap of the current log, and count it."""
        self.counters.gaps[reason] += 1
        return Gap.create(reason, after, Cursor(self.window.epoch, resumed))


def _up_to_end(audience: Audience, entries: list[Entry]) -> list[Entry]:
    """Return the entries that an audience gets: those up to the one with which its streams end, if it has a form."""
    if audience.form is None:
        return entries
    for number, entry in enumerate(entries, 1):
        if audience.form.ends(entry.record):
            audience.end = entry.offset
            return entries[:number]
    return entries


def _size(entries: list[Entry]) -> int:
    return sum(len(entry.block) for entry in entries)


def _user_in_log(subscription: Subscription) -> str:
    """Return the user of a subscription as a log line has it; nothing if there is none."""
    return "" if subscription.user is None else _shorten(str(subscription.user))


def _origin_in_log(subscription: Subscription) -> str:
    """Return the user and the request of a subscription as the end of a log line; nothing if there are none."""
    user, request = _user_in_log(subscription), subscription.request
    return (f", user {user}" if user else "") + (f", request {request}" if request else "")


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_IN_LOG else text[:_LONGEST_IN_LOG] + "…"
