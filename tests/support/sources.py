"""Both event sources behind one function, with clocks that do not wait, so that they run the same cases."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, cast

import httpx2

from tickertape import ServerSentEvent
from tickertape.client import Closed, EventSource, Gap, Opened, Reconnecting, State, Statistics, SyncEventSource

__all__ = ["FakeClock", "Run", "Shell", "Source", "run"]

PATIENCE: Final = 30.0
"""Seconds after which a source that waits in vain is given up: it turns a hang into a failure."""

Shell: TypeAlias = Literal["async", "sync"]
LIMITS: Final = httpx2.Limits(max_keepalive_connections=0)  # a script serves one request
TLS: Final = ssl.create_default_context()

Take: TypeAlias = Callable[[ServerSentEvent], None]
Client: TypeAlias = httpx2.AsyncClient | httpx2.Client
Source: TypeAlias = EventSource | SyncEventSource
Notice: TypeAlias = Opened | Gap | Reconnecting | Closed


@dataclass
class FakeClock:
    """A clock that stands still but for the sleeps, and that a test tells when a deadline passes."""

    time: float = 1000.0
    date: float = 1_700_000_000.0
    expire: bool = False
    """Whether what waits with a deadline has waited for too long already."""
    slept: list[float] = field(default_factory=list)
    deadlines: list[float | None] = field(default_factory=list)
    on_sleep: Callable[[], None] = lambda: None

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.date

    def pass_by(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        self.on_sleep()


class FakeAsyncClock(FakeClock):
    async def sleep(self, seconds: float) -> None:
        self.pass_by(seconds)
        await asyncio.sleep(0)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[Any]:
        self.deadlines.append(seconds)
        return asyncio.timeout(0 if self.expire and seconds is not None else None)


class FakeSyncClock(FakeClock):
    def sleep(self, seconds: float, wake: threading.Event) -> None:
        self.pass_by(seconds)

    @contextmanager
    def watch(self, seconds: float | None, expired: Callable[[], None]) -> Iterator[None]:
        self.deadlines.append(seconds)
        if self.expire and seconds is not None:
            expired()
        yield

    def rest(self) -> None:
        pass


@dataclass
class Run:
    """What came of a run of a source."""

    clock: FakeClock
    events: list[ServerSentEvent] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    error: Exception | None = None
    place: str | None = None
    state: State | None = None
    statistics: Statistics | None = None

    @property
    def data(self) -> list[str | None]:
        return [event.data for event in self.events]

    @property
    def reasons(self) -> list[str]:
        return [notice.reason for notice in self.notices if isinstance(notice, Reconnecting)]


def run(
    shell: Shell,
    url: str,
    *,
    each: Callable[[ServerSentEvent, Source, FakeClock], None] = lambda event, source, clock: None,
    before: Callable[[Source, FakeClock], None] = lambda source, clock: None,
    **options: Any,
) -> Run:
    """Iterate a source to its end, in either shell.

    Arguments:
        each: called in the body of the loop; its exceptions end the run and are raised.
        before: called before the loop.
        options: of the source.
    """
    clock = FakeAsyncClock() if shell == "async" else FakeSyncClock()
    result = Run(clock)
    hooks = dict.fromkeys(("on_open", "on_gap", "on_reconnecting", "on_closed"), result.notices.append)
    # One of the test's: to make a TLS context takes longer than most of the tests do.
    made: type[Client] = httpx2.AsyncClient if shell == "async" else httpx2.Client
    client = made(verify=TLS, limits=LIMITS)
    options = {"client": client, "clock": clock, "random": lambda: 1.0, **hooks, **options}
    source: Source = EventSource(url, **options) if shell == "async" else SyncEventSource(url, **options)
    before(source, clock)

    def take(event: ServerSentEvent) -> None:
        result.events.append(event)
        each(event, source, clock)

    try:
        if isinstance(client, httpx2.AsyncClient):
            asyncio.run(_iterate_async(client, cast("EventSource", source), take))
        else:
            _iterate(client, cast("SyncEventSource", source), take)
    except Exception as error:
        result.error = error
        if not any(isinstance(notice, Closed) and notice.error is error for notice in result.notices):
            raise
    finally:
        result.place, result.state, result.statistics = source.last_event_id, source.state, source.statistics()
    return result


async def _iterate_async(client: httpx2.AsyncClient, source: EventSource, take: Take) -> None:
    async with client, asyncio.timeout(PATIENCE):
        async with source:
            async for event in source:
                take(event)
        assert not client.is_closed, "the client is the user's"


def _iterate(client: httpx2.Client, source: SyncEventSource, take: Take) -> None:
    with client:
        with source:
            for event in source:
                take(event)
        assert not client.is_closed, "the client is the user's"
