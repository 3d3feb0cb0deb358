"""Both event sources behind one function, with a clock that does not wait, so that they run the same cases."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, cast

import httpx2

from tickertape import ServerSentEvent
from tickertape.client import Closed, EventSource, Gap, Opened, Reconnecting, State, Statistics, SyncEventSource
from tickertape.testing import FakeClock
from tickertape.timing import Timer

__all__ = ["PublisherClock", "Run", "Shell", "Source", "SourceClock", "run"]

PATIENCE: Final = 30.0
"""Seconds. A source that hangs fails the test after this time."""

Shell: TypeAlias = Literal["async", "sync"]
LIMITS: Final = httpx2.Limits(max_keepalive_connections=0)  # a script serves one request
TLS: Final = ssl.create_default_context()

Take: TypeAlias = Callable[[ServerSentEvent], object]
Client: TypeAlias = httpx2.AsyncClient | httpx2.Client
Source: TypeAlias = EventSource | SyncEventSource
Notice: TypeAlias = Opened | Gap | Reconnecting | Closed


class SourceClock(FakeClock):
    """A clock whose time passes only where a source waits for another attempt.

    A source sets a timer for the deadline of each step. It never sleeps, because :meth:`skip` advances the clock first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.expire = False
        """Make each deadline pass at once."""
        self.slept: list[float] = []
        self.deadlines: list[float] = []
        self.on_sleep: Callable[[], None] = lambda: None

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Timer:
        seconds = when - self.time()
        self.deadlines.append(seconds)
        timer = super().call_at(when, callback, *args)
        if self.expire:
            self.advance(seconds)
        return timer

    def skip(self, notice: Reconnecting) -> None:
        """Skip the time until the next attempt; a hook ``on_reconnecting``."""
        self.slept.append(notice.delay)
        self.advance(notice.delay)
        self.on_sleep()


class PublisherClock(FakeClock):
    """A clock that advances to each timer at once."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Timer:
        self.slept.append(when - self.time())
        timer = super().call_at(when, callback, *args)
        self.advance(when - self.time())
        return timer


@dataclass
class Run:
    """The result of a run of a source."""

    clock: SourceClock
    events: list[ServerSentEvent] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    error: Exception | None = None
    last_event_id: str | None = None
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
    each: Callable[[ServerSentEvent, Source, SourceClock], object] = lambda event, source, clock: None,
    before: Callable[[Source, SourceClock], None] = lambda source, clock: None,
    **options: Any,
) -> Run:
    """Iterate a source to its end, in either shell.

    Arguments:
        each: called in the body of the loop, and awaited there if it returns an awaitable. Its exceptions end the run,
            and are raised.
        before: called before the loop.
        options: of the source.
    """
    clock = SourceClock()
    result = Run(clock)
    hooks: dict[str, Any] = dict.fromkeys(("on_open", "on_gap", "on_closed"), result.notices.append)

    def on_reconnecting(notice: Reconnecting) -> None:
        result.notices.append(notice)
        clock.skip(notice)

    # One of the test's: to make a TLS context takes longer than most of the tests do.
    made: type[Client] = httpx2.AsyncClient if shell == "async" else httpx2.Client
    client = made(verify=TLS, limits=LIMITS)
    hooks["on_reconnecting"] = on_reconnecting
    options = {"client": client, "clock": clock, "random": lambda: 1.0, **hooks, **options}
    source: Source = EventSource(url, **options) if shell == "async" else SyncEventSource(url, **options)
    before(source, clock)

    def take(event: ServerSentEvent) -> object:
        result.events.append(event)
        return each(event, source, clock)

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
        result.last_event_id, result.state, result.statistics = source.last_event_id, source.state, source.statistics()
    return result


async def _iterate_async(client: httpx2.AsyncClient, source: EventSource, take: Take) -> None:
    async with client, asyncio.timeout(PATIENCE):
        async with source:
            async for event in source:
                if inspect.isawaitable(awaited := take(event)):
                    await awaited
        assert not client.is_closed, "the client is the user's"


def _iterate(client: httpx2.Client, source: SyncEventSource, take: Take) -> None:
    with client:
        with source:
            for event in source:
                take(event)
        assert not client.is_closed, "the client is the user's"
