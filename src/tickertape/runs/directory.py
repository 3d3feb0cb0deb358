"""``Directory``: which runs there are, read from the log alike in every process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ..broker import LogState, Record
from ..hub import Hub
from ..wire import Cursor, PatternSet, compile_patterns, covers, overlap
from .records import (
    ALIVE,
    BEAT,
    CANCEL,
    CONTROL,
    END,
    EVENTS,
    NODES,
    READERS,
    START,
    RunInfo,
    RunState,
    offset_of,
    parse,
    parse_end,
)

logger = logging.getLogger("tickertape.runs")

PATIENCE: Final = 7.0
"""Seconds without a sign of life after which a producer counts as gone: three may be lost, or be late on a busy
machine. Readers are promised the end within 10 s."""

_ENDING: Final = 2.0
"""Seconds in which the process that replaces a run stores the end of the old one; then any process does."""

_SWEEP: Final = 1.0
"""Seconds between two searches for runs that can no longer be read."""

_PAGE: Final = 1_000
"""Records read at a time."""

_MAX_RUNS: Final = 100_000
"""Runs that are known at most. Beyond them, those that ended first are forgotten."""


@dataclass(slots=True)
class Entry:
    """A run, and what its producer and its readers need to know of it.

    Attributes:
        info: the value for users.
        node: the process of its producer; ``None`` for a producer outside, which sends signs of life of its own.
        nonce: tells the process that started it from those that joined.
        ttl: seconds for which it can be read after its end.
        policy: ``"continue"``, or ``"cancel"`` if it is to end when its readers have left.
        grace: seconds without readers after which it is cancelled.
        replaced: the run that this one has ended.
        cancelled: its end was asked for.
        end: the offset of its end, if that is stored.
        readers: the processes with readers.
        alive: when a producer outside gave its last sign of life, by the hub's clock.
    """

    info: RunInfo
    node: str | None
    nonce: str
    ttl: float
    policy: str
    grace: float
    replaced: RunInfo | None = None
    cancelled: bool = False
    end: int | None = None
    readers: set[str] = field(default_factory=set)
    alive: float = 0.0


class Directory:
    """All runs of a log, from the records of their life.

    Every process applies the same records in the same order and comes to the same result: which of two
    starts was first, and which end counts. What follows the log live and what reads it on demand both
    call :meth:`sync`, so a process that has just written a record sees it at once.

    Arguments:
        hub: the hub on whose log the runs are.
        changed: called with each entry that has begun, was cancelled or has ended, or whose readers changed.
    """

    def __init__(self, hub: Hub, changed: Callable[[Entry], None]) -> None:
        self._hub = hub
        self._changed = changed
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, list[Entry]] = {}  # those of each name that have begun, the oldest first
        self._active: dict[str, Entry] = {}  # of each name
        self._unended: dict[str, tuple[Entry, float]] = {}  # replaced, when, and their end is not stored yet
        self._swept = 0.0
        self._epoch = ""
        self._offset = 0
        self._lock = asyncio.Lock()
        self._beats: dict[str, float] = {}
        self._state = LogState("", 1, 0)
        self._discarded: dict[str, int] = {}  # topics with a mark of the log, as below
        self._rules: list[tuple[PatternSet, int]] = []  # rules that have dropped records of runs, and the newest offset
        self._over: deque[tuple[str, int]] = deque()  # topics to discard, and up to which offset

    def get(self, run: str) -> Entry | None:
        """Return the run with this id."""
        entry = self._entries.get(run)
        return entry if entry is not None and self._is_kept(entry) else None

    def latest(self, name: str) -> Entry | None:
        """Return the newest run of a name that has begun."""
        entries = self._names.get(name)
        return entries[-1] if entries and self._is_kept(entries[-1]) else None

    def at(self, name: str, cursor: Cursor) -> Entry | None:
        """Return the run of a name to which a position in the log belongs."""
        if cursor.epoch != self._epoch:
            return None
        begun = (entry for entry in reversed(self._names.get(name, ())) if offset_of(entry.info.run) <= cursor.offset)
        entry = next(begun, None)
        return entry if entry is not None and self._is_kept(entry) else None

    def active(self) -> list[Entry]:
        """Return all active runs, the oldest first."""
        return list(self._active.values())

    def entries(self) -> list[Entry]:
        """Return all runs that can be read, the oldest first."""
        return [entry for entry in self._entries.values() if self._is_kept(entry)]

    async def sync(self, upto: Cursor | None = None) -> None:
        """Read what the log has that is not known yet.

        Arguments:
            upto: a record of the log. Only what is not newer has to be known afterwards, so the log need not be asked
                if the hub has it in memory.

        Raises:
            HubClosedError: the hub is closed.
            BrokerError: the log cannot be read.
        """
        async with self._lock:
            if upto is not None and upto.epoch == self._epoch:
                recent = await self._hub.read_recent(self._offset, upto, _is_control)
                if recent is not None:
                    for record in recent:
                        self._apply(record)
                    self._offset = max(self._offset, upto.offset)
                    return
            while True:
                state, records = await self._hub.read(self._offset, _PAGE, _is_control)
                if state.epoch != self._epoch or state.newest < self._offset:
                    known = bool(self._epoch)
                    self._forget(state.epoch)
                    if known:
                        continue  # the page was read after an offset of another log
                self._note(state)
                for record in records:
                    self._apply(record)
                if len(records) < _PAGE:
                    self._offset = max(self._offset, state.newest)
                    break
            self._sweep()

    def _note(self, state: LogState) -> None:
        """Take the state of the log, in a form in which thousands of runs can be compared with it."""
        if state.dropped != self._state.dropped:
            topics = (f"{CONTROL}/**", f"{EVENTS}/**")
            covered = all(any(covers(pattern, topic) for pattern, _ in state.dropped if pattern) for topic in topics)
            self._discarded = {pattern: offset for pattern, offset in state.dropped if pattern and "*" not in pattern}
            self._rules = [
                (compile_patterns((pattern or "**",)), offset)
                for pattern, offset in state.dropped
                if (any(overlap(pattern, topic) for topic in topics) if pattern else not covered)
            ]
        self._state = state

    def _keeps(self, topic: str, after: int) -> bool:
        """Return whether no record of a topic after an offset was dropped."""
        return (
            after >= self._state.oldest - 1
            and self._discarded.get(topic, 0) <= after
            and not any(offset > after and matches(topic) for matches, offset in self._rules)
        )

    def is_whole(self, info: RunInfo) -> bool:
        """Return whether the log keeps all events of a run."""
        return self._keeps(info.topic, offset_of(info.run))

    def take_over(self, limit: int) -> list[tuple[str, Cursor]]:
        """Return topics of runs that can no longer be read, each with its newest record, and forget them."""
        taken = [self._over.popleft() for _ in range(min(limit, len(self._over)))]
        return [(topic, Cursor(self._epoch, offset)) for topic, offset in taken]

    async def follow(self) -> None:
        """Apply records as they come, until it is cancelled."""
        while True:
            await self.sync()
            at = str(Cursor(self._epoch, self._offset))
            async with self._hub.subscribe([f"{CONTROL}/**", f"{NODES}/*"], last_event_id=at) as output:
                while (found := await output.next_slice()) is not None:
                    await self.sync(output.cursor if found.gap is None else None)
            if self._hub.draining:
                return

    def alive(self) -> None:
        """Count all producers as alive now: after a time in which the log could not be followed."""
        now = self._hub.clock.time()
        self._beats = dict.fromkeys(self._beats, now)
        for entry in self._active.values():
            entry.alive = now

    def silent(self) -> list[Entry]:
        """Return the active runs whose producers have given no sign of life for too long."""
        now = self._hub.clock.time()
        return [entry for entry in self._active.values() if now >= self._seen(entry, now) + PATIENCE]

    def silent_in(self) -> float:
        """Return the seconds until the next producer counts as gone, if it stays silent."""
        now = self._hub.clock.time()
        return min((self._seen(entry, now) + PATIENCE - now for entry in self._active.values()), default=PATIENCE)

    def unended(self) -> list[Entry]:
        """Return the runs that were replaced and whose end is not stored: the process that had to do so is gone."""
        now = self._hub.clock.time()
        return [entry for entry, since in self._unended.values() if now - since > _ENDING]

    def _seen(self, entry: Entry, now: float) -> float:
        return entry.alive if entry.node is None else self._beats.setdefault(entry.node, now)

    def _forget(self, epoch: str) -> None:
        self._epoch, self._offset = epoch, 0
        for entry in [*self._active.values()]:
            entry.info = replace(entry.info, state=RunState.ORPHANED)
            self._changed(entry)
        for known in (self._entries, self._names, self._active, self._unended, self._beats, self._over):
            known.clear()

    def _is_kept(self, entry: Entry) -> bool:
        """Return whether a run can be read: it is active, or its end is in the log and its time is not over."""
        ended = entry.info.ended
        over = ended is not None and time.time() > ended + entry.ttl
        if over or entry.end is None:
            return not over
        # The record of the end is still there, and not all of the events are gone.
        return self._keeps(f"{CONTROL}/{entry.info.name}", entry.end - 1) and self._keeps(entry.info.topic, entry.end)

    def _sweep(self) -> None:
        """Forget runs that can no longer be read or are too many, and processes that are silent."""
        now = self._hub.clock.time()
        if now < self._swept + _SWEEP:
            return
        self._swept = now
        over = len(self._entries) - _MAX_RUNS
        for run, entry in [*self._entries.items()]:
            if not entry.info.active and (over > 0 or not self._is_kept(entry)):
                over -= 1
                del self._entries[run]
                self._discard(entry)
                if entry.info.state is not RunState.REFUSED:
                    self._names[entry.info.name].remove(entry)
                    if not self._names[entry.info.name]:
                        del self._names[entry.info.name]
        known = {entry.node for entry in self._active.values()}
        known.update(*(entry.readers for entry in self._active.values()))
        self._beats = {node: at for node, at in self._beats.items() if node in known or now - at <= PATIENCE}

    def _discard(self, entry: Entry) -> None:
        """Note the topics of a run that can no longer be read, so that its records are removed."""
        if entry.end is None:
            return
        if entry.info.state is not RunState.REFUSED:
            self._over.append((entry.info.topic, entry.end + 1))  # the end is stored twice, next to each other
        others = (other for other in self._names.get(entry.info.name, ()) if other is not entry)
        begun = min((offset_of(other.info.run) for other in others), default=entry.end + 1)
        self._over.append((f"{CONTROL}/{entry.info.name}", min(entry.end, begun - 1)))

    def _apply(self, record: Record) -> None:
        if record.offset <= self._offset:
            return
        self._offset = record.offset
        fields = parse(record.data)
        if record.topic.startswith(f"{NODES}/"):
            if record.event == BEAT:
                self._beats[record.topic.partition("/")[2]] = self._hub.clock.time()
            return
        if record.event == START:
            self._start(record, fields)
            return
        entry = self._entries.get(str(fields.get("run")))
        if entry is None:
            return
        if record.event == END and (entry.info.active or entry.info.run in self._unended):
            end = parse_end(record.data, "")
            self._end(entry, end.state, end.error, _number(fields.get("ended"), time.time()), record.offset)
        elif record.event == CANCEL and entry.info.active:
            entry.cancelled = True
            self._changed(entry)
        elif record.event == READERS:
            node = str(fields.get("node"))
            (entry.readers.add if fields.get("here") else entry.readers.discard)(node)
            self._beats[node] = self._hub.clock.time()
            self._changed(entry)
        elif record.event == ALIVE:
            entry.alive = self._hub.clock.time()

    def _start(self, record: Record, fields: dict[str, Any]) -> None:
        name = record.topic.partition("/")[2]
        key, owner, node = (fields.get(field) for field in ("key", "owner", "node"))
        started = _number(fields.get("started"), time.time())
        info = RunInfo(
            name=name,
            run=f"{self._epoch}-{record.offset}",
            state=RunState.ACTIVE,
            key=key if isinstance(key, str) else None,
            owner=owner if isinstance(owner, str) else None,
            started=started,
        )
        entry = Entry(
            info,
            node if isinstance(node, str) else None,
            str(fields.get("nonce")),
            _number(fields.get("ttl"), 0.0),
            str(fields.get("on_disconnect")),
            _number(fields.get("grace"), 0.0),
            alive=self._hub.clock.time(),
        )
        if entry.node is not None:
            self._beats[entry.node] = entry.alive
        self._entries[info.run] = entry
        before = self._active.get(name)
        if before is not None and not (fields.get("replace") and before.info.owner == info.owner):
            entry.info = replace(info, state=RunState.REFUSED, ended=started)
            entry.end = record.offset
            return
        if before is not None:
            entry.replaced = before.info
            self._end(before, RunState.CANCELLED, None, started, None)
            self._unended[before.info.run] = before, entry.alive
        self._active[name] = entry
        self._names.setdefault(name, []).append(entry)
        self._changed(entry)

    def _end(self, entry: Entry, state: RunState, error: str | None, ended: float, offset: int | None) -> None:
        entry.info = replace(entry.info, state=state, error=error, ended=ended)
        entry.end = offset
        self._unended.pop(entry.info.run, None)
        if self._active.get(entry.info.name) is entry:
            del self._active[entry.info.name]
        self._changed(entry)

    def readers_of(self, entry: Entry) -> int:
        """Return the number of processes that have readers of a run, without those that are gone."""
        now = self._hub.clock.time()
        return sum(now - self._beats.get(node, now) <= PATIENCE for node in entry.readers)


def _is_control(topic: str) -> bool:
    return topic.startswith((f"{CONTROL}/", f"{NODES}/"))


def _number(value: object, default: float) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else default
