"""``probe``: connect to an event stream once or twice and write down what can be seen from outside."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

import httpx2

from ..errors import EventTooLargeError
from ..wire import Decoder
from .reconnect import id_header
from .source import FAILURES

__all__ = ["Arrival", "Observation", "Resumption", "probe"]

MOST_BYTES: Final = 16 * 1024 * 1024
"""After which enough has been seen, of a stream that never pauses."""


class Arrival(NamedTuple):
    """Bytes that came at once."""

    seconds: float
    """Since the request was sent."""
    size: int
    ids: tuple[str | None, ...]
    """Of the events that they finished, in force when each was dispatched."""
    comments: int
    whole: bool
    """Whether they end where a block ends: a server writes whole events, a buffer cuts them anywhere."""


@dataclass
class Resumption:
    """What came of asking for what follows an event."""

    after: str
    """Id of the event that was sent as ``Last-Event-ID``."""
    expected: str
    """Id of the event that had followed it."""
    got: str | None = None
    """Id of the first event that came now; ``None`` if none came in time."""


@dataclass
class Observation:
    """What was seen of a stream."""

    url: str
    status: int = 0
    """``0`` while there was no answer."""
    http_version: str = ""
    tls: str = ""
    """Version of TLS; ``""`` without."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    error: str = ""
    """What broke the connection, in words."""
    head_after: float = 0.0
    """Seconds until the head of the answer was there."""
    arrivals: list[Arrival] = field(default_factory=list)
    ended_after: float | None = None
    """Seconds until the server ended the stream; ``None`` if it did not."""
    seconds: float = 0.0
    """For which it was looked at."""
    retry: int | None = None
    resumption: Resumption | None = None
    """``None`` when the stream has shown no two events with ids of their own."""

    @property
    def ids(self) -> list[str | None]:
        """The id of each event, in order."""
        return [own for arrival in self.arrivals for own in arrival.ids]


async def probe(url: httpx2.URL, *, headers: Mapping[str, str], seconds: float) -> Observation:
    """Look at a stream for some seconds, then, if it has ids, for as long at most whether it resumes.

    Nothing is raised for what a server does: it stands in the observation.
    """
    has_http2 = importlib.util.find_spec("h2") is not None
    async with httpx2.AsyncClient(http2=has_http2, timeout=None, follow_redirects=True) as client:
        seen = await _look(client, url, headers, seconds)
        first, second = _neighbours(seen.ids)
        if first is not None and second is not None and id_header(first):
            seen.resumption = Resumption(first, second)
            again = await _look(client, url, {**headers, "Last-Event-ID": first}, seconds, until_event=True)
            seen.resumption.got = next(iter(again.ids), None)
    return seen


def _neighbours(ids: list[str | None]) -> tuple[str | None, str | None]:
    """Return the first two ids of their own that follow one another."""
    for first, second in pairwise(ids):
        if first and second and first != second:
            return first, second
    return None, None


async def _look(
    client: httpx2.AsyncClient,
    url: httpx2.URL,
    headers: Mapping[str, str],
    seconds: float,
    *,
    until_event: bool = False,
) -> Observation:
    seen = Observation(str(url.copy_with(userinfo=b"", query=None, fragment=None)))
    start = time.monotonic()
    own = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
    try:
        async with asyncio.timeout(seconds), client.stream("GET", url, headers={**own, **headers}) as response:
            _take_head(seen, response, time.monotonic() - start)
            if response.status_code == 200:
                await _take_body(seen, response, start, until_event)
    except TimeoutError:
        pass  # it is still open
    except (*FAILURES, httpx2.TooManyRedirects) as error:
        seen.error = f"{type(error).__name__}: {error}".rstrip(": ")
    seen.seconds = time.monotonic() - start
    return seen


def _take_head(seen: Observation, response: httpx2.Response, seconds: float) -> None:
    seen.status = response.status_code
    seen.http_version = response.http_version
    seen.headers = dict(response.headers)
    seen.head_after = seconds
    stream = response.extensions.get("network_stream")
    tls = stream.get_extra_info("ssl_object") if stream is not None else None
    seen.tls = tls.version() or "" if tls is not None else ""


async def _take_body(seen: Observation, response: httpx2.Response, start: float, until_event: bool) -> None:
    decoder = Decoder(comments=True)
    size = 0
    tail = b""
    async for data in response.aiter_bytes():
        if not data:
            continue
        size += len(data)
        tail = (tail + data)[-4:]
        items = []
        with suppress(EventTooLargeError):
            items = decoder.feed(data)
        events = tuple(item.id for item in items if item.data is not None)
        whole = tail.endswith((b"\n\n", b"\r\r", b"\n\r\n"))
        comments = len(items) - len(events)
        # A comment needs no blank line after it.
        whole = whole or (data.lstrip(b"\r\n").startswith(b":") and data.endswith((b"\n", b"\r")))
        seen.arrivals.append(Arrival(time.monotonic() - start, len(data), events, comments, whole))
        seen.retry = decoder.retry
        if size > MOST_BYTES or (until_event and events):
            return
    seen.ended_after = time.monotonic() - start
