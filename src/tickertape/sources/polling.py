"""``poll``: the rows of a query, as they come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from ..hub import Batch, Field, field_reader
from ..timing import Clock, sleep
from .threads import call

__all__ = ["DEFAULT_EVERY", "DEFAULT_FALLBACK", "Poll", "Query", "Wake", "poll"]

logger = logging.getLogger("tickertape.sources")

Query: TypeAlias = Callable[[Any], Iterable[Any] | Awaitable[Iterable[Any]]]
"""What returns the rows behind a position, in order; a plain function runs in a thread."""

DEFAULT_EVERY: Final = 1.0
"""Seconds between two queries that find nothing: what a user does not call late, and a database does not feel."""

DEFAULT_FALLBACK: Final = 1.0
"""Seconds between two queries while nobody would wake us up."""

_PAUSE: Final = 1.0
"""Seconds until what wakes us up is listened to again; twice as many after each failure in a row."""

_LONGEST_PAUSE: Final = 8.0
"""Seconds between such attempts, at most: queries go on meanwhile."""


@runtime_checkable
class Wake(Protocol):
    """What tells that there may be new rows."""

    def wakes(self) -> AsyncIterator[object]:
        """Give something as soon as it listens, and each time that there may be news.

        Raises:
            Exception: it hears nothing any more; it is asked for another iterator after a moment.
        """


def poll(
    query: Query,
    *,
    every: float = DEFAULT_EVERY,
    position: Field = "id",
    after: Any = None,
    save: Callable[[Any], Any] | None = None,
    wake: Wake | AsyncIterable[object] | None = None,
    fallback: float = DEFAULT_FALLBACK,
    clock: Clock | None = None,
) -> Poll:
    """Return a source of the rows that a query finds: new rows, or those that have changed.

    ::

        def new_orders(position):
            with sqlite3.connect("shop.db") as database:
                database.row_factory = sqlite3.Row
                return database.execute(
                    "SELECT * FROM orders WHERE id > ? ORDER BY id LIMIT 500", [position or 0]
                ).fetchall()

        hub.feed("orders", poll(new_orders, every=1.0), key="id", data=dict)

    While the query finds rows, it is asked again at once; else after ``every`` seconds, or when it
    is woken up. What it returns is published together, and is held in memory: let it have a limit.

    Arguments:
        query: a function of a position, that returns the rows behind it, in order: an async one, or a
            plain one, which runs in a thread (open the connection in it, or use a pool).
        every: seconds between two queries that find nothing.
        position: what gives a row's position: the name of a field, or a function of the row. The
            next query gets that of the last row.
        after: the first position, or a function, plain or async, that loads it. ``None`` makes the
            query begin where it likes.
        save: a function, plain or async, that is called with a position when the rows up to it are
            in the log. Without it, a process that starts begins ``after`` again. If the process dies
            before it is called, rows are published again, and their keys make them appear once.
        wake: what tells that there may be new rows: :func:`postgres_listen`, or any async iterable.
            ``every`` is the safety net then, of 30 seconds, say.
        fallback: seconds between two queries while ``wake`` fails. It is tried again by itself, and
            when it is back, the query is asked at once.
        clock: where timers are set; by default the event loop.

    **Which position.** A row that becomes visible behind the position is never found. In SQLite there is
    one writer, and an id of ``INTEGER PRIMARY KEY AUTOINCREMENT`` is safe. In PostgreSQL an id of a
    sequence is *not*: it is taken before the commit, so that of two transactions the one with the smaller
    id may commit later, after the greater id was seen. Nor is a time. Order by the transaction instead, and
    read only what no open transaction can come before::

        ALTER TABLE orders ADD COLUMN xact xid8 NOT NULL DEFAULT pg_current_xact_id();
        CREATE INDEX ON orders (xact, id);

        SELECT *, xact::text::bigint AS x FROM orders
        WHERE (xact, id) > (%s::text::xid8, %s) AND xact < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY xact, id LIMIT 500

    with ``position=lambda row: (row.x, row.id)``. A transaction that stays open delays what came after it,
    then, until the next query behind its end, of which nothing tells: let ``every`` be a few seconds.

    Raises:
        TypeError: an argument is not what it should be.
        ValueError: seconds that are not positive.
    """
    return Poll(
        query, every=every, position=position, after=after, save=save, wake=wake, fallback=fallback, clock=clock
    )


class Poll:
    """A source of rows; made by :func:`poll`. It is read by one feed, and goes on where it was when read anew."""

    def __init__(
        self,
        query: Query,
        *,
        every: float,
        position: Field,
        after: Any,
        save: Callable[[Any], Any] | None,
        wake: Wake | AsyncIterable[object] | None,
        fallback: float,
        clock: Clock | None,
    ) -> None:
        for name, function in (("query", query), ("save", save)):
            if function is not None and not callable(function):
                raise TypeError(f"expected {name} to be a function, got {function!r}")
        for name, seconds in (("every", every), ("fallback", fallback)):
            if not 0 < seconds < float("inf"):
                raise ValueError(f"expected {name} to be a positive number of seconds, got {seconds!r}")
        if wake is not None and not isinstance(wake, Wake) and not hasattr(wake, "__aiter__"):
            raise TypeError(f"expected wake to be postgres_listen(…) or an async iterable, got {wake!r}")
        self._query = query
        self._every = every
        self._fallback = min(every, fallback)
        self._read = field_reader(position)
        self._after = after
        self._save = save
        self._wake = wake
        self._clock = clock
        self._position: Any = None
        self._known = False  # whether the position is, or is still to be loaded
        self._loop: asyncio.AbstractEventLoop | None = None  # while it is read
        self._news = asyncio.Event()
        self._deaf = False

    def __repr__(self) -> str:
        name = getattr(self._query, "__qualname__", repr(self._query))
        return f"<Poll {name} behind {self._position!r}>"

    def wake(self) -> None:
        """Ask the query now: there may be new rows. From any thread, and without effect while nobody reads."""
        if self._loop is not None:
            with suppress(RuntimeError):  # a loop that is closed
                self._loop.call_soon_threadsafe(self._news.set)

    async def __aiter__(self) -> AsyncGenerator[Batch[Any], None]:
        if self._loop is not None:
            raise RuntimeError("expected a poll that is read by one feed, got a second reader: make another poll")
        loop = self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        clock = self._clock or loop
        listening = None if self._wake is None else loop.create_task(self._listen(self._wake, clock))
        try:
            while True:
                self._news.clear()
                rows = await self._ask()
                if rows:
                    position = self._behind(rows)
                    yield rows
                    if self._save is not None:  # stored: what comes behind a `yield` is an acknowledgement
                        await call(self._save, position)
                    self._position = position
                else:
                    await sleep(clock, self._fallback if self._deaf else self._every, self._news)
        finally:
            self._loop = None
            if listening is not None:
                listening.cancel()
                await asyncio.wait([listening])

    async def _ask(self) -> Batch[Any]:
        if not self._known:
            self._position = await call(self._after) if callable(self._after) else self._after
            self._known = True
        rows = await call(self._query, self._position)
        if rows is None or isinstance(rows, str | bytes):
            raise TypeError(f"expected rows of the query, got {rows!r}")
        return Batch(rows)

    def _behind(self, rows: Batch[Any]) -> Any:
        position = self._read(rows[-1])
        if position == self._position:
            raise ValueError(f"expected rows behind the position {position!r}, got some that end there")
        return position

    async def _listen(self, wake: Wake | AsyncIterable[object], clock: Clock) -> None:
        pause = _PAUSE
        while True:
            # What has no word for it listens, we assume, as soon as it is asked.
            self._deaf = isinstance(wake, Wake)
            self._news.set()
            try:
                async for _ in wake.wakes() if isinstance(wake, Wake) else wake:
                    self._deaf = False
                    pause = _PAUSE
                    self._news.set()
                reason = "it has ended"
            except Exception as error:
                reason = str(error) or type(error).__name__
            self._deaf = True
            self._news.set()  # or it would wait for what is no safety net any more
            logger.warning("nothing wakes %r, which asks every %g s meanwhile: %s", self, self._fallback, reason)
            await sleep(clock, pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
