"""Streams that record every event, and publishers that record every acknowledgement."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple, Self

import httpx2

from support.program import Serve
from support.servers import Connection
from tickertape import ServerSentEvent

__all__ = ["PATIENCE", "Publisher", "Refusal", "Stream", "ask", "eventually", "history", "publishing"]

PATIENCE: Final = 30.0
"""Seconds until a test fails that waits for something; on an idle machine it takes a few."""

PACE: Final = 0.01
"""Seconds between two events of a publisher: the tests are about their fate, not their number."""


async def eventually(condition: Callable[[], bool], expected: Callable[[], str]) -> None:
    """Wait until ``condition`` is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"expected {expected()}"
        await asyncio.sleep(0.02)


class Stream:
    """A stream whose events are recorded as they arrive; an async context manager.

    Arguments:
        hub: the program.
        query: the query of the request.
        last_event_id: the cursor to resume after.
        version: the version of HTTP; with 1.0 the hub uses the portable delivery.

    Attributes:
        events: the events so far, without comments.
        heartbeats: the number of comments so far.
    """

    def __init__(self, hub: Serve, query: str, *, last_event_id: str | None = None, version: str = "1.1") -> None:
        self.events: list[ServerSentEvent] = []
        self.heartbeats = 0
        self._hub = hub
        self._path = f"/events?{query}"
        self._headers = "" if last_event_id is None else f"Last-Event-ID: {last_event_id}\r\n"
        self._version = version
        self._connection: Connection | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._connection = await Connection.open(self._hub.port)
        assert await self._connection.get(self._path, version=self._version, headers=self._headers) == 200
        self._reading = asyncio.create_task(self._read(self._connection))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._reading is not None
        assert self._connection is not None
        self._reading.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self._reading
        await self._connection.close()

    async def _read(self, connection: Connection) -> None:
        while True:
            event = await connection.event()
            if event.comment is None:
                self.events.append(event)
            else:
                self.heartbeats += 1

    @property
    def open(self) -> bool:
        """True until the stream ends, or fails after a long silence."""
        return self._reading is not None and not self._reading.done()

    @property
    def cursors(self) -> list[str | None]:
        """The ids of the events."""
        return [event.id for event in self.events]

    async def has(self, count: int) -> None:
        """Wait until a number of events have arrived."""
        await self._until(lambda: len(self.events) >= count, f"{count} events")

    async def reaches(self, cursor: str) -> None:
        """Wait until the event with a cursor has arrived."""
        await self._until(lambda: self.cursors[-1:] == [cursor], f"an event {cursor}")

    async def beats(self, count: int = 2) -> None:
        """Wait until some more heartbeats have arrived."""
        until = self.heartbeats + count
        await self._until(lambda: self.heartbeats >= until, f"{until} heartbeats")

    async def _until(self, condition: Callable[[], bool], expected: str) -> None:
        assert self._reading is not None
        reading = self._reading
        await eventually(
            lambda: condition() or reading.done(),
            lambda: (
                f"{expected}, got {self.heartbeats} heartbeats and {self.cursors[-3:]}:\n{self._hub.output[-3000:]}"
            ),
        )
        if not condition():
            raise AssertionError(
                f"expected {expected}, got the end:\n{self._hub.output[-3000:]}"
            ) from reading.exception()


class Refusal(NamedTuple):
    """An error response to a publish.

    Attributes:
        problem: the body.
        seconds: the time until the response.
    """

    problem: dict[str, Any]
    seconds: float


class Publisher:
    """Publishes numbered events with keys, and repeats each until it is acknowledged.

    Attributes:
        acknowledged: the cursors, by the event's data.
        refusals: all error responses.
    """

    def __init__(self, hub: Serve, name: str, topic: str = "t") -> None:
        self.name = name
        self.acknowledged: dict[str, str] = {}
        self.refusals: list[Refusal] = []
        self._url = f"{hub.url}events/{topic}"
        self._stopped = False

    async def run(self) -> None:
        """Publish until :meth:`stop` is called; the last event is acknowledged too."""
        async with httpx2.AsyncClient(timeout=PATIENCE) as client:
            while not self._stopped:
                data = f"{self.name} {len(self.acknowledged) + 1}"
                while not await self._publish(client, data):  # noqa: ASYNC110 - each check is a request
                    await asyncio.sleep(5 * PACE)
                await asyncio.sleep(PACE)

    async def _publish(self, client: httpx2.AsyncClient, data: str) -> bool:
        start = time.monotonic()
        answer = await client.post(self._url, content=data, params={"key": data})
        if answer.status_code == 201:
            self.acknowledged[data] = answer.json()["cursor"]
            return True
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        assert answer.status_code == 503, answer.text
        assert "retry-after" in answer.headers
        self.refusals.append(Refusal(answer.json(), time.monotonic() - start))
        return False

    def stop(self) -> None:
        """Stop after the current event."""
        self._stopped = True

    async def continues(self, count: int = 3) -> None:
        """Wait until some more events are acknowledged."""
        until = len(self.acknowledged) + count
        await eventually(lambda: len(self.acknowledged) >= until, lambda: f"{until} events, got {self.refusals[-1:]}")

    async def is_refused(self) -> None:
        """Wait until one more event is refused."""
        until = len(self.refusals) + 1
        await eventually(lambda: len(self.refusals) >= until, lambda: "a refusal, got none")


@asynccontextmanager
async def publishing(hub: Serve, count: int = 3) -> AsyncIterator[list[Publisher]]:
    """Run publishers during the block; at its end, all their events are acknowledged."""
    publishers = [Publisher(hub, f"publisher {number}") for number in range(count)]
    tasks = [asyncio.create_task(publisher.run()) for publisher in publishers]
    try:
        yield publishers
        for publisher in publishers:
            publisher.stop()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def ask(hub: Serve, path: str) -> tuple[int, Any]:
    """Return the status and the JSON of a response."""
    async with httpx2.AsyncClient(timeout=PATIENCE) as client:
        answer = await client.get(hub.url + path)
        return answer.status_code, answer.json()


async def history(hub: Serve, topic: str = "t") -> list[tuple[str, str]]:
    """Return cursor and data of all kept events of a topic."""
    found: list[tuple[str, str]] = []
    while True:
        after = f"&after={found[-1][0]}" if found else ""
        status, page = await ask(hub, f"history?topic={topic}&limit=1000{after}")
        assert status == 200, page
        if not page["events"]:
            return found
        found += [(event["cursor"], event["data"]) for event in page["events"]]
