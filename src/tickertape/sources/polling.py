"""``Poll``: the rows of a query, as they appear."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from ..hub import Batch, Field, field_reader
from ..threads import call_in_thread
from ..timing import Clock, backoff, check_seconds, sleep

logger = logging.getLogger("tickertape.sources")

Query: TypeAlias = Callable[[Any], Iterable[Any] | Awaitable[Iterable[Any]]]
"""Returns the rows after a position, in order. A function that is not async runs in a thread."""

DEFAULT_EVERY: Final = 1.0
"""Seconds between two queries that find nothing: soon enough for users, rare enough for a database."""

DEFAULT_FALLBACK: Final = 1.0
"""Seconds between two queries while the wake-up fails."""

_PAUSE: Final = 1.0
"""Seconds until a wake-up that failed is tried again. The pause doubles with each failure in a row."""

_LONGEST_PAUSE: Final = 8.0
"""Seconds between such attempts, at most. The query is repeated between them."""


@runtime_checkable
class Wake(Protocol):
    """Reports that there may be new rows, and when it starts to listen."""

    def wakes(self) -> AsyncIterator[object]:
        """Yield anything once it listens, and each time that there may be new rows.

        Raises:
            Exception: it no longer listens. It is asked for another iterator after a pause.
        """


class Poll:
    """A source of the rows that a query finds: new rows, or rows that have changed.

    ::

        def new_orders(position):
            with sqlite3.connect("shop.db") as database:
                database.row_factory = sqlite3.Row
                return database.execute(
                    "SELECT * FROM orders WHERE id > ? ORDER BY id LIMIT 500", [position or 0]
                ).fetchall()

        hub.feed("orders", Poll(new_orders, every=1.0), key="id", data=dict)

    While the query finds rows, it is repeated at once; else after ``every`` seconds, or when it is woken up.
    The rows of one query are published together and held in memory, so give the query a limit.
    One feed reads a poll. If it reads it again, the poll continues where it was.

    Arguments:
        query: a function of a position that returns the rows after it, in order. If it is not async, it runs in a
            thread (open the connection in it, or use a pool).
        every: seconds between two queries that find nothing.
        position: the position of a row: the name of a field, or a function of the row. The next query gets the
            position of the last row.
        after: the first position, or a function, async or not, that loads it. With ``None``, the query
            chooses where to begin.
        save: a function, async or not, that is called with a position when the rows up to it are in the
            log. Without it, a new process begins with ``after`` again. If the process dies before
            ``save``, rows are published again, and their keys make them appear once.
        wake: reports that there may be new rows: :func:`postgres_listen`, or any async iterable. Then
            ``every`` is only a safety net: make it 30 seconds, for example.
        fallback: seconds between two queries while ``wake`` fails. ``wake`` is retried, and when it listens again,
            the query is repeated at once.
        clock: the clock of all pauses; by default the event loop.
        random: returns numbers from 0 to 1, for the jitter of retries.

    **Choose the position carefully.** A row that becomes visible with a position before the current one is
    never found. SQLite has one writer, and an id of ``INTEGER PRIMARY KEY AUTOINCREMENT`` is safe. In PostgreSQL an
    id of a sequence is *not* safe: it is taken before the commit, so of two transactions the one with the
    smaller id may commit later, after the greater id was seen. A time is not safe either. Order by the transaction
    instead, and read only rows that no open transaction can precede::

        ALTER TABLE orders ADD COLUMN xact xid8 NOT NULL DEFAULT pg_current_xact_id();
        CREATE INDEX ON orders (xact, id);

        SELECT *, xact::text::bigint AS x FROM orders
        WHERE (xact, id) > (%s::text::xid8, %s) AND xact < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY xact, id LIMIT 500

    with ``position=lambda row: (row.x, row.id)``. An open transaction then delays the rows of later ones until
    the next query after its end. Nothing reports that end, so let ``every`` be a few seconds.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number of seconds is not positive.
    """

    def __init__(
        self,
        query: Query,
        *,
        every: float = DEFAULT_EVERY,
        position: Field = "id",
        after: Any = None,
        save: Callable[[Any], Any] | None = None,
        wake: Wake | AsyncIterable[object] | None = None,
        fallback: float = DEFAULT_FALLBACK,
        clock: Clock | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        for name, function in (("query", query), ("save", save)):
            if function is not None and not callable(function):
                raise TypeError(f"expected {name} to be a function, got {function!r}")
        for name, seconds in (("every", every), ("fallback", fallback)):
            check_seconds(name, seconds, above=0)
        if wake is not None and not isinstance(wake, Wake) and not hasattr(wake, "__aiter__"):
            raise TypeError(f"expected wake to be postgres_listen(…) or an async iterable, got {wake!r}")
        self._query = query
        self._every = every
        self._fallback = min(every, fallback)
        self._position_of = field_reader(position)
        self._after = after
        self._save = save
        self._wake = wake
        self._clock = clock
        self._random = random
        self._position: Any = None
        self._loaded = False  # False until the first position is known
        self._loop: asyncio.AbstractEventLoop | None = None  # while it is read
        self._news = asyncio.Event()
        self._deaf = False  # True while the wake-up fails

    def __repr__(self) -> str:
        name = getattr(self._query, "__qualname__", repr(self._query))
        return f"<Poll {name} after {self._position!r}>"

    def wake(self) -> None:
        """Repeat the query now: there may be new rows. Call it from any thread; an idle source ignores it."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._news.set)

    async def __aiter__(self) -> AsyncGenerator[Batch[Any], None]:
        if self._loop is not None:
            raise RuntimeError("a poll is read by one feed: make another poll")
        loop = self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        clock = self._clock or loop
        listening = None if self._wake is None else loop.create_task(self._listen(self._wake, clock))
        try:
            while True:
                self._news.clear()
                rows = await self._find()
                if rows:
                    position = self._position_after(rows)
                    yield rows
                    if self._save is not None:  # the rows are stored: the feed asks for more
                        await call(self._save, position)
                    self._position = position
                else:
                    await sleep(clock, self._fallback if self._deaf else self._every, self._news)
        finally:
            self._loop = None
            if listening is not None:
                listening.cancel()
                await asyncio.wait([listening])

    async def _find(self) -> Batch[Any]:
        if not self._loaded:
            self._position = await call(self._after) if callable(self._after) else self._after
            self._loaded = True
        rows = await call(self._query, self._position)
        if rows is None or isinstance(rows, str | bytes):
            raise TypeError(f"expected the query to return rows, got {rows!r}")
        return Batch(rows)

    def _position_after(self, rows: Batch[Any]) -> Any:
        position = self._position_of(rows[-1])
        if position == self._position:
            raise ValueError(f"expected rows after the position {position!r}, got rows that end with it")
        return position

    async def _listen(self, wake: Wake | AsyncIterable[object], clock: Clock) -> None:
        failures = 0
        while True:
            # Only a `Wake` reports when it starts to listen; any other iterable is assumed to listen at once.
            self._deaf = isinstance(wake, Wake)
            self._news.set()
            try:
                async for _ in wake.wakes() if isinstance(wake, Wake) else wake:
                    self._deaf = False
                    failures = 0
                    self._news.set()
                reason = "it ended"
            except Exception as error:
                reason = str(error) or type(error).__name__
            failures += 1
            self._deaf = True
            self._news.set()  # ends a pause of `every`, which is too long without a wake-up
            logger.warning(
                "the wake-up of %r failed, polling every %g s until it is back: %s", self, self._fallback, reason
            )
            await sleep(clock, backoff(failures, self._random, first=_PAUSE, cap=_LONGEST_PAUSE))


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, in a thread unless it is async, and await its result if that is awaitable."""
    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    result = await call_in_thread(function, *arguments)
    return await result if inspect.isawaitable(result) else result
